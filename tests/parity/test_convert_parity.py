"""`pennyweight convert` against mlx_lm.convert: the same tensors bit for bit,
the same quantization, and outputs that stock mlx-lm loads and runs."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

mx = pytest.importorskip("mlx.core")
pytest.importorskip("mlx_lm")
from mlx_lm import generate, load  # noqa: E402
from mlx_lm.convert import convert as mlx_convert  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/support"))
import random_model  # noqa: E402

BIN = os.environ.get(
    "PENNYWEIGHT_BIN", str(ROOT / "build/release/src/pennyweight"))
SHARED = Path(os.environ.get("PENNYWEIGHT_SHARED", ROOT.parent / "shared"))


def convert(model, out, *flags):
    return subprocess.run(
        [BIN, "convert", "--model", str(model), "--mlx-path", str(out),
         *map(str, flags)],
        text=True, capture_output=True, timeout=300)


def convert_ok(model, out, *flags):
    done = convert(model, out, *flags)
    assert done.returncode == 0, done.stderr
    return done.stdout


def bits(array):
    return array.reshape(-1).view(mx.uint8)


def same_tensors(ours, theirs):
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        assert ours[name].dtype == value.dtype, name
        assert ours[name].shape == value.shape, name
        assert mx.array_equal(bits(ours[name]), bits(value)), name


def read(folder, name="config.json"):
    return json.loads((folder / name).read_text())


def module_specs(folder):
    """What config.json says of each quantized module."""
    quantization = read(folder).get("quantization")
    common = {k: v for k, v in (quantization or {}).items()
              if k in ("group_size", "bits", "mode")}
    found = {}
    for name in random_model.load(folder):
        if name.endswith(".scales"):
            path = name.removesuffix(".scales")
            found[path] = common | quantization.get(path, {})
    return found


def check(tmp_path, model, flags=(), **arguments):
    """Converts with both and compares; returns the output's folder."""
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    convert_ok(model, ours, *flags)
    mlx_convert(str(model), str(theirs), **arguments)
    same_tensors(random_model.load(ours), random_model.load(theirs))
    assert module_specs(ours) == module_specs(theirs)
    config = read(ours)
    assert ("quantization" in config) == ("quantization" in read(theirs))
    assert config.get("quantization") == config.get("quantization_config")
    assert (read(ours, "model.safetensors.index.json")
            == read(theirs, "model.safetensors.index.json"))
    runs(ours)
    return ours


def runs(folder):
    model, tokenizer = load(str(folder))
    text = generate(model, tokenizer, "Once upon", max_tokens=3)
    assert isinstance(text, str)
    logits = model(mx.array([[1, 2, 3]]))
    assert mx.all(mx.isfinite(logits)).item()


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    folder = tmp_path_factory.mktemp("plain") / "model"
    random_model.write(folder)
    return folder


@pytest.mark.parametrize("group", [32, 64, 128])
@pytest.mark.parametrize("width", [2, 3, 4, 5, 6, 8])
def test_affine(tmp_path, plain, width, group):
    check(tmp_path, plain,
          ["-q", "--q-bits", width, "--q-group-size", group],
          quantize=True, q_bits=width, q_group_size=group)


@pytest.mark.parametrize("mode", ["mxfp4", "mxfp8", "nvfp4"])
def test_fp_modes(tmp_path, plain, mode):
    check(tmp_path, plain, ["-q", "--q-mode", mode],
          quantize=True, q_mode=mode)


def test_defaults(tmp_path, plain):
    ours = check(tmp_path, plain, ["-q"], quantize=True)
    assert read(ours)["quantization"] == {
        "group_size": 64, "bits": 4, "mode": "affine"}


@pytest.mark.parametrize("changes", [
    {"tie_word_embeddings": False},
    {"attention_bias": True, "mlp_bias": True},
    {"shards": 3},
    {"intermediate_size": 172},  # what no group divides is kept
    {"hidden_size": 48, "head_dim": 16, "intermediate_size": 64},
], ids=lambda changes: "-".join(map(str, changes)))
def test_structures(tmp_path, changes):
    model = tmp_path / "model"
    random_model.write(model, **changes)
    check(tmp_path, model, ["-q", "--q-bits", 4, "--q-group-size", 64],
          quantize=True, q_bits=4, q_group_size=64)


def test_dropped_tensors(tmp_path):
    """Tensors that mlx-lm's sanitize drops are not written."""
    model = tmp_path / "model"
    random_model.write(model, extra={
        "lm_head.weight": mx.ones((3072, 128), mx.bfloat16),
        "model.layers.0.self_attn.rotary_emb.inv_freq": mx.ones((16,))})
    check(tmp_path, model, ["-q"], quantize=True)


@pytest.mark.parametrize("mode", ["affine", "mxfp4", "mxfp8", "nvfp4"])
@pytest.mark.parametrize("stored", [mx.float32, mx.float16],
                         ids=["float32", "float16"])
def test_stored_types(tmp_path, stored, mode):
    """Without torch_dtype every tensor keeps its type."""
    model = tmp_path / "model"
    random_model.write(model, dtype=stored, torch_dtype=None)
    check(tmp_path, model, ["-q", "--q-mode", mode],
          quantize=True, q_mode=mode)


@pytest.mark.parametrize("wanted", ["float16", "bfloat16", "float32"])
def test_dtype(tmp_path, plain, wanted):
    ours = check(tmp_path, plain, ["-q", "--dtype", wanted],
                 quantize=True, dtype=wanted)
    assert read(ours)["torch_dtype"] == wanted


def test_torch_dtype_casts(tmp_path):
    model = tmp_path / "model"
    random_model.write(model, dtype=mx.float32, torch_dtype="float16")
    check(tmp_path, model)


@pytest.mark.parametrize(
    "recipe", ["mixed_2_6", "mixed_3_4", "mixed_3_6", "mixed_4_6"])
def test_recipes(tmp_path, recipe):
    model = tmp_path / "model"
    random_model.write(model, hidden_size=64, intermediate_size=64,
                       head_dim=16, num_hidden_layers=17,
                       tie_word_embeddings=False)
    ours = check(tmp_path, model,
                 ["-q", "--q-group-size", 64, "--quant-predicate", recipe],
                 quantize=True, q_group_size=64, quant_predicate=recipe)
    assert len({spec["bits"] for spec in module_specs(ours).values()}) == 2


@pytest.mark.parametrize("flags", [
    ["--q-bits", 3], ["--q-bits", 8, "--q-group-size", 32],
    ["--q-mode", "mxfp4"], ["--q-mode", "mxfp8"], ["--q-mode", "nvfp4"],
], ids=lambda flags: flags[-1])
def test_dequantize(tmp_path, plain, flags):
    packed = tmp_path / "packed"
    convert_ok(plain, packed, "-q", *flags)
    ours = check(tmp_path, packed, ["--dequantize"], dequantize=True)
    assert "quantization" not in read(ours)
    assert not any("scales" in name for name in random_model.load(ours))


def test_quantized_model_goes_through(tmp_path, plain):
    packed = tmp_path / "packed"
    convert_ok(plain, packed, "-q", "--quant-predicate", "mixed_3_6")
    check(tmp_path, packed)


@pytest.mark.parametrize("name", ["tinystories-656k", "stories260k"])
def test_shared_models(tmp_path, name):
    model = SHARED / "models" / name
    if not model.exists():
        pytest.skip(f"{model} is not there")
    summary = check(tmp_path, model,
                    ["-q", "--q-bits", 4, "--q-group-size", 32],
                    quantize=True, q_bits=4, q_group_size=32)
    kept = [path for path, spec in read(summary)["quantization"].items()
            if spec is False]
    assert len(kept) == (5 if name == "stories260k" else 0)


def test_says_what_is_kept(tmp_path):
    model = tmp_path / "model"
    random_model.write(model, intermediate_size=172)
    text = convert_ok(model, tmp_path / "out", "-q")
    assert "model.layers.1.mlp.down_proj" in text
    assert "172" in text


def test_side_files(tmp_path, plain):
    model = tmp_path / "model"
    shutil.copytree(plain, model)
    (model / "modeling_x.py").write_text("raise SystemExit")
    (model / "chat_template.jinja").write_text("{{ messages }}")
    out = tmp_path / "out"
    convert_ok(model, out, "-q")
    for name in random_model.TOKENIZER + ["chat_template.jinja"]:
        assert (out / name).read_bytes() == (model / name).read_bytes()
    # Carried, as by mlx-lm, and not run.
    assert (out / "modeling_x.py").read_text() == "raise SystemExit"
    card = (out / "README.md").read_text()
    assert "library_name: mlx" in card and str(tmp_path) not in card


def refused(done, code, *words):
    assert done.returncode == code, (done.returncode, done.stderr)
    lines = done.stderr.strip().splitlines()
    assert lines and lines[-1].startswith("error: "), done.stderr
    for word in words:
        assert word in lines[-1]


def test_refusals(tmp_path, plain):
    out = tmp_path / "out"
    packed = tmp_path / "packed"
    convert_ok(plain, packed, "-q")
    before = sorted(tmp_path.iterdir())
    refused(convert(packed, out, "-q"), 2, "quantized already")
    refused(convert(plain, out, "--dequantize"), 2, "not quantized")
    refused(convert(plain, out, "-q", "--dequantize"), 2, "either")
    refused(convert(plain, out, "--q-bits", 4), 2, "-q")
    refused(convert(plain, out, "-q", "--q-bits", 7), 2, "7")
    refused(convert(plain, out, "-q", "--q-mode", "nvfp4",
                    "--q-group-size", 32), 2, "nvfp4")
    refused(convert(plain, packed, "-q"), 2, "--force")
    refused(convert(plain, plain, "-q", "--force"), 2, "itself")
    refused(convert(plain, plain.parent, "-q", "--force"), 2, "itself")
    refused(convert(tmp_path / "none", out, "-q"), 3)
    assert sorted(tmp_path.iterdir()) == before


def test_force_replaces(tmp_path, plain):
    out = tmp_path / "out"
    convert_ok(plain, out, "-q")
    convert_ok(plain, out, "-q", "--q-bits", 8, "--force")
    assert read(out)["quantization"]["bits"] == 8
    assert list(tmp_path.iterdir()) == [out]


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_non_finite_weights(tmp_path, bad):
    model = tmp_path / "model"
    tensors = random_model.write(model)
    name = "model.layers.1.mlp.up_proj.weight"
    tensors[name][3, 5] = bad
    random_model.save(model, tensors)
    refused(convert(model, tmp_path / "out", "-q"), 7, name, "holds 1")
    assert list(tmp_path.iterdir()) == [model]


def test_values_too_large_for_float16(tmp_path):
    model = tmp_path / "model"
    tensors = random_model.write(model)
    tensors["model.norm.weight"][0] = 1e6
    random_model.save(model, tensors)
    done = convert(model, tmp_path / "out", "-q", "--dtype", "float16")
    refused(done, 7, "model.norm.weight", "float16")


def test_full_disk(tmp_path, plain):
    """A limit on the size of files stands for a full disk."""
    def limit():
        import resource
        import signal
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    done = subprocess.run(
        [BIN, "convert", "--model", plain, "--mlx-path", tmp_path / "a/out",
         "-q"], text=True, capture_output=True, preexec_fn=limit, timeout=60)
    refused(done, 5, "can't write")
    assert list(tmp_path.iterdir()) == []
