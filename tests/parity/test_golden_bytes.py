"""Every method makes the bytes that it made: see tools/golden_bytes.py."""

import json
import platform
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))
import golden_bytes  # noqa: E402

if platform.machine() != "x86_64":
    pytest.skip("the bytes on record are of AVX2", allow_module_level=True)


def test_all_runs_are_on_record():
    assert set(json.loads(golden_bytes.GOLDEN.read_text())) == set(
        golden_bytes.RUNS)


def test_the_runs_take_avx2(tmp_path):
    """Also where the processor has more. They once did not."""
    report = tmp_path / "report.json"
    golden_bytes.run("gptq-plain", tmp_path, "--json", report)
    kernels = json.loads(report.read_text())["kernels"]
    assert kernels["instructions"] == "AVX2"


@pytest.mark.parametrize("name", golden_bytes.RUNS)
def test_bytes(name, tmp_path):
    known = json.loads(golden_bytes.GOLDEN.read_text())[name]
    assert golden_bytes.run(name, tmp_path) == known
