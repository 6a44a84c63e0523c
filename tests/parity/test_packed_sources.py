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
import packers  # noqa: E402
from test_folders import (  # noqa: E402
    config, fails, put_config, run, weights)


@pytest.mark.parametrize("kind", packed_models.KINDS)
def test_expanded_bit_by_bit(tmp_path, kind):
    packed_models.write(tmp_path, kind, num_hidden_layers=1)
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


def test_fp8_without_an_entry_is_read(tmp_path):
    """As mlx-lm's classes read it: by its tensors."""
    packed_models.write(tmp_path, "fp8", num_hidden_layers=1)
    for name in ("packed", "plain"):
        found = config(tmp_path / name)
        found.pop("quantization_config", None)
        (tmp_path / name / "config.json").write_text(json.dumps(found))
        done = run("convert", "--model", tmp_path / name, "--mlx-path",
                   tmp_path / f"{name}-out")
        assert done.returncode == 0, done.stderr
    assert weights(tmp_path / "packed-out") == weights(tmp_path / "plain-out")


def test_biases_of_zeros_go(tmp_path):
    """AutoGPTQ writes one for each linear, also where the model has none."""
    tensors = packed_models.write(tmp_path, "gptq", num_hidden_layers=1)
    folder = tmp_path / "packed"
    run("convert", "--model", folder, "--mlx-path", tmp_path / "right")
    names = [name for name in tensors if name.endswith(".qweight")]
    for name in names:
        bias = np.zeros(tensors[name].shape[1], np.float16)
        tensors[name.replace(".qweight", ".bias")] = bias
    packers.write(folder / "model.safetensors", tensors)
    done = run("convert", "--model", folder, "--mlx-path", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert f"{len(names)} tensors such as" in done.stderr
    assert weights(tmp_path / "out") == weights(tmp_path / "right")
    bias[3] = 0.5
    packers.write(folder / "model.safetensors", tensors)
    fails(run("inspect", folder), CORRUPT, ".bias", "belongs to no module")


NAME = "model.layers.0.mlp.up_proj"
NOT_FOUND, CORRUPT, NOT_SUPPORTED, NUMERIC = 3, 4, 6, 7


def gone(suffix):
    return lambda tensors, entry: tensors.pop(NAME + suffix)


def put(suffix, change):
    def damage(tensors, entry):
        tensors[NAME + suffix] = change(tensors[NAME + suffix])
    return damage


def entry(**changes):
    return lambda tensors, entry: entry.update(changes)


def scheme(**changes):
    def damage(tensors, entry):
        entry["config_groups"]["group_0"]["weights"].update(changes)
    return damage


def group_idx(at):
    def change(order):
        order = order.copy()
        order[5] = at
        return order
    return change


def unpacked(tensors, entry):
    shape = tensors[NAME + ".weight"].shape
    tensors[NAME + ".weight"] = packers.BF16(np.ones(shape, np.float32))


def bitsandbytes(tensors, entry):
    entry.clear()
    entry["load_in_4bit"] = True
    for name in [n for n in tensors if n.endswith(".weight_scale_inv")]:
        del tensors[name]
    weight = tensors[NAME + ".weight"]
    tensors[NAME + ".weight"] = weight.codes.reshape(-1, 1)
    tensors[NAME + ".weight.absmax"] = np.ones(3, np.float32)
    for name, tensor in tensors.items():
        if isinstance(tensor, packers.Bytes):
            tensors[name] = tensor.codes


# what is done: (kind, how, code, parts of the one line)
DAMAGES = {
    "fp8 without scales": ("fp8", gone(".weight_scale_inv"), CORRUPT,
                           [NAME + ".weight_scale_inv is missing"]),
    "fp8 scales without codes": ("fp8", gone(".weight"), CORRUPT,
                                 [NAME + ".weight is missing"]),
    "fp8 scales of other blocks": (
        "fp8", entry(weight_block_size=[64, 64]), CORRUPT,
        [".weight_scale_inv has shape [2, 3]", "ask for [3, 5]"]),
    "fp8 scales turned": ("fp8", put(".weight_scale_inv", np.transpose),
                          CORRUPT, [NAME + ".weight_scale_inv", "[2, 3]"]),
    "fp8 scales of integers": (
        "fp8", put(".weight_scale_inv", lambda s: s.astype(np.int32)),
        CORRUPT, [NAME + ".weight_scale_inv", "type for scales"]),
    "fp8 of another format": ("fp8", entry(fmt="e5m2"), NOT_SUPPORTED,
                              ["e5m2", "quantization_config"]),
    "fp8 blocks of one size": (
        "fp8", entry(weight_block_size=[128]), NOT_SUPPORTED,
        ["weight_block_size"]),
    "fp8 blocks of words": (
        "fp8", entry(weight_block_size=["a", "b"]), CORRUPT,
        ["weight_block_size"]),
    "scales beside plain weights": ("fp8", unpacked, CORRUPT,
                                    [NAME + ".weight_scale_inv"]),
    "fp8 by a method nobody knows": (
        "fp8", entry(quant_method="hqq"), NOT_SUPPORTED, ['"hqq"']),
    "matrix of another shape": (
        "fp8", put(".weight", lambda b: packers.Bytes(
            "F8_E4M3", b.codes[:-1])), CORRUPT, [NAME + ".weight"]),
    "channel scales too few": (
        "float-quantized channel",
        put(".weight_scale", lambda s: packers.BF16(s.values[:-1])), CORRUPT,
        [NAME + ".weight_scale", "[319, 1]"]),
    "format unknown": ("pack-quantized", entry(format="marlin-24"),
                       NOT_SUPPORTED, ['"marlin-24"']),
    "strategy unknown": ("pack-quantized", scheme(strategy="attn_head"),
                         NOT_SUPPORTED, ['"attn_head"']),
    "sparse": ("pack-quantized", entry(
        sparsity_config={"format": "sparse-24-bitmask"}), NOT_SUPPORTED,
        ["sparsity_config"]),
    "turned by a transform": ("pack-quantized", entry(
        transform_config={"config_groups": {"R3": {}}}), NOT_SUPPORTED,
        ["transform_config"]),
    "no groups": ("pack-quantized", entry(config_groups={}), NOT_SUPPORTED,
                  ["no group"]),
    "groups that are a list": ("pack-quantized", entry(config_groups=[]),
                               CORRUPT, ["config_groups"]),
    "bits that are no number": ("pack-quantized", scheme(num_bits="4"),
                                CORRUPT, ["num_bits"]),
    "bits that are others": ("pack-quantized", scheme(num_bits=8), CORRUPT,
                             [".weight_packed", "bits"]),
    "groups that are others": ("pack-quantized", scheme(group_size=64),
                               CORRUPT, [".weight_scale", "ask for"]),
    "no shape": ("pack-quantized", gone(".weight_shape"), CORRUPT,
                 [NAME + ".weight_shape is missing"]),
    "a shape of more rows": (
        "pack-quantized", put(".weight_shape", lambda s: s + [1, 0]), CORRUPT,
        [NAME + ".weight_shape", "321"]),
    "a shape of more columns": (
        "pack-quantized", put(".weight_shape", lambda s: s + [0, 64]),
        CORRUPT, [NAME + ".weight_packed"]),
    "a shape without end": (
        "pack-quantized", put(".weight_shape", lambda s: s - [0, 10**12]),
        CORRUPT, [NAME + ".weight_shape"]),
    "no zero points": ("pack-quantized zeros", gone(".weight_zero_point"),
                       CORRUPT, [NAME + ".weight_zero_point is missing"]),
    "zero points too few": (
        "pack-quantized zeros", put(".weight_zero_point", lambda z: z[:-1]),
        CORRUPT, [NAME + ".weight_zero_point"]),
    "a group past the last": (
        "pack-quantized order", put(".weight_g_idx", group_idx(6)), CORRUPT,
        [NAME + ".weight_g_idx", "groups"]),
    "nvfp4 without its scale": ("nvfp4", gone(".weight_global_scale"),
                                CORRUPT, [NAME + ".weight_global_scale"]),
    "nvfp4 with floats for scales": (
        "nvfp4", put(".weight_scale",
                     lambda s: packers.E4M3[s.codes]), CORRUPT,
        [NAME + ".weight_scale"]),
    "nvfp4 without scales": ("modelopt nvfp4", gone(".weight_scale"),
                             CORRUPT, [NAME + ".weight_scale is missing"]),
    "modelopt unknown": ("modelopt fp8", entry(quant_algo="W4A8_AWQ"),
                         NOT_SUPPORTED, ['"W4A8_AWQ"']),
    "gptq without zeros": ("gptq", gone(".qzeros"), CORRUPT,
                           [NAME + ".qzeros is missing"]),
    "gptq without scales": ("gptq", gone(".scales"), CORRUPT,
                            [NAME + ".scales is missing"]),
    "gptq scales of another width": (
        "gptq", put(".scales", lambda s: s[:, :-8].copy()), CORRUPT, [NAME]),
    "gptq codes cut": ("gptq", put(".qweight", lambda q: q[:-4].copy()),
                       CORRUPT, [NAME]),
    "gptq of other bits": ("gptq", entry(bits=8), CORRUPT,
                           ["of 4 bits", "8 by the entry"]),
    "gptq of other groups": ("gptq", entry(group_size=128), CORRUPT,
                             ["in groups of 32", "128 by the entry"]),
    "gptq order past the last": ("gptq", put(".g_idx", group_idx(99)),
                                 CORRUPT, [NAME + ".g_idx", "99"]),
    "gptq order too short": ("gptq", put(".g_idx", lambda g: g[:-1]),
                             CORRUPT, [NAME + ".g_idx"]),
    "gptq of another layout": ("gptq", entry(checkpoint_format="marlin"),
                               NOT_SUPPORTED, ['"marlin"']),
    "awq of another layout": ("awq", entry(version="gemv"), NOT_SUPPORTED,
                              ['"gemv"']),
    "awq without zeros": ("awq", gone(".qzeros"), CORRUPT,
                          [NAME + ".qzeros is missing"]),
    "bitsandbytes": ("fp8", bitsandbytes, NOT_SUPPORTED,
                     ['"bitsandbytes"', "dequantize()"]),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_is_refused_in_one_line(tmp_path, damage):
    kind, how, code, parts = DAMAGES[damage]
    tensors = packed_models.write(tmp_path, kind, num_hidden_layers=1)
    folder = tmp_path / "packed"
    file = folder / "hf_quant_config.json"
    found = (json.loads(file.read_text()) if file.exists()
             else config(folder)["quantization_config"])
    how(tensors, found)
    if not file.exists():
        put_config(folder, quantization_config=found)
    packers.write(folder / "model.safetensors", tensors)
    for arguments in (["inspect", folder],
                      ["convert", "--model", folder, "--mlx-path",
                       tmp_path / "out", "-q"]):
        done = run(*arguments)
        fails(done, code, *parts)
        assert len(done.stderr.strip().splitlines()) == 1, done.stderr
        assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("kind, suffix", [
    ("fp8", ".weight_scale_inv"), ("fp8", ".weight"),
    ("pack-quantized", ".weight_scale"), ("gptq", ".scales")])
def test_what_is_not_finite_is_named(tmp_path, kind, suffix):
    tensors = packed_models.write(tmp_path, kind, num_hidden_layers=1)
    value = tensors[NAME + suffix]
    if isinstance(value, packers.Bytes):
        value.codes[0, 0] = 0xFF
    else:
        getattr(value, "values", value)[0, 0] = np.nan
    packers.write(tmp_path / "packed/model.safetensors", tensors)
    done = run("convert", "--model", tmp_path / "packed", "--mlx-path",
               tmp_path / "out", "-q")
    fails(done, NUMERIC, NAME + ".weight", "NaN")


def test_scales_in_a_file_that_is_missing(tmp_path):
    tensors = packed_models.write(tmp_path, "fp8", num_hidden_layers=1)
    folder = tmp_path / "packed"
    name = NAME + ".weight_scale_inv"
    (folder / "model.safetensors.index.json").write_text(json.dumps({
        "weight_map": {n: "model-00002-of-00002.safetensors" if n == name
                       else "model.safetensors" for n in tensors}}))
    del tensors[name]
    packers.write(folder / "model.safetensors", tensors)
    fails(run("inspect", folder), NOT_FOUND, name, "00002-of-00002")
