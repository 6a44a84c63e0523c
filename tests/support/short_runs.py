"""The shortest run of each command, for tests that need many, and functions that do
such runs, with faults too."""

import contextlib
import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BIN = os.environ.get(
    "PENNYWEIGHT_BIN", str(ROOT / "build/release/src/pennyweight"))
DEMO = ROOT / "assets/demo"
TEXT = DEMO / "calibration.txt"
SLOW = bool(os.environ.get("PENNYWEIGHT_SLOW"))
# The exit codes (docs/commands.md) that say that something was refused.
REFUSED = {2, 3, 4, 5, 6, 7}

TO = ["--model", "MODEL", "--mlx-path", "OUT", "--data-path", TEXT]
SHORT = ["--sequence-length", 64, "--num-samples", 6]
STAGED = ["--data-path", TEXT, "--sequence-length", 32, "--gptq-samples", 4,
          "--dwq-samples", 4, "--learn-steps", 1]

# Commands that write a model to OUT.
WRITING = {
    "convert": ["convert", *TO[:4], "-q"],
    "gptq": ["gptq", *TO, *SHORT],
    "learned": ["gptq", *TO, *SHORT, "--bits", 2, "--learn-steps", 2],
    "awq": ["awq", *TO, *SHORT],
    "dynamic-quant": ["dynamic-quant", *TO, *SHORT, "--target-bpw", 5],
    "dwq": ["dwq", *TO, "--max-seq-length", 33, "--num-samples", 8,
            "--learning-rate", 1e-4],
    "quantize": ["quantize", "MODEL", "-o", "OUT", "--target-bpw", 3.2, *STAGED],
    "sweep": ["sweep", "MODEL", "-o", "OUT", "--bpw", "3,5", *STAGED],
}
READING = {
    "evaluate": ["evaluate", "MODEL", "--data-path", TEXT, *SHORT],
    "inspect": ["inspect", "MODEL"],
    "plan": ["plan", "MODEL", *STAGED[:4]],
}


def command(name, out, *flags, model=DEMO):
    """The arguments of a run that reads `model` and writes to `out`."""
    names = {"MODEL": model, "OUT": out}
    parts = (names.get(part, part) for part in (WRITING | READING)[name])
    return [BIN, *map(str, parts), "--quiet", *map(str, flags)]


def run(arguments, seconds=120, **how):
    """Runs a command to its end, with whatever exit code."""
    how["env"] = os.environ | {
        "OMP_NUM_THREADS": "2"
    } | how.get("env", {})
    return subprocess.run(
        [str(argument) for argument in arguments], capture_output=True,
        text=True, errors="replace", timeout=seconds,
        stdin=subprocess.DEVNULL, **how)


@contextlib.contextmanager
def small_disk(folder, options):
    """Mounts a tmpfs at `folder`, which must not exist yet."""
    folder.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder],
        capture_output=True)
    if done.returncode:
        pytest.skip("mounting a tmpfs takes root")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=False)


def fault_of_refusal(done, codes=frozenset(REFUSED)):
    """What is wrong with how a run was refused, or None. It must end with one of
    `codes` and one line of error, before which only warnings stand."""
    if done.returncode not in codes:
        return f"exit code {done.returncode}: {done.stderr[-1500:]!r}"
    lines = done.stderr.rstrip("\n").split("\n")
    errors = [line for line in lines if not line.startswith("warning: ")]
    if len(errors) != 1 or not lines[-1].startswith("error: ["):
        return f"not one error line: {done.stderr[-1500:]!r}"
    return None


def left_in(folder, *expected):
    """Names in a folder that should hold only `expected`."""
    return sorted({p.name for p in folder.iterdir()} - set(expected))


def contents(folder, *apart):
    """The bytes of each file by its name; `apart` are names to leave out."""
    return {str(p.relative_to(folder)): p.read_bytes()
            for p in sorted(folder.rglob("*"))
            if p.is_file() and p.name not in apart}


def shim():
    """The library of tests/support/fault_shim.c; skips without it."""
    folder = os.environ.get("PENNYWEIGHT_BUILD_DIR")
    if not folder:
        pytest.skip("PENNYWEIGHT_BUILD_DIR is not set")
    library = Path(folder) / "tests/libfault_shim.so"
    if not library.exists():
        pytest.skip(f"{library} is not built (it is for Linux)")
    return library


def faults(under, fault=None, at=0, calls=None, log=None):
    """The environment in which a run meets a fault; see the shim."""
    env = {"LD_PRELOAD": str(shim()),
           "PENNYWEIGHT_FAULT_UNDER": str(Path(under).resolve())}
    if fault:
        env |= {"PENNYWEIGHT_FAULT": fault, "PENNYWEIGHT_FAULT_AT": str(at)}
    if calls:
        env["PENNYWEIGHT_FAULT_CALLS"] = f",{','.join(calls)},"
    if log:
        env["PENNYWEIGHT_FAULT_LOG"] = str(log)
    return env
