"""Every method makes the bytes that it made: see tools/golden_bytes.py."""

import platform
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))
import golden_bytes  # noqa: E402

if platform.machine() != "x86_64":
    pytest.skip("the bytes on record are of AVX2", allow_module_level=True)


def test_all_runs_are_on_record():
    for known in golden_bytes.record().values():
        assert set(known) == set(golden_bytes.RUNS)


@pytest.mark.parametrize("name", golden_bytes.RUNS)
def test_bytes(name, tmp_path):
    known = golden_bytes.record()[golden_bytes.kind_of_machine()]
    assert golden_bytes.run(name, tmp_path) == known[name]
