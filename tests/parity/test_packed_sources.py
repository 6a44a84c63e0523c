"""Sources that another quantizer has packed: expanded as their formats say,
bit by bit, by every command, and refused where they are damaged."""

import json
import sys
from pathlib import Path

import pytest

np = pytest.importorskip("numpy")
mx = pytest.importorskip("mlx.core")

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/support"))
sys.path.insert(0, str(Path(__file__).parent))
import packed_models  # noqa: E402
from test_folders import config, convert, run, weights  # noqa: E402


@pytest.mark.parametrize("kind", packed_models.KINDS)
def test_expanded_bit_by_bit(tmp_path, kind):
    packed_models.write(tmp_path, kind)
    out = {}
    for name in ("packed", "plain"):
        done = run("convert", "--model", tmp_path / name, "--mlx-path",
                   tmp_path / f"{name}-out")
        assert done.returncode == 0, done.stderr
        assert ("packed by" in done.stderr) == (name == "packed")
        out[name] = tmp_path / f"{name}-out"
    assert weights(out["packed"]) == weights(out["plain"])
    assert config(out["packed"]) == config(out["plain"])
    assert not (out["packed"] / "hf_quant_config.json").exists()
