"""What the tests of the Python package share."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "python")]
BIN = os.environ.get(
    "PENNYWEIGHT_BIN", str(ROOT / "build/release/src/pennyweight"))
DEMO = ROOT / "assets/demo"
TEXT = DEMO / "calibration.txt"
SHORT = {"data": TEXT, "sequence_length": 64, "num_samples": 8}
STAGED = {"data": TEXT, "sequence_length": 32, "gptq_samples": 4, "dwq_samples": 4,
          "learn_steps": 1}
# These hold times, and where the text was.
UNLIKE = {"report.html", "sweep.json", "README.md"}


def program(*words):
    """By the built program."""
    return subprocess.run([BIN, *map(str, words)], check=True, text=True, timeout=300,
                          stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout


def python(code, *words, **more):
    """A Python of its own with the package on its path; not waited for."""
    env = os.environ | {"PYTHONPATH": str(ROOT / "python")} | more.pop("env", {})
    return subprocess.Popen([sys.executable, "-c", code, *map(str, words)], text=True,
                            env=env, stdin=subprocess.DEVNULL, **more)


def digests(folder):
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(Path(folder).rglob("*"))
            if path.is_file() and path.name not in UNLIKE}
