"""What rounding a module is said to cost, against what it does cost: the KL
with it alone, and with all, rounded by GPTQ; memory does not grow with the
blocks, and the threads change nothing."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer

mx = pytest.importorskip("mlx.core")

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/support"))
import random_model  # noqa: E402
from walks import BIN, DEMO, TEXT  # noqa: E402

SHARED = Path(os.environ.get("PENNYWEIGHT_SHARED", ROOT.parent / "shared"))
STORIES = SHARED / "models/tinystories-656k"
BUILD = Path(os.environ.get("PENNYWEIGHT_BUILD_DIR", ROOT / "build/release"))
PROBE = BUILD / "tests/probe_costs"
LENGTH = 256


def tokens(model, text, out, count, length=LENGTH):
    ids = Tokenizer.from_file(str(model / "tokenizer.json")).encode(
        text.read_text(encoding="utf8")[:400_000]).ids
    assert len(ids) >= count * length
    np.array(ids[:count * length], dtype=np.int32).tofile(out)
    return out


def costs(model, ids, candidates, *more, length=LENGTH, **env):
    done = subprocess.run(
        [PROBE, model, ids, str(length), candidates, *map(str, more)],
        capture_output=True, text=True, timeout=600, env={**os.environ, **env})
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def ranks(values):
    return np.argsort(np.argsort(values))


@pytest.mark.skipif(not STORIES.exists(), reason="no shared models")
def test_costs_rank_and_add_up(tmp_path):
    text = SHARED / "text/tinystories.utf8"
    ids = tokens(STORIES, text, tmp_path / "ids", 16)
    table = costs(STORIES, ids, "3:64,4:64", 1, 3)
    found = {m["path"]: m["losses"] for m in table["modules"]}
    alone = table["alone"]
    assert len(alone) >= 10
    estimated = [found[path][0] for path in alone]
    measured = list(alone.values())
    rho = np.corrcoef(ranks(estimated), ranks(measured))[0, 1]
    for path, kl in alone.items():
        print(f"{path:40} {found[path][0]:.5f} {kl:.5f}")
    print("rank correlation", rho, "sums", sum(estimated), sum(measured))
    assert rho >= 0.8
    assert 1 / 1.5 < sum(estimated) / sum(measured) < 1.5

    # All together at 4 bits, by the command, on the same sequences.
    out = tmp_path / "out"
    subprocess.run(
        [BIN, "gptq", "--model", STORIES, "--mlx-path", out, "--data-path",
         text, "--sequence-length", str(LENGTH), "--num-samples", "32",
         "--bits", "4", "--embed-bits", "4"],
        check=True, capture_output=True, timeout=300)
    done = subprocess.run(
        [BUILD / "tests/probe_evaluate", out, STORIES, ids, str(LENGTH), "-"],
        check=True, capture_output=True, text=True, timeout=300)
    figures = dict(line.split() for line in done.stdout.splitlines())
    kl = float(figures["kl"])
    total = sum(losses[1] for losses in found.values())
    print("sum", total, "measured", kl)
    assert 1 / 1.5 < total / kl < 1.5


def test_threads_change_nothing(tmp_path):
    ids = tokens(DEMO, TEXT, tmp_path / "ids", 4, 64)
    one, three = (
        costs(DEMO, ids, "3:64,6:64", length=64, PENNYWEIGHT_THREADS=n)
        for n in ("1", "3"))
    assert one["modules"] == three["modules"]


def test_memory_does_not_grow_with_the_blocks(tmp_path):
    """7 MB a block in bfloat16, so that what stays of one would show."""
    ids = tmp_path / "ids"
    np.random.default_rng(1).integers(
        0, 256, 4 * 64, dtype=np.int32).tofile(ids)
    peaks = []
    for blocks in (4, 12):
        model = tmp_path / f"model{blocks}"
        random_model.write(
            model, num_hidden_layers=blocks, hidden_size=512,
            intermediate_size=1536, num_attention_heads=8,
            num_key_value_heads=4, head_dim=64)
        peaks.append(costs(model, ids, "4:64", length=64)["peak_rss"])
    print(peaks)
    # Inputs of 8 more blocks: 4 * 64 * 512 floats each.
    assert peaks[1] - peaks[0] < 8 * 4 * 64 * 512 * 4 + 0.08 * peaks[0]
