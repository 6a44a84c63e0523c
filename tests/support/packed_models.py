"""Small models in the packs of other quantizers, each beside the plain model
that its weights expand to."""

import json
import shutil
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/support"))
import packers  # noqa: E402
from packers import BF16, Bytes  # noqa: E402
from random_model import CONFIG, TOKENIZER, shapes  # noqa: E402


def scalar(value):
    return np.array(value, np.float32)


def fp8_blocks(weight):
    codes, scales, full = packers.fp8(weight, (128, 128))
    return {".weight": Bytes("F8_E4M3", codes),
            ".weight_scale_inv": scales}, BF16(full)


def fp8_exponents(weight):
    codes, scales, full = packers.fp8(weight, (128, 128), exponents=True)
    return {".weight": Bytes("F8_E4M3", codes),
            ".weight_scale_inv": Bytes("F8_E8M0", scales)}, BF16(full)


def mxfp8(weight):
    codes, scales, full = packers.fp8(weight, (1, 32), exponents=True)
    return {".weight": Bytes("F8_E4M3", codes),
            ".weight_scale_inv": scales.astype(np.uint8)}, BF16(full)


def fp8_tensor(weight):
    codes, scales, full = packers.fp8(weight, weight.shape)
    return {".weight": Bytes("F8_E4M3", codes),
            ".weight_scale": scalar(scales[0, 0]),
            ".input_scale": scalar(0.25)}, BF16(full)


def fp8_inverse_tensor(weight):
    codes, scales, full = packers.fp8(weight, weight.shape, BF16)
    return {".weight": Bytes("F8_E4M3", codes),
            ".weight_scale_inv": BF16(scales.values[0, 0]),
            ".activation_scale": BF16([0.25])}, BF16(full)


def fp8_rows(weight):
    codes, scales, full = packers.fp8(weight, (1, weight.shape[1]), BF16)
    return {".weight": Bytes("F8_E4M3", codes),
            ".weight_scale": scales}, BF16(full)


def int8_rows(weight):
    codes, zeros, scales, full = packers.rounded(
        weight, 8, weight.shape[1], packers.bf16, True)
    return {".weight": (codes - 128).astype(np.int8),
            ".weight_scale": BF16(scales)}, BF16(full)


def nvfp4_compressed(weight):
    divisor = np.float32(448 * 6) / np.abs(weight).max()
    # Scales are divided by it, which is not the same as a product with its inverse.
    packed, scales, _ = packers.fp4(weight, 16, np.float32(1) / divisor)
    wide = packers.spread(packers.E4M3[scales] / divisor, (1, 16),
                          weight.shape)
    codes = np.stack([packed & 15, packed >> 4], -1).reshape(weight.shape)
    return {".weight_packed": packed,
            ".weight_scale": Bytes("F8_E4M3", scales),
            ".weight_global_scale": np.array([divisor], np.float32),
            ".input_global_scale": np.array([0.5], np.float32),
            }, BF16(packers.E2M1[codes] * wide)


def nvfp4_modelopt(weight):
    whole = np.float32(np.abs(weight).max() / (448 * 6))
    packed, scales, full = packers.fp4(weight, 16, whole)
    return {".weight": packed, ".weight_scale": Bytes("F8_E4M3", scales),
            ".weight_scale_2": scalar(whole), ".input_scale": scalar(0.5),
            }, BF16(full)


def mxfp4(weight):
    packed, scales, full = packers.fp4(weight, 32)
    return {".weight_packed": packed,
            ".weight_scale": scales.astype(np.uint8)}, BF16(full)


def disorder(columns, group):
    order = np.arange(columns) // group
    return np.random.default_rng(columns).permutation(order)


def compressed(format, type="int", **weights):
    return {"quant_method": "compressed-tensors", "format": format,
            "config_groups": {"group_0": {
                "targets": ["Linear"], "input_activations": None,
                "weights": {"type": type, **weights}}},
            "ignore": ["lm_head"], "kv_cache_scheme": None,
            "quantization_status": "compressed"}


def gptq_entry(bits, group, **more):
    return {"quant_method": "gptq", "bits": bits, "group_size": group, **more}


def awq_entry(bits, group, **more):
    return {"quant_method": "awq", "bits": bits, "group_size": group,
            "version": "gemm", "zero_point": True, **more}


# kind: (entry of config.json, weight -> ({suffix: tensor}, expanded))
KINDS = {
    "fp8": ({"quant_method": "fp8", "fmt": "e4m3",
             "activation_scheme": "dynamic",
             "weight_block_size": [128, 128]}, fp8_blocks),
    "fp8 ue8m0": ({"quant_method": "fp8", "scale_fmt": "ue8m0",
                   "weight_block_size": [128, 128]}, fp8_exponents),
    "fp8 tensor": ({"quant_method": "fp8", "weight_block_size": None,
                    "activation_scheme": "static"}, fp8_inverse_tensor),
    "fbgemm": ({"quant_method": "fbgemm_fp8"}, fp8_rows),
    "mxfp8": ({"quant_method": "mxfp8"}, mxfp8),
    "float-quantized tensor": (compressed(
        "float-quantized", "float", num_bits=8, strategy="tensor"),
        fp8_tensor),
    "float-quantized channel": (compressed(
        "float-quantized", "float", num_bits=8, strategy="channel"),
        fp8_rows),
    "modelopt fp8": ({"quant_method": "modelopt", "quant_algo": "FP8"},
                     fp8_tensor),
    "int-quantized": (compressed(
        "int-quantized", num_bits=8, strategy="channel"), int8_rows),
    "pack-quantized": (compressed(
        "pack-quantized", num_bits=4, strategy="group", group_size=32,
        symmetric=True),
        lambda w: packers.pack_quantized(w, 4, 32)),
    "pack-quantized zeros": (compressed(
        "pack-quantized", num_bits=4, strategy="group", group_size=64,
        symmetric=False),
        lambda w: packers.pack_quantized(w, 4, 64, False)),
    "pack-quantized order": (compressed(
        "pack-quantized", num_bits=4, strategy="group", group_size=32,
        symmetric=True, actorder="group"),
        lambda w: packers.pack_quantized(
            w, 4, 32, order=disorder(w.shape[1], 32))),
    "pack-quantized 3 bits": (compressed(
        "pack-quantized", num_bits=3, strategy="group", group_size=32,
        symmetric=False),
        lambda w: packers.pack_quantized(w, 3, 32, False)),
    "pack-quantized 8 bits": (compressed(
        "pack-quantized", num_bits=8, strategy="channel", symmetric=True),
        lambda w: packers.pack_quantized(w, 8, None)),
    "nvfp4": (compressed(
        "nvfp4-pack-quantized", "float", num_bits=4,
        strategy="tensor_group", group_size=16), nvfp4_compressed),
    "mxfp4": (compressed(
        "mxfp4-pack-quantized", "float", num_bits=4, strategy="group",
        group_size=32), mxfp4),
    "modelopt nvfp4": ({"quantization": {
        "quant_algo": "NVFP4", "group_size": 16,
        "kv_cache_quant_algo": "FP8"}}, nvfp4_modelopt),
    "gptq": (gptq_entry(4, 32), lambda w: packers.gptq(w, 4, 32)),
    "gptq 8 bits": (gptq_entry(8, -1), lambda w: packers.gptq(
        w, 8, w.shape[1])),
    "gptq 3 bits": (gptq_entry(3, 64), lambda w: packers.gptq(w, 3, 64)),
    "gptq desc_act": (gptq_entry(4, 32, desc_act=True),
                      lambda w: packers.gptq(
                          w, 4, 32, order=disorder(w.shape[1], 32))),
    "gptq v2": (gptq_entry(4, 32, checkpoint_format="gptq_v2", sym=True),
                lambda w: packers.gptq(w, 4, 32, v2=True, symmetric=True)),
    # Some matrices of other bits and groups than the entry's.
    "gptq dynamic": (gptq_entry(
        4, 128, format="gptq_v2", dynamic={"+:.*down.*": {"bits": 8}}),
        lambda w: packers.gptq(w, 8 if w.shape[1] > w.shape[0] else 4, 32,
                               v2=True)),
    "auto-round": ({"quant_method": "auto-round", "bits": 4,
                    "group_size": 32,
                    "packing_format": "auto_round:auto_gptq"},
                   lambda w: packers.gptq(w, 4, 32, symmetric=True)),
    "awq": (awq_entry(4, 32), lambda w: packers.awq(w, 4, 32)),
    "awq 8 bits": (awq_entry(8, 64), lambda w: packers.awq(w, 8, 64)),
    "awq centered": (awq_entry(4, 32, zero_point=False),
                     lambda w: packers.awq(w, 4, 32, False)),
}

# Sizes of which blocks of 128 are no divisors.
SMALL = {"hidden_size": 192, "intermediate_size": 320, "head_dim": 48}


def pack(tensors, packer, ignored=("self_attn.k_proj",)):
    """(packed, plain) for tensors {name: float32}: `packer` packs every matrix of a
    block that is not ignored, and plain has what these expand to."""
    packed, plain = {}, {}
    for name, value in tensors.items():
        layer = ".layers." in name and value.ndim == 2
        if layer and not any(part in name for part in ignored):
            parts, full = packer(value)
            base = name.removesuffix(".weight")
            packed |= {base + suffix: t for suffix, t in parts.items()}
            plain[name] = full
        else:
            packed[name] = plain[name] = BF16(value)
    return packed, plain


def random_tensors(config, seed=0):
    chance = np.random.default_rng(seed)
    tensors = {}
    for name, shape in shapes(config).items():
        noise = chance.standard_normal(shape).astype(np.float32)
        tensors[name] = (1 + 0.1 * noise if len(shape) == 1
                         else noise / np.float32(shape[-1] ** 0.5))
    return tensors


def save(folder, config, tensors, entry=None):
    folder = Path(folder)
    folder.mkdir(parents=True)
    if entry and "quantization" in entry:  # ModelOpt's file
        (folder / "hf_quant_config.json").write_text(json.dumps(entry))
    elif entry:
        config = config | {"quantization_config": entry}
    (folder / "config.json").write_text(json.dumps(config))
    for name in TOKENIZER:
        shutil.copy(ROOT / "assets/demo" / name, folder / name)
    packers.write(folder / "model.safetensors", tensors)


def write(folder, kind, **changes):
    """Writes a packed llama to folder/packed and what it expands to to
    folder/plain. Returns the packed tensors."""
    entry, packer = KINDS[kind]
    half = kind.startswith(("gptq", "awq", "auto-round"))
    config = CONFIG | SMALL | changes | (
        {"torch_dtype": "float16"} if half else {})
    packed, plain = pack(random_tensors(config), packer)
    if kind == "float-quantized tensor":
        packed["model.layers.0.self_attn.k_scale"] = scalar(0.1)
        packed["model.layers.0.self_attn.v_scale"] = scalar(0.1)
    save(Path(folder) / "packed", config, packed, entry)
    save(Path(folder) / "plain", config, plain)
    return packed
