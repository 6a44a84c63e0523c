"""No product runs on oneDNN's scalar loop, which is a hundred times slower
than any other kernel and says nothing: heads that are not 64 wide once did."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

mx = pytest.importorskip("mlx.core")

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/support"))
import random_model  # noqa: E402
import walks  # noqa: E402


def implementations(*arguments):
    """What oneDNN says that it ran for each product."""
    done = subprocess.run(
        [walks.BIN, *map(str, arguments), "--data-path", walks.HELD_OUT,
         "--sequence-length", "128", "--num-samples", "8", "--quiet"],
        capture_output=True, text=True, timeout=300,
        env=os.environ | {"ONEDNN_VERBOSE": "1"})
    assert done.returncode == 0, done.stderr
    said = [line.split(",") for line in done.stdout.splitlines()
            if line.startswith(("onednn_verbose", "dnnl_verbose"))]
    return {words[words.index("matmul") + 1]
            for words in said if "matmul" in words}


@pytest.mark.parametrize("kv_heads", [1, 4])
@pytest.mark.parametrize("head_dim", [64, 80, 96, 112, 128, 192, 256])
def test_no_product_is_scalar(tmp_path, head_dim, kv_heads):
    random_model.write(
        tmp_path / "model", head_dim=head_dim, num_key_value_heads=kv_heads)
    ran = implementations("evaluate", tmp_path / "model")
    ran |= implementations(
        "gptq", "--model", tmp_path / "model", "--mlx-path", tmp_path / "out",
        "--group-size", "32", "--fallback-group-size", "32")
    if not ran:
        pytest.skip("oneDNN multiplies nothing here")
    assert not [name for name in ran
                if name.startswith("ref") or name.endswith(":any")]
