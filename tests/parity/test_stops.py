"""Ctrl-C where no block is walked through: samples of the work are stopped, too."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("mlx.core")

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/support"))
import random_model  # noqa: E402
import walks  # noqa: E402


@pytest.mark.parametrize("words, first", [
    (["plan"], "plan: "), (["inspect", "--kernels"], "kernels: ")])
def test_samples_are_stopped(tmp_path, words, first):
    random_model.write(
        tmp_path / "model", hidden_size=1024, intermediate_size=4096,
        num_attention_heads=8, num_key_value_heads=8, head_dim=128)
    begun = subprocess.Popen(
        [walks.BIN, words[0], tmp_path / "model", *words[1:]], text=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    said = begun.stderr.readline()  # of the first sample
    begun.send_signal(signal.SIGINT)
    stopped = time.monotonic()
    said += begun.stderr.read()
    assert begun.wait(timeout=60) == 130, said
    assert said.startswith(first) and "stopped by the user" in said
    assert time.monotonic() - stopped < 10
