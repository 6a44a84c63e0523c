"""The libFuzzer targets: built, and run briefly from their seeds. Run
tools/fuzz.sh for longer."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCE = "extern \"C\" int LLVMFuzzerTestOneInput(const char*, long) {return 0;}"


def has_libfuzzer(folder):
    clang = shutil.which("clang++") or shutil.which("clang++-14")
    if not clang:
        return False
    source = folder / "probe.cpp"
    source.write_text(SOURCE)
    return subprocess.run(
        [clang, "-fsanitize=fuzzer,address", source, "-o", folder / "probe"],
        capture_output=True).returncode == 0


@pytest.mark.parametrize(
    "target, least", [("safetensors_header", 1000), ("config", 500),
                      ("chat_template", 500)])
def test_runs_without_a_finding(target, least, tmp_path):
    if not has_libfuzzer(tmp_path):
        pytest.skip("clang++ with libFuzzer is not installed")
    done = subprocess.run(
        ["tools/fuzz.sh", "5", target], cwd=ROOT, capture_output=True,
        text=True, env=os.environ | {"PYTHON": sys.executable}, timeout=900)
    assert done.returncode == 0, done.stderr[-3000:]
    runs = int(done.stderr.split("number_of_executed_units:")[1].split()[0])
    assert runs > least
