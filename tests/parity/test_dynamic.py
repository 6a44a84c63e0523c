"""pennyweight dynamic-quant: sensitivities are mlx-lm's, targets are met from
below, memory does not grow with the blocks, and bad input ends in one line."""

import json
import subprocess
import sys
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from mlx_lm import load
from mlx_lm.quant import dynamic_quant
from mlx_lm.utils import load_model

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests/support"), str(ROOT / "tests/parity")]
import random_model  # noqa: E402
import test_families  # noqa: E402
from structures import chosen  # noqa: E402
from walks import (  # noqa: E402
    BIN, DEMO, TEXT, kl, leftovers, tokens_of)

SHAPE = {"hidden_size": 128, "intermediate_size": 256,
         "num_hidden_layers": 3, "num_attention_heads": 4,
         "num_key_value_heads": 2, "head_dim": 32}


CANDIDATES = "3:64,4:64,4:32,5:64,6:64,8:64,bf16"


def run(model, out, *flags, code=0, cwd=None, data=TEXT):
    report = f"{out}.json"
    Path(report).unlink(missing_ok=True)
    done = subprocess.run(
        [BIN, "dynamic-quant", "--model", str(model), "--mlx-path", str(out),
         "--data-path", str(data), "--sequence-length", "64", "--report",
         report, *map(str, flags)],
        capture_output=True, text=True, timeout=600, cwd=cwd)
    assert done.returncode == code, done.stderr
    if code:
        return done.stderr
    return json.loads(Path(report).read_text())


def rank(values):
    return np.argsort(np.argsort(values))


def rows_of(tokenizer, text):
    tokens = np.array(tokens_of(tokenizer, text))
    return tokens[: len(tokens) // 64 * 64].reshape(-1, 64)


@pytest.mark.parametrize("tied", [True, False])
def test_sensitivities_are_mlx_lms(tmp_path, tied):
    model = tmp_path / "model"
    random_model.write(
        model, dtype=mx.float32, torch_dtype="float32",
        tie_word_embeddings=tied, **SHAPE)
    compare_sensitivities(tmp_path, model)


# mlx-lm stops at rows that 64 does not divide, and at gemma3's layout.
NOT_OF_MLX_LM = {"deepseek_v2", "deepseek_v3", "deepseek_v32", "gemma3",
                 "glm4_moe_lite", "glm_moe_dsa", "kimi_k25", "mistral4",
                 "qwen2_moe", "qwen3_5", "qwen3_5_moe", "qwen3_next"}


@pytest.mark.parametrize(
    "family", chosen(sorted(set(test_families.FAMILIES) - NOT_OF_MLX_LM)))
def test_sensitivities_of_families(tmp_path, family):
    test_families.write(tmp_path / "model", family, "float32")
    compare_sensitivities(tmp_path, tmp_path / "model")


def compare_sensitivities(tmp_path, model):
    loaded, tokenizer = load(str(model))
    # All sequences of a text that holds two of mlx-lm's batches: their order
    # does not matter to a mean.
    words = TEXT.read_text()
    size = next(n for n in range(1000, len(words), 20)
                if len(rows_of(tokenizer, words[:n])) == 8)
    text = tmp_path / "text.txt"
    text.write_text(words[:size])
    report = run(model, tmp_path / "out", "--target-bpw", 7, cwd=tmp_path,
                 data=text)
    assert report["tokens"] == 8 * 64
    ours = dict(json.loads((tmp_path / report["sensitivities"]).read_text()))
    theirs = dict(dynamic_quant.estimate_sensitivities(
        loaded, mx.array(rows_of(tokenizer, words[:size])), 4, 64, 5, 64))
    assert set(ours) == set(theirs)
    names = sorted(ours)
    a = np.array([ours[n] for n in names])
    b = np.array([theirs[n] for n in names])
    # Values near zero are sums that cancel: 1 % of them or of the median.
    floor = np.median(np.abs(b))
    assert np.all(np.abs(a - b) <= 0.01 * np.maximum(np.abs(b), floor))
    assert np.corrcoef(rank(a), rank(b))[0, 1] >= 0.99


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dynamic")
    report = run(
        DEMO, folder / "out", "--num-samples", 16, "--target-bpw", 4.8,
        "--candidates", CANDIDATES, cwd=folder)
    return folder, report


def test_target_is_met_from_below(measured):
    folder, report = measured
    # Few modules: what is left over may fit no step that lowers the loss.
    assert 4.8 * 0.998 <= report["bits_per_weight"] <= 4.8
    assert report["low_kl"] > 0
    load_model(folder / "out")


def test_better_than_one_width(measured, tmp_path):
    # 4 bits in groups of 32 take 5 bits a weight and a little.
    folder, report = measured
    subprocess.run(
        [BIN, "convert", "--model", DEMO, "--mlx-path", tmp_path / "even",
         "-q", "--q-bits", "4", "--q-group-size", "32"],
        check=True, capture_output=True, timeout=300)
    run(DEMO, tmp_path / "out", "--target-bpw", 5.0, "--candidates",
        CANDIDATES, "--sensitivities",
        folder / report["sensitivities"])
    assert kl(tmp_path / "out") < kl(tmp_path / "even")


def test_then_gptq(measured, tmp_path):
    folder, report = measured
    flags = ["--target-bpw", 4.8, "--candidates", CANDIDATES,
             "--sensitivities", folder / report["sensitivities"],
             "--num-samples", 48]
    run(DEMO, tmp_path / "nearest", *flags)
    report = run(DEMO, tmp_path / "gptq", *flags, "--then", "gptq")
    assert 4.8 * 0.998 <= report["bits_per_weight"] <= 4.8
    assert len(report["then"]["blocks"]) > 0
    assert kl(tmp_path / "gptq") < 0.8 * kl(tmp_path / "nearest")
    load_model(tmp_path / "gptq")
    assert not leftovers(tmp_path)
    # The same modules have the same widths.
    configs = [json.loads((tmp_path / name / "config.json").read_text())
               for name in ("nearest", "gptq")]
    assert configs[0]["quantization"] == configs[1]["quantization"]


def test_size_and_same_bytes(measured, tmp_path):
    folder, report = measured
    for name in ("one", "two"):
        again = run(DEMO, tmp_path / name, "--target-size", "1700kB",
                    "--candidates", CANDIDATES, "--sensitivities",
                    folder / report["sensitivities"])
        assert 0.998 * 1.7e6 <= again["bytes"] <= 1.7e6
    assert (tmp_path / "one/model.safetensors").read_bytes() == (
        tmp_path / "two/model.safetensors").read_bytes()


def test_reads_mlx_lms_file(tmp_path):
    report = run(DEMO, tmp_path / "out", "--num-samples", 8,
                 "--target-bpw", 4.9, cwd=tmp_path)
    pairs = json.loads((tmp_path / report["sensitivities"]).read_text())
    assert all(isinstance(p[0], str) and len(p) == 2 for p in pairs)
    again = run(DEMO, tmp_path / "again", "--target-bpw", 4.9,
                "--sensitivities", tmp_path / report["sensitivities"],
                "--report-ppl")
    assert again["bits_per_weight"] <= 4.9
    assert again["perplexity"] > 0


@pytest.mark.parametrize("then", [[], ["--then", "gptq"]])
def test_sensitivities_go_where_the_output_goes(then, tmp_path):
    """mlx-lm writes them to the current folder, which may not be the user's."""
    cwd = tmp_path / "cwd"
    cwd.mkdir()
    flags = ["--num-samples", 8, "--target-bpw", 4.9, *then]
    report = run(DEMO, tmp_path / "out", *flags, cwd=cwd)
    inside = tmp_path / "out/sensitivities.json"
    assert report["sensitivities"] == str(inside)
    beside = tmp_path / "s.json"
    report = run(DEMO, tmp_path / "two", *flags, "--sensitivities-out", beside,
                 cwd=cwd)
    assert report["sensitivities"] == str(beside)
    assert beside.read_text() == inside.read_text()
    assert not (tmp_path / "two/sensitivities.json").exists()
    line = run(DEMO, tmp_path / "three", *flags, "--sensitivities-out", beside,
               cwd=cwd, code=2)
    assert "--sensitivities-out" in line and "--force" in line
    line = run(DEMO, tmp_path / "three", *flags, "--sensitivities-out",
               tmp_path / "none", "--sensitivities", beside, cwd=cwd, code=2)
    assert "leave one out" in line
    line = run(DEMO, tmp_path / "out", *flags, "--force", "--sensitivities-out",
               tmp_path / "out/s.json", cwd=cwd, code=2)
    assert "lies in the output folder" in line
    assert not list(cwd.iterdir())


def test_memory_does_not_grow_with_blocks(tmp_path):
    peaks = []
    for blocks in (6, 18):
        model = tmp_path / f"m{blocks}"
        random_model.write(model, **(SHAPE | {
            "hidden_size": 256, "intermediate_size": 768, "head_dim": 64,
            "num_hidden_layers": blocks, "vocab_size": 3072}))
        report = run(model, tmp_path / f"o{blocks}", "--num-samples", 32,
                     "--target-bpw", 4.8, cwd=tmp_path)
        peaks.append(report["peak_rss"])
    # The activations between blocks go to a file past 128 MB; 32 sequences
    # of 64 take 2 MB a block.
    allowed = 1.1 * peaks[0] + 12 * 32 * 64 * 256 * 4
    assert peaks[1] <= allowed


@pytest.mark.parametrize("flags, code, words", [
    (["--target-bpw", "2"], 2, "below the smallest"),
    (["--target-bpw", "0"], 2, "--target-bpw"),
    (["--candidates", "9:64"], 2, "9"),
    (["--candidates", "four"], 2, "candidate 'four'"),
    (["--sensitivities", "missing.json"], 3, "missing.json"),
])
def test_bad_input(tmp_path, flags, code, words):
    text = run(DEMO, tmp_path / "out", "--num-samples", 4, *flags, code=code,
               cwd=tmp_path)
    assert words in text
    assert not (tmp_path / "out").exists()
    assert not leftovers(tmp_path)


@pytest.mark.parametrize("family, target", [
    ("mixtral", 5), ("qwen3_5_moe", 6), ("deepseek_v3", 8)])
def test_experts_of_candidates(tmp_path, family, target):
    test_families.write(tmp_path / "model", family, "bfloat16")
    report = run(tmp_path / "model", tmp_path / "out", "--num-samples", 16,
                 "--target-bpw", target, "--candidates", CANDIDATES, cwd=tmp_path)
    assert 0.98 * target <= report["bits_per_weight"] <= target
    assert any("switch_mlp" in m["path"] for m in report["modules"])
    again = run(tmp_path / "model", tmp_path / "again", "--target-bpw", target,
                "--candidates", CANDIDATES, "--sensitivities",
                tmp_path / report["sensitivities"])
    for a, b in zip(again["modules"], report["modules"], strict=True):
        assert (a["path"], a["quantization"]) == (b["path"], b["quantization"])
    load_model(tmp_path / "out")
