"""Activations past float16's range: `evaluate` and `convert --dtype float16`
against stock mlx-lm, whose logits are finite or are not. Reports of models
that overflow so: https://github.com/ml-explore/mlx-lm/issues/106 (GLM-4),
https://github.com/huggingface/transformers/issues/36822 (Gemma 3)."""

import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

mx = pytest.importorskip("mlx.core")
pytest.importorskip("mlx_lm")
from mlx_lm import utils  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/support"))
sys.path.insert(0, str(Path(__file__).parent))
import random_model as demo  # noqa: E402
import walks  # noqa: E402
from test_families import write  # noqa: E402
from test_precision import set_config  # noqa: E402

LAYER = "model.layers.1."
LENGTH = 64


def make(folder, family="llama", times=None, dtype="bfloat16"):
    """A random model, the tensors that are named multiplied, but for biases,
    which become what is given."""
    write(folder, family, dtype)
    tensors = demo.load(folder)
    for name, factor in (times or {}).items():
        found = [key for key in tensors if key.endswith(name)]
        assert found, name
        for key in found:
            value = factor * (
                mx.ones_like(tensors[key]) if key.endswith(".bias")
                else tensors[key])
            tensors[key] = value.astype(tensors[key].dtype)
    demo.save(folder, tensors)
    return folder


def is_finite(folder):
    """Whether stock mlx-lm's logits are, on the text that is evaluated."""
    model, _ = utils.load_model(folder)
    ids = utils.load_tokenizer(folder).encode(walks.HELD_OUT.read_text())
    logits = model(mx.array([ids[:LENGTH]])).astype(mx.float32)
    return bool(np.isfinite(np.array(logits)).all())


def evaluate(folder, *flags, code=0):
    return walks.evaluate(
        folder, "--data-path", walks.HELD_OUT, "--sequence-length", LENGTH,
        "--num-samples", 1, *flags, code=code)


# Of llama: what is multiplied, and the place that both commands name.
OVERFLOWS = {
    "down": ({LAYER + "mlp.down_proj.weight": 3000,
              LAYER + "mlp.up_proj.weight": 300},
             f"the output of {LAYER}mlp.down_proj"),
    "product": ({LAYER + "mlp.gate_proj.weight": 1000,
                 LAYER + "mlp.up_proj.weight": 1000},
                f"the input of {LAYER}mlp.down_proj"),
    # Each of the layers adds less than the range.
    "residual": ({"mlp.down_proj.bias": 40000},
                 f"the residual stream after {LAYER}mlp.down_proj"),
    "queries": ({LAYER + "self_attn.q_proj.weight": 60000},
                f"the output of {LAYER}self_attn.q_proj"),
    "scores": ({LAYER + "self_attn.q_proj.weight": 1500,
                LAYER + "self_attn.k_proj.weight": 1500},
               f"the attention scores before {LAYER}self_attn.o_proj"),
    "norm": ({LAYER + "input_layernorm.weight": 20000},
             f"the output of {LAYER}input_layernorm"),
    "final norm": ({"model.norm.weight": 20000},
                   "the output of model.norm"),
    "logits": ({"model.norm.weight": 2000},
               "the logits of model.embed_tokens"),
}


@pytest.mark.parametrize("place", OVERFLOWS)
@pytest.mark.parametrize("packed", [False, True], ids=["plain", "8 bits"])
def test_an_overflow_is_named(tmp_path, place, packed):
    times, name = OVERFLOWS[place]
    source = make(tmp_path / "model", times=times)
    out = tmp_path / "out"
    flags = ["-q", "--q-bits", 8] if packed else []
    report = walks.report_of(
        "convert", source, out, "--dtype", "float16", *flags)
    assert is_finite(source)
    assert not is_finite(out)
    said = [note for note in report["notes"] if "float16 will overflow" in note]
    assert len(said) == 1 and name + " reaches" in said[0], report["notes"]
    assert "use --dtype bfloat16" in said[0]
    assert report["float16"]["overflows"][0]["place"] == name
    error = evaluate(out, "--reference", source, code=7)
    line = error.strip().splitlines()[-1]
    assert line.startswith("error: ") and "float16 overflows" in line
    assert name in line and "65504" in line
    # What it would be without, where that is asked for.
    assert evaluate(out, "--dtype", "float32")["dtype"] == "float32"
    # The source is bfloat16; were it float16, it would be the same.
    assert evaluate(source)["dtype"] == "bfloat16"
    assert name in evaluate(source, "--dtype", "float16", code=7)


# What MLX holds finite though it is large: the family, what is multiplied.
FITS = {
    "below": ("llama", {LAYER + "mlp.down_proj.weight": 2000}),
    "low scores": ("llama", {LAYER + "self_attn.q_proj.weight": 70,
                             LAYER + "self_attn.k_proj.weight": 70}),
    "capped scores": ("gemma2", {LAYER + "self_attn.q_proj.weight": 1000,
                                 LAYER + "self_attn.k_proj.weight": 1000}),
    "capped logits": ("gemma2", {"model.norm.weight": 5000,
                                 "model.embed_tokens.weight": 20}),
    "clipped residual": ("gemma3_text", {
        "post_feedforward_layernorm.weight": 20000}),
    "wide scores": ("cohere2", {LAYER + "self_attn.q_proj.weight": 1000,
                                LAYER + "self_attn.k_proj.weight": 1000}),
    "gates before a sigmoid": ("muse_glimmer", {
        LAYER + "self_attn.gate_proj.weight": 60000}),
}


@pytest.mark.parametrize("case", FITS)
def test_what_fits_is_not_refused(tmp_path, case):
    family, times = FITS[case]
    source = make(tmp_path / "model", family, times, dtype="float32")
    out = tmp_path / "out"
    report = walks.report_of("convert", source, out, "--dtype", "float16")
    assert is_finite(out)
    assert not report["float16"]["overflows"]
    assert not any("will overflow" in note for note in report["notes"])
    figures = evaluate(out, "--reference", source)
    if case != "clipped residual":  # which the source does not clip
        assert figures["kl"]["mean"] < 0.5


def test_without_a_type_of_its_own(tmp_path):
    """A float32 norm makes all that is behind it float32 in mlx-lm."""
    times, name = OVERFLOWS["down"]
    source = make(tmp_path / "model", times=times)
    out = tmp_path / "out"
    walks.convert(source, out, "--dtype", "float16")
    tensors = demo.load(out)
    for key in tensors:
        if "norm" in key:
            tensors[key] = tensors[key].astype(mx.float32)
    demo.save(out, tensors)
    assert is_finite(out)
    figures = evaluate(out, "--reference", source)
    assert figures["kl"]["mean"] < 0.1
    assert any("not checked for float16" in note for note in figures["notes"])


@pytest.mark.parametrize("method", ["gptq", "awq", "convert"])
def test_torch_dtype_float16(tmp_path, method):
    """bfloat16 weights whose config says float16 (Qwen 2.5 and others)."""
    times, name = OVERFLOWS["down"]
    source = make(tmp_path / "model", times=times)
    set_config(source, torch_dtype="float16")
    flags = {"gptq": ["--data-path", walks.TEXT, "--num-samples", 4,
                      "--sequence-length", 64],
             "awq": ["--data-path", walks.TEXT, "--num-samples", 4,
                     "--sequence-length", 64, "--n-grid", 2],
             "convert": ["-q"]}
    report = walks.report_of(method, source, tmp_path / "out", *flags[method])
    assert any("bfloat16 weights are cast to float16" in note
               for note in report["notes"])
    assert any(name in note and "float16 will overflow" in note
               for note in report["notes"])


def test_close_to_the_range(tmp_path):
    source = make(tmp_path / "model",
                  times={LAYER + "mlp.down_proj.weight": 4000})
    report = walks.report_of(
        "convert", source, tmp_path / "out", "--dtype", "float16")
    largest = max(part["largest"] for part in report["float16"]["parts"])
    assert 32752 < largest < 65504
    assert any("may overflow on other text" in note
               for note in report["notes"])


def test_nothing_is_run_without_need(tmp_path):
    source = make(tmp_path / "model")
    report = walks.report_of(
        "convert", source, tmp_path / "half", "--dtype", "float16")
    assert not report["notes"]
    assert len(report["float16"]["parts"]) == 4  # embedding, blocks, head
    assert report["float16"]["tokens"] == 64
    for start, dtype in ((source, "bfloat16"), (source, "float32"),
                         (tmp_path / "half", "float16")):
        report = walks.report_of(
            "convert", start, tmp_path / "out", "--dtype", dtype, "--force")
        assert "float16" not in report


def test_arbitrary_tokens_without_a_tokenizer(tmp_path):
    times, name = OVERFLOWS["down"]
    source = make(tmp_path / "model", times=times)
    (source / "tokenizer.json").unlink()
    report = walks.report_of(
        "convert", source, tmp_path / "out", "--dtype", "float16")
    assert any(name in note for note in report["notes"])
    shutil.rmtree(tmp_path / "out")


def test_weights_that_are_not_finite(tmp_path):
    """Are not taken for activations that overflow."""
    source = make(tmp_path / "model")
    tensors = demo.load(source)
    tensors[LAYER + "mlp.up_proj.weight"][3, 5] = float("nan")
    demo.save(source, tensors)
    error = walks.report_of("convert", source, tmp_path / "out", "--dtype",
                            "float16", code=7)
    assert LAYER + "mlp.up_proj.weight" in error.splitlines()[-1]
    assert "overflow" not in error
