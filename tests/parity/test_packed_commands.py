"""Commands on sources that another quantizer has packed: what they make is, bit
by bit, what they make of the expanded model, in the same memory; mixtures of
experts, and mlx-lm's own reading of such folders."""

import json
import sys
from pathlib import Path

import pytest

np = pytest.importorskip("numpy")
mx = pytest.importorskip("mlx.core")
utils = pytest.importorskip("mlx_lm.utils")

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/support"))
sys.path.insert(0, str(Path(__file__).parent))
import packed_models  # noqa: E402
import packers  # noqa: E402
import short_runs  # noqa: E402
from hf_layout import unstack  # noqa: E402
from mlx.utils import tree_flatten  # noqa: E402
from test_folders import config, run, weights  # noqa: E402
from test_model_parity import (  # noqa: E402
    DEEPSEEK_V3, QWEN3_MOE, make_config, random_model)


def ran(name, folder, out, *flags):
    """A short run of a command on this model, and its report."""
    report = Path(f"{out}.json")
    done = short_runs.run(short_runs.command(
        name, out, *flags, "--json", report, model=folder), seconds=300)
    assert done.returncode == 0, done.stderr
    return json.loads(report.read_text())


# What they do differently begins after the weights are read.
@pytest.mark.parametrize("name, kind", [
    ("gptq", "fp8"), ("quantize", "gptq desc_act"), ("awq", "nvfp4"),
    ("learned", "awq"), ("dynamic-quant", "mxfp8"),
    ("dwq", "pack-quantized zeros"), ("evaluate", "float-quantized tensor"),
    ("inspect", "modelopt nvfp4"), ("plan", "pack-quantized"),
] if not short_runs.SLOW else [
    (name, kind) for name in (*short_runs.WRITING, *short_runs.READING)
    for kind in packed_models.KINDS])
def test_commands(tmp_path, name, kind):
    packed_models.write(tmp_path, kind)
    report = ran(name, tmp_path / "packed", tmp_path / "out")
    source = report["packed_source"]
    assert source["matrices"] == 12 == sum(source["forms"].values())
    assert source["stored_bytes"] < source["expanded_bytes"]
    assert any("packed by" in note for note in report["notes"])
    right = ran(name, tmp_path / "plain", tmp_path / "right")
    assert "packed_source" not in right
    if name in short_runs.WRITING and name != "sweep":
        assert weights(tmp_path / "out") == weights(tmp_path / "right")
        card = (tmp_path / "out/README.md").read_text()
        assert "comes packed by" in card
        assert "comes packed" not in (
            tmp_path / "right/README.md").read_text()
        utils.load_model(tmp_path / "out")
    elif name == "evaluate":
        assert report["perplexity"] == right["perplexity"]
        assert report["bytes"] < right["bytes"]


EXPERTS = {
    "qwen3_moe": QWEN3_MOE | {
        "hidden_size": 160, "moe_intermediate_size": 96,
        "intermediate_size": 192, "head_dim": 32},
    "deepseek_v3": DEEPSEEK_V3 | {
        "hidden_size": 160, "moe_intermediate_size": 96,
        "intermediate_size": 192, "q_lora_rank": 64, "kv_lora_rank": 64},
}


def write_experts(folder, family, kind, **changes):
    """A mixture in the hub's layout, packed and expanded."""
    entry, packer = packed_models.KINDS[kind]
    settings = make_config(family, EXPERTS[family] | {
        "torch_dtype": "bfloat16", "vocab_size": 3072} | changes)
    model = random_model(settings)
    tensors = unstack(dict(tree_flatten(model.parameters())), settings)
    tensors = {name: np.array(t.astype(mx.float32))
               for name, t in tensors.items()}
    packed, plain = packed_models.pack(
        tensors, packer,
        ("mlp.gate.", "correction_bias", "shared_expert_gate"))
    packed_models.save(folder / "packed", settings, packed, entry)
    packed_models.save(folder / "plain", settings, plain)
    return settings


@pytest.mark.parametrize("family, kind", [
    ("qwen3_moe", "gptq"), ("deepseek_v3", "fp8"),
    *([("qwen3_moe", "pack-quantized"), ("deepseek_v3", "nvfp4")]
      if short_runs.SLOW else [])])
def test_experts(tmp_path, family, kind):
    write_experts(tmp_path, family, kind)
    for flags in ((), ("-q", "--q-group-size", 32)):
        for name in ("packed", "plain"):
            out = tmp_path / f"{name}{len(flags)}"
            done = run("convert", "--model", tmp_path / name, "--mlx-path",
                       out, *flags)
            assert done.returncode == 0, done.stderr
        assert (weights(tmp_path / f"packed{len(flags)}")
                == weights(tmp_path / f"plain{len(flags)}"))
    ran("gptq", tmp_path / "packed", tmp_path / "g", "--group-size", 32)
    ran("gptq", tmp_path / "plain", tmp_path / "h", "--group-size", 32)
    assert weights(tmp_path / "g") == weights(tmp_path / "h")


def parameters(folder):
    model, _ = utils.load_model(Path(folder))
    return dict(tree_flatten(model.parameters())), model


def test_fp8_as_mlx_lm_reads_it(tmp_path):
    """Its sanitize expands FP8 of this family."""
    write_experts(tmp_path, "deepseek_v3", "fp8")
    settings = config(tmp_path / "packed")
    theirs, _ = parameters(tmp_path / "packed")
    done = run("convert", "--model", tmp_path / "packed", "--mlx-path",
               tmp_path / "out")
    assert done.returncode == 0, done.stderr
    ours, _ = parameters(tmp_path / "out")
    assert settings["model_type"] == "deepseek_v3"
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        assert mx.array_equal(tensor, theirs[name]).item(), name


def expanded(parts, path):
    """A module of MLX's, in float32, where its expansion is exact."""
    scales = parts[path + ".scales"]
    biases = parts.get(path + ".biases")
    width = parts[path + ".weight"].shape[-1] * 8
    group = width // scales.shape[-1]
    if biases is None:
        mode = "nvfp4" if group == 16 else "mxfp4"
        return mx.dequantize(parts[path + ".weight"], scales, None, group, 4,
                             mode)
    return mx.dequantize(
        parts[path + ".weight"], scales.astype(mx.float32),
        biases.astype(mx.float32), group, 4)


def test_int4_as_mlx_lm_reads_it(tmp_path):
    """Kimi-K2's: its sanitize makes MLX's affine form of it, of which the
    expansion, made in float32, rounds to ours."""
    write_experts(tmp_path, "deepseek_v3", "pack-quantized")
    theirs, _ = parameters(tmp_path / "packed")
    done = run("convert", "--model", tmp_path / "packed", "--mlx-path",
               tmp_path / "out")
    assert done.returncode == 0, done.stderr
    ours, _ = parameters(tmp_path / "out")
    compared = 0
    for name, tensor in ours.items():
        path = name.removesuffix(".weight")
        # These two it has packed again.
        if path + ".scales" in theirs and not path.endswith(
                ("embed_q", "unembed_out")):
            full = expanded(theirs, path).astype(mx.bfloat16)
            assert mx.array_equal(tensor, full).item(), name
            compared += 1
    assert compared > 8


@pytest.mark.parametrize("kind", ["awq", "awq centered"])
def test_awq_as_mlx_lm_reads_it(tmp_path, kind):
    """It rounds zero times scale by itself; by no more than that it
    differs."""
    tensors = packed_models.write(tmp_path, kind)
    if kind == "awq centered":
        assert not any(name.endswith(".qzeros") for name in tensors)
    theirs, _ = parameters(tmp_path / "packed")
    done = run("convert", "--model", tmp_path / "packed", "--mlx-path",
               tmp_path / "out")
    assert done.returncode == 0, done.stderr
    ours, _ = parameters(tmp_path / "out")
    compared = 0
    for name, tensor in ours.items():
        path = name.removesuffix(".weight")
        if path + ".scales" in theirs:
            full = expanded(theirs, path)
            error = mx.abs(full - tensor.astype(mx.float32)).max().item()
            peak = mx.abs(theirs[path + ".biases"]).max().item()
            assert error <= peak * 2 ** -10, (name, error, peak)
            compared += 1
    assert compared == 12


def test_global_scale_as_mlx_lm_has_it(tmp_path):
    """nvfp4 experts with a scale each beside their groups', which mlx-lm's
    quantize_model makes and its loader reads."""
    settings = make_config("qwen3_moe", EXPERTS["qwen3_moe"] | {
        "hidden_size": 192, "torch_dtype": "bfloat16", "vocab_size": 3072})
    model = random_model(settings)
    model.set_dtype(mx.bfloat16)
    model, found = utils.quantize_model(
        model, settings, 16, 4, mode="nvfp4", global_scale=True)
    packed_models.save(tmp_path / "m", found, {"x": np.ones(1, np.float32)})
    tensors = dict(tree_flatten(model.parameters()))
    mx.save_safetensors(str(tmp_path / "m/model.safetensors"), tensors)
    stacks = [n for n in tensors if n.endswith(".global_scale")]
    assert stacks
    done = run("inspect", tmp_path / "m")
    assert done.returncode == 0, done.stderr
    assert f"{len(stacks)} nvfp4" in done.stdout
    for flags in ((), ("--dequantize",)):
        out = tmp_path / f"out{len(flags)}"
        done = run("convert", "--model", tmp_path / "m", "--mlx-path", out,
                   *flags)
        assert done.returncode == 0, done.stderr
        ours, loaded = parameters(out)
        for name in stacks:
            path = name.removesuffix(".global_scale")
            full = mx.stack([mx.dequantize(
                tensors[path + ".weight"][i], tensors[path + ".scales"][i],
                None, 16, 4, "nvfp4", global_scale=tensors[name][i])
                for i in range(tensors[name].size)])
            assert mx.array_equal(
                ours[path + ".weight"], full.astype(mx.bfloat16)).item()
        # mlx-lm itself runs such experts on a GPU alone, and plain ones on a
        # CPU in float32.
        loaded.set_dtype(mx.float32)
        assert mx.isfinite(loaded(mx.array([list(range(5, 60))]))).all().item()


@pytest.mark.parametrize("command, kind", [
    ("convert", "fp8"),
    *([("convert", "gptq"), ("gptq", "fp8"), ("gptq", "gptq")]
      if short_runs.SLOW else [])])
def test_memory(tmp_path, command, kind):
    """No more than a block above what the plain model takes, of which there
    are many."""
    shape = {"hidden_size": 512, "intermediate_size": 1024, "head_dim": 64,
             "num_attention_heads": 8, "num_key_value_heads": 8,
             "num_hidden_layers": 12}
    packed_models.write(tmp_path, kind, **shape)
    block = (4 * 512 * 512 + 3 * 512 * 1024) * 2
    peaks = {}
    for name in ("packed", "plain"):
        peaks[name] = min(
            ran(command, tmp_path / name, tmp_path / f"{name}-{i}")[
                "peak_rss"] for i in range(2))
    print(f"{command} {kind}: {peaks}, a block {block}")
    assert peaks["packed"] - peaks["plain"] < block, peaks


@pytest.mark.parametrize(
    "flags", [("-q",), ()] if short_runs.SLOW else [("-q",)])
def test_memory_of_experts(tmp_path, flags):
    """One is expanded at a time, not their stack."""
    write_experts(
        tmp_path, "qwen3_moe", "fp8", hidden_size=256, num_experts=64,
        moe_intermediate_size=256, num_hidden_layers=2)
    stack = 64 * 256 * 256 * 2
    peaks = {}
    for name in ("packed", "plain"):
        for i in range(2):
            out = tmp_path / f"{name}-{i}"
            report = Path(f"{out}.json")
            done = run("convert", "--model", tmp_path / name, "--mlx-path",
                       out, "--json", report, *flags)
            assert done.returncode == 0, done.stderr
            peak = json.loads(report.read_text())["peak_rss"]
            peaks[name] = min(peak, peaks.get(name, peak))
    print(f"{flags}: {peaks}, a stack {stack}")
    assert peaks["packed"] - peaks["plain"] < stack / 2, peaks
