"""bench/make_random_model.py: its models are what it says they are."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

mx = pytest.importorskip("mlx.core")

ROOT = Path(__file__).resolve().parents[2]
BIN = os.environ.get(
    "PENNYWEIGHT_BIN", str(ROOT / "build/release/src/pennyweight"))


@pytest.mark.parametrize(
    "shape", ["llama-3.1-8b", "qwen2.5-14b", "qwen3-30b-a3b"])
def test_small_model_is_quantized_and_loaded(shape, tmp_path):
    model, out = tmp_path / "model", tmp_path / "out"
    subprocess.run(
        [sys.executable, ROOT / "bench/make_random_model.py", shape, model,
         "--blocks", "2", "--scale", "16"], check=True, timeout=120)
    config = json.loads((model / "config.json").read_text())
    assert config["num_hidden_layers"] == 2
    tensors = {}
    for file in model.glob("*.safetensors"):
        tensors |= mx.load(str(file))
    assert all(t.dtype == mx.bfloat16 for t in tensors.values())
    weight = tensors["model.layers.1.self_attn.q_proj.weight"]
    spread = mx.std(weight.astype(mx.float32)).item()
    assert spread == pytest.approx(weight.shape[1] ** -0.5, rel=0.05)
    done = subprocess.run(
        [BIN, "convert", "--model", model, "--mlx-path", out, "-q"],
        capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    mlx_lm = pytest.importorskip("mlx_lm")
    loaded, _ = mlx_lm.load(str(out))
    logits = loaded(mx.array([[1, 2, 3]]))
    assert mx.all(mx.isfinite(logits)).item()
    assert 0.01 < mx.std(logits.astype(mx.float32)).item() < 100


def test_published_sizes():
    sys.path.insert(0, str(ROOT / "bench"))
    import make_random_model as made
    sizes = {}
    for shape in made.CONFIGS:
        tensors = made.list_tensors(made.make_config(shape, 0, 1))
        sizes[shape] = sum(
            int(made.np.prod(s)) for s in tensors.values()) / 1e9
    # As their model cards say.
    assert sizes == pytest.approx(
        {"llama-3.1-8b": 8.03, "qwen2.5-7b": 7.62, "qwen2.5-14b": 14.77,
         "qwen3-30b-a3b": 30.53}, abs=0.01)
