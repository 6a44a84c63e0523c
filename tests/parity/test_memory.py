"""Peak memory does not grow with the number of blocks, nor with the vocabulary
by more than the packed embedding."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

mx = pytest.importorskip("mlx.core")

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests/support"), str(ROOT / "tests/parity")]
import random_model  # noqa: E402
import test_model_parity  # noqa: E402
from short_runs import SLOW  # noqa: E402

BIN = os.environ.get(
    "PENNYWEIGHT_BIN", str(ROOT / "build/release/src/pennyweight"))


def peak(model, out, *flags):
    done = subprocess.run(
        [BIN, "convert", "--model", model, "--mlx-path", out, "--force",
         "--json", out.with_suffix(".json"), *map(str, flags)],
        capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return json.loads(out.with_suffix(".json").read_text())["peak_rss"]


def are_equal(eight, sixteen):
    return abs(sixteen - eight) < 0.05 * eight


def test_eight_and_sixteen_blocks(tmp_path):
    """13 MB a block in bfloat16 beside a small embedding, so that what stays
    of a block would show: 8 blocks are 105 MB, more than the process."""
    runs = {}
    for blocks in (8, 16):
        model = tmp_path / f"model{blocks}"
        random_model.write(
            model, shards=2, num_hidden_layers=blocks, hidden_size=768,
            intermediate_size=2048, num_attention_heads=12,
            num_key_value_heads=4, head_dim=64)
        stored = sum(f.stat().st_size for f in model.glob("*.safetensors"))
        assert stored > blocks * 12e6
        for name, flags in {
            "rtn": ["-q", "--q-bits", 4],
            "fp": ["-q", "--q-mode", "mxfp4"],
            "cast": ["--dtype", "float32"],
        }.items():
            out = tmp_path / f"out{blocks}-{name}"
            runs.setdefault(name, []).append((model, out, *flags))
        runs.setdefault("dequantize", []).append((
            tmp_path / f"out{blocks}-rtn", tmp_path / f"plain{blocks}",
            "--dequantize"))
    for name, both in runs.items():
        # The least of some runs: what the system maps of a program with its
        # libraries varies by megabytes, upwards.
        least = [peak(*run) for run in both]
        for _ in range(3):
            if not are_equal(*least):
                least = [min(known, peak(*run))
                         for known, run in zip(least, both)]
        print(name, *(f"{bytes / 1e6:.1f} MB" for bytes in least))
        assert are_equal(*least), (name, least)


SMALL, LARGE = 32_768, 131_072
TEXT = ROOT / "docs/architecture.md"
DWQ = ["--num-samples", 8, "--max-seq-length", 33, "--learning-rate", 1e-5]


@pytest.fixture(scope="module")
def vocabularies(tmp_path_factory):
    """Equal but for the embedding: 17 and 67 MB in bfloat16."""
    folder = tmp_path_factory.mktemp("vocabularies")
    for vocab in (SMALL, LARGE):
        random_model.write(
            folder / f"{vocab}", hidden_size=256, intermediate_size=512,
            num_attention_heads=4, num_key_value_heads=2, head_dim=64,
            vocab_size=vocab)
        run("convert", "--model", folder / f"{vocab}", "--mlx-path",
            folder / f"{vocab}-4bit", "-q", "--q-bits", 4)
    return folder


def run(command, *flags):
    target = "--mlx-path" if "--mlx-path" in flags else "-o"
    figures = Path(f"{flags[flags.index(target) + 1]}.json")
    done = subprocess.run(
        [BIN, command, *map(str, flags), "--json", str(figures)],
        capture_output=True, text=True, timeout=600, cwd=figures.parent)
    assert done.returncode == 0, done.stderr
    return json.loads(figures.read_text())


def packed_bytes(folder):
    return sum(x.nbytes for name, x in random_model.load(folder).items()
               if "embed_tokens" in name)


@pytest.mark.parametrize("command", ["convert", "quantize", "dwq",
                                     "dynamic-quant"])
def test_vocabulary(command, vocabularies, tmp_path):
    """Neither logits, nor the head, nor a gradient of it is ever whole: four
    times the vocabulary adds less than the packed embedding itself."""
    peaks = []
    for vocab in (SMALL, LARGE):
        model = vocabularies / f"{vocab}"
        out = tmp_path / f"{vocab}"
        flags = {
            "convert": ["--model", model, "--mlx-path", out, "-q"],
            "quantize": [
                model, "-o", out, "--data-path", TEXT, "--effort", "fast",
                "--target-bpw", 4.6, "--sequence-length", 64,
                "--gptq-samples", 8],
            "dwq": [
                "--model", model, "--quantized-model",
                vocabularies / f"{vocab}-4bit", "--mlx-path", out,
                "--data-path", TEXT, *DWQ],
            "dynamic-quant": [
                "--model", model, "--mlx-path", out, "--data-path", TEXT,
                "--sequence-length", 64, "--num-samples", 8, "--target-bpw", 4.9],
        }[command]
        peaks.append(run(command, *flags)["peak_rss"])
    packed = packed_bytes(out)
    print(f"{command}: {peaks[0] / 1e6:.1f} MB, {peaks[1] / 1e6:.1f} MB, "
          f"the embedding {packed / 1e6:.1f} MB")
    assert peaks[1] - peaks[0] < packed, (peaks, packed)


def write_packs(folder, experts, blocks=2, width=512):
    """Blocks of gpt_oss of which all but the experts is small: random codes,
    as the hub has them. Gives a block's bytes of codes and scales."""
    folder.mkdir()
    config = test_model_parity.make_config(
        "gpt_oss", test_model_parity.GPT_OSS | {
            "hidden_size": width, "intermediate_size": width,
            "vocab_size": 3072, "num_local_experts": 2,
            "num_hidden_layers": blocks, "torch_dtype": "bfloat16",
            "quantization_config": {"quant_method": "mxfp4"}})
    tensors = {
        name: tensor.astype(mx.bfloat16) for name, tensor in
        test_model_parity.tree_flatten(
            test_model_parity.random_model(config).parameters())
        if ".experts." not in name and ".router." not in name}
    random = np.random.default_rng(1)
    for layer in range(blocks):
        packed = 0
        path = f"model.layers.{layer}.mlp."
        tensors[path + "router.weight"] = mx.random.normal(
            (experts, width)).astype(mx.bfloat16)
        tensors[path + "router.bias"] = mx.zeros((experts,), mx.bfloat16)
        for name, rows in [("gate_up_proj", 2 * width), ("down_proj", width)]:
            own = f"{path}experts.{name}"
            shape = (experts, rows, width // 32)
            tensors |= {
                own + "_blocks": mx.array(
                    random.integers(0, 256, (*shape, 16), np.uint8)),
                own + "_scales": mx.array(
                    random.integers(118, 122, shape, np.uint8)),
                own + "_bias": mx.zeros((experts, rows), mx.bfloat16)}
            packed += sum(
                tensors[own + end].nbytes for end in ("_blocks", "_scales"))
    mx.save_safetensors(
        str(folder / "model.safetensors"), tensors, {"format": "pt"})
    (folder / "config.json").write_text(
        json.dumps(config | {"num_local_experts": experts}))
    for name in random_model.TOKENIZER:
        shutil.copy(ROOT / "assets/demo" / name, folder / name)
    return packed


slow = pytest.mark.skipif(
    not SLOW, reason="dynamic-quant stands for all; PENNYWEIGHT_SLOW=1 tries each")


# Of dwq the student is held as a whole, two blocks of packs.
@pytest.mark.parametrize("command, most", [
    ("dynamic-quant", 2.2), pytest.param("quantize", 2.2, marks=slow),
    pytest.param("awq", 2.2, marks=slow), pytest.param("dwq", 3.2, marks=slow)])
def test_packed_experts_stay_packed(command, most, tmp_path):
    """As many experts as take 176 MB more in bfloat16 add a block's packs as they
    are in the file and as they are read, and no more: they are expanded a panel
    at a time."""
    peaks, packed = [], []
    for experts in (16, 128):
        model, out = tmp_path / f"{experts}", tmp_path / f"{experts}-out"
        packed.append(write_packs(model, experts))
        text = ["--data-path", TEXT, "--sequence-length", 64]
        flags = {
            "quantize": [model, "-o", out, *text, "--target-bpw", 4.3,
                         "--gptq-samples", 8, "--dwq-samples", 0],
            "dynamic-quant": ["--model", model, "--mlx-path", out, *text,
                              "--num-samples", 8, "--target-bpw", 5, "--then",
                              "gptq"],
            "awq": ["--model", model, "--mlx-path", out, *text,
                    "--num-samples", 8],
            "dwq": ["--model", model, "--mlx-path", out, "--data-path", TEXT,
                    *DWQ],
        }[command]
        peaks.append(run(command, *flags)["peak_rss"])
    more = packed[1] - packed[0]
    print(f"{command}: {peaks[0] / 1e6:.1f} MB, {peaks[1] / 1e6:.1f} MB, "
          f"{more / 1e6:.1f} MB more of packs")
    assert peaks[1] - peaks[0] < most * more, (peaks, packed)


def test_the_plan_follows_packed_experts(tmp_path):
    """What tokens take in blocks whose experts stay packed: no statistics stop
    among these, so that what one stream makes there goes before the other's."""
    write_packs(tmp_path / "model", 16, width=1024)
    reports = []
    for batch in (1, 4):
        out = tmp_path / f"{batch}"
        reports.append(run(
            "gptq", "--model", tmp_path / "model", "--mlx-path", out,
            "--data-path", TEXT, "--sequence-length", 512, "--num-samples", 8,
            "--batch-size", batch))
    planned = [report["plan"]["peak"] for report in reports]
    peaks = [report["peak_rss"] for report in reports]
    print(f"planned {planned}, taken {peaks}")
    assert all(peak < plan for peak, plan in zip(peaks, planned))
    assert planned[1] - planned[0] < 1.4 * (peaks[1] - peaks[0])
