"""Peak memory does not grow with the number of blocks, nor with the vocabulary
by more than the packed embedding."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

mx = pytest.importorskip("mlx.core")

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/support"))
import random_model  # noqa: E402

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
DWQ = ["--num-samples", 8, "--max-seq-length", 129, "--learning-rate", 1e-5]


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
                "--num-samples", 8, "--target-bpw", 4.9],
        }[command]
        peaks.append(run(command, *flags)["peak_rss"])
    packed = packed_bytes(out)
    print(f"{command}: {peaks[0] / 1e6:.1f} MB, {peaks[1] / 1e6:.1f} MB, "
          f"the embedding {packed / 1e6:.1f} MB")
    assert peaks[1] - peaks[0] < packed, (peaks, packed)
