"""Running the commands that walk through a model's blocks."""

import filecmp
import json
import math
import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest
import random_model
from tokenizers import Tokenizer

ROOT = Path(__file__).resolve().parents[2]
BIN = os.environ.get(
    "PENNYWEIGHT_BIN", str(ROOT / "build/release/src/pennyweight"))
DEMO = ROOT / "assets/demo"
TEXT = DEMO / "calibration.txt"
HELD_OUT = DEMO / "sample.txt"


def built_program(name):
    """A program of the C++ test build. Skips the test where it is not built."""
    folder = os.environ.get("PENNYWEIGHT_BUILD_DIR")
    if not folder:
        pytest.skip("PENNYWEIGHT_BUILD_DIR is not set")
    program = Path(folder) / "tests" / name
    if not program.exists():
        pytest.skip(f"{program} is not built")
    return program


def command(method, model, out, *flags, text=TEXT):
    return [BIN, method, "--model", str(model), "--mlx-path", str(out),
            "--data-path", str(text), "--sequence-length", "128",
            *map(str, flags)]


def run(method, model, out, *flags, code=0, text=TEXT, launcher=()):
    report = Path(f"{out}.json")
    if report.exists():
        report.unlink()
    done = subprocess.run(
        [*launcher, *command(method, model, out, *flags, text=text),
         "--report", report],
        capture_output=True, text=True, timeout=600)
    assert done.returncode == code, done.stderr
    return json.loads(report.read_text()) if code == 0 else done.stderr


def convert(model, out, *flags):
    subprocess.run(
        [BIN, "convert", "--model", str(model), "--mlx-path", str(out),
         *map(str, flags)], check=True, capture_output=True, timeout=300)


def report_of(method, model, out, *flags, code=0):
    """The result of any command as JSON; stderr where it must fail with `code`."""
    report = Path(f"{out}.json")
    if report.exists():
        report.unlink()
    done = subprocess.run(
        [BIN, method, "--model", str(model), "--mlx-path", str(out),
         "--json", report, *map(str, flags)],
        capture_output=True, text=True, timeout=300)
    assert done.returncode == code, done.stderr
    return json.loads(report.read_text()) if code == 0 else done.stderr


def evaluate(model, *flags, code=0):
    report = Path(f"{model}.evaluate.json")
    if report.exists():
        report.unlink()
    done = subprocess.run(
        [BIN, "evaluate", str(model), "--json", report, *map(str, flags)],
        capture_output=True, text=True, timeout=300)
    assert done.returncode == code, done.stderr
    return json.loads(report.read_text()) if code == 0 else done.stderr


def kill_when(command, reached=lambda: False, seconds=300, **how):
    """Runs `command` and kills it as soon as `reached()` is true, or after
    `seconds`. Gives its exit code: the run may have ended before."""
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **how)
    end = time.monotonic() + seconds
    while (process.poll() is None and not reached() and
           time.monotonic() < end):
        time.sleep(0.002)
    process.kill()
    return process.wait()


def kl(out, model=DEMO):
    return divergence(out, model)["mean"]


def divergence(out, model=DEMO):
    """KL of the model's tokens on text that it was not fitted to: "mean",
    "standard_error" and so on."""
    report = Path(f"{out}.kl.json")
    subprocess.run(
        [BIN, "evaluate", out, "--reference", model, "--data-path", HELD_OUT,
         "--sequence-length", "128", "--num-samples", "-1", "--json", report,
         "--force", "--quiet"], check=True, timeout=300)
    return json.loads(report.read_text())["kl"]


def equally_good(out, other):
    """Whether the KLs of two outputs of the demo model differ by less than three
    standard errors. Sums in another order round single weights to the other
    neighbour, and all that is rounded after them differs: each output is one
    draw among equally good ones."""
    ours, theirs = divergence(out), divergence(other)
    noise = math.hypot(ours["standard_error"], theirs["standard_error"])
    print(f"KL {ours['mean']} and {theirs['mean']}, standard error {noise}")
    return abs(ours["mean"] - theirs["mean"]) < 3 * noise


def least_kl(stages):
    """The least KL of quantize's stages. Asserts that those are kept that are below
    all before them, and that each other says why it is not."""
    best = float("inf")
    for stage in stages:
        assert stage["kept"] == (stage["kl"] < best), stages
        best = min(best, stage["kl"])
        assert stage["kept"] or stage["note"]
    return best


def same_files(one, other):
    names = sorted(p.name for p in one.iterdir())
    assert names == sorted(p.name for p in other.iterdir())
    _, different, failed = filecmp.cmpfiles(one, other, names, shallow=False)
    # The card names nothing that could differ, so it is compared, too.
    return not different and not failed


def tokens_of(tokenizer, text):
    """The ids of a text by mlx-lm's tokenizer. For qwen3_5 transformers loads
    another one than the test models' folders have, so the demo's is taken."""
    if "Qwen3_5" in type(tokenizer._tokenizer).__name__:
        own = Tokenizer.from_file(str(DEMO / "tokenizer.json"))
        return own.encode(text).ids
    return tokenizer.encode(text)


def leftovers(folder):
    return [p.name for p in folder.iterdir() if p.name.startswith(".")]


def wide_model(folder, blocks):
    random_model.write(
        folder, num_hidden_layers=blocks, hidden_size=256,
        intermediate_size=768, num_attention_heads=8, num_key_value_heads=4,
        head_dim=32)
    return folder


@pytest.fixture
def mpirun():
    if not shutil.which("mpirun"):
        pytest.skip("mpirun is not installed")
    launcher = ["mpirun", "-n", "2", "--oversubscribe", "--bind-to", "none"]
    return launcher + ["--allow-run-as-root"] * (os.geteuid() == 0)
