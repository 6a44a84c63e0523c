"""A head that stands beside an embedding which is the head: left out, as mlx-lm
leaves it out or can't load it, and named where it is another matrix."""

import sys
from pathlib import Path

import pytest

mx = pytest.importorskip("mlx.core")
pytest.importorskip("mlx_lm.utils")

ROOT = Path(__file__).resolve().parents[2]
for place in ("tests/support", "tests/parity"):
    sys.path.insert(0, str(ROOT / place))
from test_families import write  # noqa: E402
from test_folders import put_config, run, weights  # noqa: E402


def save(file, tensors):
    mx.eval(tensors)
    mx.save_safetensors(str(file), tensors, {"format": "pt"})


@pytest.mark.parametrize("family", ["gemma2", "lfm2", "llama", "mamba2"])
@pytest.mark.parametrize("own", [False, True])
def test_left_out(tmp_path, family, own):
    folder = tmp_path / "model"
    write(folder, family, "bfloat16")
    put_config(folder, tie_word_embeddings=True)
    file = folder / "model.safetensors"
    tensors = mx.load(str(file))
    tensors.pop("lm_head.weight", None)
    save(file, tensors)
    done = run("convert", "--model", folder, "--mlx-path", tmp_path / "plain")
    assert done.returncode == 0, done.stderr
    embedding = next(t for name, t in tensors.items() if "embed" in name)
    tensors["lm_head.weight"] = embedding * (2 if own else 1)
    save(file, tensors)
    done = run("convert", "--model", folder, "--mlx-path", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert "lm_head.weight is dropped" in done.stderr
    assert ("lm_head.weight is another matrix" in done.stderr) == own
    assert weights(tmp_path / "out") == weights(tmp_path / "plain")
