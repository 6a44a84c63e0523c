"""The types of an output's floats, against mlx_lm.convert and the
cast_predicate of mlx-lm's classes. What mlx-lm protects matters: see
https://github.com/sgl-project/sglang/pull/31213 and
https://github.com/huggingface/transformers/pull/42580."""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

mx = pytest.importorskip("mlx.core")
mlx_lm = pytest.importorskip("mlx_lm")
from mlx.utils import tree_flatten  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/support"))
sys.path.insert(0, str(Path(__file__).parent))
import random_model as demo  # noqa: E402
import walks  # noqa: E402
from structures import chosen  # noqa: E402
from test_families import FAMILIES, beside, write  # noqa: E402

BESIDE = {name for family in FAMILIES for name in beside(family)}
PROTECTED = {family: "e_score_correction_bias" for family in (
    "deepseek_v3", "deepseek_v32", "exaone_moe", "glm4_moe", "glm4_moe_lite",
    "glm_moe_dsa", "kimi_k25", "laguna", "minimax", "solar_open")} | {
    "afmoe": "expert_bias", "lfm2_moe": "expert_bias",
    "nemotron_h": ("A_log", "e_score_correction_bias"),
    "qwen3_5": "A_log", "qwen3_5_moe": "A_log"}
TEXT = ["--data-path", walks.TEXT, "--sequence-length", 64]
GPTQ = ["--num-samples", 8, "--group-size", 32, "--fallback-group-size", 32]


def set_config(folder, **changes):
    """None removes a key."""
    file = folder / "config.json"
    config = json.loads(file.read_text()) | changes
    file.write_text(json.dumps(
        {k: v for k, v in config.items() if v is not None}))


def read_config(folder):
    return json.loads((folder / "config.json").read_text())


def protected(model):
    """What mlx_lm.convert does not cast."""
    casts = getattr(model, "cast_predicate", lambda _: True)
    return {name for name, value in tree_flatten(model.parameters())
            if mx.issubdtype(value.dtype, mx.floating) and not casts(name)}


def floats(folder):
    return {name: value for name, value in demo.load(folder).items()
            if mx.issubdtype(value.dtype, mx.floating)
            and name not in BESIDE}


def check_kept(source, out, kept, dtype=mx.bfloat16):
    """What is protected has all its bits; the rest is of `dtype`."""
    before, after = demo.load(source), floats(out)
    assert kept <= after.keys()
    for name, value in after.items():
        assert value.dtype == (mx.float32 if name in kept else dtype), name
    for name in kept:
        stored = name if name in before else name.removeprefix(
            "language_model.")
        stored = stored if stored in before else stored.replace(
            "model.", "model.language_model.", 1)
        assert mx.array_equal(after[name], before[stored]).item(), name


@pytest.mark.parametrize("family", chosen(FAMILIES))
def test_casts_are_mlx_lms(tmp_path, family):
    source, out = tmp_path / "model", tmp_path / "out"
    model, _ = write(source, family, "float32")
    kept = protected(model)
    assert bool(kept) == (family in PROTECTED)
    assert all(name.endswith(PROTECTED[family]) for name in kept)
    walks.convert(source, out, "-q", "--dtype", "bfloat16",
                  "--q-group-size", 32)
    check_kept(source, out, kept)
    config = read_config(out)
    assert config["torch_dtype"] == "bfloat16"
    if family == "gemma3":
        return  # mlx-lm does not read this layout of the hub
    mlx_lm.convert(str(source), str(tmp_path / "theirs"), quantize=True,
                   q_group_size=32, dtype="bfloat16")
    ours = demo.load(out)
    for name, value in demo.load(tmp_path / "theirs").items():
        assert ours[name].dtype == value.dtype, name
        assert mx.array_equal(ours[name], value).item(), name


@pytest.mark.parametrize("method, family", [
    *((method, family) for method in ("convert", "gptq", "dynamic-quant")
      for family in chosen(PROTECTED)),
    # One family of each kind for the slower ones.
    *((method, family) for method in ("awq", "dwq", "quantize")
      for family in ("glm4_moe", "qwen3_5"))])
def test_every_command_keeps_them(tmp_path, method, family):
    """From float32 weights whose config asks for bfloat16."""
    source, out = tmp_path / "model", tmp_path / "out"
    model, _ = write(source, family, "float32")
    set_config(source, torch_dtype="bfloat16")
    flags = {"convert": ["-q", "--q-group-size", 32],
             "gptq": [*TEXT, *GPTQ],
             "awq": [*TEXT, "--num-samples", 8, "--group-size", 32,
                     "--n-grid", 4],
             "dynamic-quant": [*TEXT, "--num-samples", 4, "--target-bpw", 9],
             "dwq": [*TEXT[:2], "--max-seq-length", 65, "--num-samples", 8,
                     "--group-size", 32],
             "quantize": [*TEXT, "--target-bpw", 9, "--gptq-samples", 8,
                          "--dwq-samples", 8, "--learn-steps", 2]}
    report = walks.report_of(method, source, out, *flags[method])
    said = [note for note in report["notes"] if "are cast" in note]
    assert said == [
        "float32 weights are cast to bfloat16, as torch_dtype says"]
    check_kept(source, out, protected(model))


# What config.json says, the type that mlx_lm.convert casts float32 to by it,
# and ours where transformers 5's spelling is read, too.
SAYINGS = {
    "torch_dtype": ({"torch_dtype": "float16"}, "float16", "torch_dtype"),
    "text_config": ({"text_config": {"dtype": "bfloat16"}}, "bfloat16",
                    "text_config.dtype"),
    "dtype": ({"dtype": "bfloat16"}, "float32", "dtype"),
    "both": ({"torch_dtype": "float16", "dtype": "bfloat16"}, "float16",
             "torch_dtype"),
    "text and dtype": ({"text_config": {"dtype": "float16"},
                        "dtype": "bfloat16"}, "float16", "text_config.dtype"),
    "auto": ({"torch_dtype": "auto"}, "float32", ""),
    "auto and text": ({"torch_dtype": "auto",
                       "text_config": {"dtype": "bfloat16"}}, "float32", ""),
    "other": ({"torch_dtype": "float64"}, "float32", ""),
    "nothing": ({}, "float32", ""),
}


@pytest.mark.parametrize("saying", SAYINGS)
def test_the_type_that_the_config_names(tmp_path, saying):
    changes, theirs, come_from = SAYINGS[saying]
    source, out = tmp_path / "model", tmp_path / "out"
    if "text_config" in changes:
        write(source, "llava", "float32")
        text = read_config(source)["text_config"] | changes["text_config"]
        changes = changes | {"text_config": text}
        set_config(source, torch_dtype=None)
    else:
        demo.write(source, dtype=mx.float32, torch_dtype=None)
    set_config(source, **changes)
    report = walks.report_of("convert", source, out, "-q")
    mlx_lm.convert(str(source), str(tmp_path / "theirs"), quantize=True)
    assert {str(v.dtype) for v in floats(tmp_path / "theirs").values()} == {
        f"mlx.core.{theirs}"}
    ours = "bfloat16" if saying == "dtype" else theirs
    assert {str(v.dtype) for v in floats(out).values()} == {
        f"mlx.core.{ours}"}
    assert report["dtype"] == ours
    assert report["dtype_from"] == come_from
    assert report["stored_dtype"] == "float32"
    said = [note for note in report["notes"] if "cast" in note]
    if ours == "float32":
        assert not said
        assert read_config(out).get("torch_dtype") == changes.get("torch_dtype")
        return
    assert said == [
        f"float32 weights are cast to {ours}, as {come_from} says"]
    config = read_config(out)
    assert config["torch_dtype"] == ours
    assert ("dtype" in config) == ("dtype" in changes)
    assert config.get("dtype", ours) == ours
    assert config.get("text_config", {}).get("dtype", ours) == ours
    # Again, from the output: nothing is left to cast.
    again = walks.report_of("convert", out, tmp_path / "again")
    assert again["dtype"] == ours
    assert not any("cast" in note for note in again["notes"])


def test_text_config_follows(tmp_path):
    """Where several places name a type, all name the output's."""
    source, out = tmp_path / "model", tmp_path / "out"
    write(source, "llava", "float32")
    text = read_config(source)["text_config"]
    text |= {"torch_dtype": "float32", "dtype": "float32"}
    set_config(source, dtype="float32", text_config=text)
    walks.convert(source, out, "-q", "--dtype", "float16")
    config = read_config(out)
    assert config["dtype"] == config["torch_dtype"] == "float16"
    assert config["text_config"]["dtype"] == "float16"
    assert config["text_config"]["torch_dtype"] == "float16"


@pytest.mark.parametrize("method", ["convert", "gptq"])
def test_types_that_are_mixed_stay(tmp_path, method):
    """Without a type in the config each tensor keeps its own."""
    source, out = tmp_path / "model", tmp_path / "out"
    tensors = demo.write(source, torch_dtype=None)
    for name in tensors:
        if "norm" in name:
            tensors[name] = tensors[name].astype(mx.float32)
    demo.save(source, tensors)
    flags = [*TEXT, *GPTQ] if method == "gptq" else ["-q"]
    walks.report_of(method, source, out, *flags)
    for name, value in floats(out).items():
        norm = "norm" in name
        assert value.dtype == (mx.float32 if norm else mx.bfloat16), name
        if norm:
            assert mx.array_equal(value, tensors[name]).item(), name


@pytest.mark.parametrize("family", ["glm4_moe", "deepseek_v3"])
def test_corrections_decide_as_in_mlx_lm(tmp_path, family):
    """Biases of a large offset and a small spread: bfloat16 has no two values
    between, and other experts would be chosen."""
    source, out = tmp_path / "model", tmp_path / "out"
    model, _ = write(source, family, "float32")
    tensors = demo.load(source)
    for name in tensors:
        if "e_score_correction_bias" in name:
            noise = mx.random.normal(tensors[name].shape, key=mx.random.key(3))
            tensors[name] = 6.9 + 0.01 * noise
        elif name.endswith("gate.weight"):
            tensors[name] = 0.01 * tensors[name]
    demo.save(source, tensors)
    walks.convert(source, out, "--dtype", "bfloat16")
    kept, _ = mlx_lm.utils.load_model(out)
    kept.set_dtype(mx.float32)
    whole, _ = mlx_lm.utils.load_model(source)
    ids = mx.array(np.arange(40)[None] * 7 % 3000)
    a, b = np.array(whole(ids)), np.array(kept(ids))
    assert np.abs(a - b).max() / np.abs(a).max() < 0.05


@pytest.mark.parametrize("method", ["convert", "evaluate"])
def test_integers_of_a_quantization(tmp_path, method):
    """group_size 64.0 and bits 4.0, as some tools write them."""
    source, packed = tmp_path / "model", tmp_path / "packed"
    demo.write(source)
    walks.convert(source, packed, "-q", "--q-group-size", 64)
    spec = {"group_size": 64.0, "bits": 4.0, "mode": "affine"}
    own = dict(spec)
    spec["model.layers.0.self_attn.q_proj"] = own
    set_config(packed, quantization=spec, quantization_config=spec)
    if method == "evaluate":
        assert walks.kl(packed, source) > 0
        return
    out = tmp_path / "out"
    walks.convert(packed, out)
    found = read_config(out)["quantization"]
    assert found == read_config(out)["quantization_config"]
    for entry in (found, found["model.layers.0.self_attn.q_proj"]):
        assert isinstance(entry["group_size"], int)
        assert isinstance(entry["bits"], int)
    mlx_lm.utils.load_model(out)
    shutil.rmtree(out)
