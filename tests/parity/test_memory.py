"""Peak memory of convert does not grow with the number of blocks."""

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
    """The least of some runs: what the system maps of a program with its
    libraries varies by megabytes, upwards."""
    peaks = []
    for _ in range(4):
        done = subprocess.run(
            [BIN, "convert", "--model", model, "--mlx-path", out, "--force",
             "--json", out.with_suffix(".json"), *map(str, flags)],
            capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        figures = json.loads(out.with_suffix(".json").read_text())
        peaks.append(figures["peak_rss"])
    return min(peaks)


def test_eight_and_sixteen_blocks(tmp_path):
    """13 MB a block in bfloat16 beside a small embedding, so that what stays
    of a block would show: 8 blocks are 105 MB, more than the process."""
    sizes = {}
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
            sizes.setdefault(name, []).append(peak(model, out, *flags))
        packed = tmp_path / f"out{blocks}-rtn"
        sizes.setdefault("dequantize", []).append(
            peak(packed, tmp_path / f"plain{blocks}", "--dequantize"))
    for name, (eight, sixteen) in sizes.items():
        print(f"{name}: {eight / 1e6:.1f} MB, {sixteen / 1e6:.1f} MB")
        assert abs(sixteen - eight) < 0.05 * eight, (name, eight, sixteen)
