"""Packs weights as other quantizers do, and expands them by the formats'
definitions, in numpy alone: the oracle for what the program expands."""

import json
from pathlib import Path

import numpy as np

DTYPES = {np.dtype("float32"): "F32", np.dtype("float16"): "F16",
          np.dtype("int32"): "I32", np.dtype("int64"): "I64",
          np.dtype("int8"): "I8", np.dtype("uint8"): "U8"}


def bf16(values):
    """float32 rounded to nearest, ties to even, as float32."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    up = ((bits >> 16) & 1) + np.uint32(0x7FFF)
    return ((bits + up) & np.uint32(0xFFFF0000)).view(np.float32)


class BF16:
    """A tensor that is written as bfloat16."""

    def __init__(self, values):
        self.values = bf16(np.asarray(values, np.float32))

    @property
    def shape(self):
        return self.values.shape

    def raw(self):
        return "BF16", (self.values.view(np.uint32) >> 16).astype(np.uint16)


class Bytes:
    """A tensor of bytes that is written as F8_E4M3 or F8_E8M0."""

    def __init__(self, dtype, codes):
        self.dtype, self.codes = dtype, codes.astype(np.uint8)

    @property
    def shape(self):
        return self.codes.shape

    def raw(self):
        return self.dtype, self.codes


def write(path, tensors):
    """Writes a safetensors file of numpy arrays, BF16 and Bytes."""
    header, blob = {"__metadata__": {"format": "pt"}}, b""
    for name, tensor in sorted(tensors.items()):
        if isinstance(tensor, np.ndarray):
            dtype, data = DTYPES[tensor.dtype], tensor
        else:
            dtype, data = tensor.raw()
        header[name] = {"dtype": dtype, "shape": list(tensor.shape),
                        "data_offsets": [len(blob), len(blob) + data.nbytes]}
        blob += np.ascontiguousarray(data).tobytes()
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    Path(path).write_bytes(len(text).to_bytes(8, "little") + text + blob)


# All E4M3 and E2M1 values by their definitions.
def e4m3_table():
    table = []
    for byte in range(128):
        exponent, fraction = byte >> 3, byte & 7
        table.append(2.0 ** -6 * fraction / 8 if exponent == 0
                     else 2.0 ** (exponent - 7) * (1 + fraction / 8))
    table[127] = np.nan
    return np.array(table + [-value for value in table], np.float32)


E4M3 = e4m3_table()
E2M1 = np.array([0, .5, 1, 1.5, 2, 3, 4, 6], np.float32)
E2M1 = np.concatenate([E2M1, -E2M1])


def nearest(values, table):
    """For each value the place in `table` of the finite entry nearest to it."""
    finite = np.where(np.isnan(table), np.inf, table)
    order = np.argsort(finite, kind="stable")
    order = order[np.isfinite(finite[order])]
    at = np.searchsorted(finite[order], values)
    low = np.clip(at - 1, 0, len(order) - 1)
    high = np.clip(at, 0, len(order) - 1)
    take_low = (values - finite[order[low]] <= finite[order[high]] - values)
    return order[np.where(take_low, low, high)]


def spread(scales, block, shape):
    """The scale of each value of a matrix of `shape`."""
    wide = np.repeat(np.repeat(scales, block[0], -2), block[1], -1)
    return wide[..., :shape[-2], :shape[-1]]


def block_peaks(weight, block):
    rows, columns = weight.shape
    padded = np.zeros((-(-rows // block[0]) * block[0],
                       -(-columns // block[1]) * block[1]), np.float32)
    padded[:rows, :columns] = np.abs(weight)
    return padded.reshape(padded.shape[0] // block[0], block[0], -1,
                          block[1]).max((1, 3)) + np.float32(1e-6)


def fp8(weight, block, scale_type=np.float32, exponents=False):
    """(codes, scales, expanded) of FP8; expanded is float32, not yet rounded to the
    result's type."""
    scales = block_peaks(weight, block) / np.float32(448)
    if exponents:
        power = np.ceil(np.log2(scales)).astype(np.int32)
        stored, scales = power + 127, np.exp2(power).astype(np.float32)
    elif scale_type is BF16:
        stored = BF16(scales)
        scales = stored.values
    else:
        stored = scales = scales.astype(np.float32)
    wide = spread(scales, block, weight.shape)
    codes = nearest(weight / wide, E4M3)
    return codes, stored, E4M3[codes] * wide


def fp4(weight, group, whole=None):
    """(packed codes, scales, expanded) of nvfp4 with a scale `whole` for the matrix,
    or of mxfp4 where that is None."""
    peaks = block_peaks(weight, (1, group)) / np.float32(6)
    if whole is None:
        stored = np.ceil(np.log2(peaks)).astype(np.int32) + 127
        scales = np.exp2(stored - 127).astype(np.float32)
    else:
        stored = nearest(peaks / whole, E4M3)
        stored = np.where(E4M3[stored] == 0, 1, stored)
        scales = E4M3[stored] * whole
    wide = spread(scales, (1, group), weight.shape)
    codes = nearest(weight / wide, E2M1)
    packed = (codes[:, 0::2] | codes[:, 1::2] << 4).astype(np.uint8)
    return packed, stored, E2M1[codes] * wide


def rounded(weight, bits, group, scale, symmetric, order=None):
    """(codes, zeros, scales, expanded) of unsigned integers in groups; `scale` rounds
    the scales to their type. A column's group is its number in `order`."""
    rows, columns = weight.shape
    of = np.arange(columns) // group if order is None else order
    groups = of.max() + 1
    scales = np.zeros((rows, groups), np.float32)
    zeros = np.zeros((rows, groups), np.int64)
    top = 2 ** bits - 1
    for g in range(groups):
        part = weight[:, of == g]
        if symmetric:
            scales[:, g] = np.abs(part).max(1) * 2 / top + 1e-6
            zeros[:, g] = 2 ** (bits - 1)
        else:
            low = np.minimum(part.min(1), 0)
            scales[:, g] = (np.maximum(part.max(1), 0) - low) / top + 1e-6
            zeros[:, g] = np.clip(np.rint(-low / scales[:, g]), 1, top)
    scales = scale(scales)
    wide, zero = scales[:, of], zeros[:, of]
    codes = np.clip(np.rint(weight / wide) + zero, 0, top).astype(np.int64)
    return codes, zeros, scales, (codes - zero).astype(np.float32) * wide


def stream(codes, bits):
    """Codes along the last axis as one stream of bits in int32 words."""
    flags = (codes[..., None] >> np.arange(bits)) & 1
    flags = flags.reshape(*codes.shape[:-1], -1, 32).astype(np.uint64)
    words = (flags << np.arange(32, dtype=np.uint64)).sum(-1)
    return words.astype(np.uint32).view(np.int32)


def whole_words(codes, bits):
    """Codes along the last axis in int32 words, as many in each as fit whole."""
    fit = 32 // bits
    pad = -codes.shape[-1] % fit
    codes = np.concatenate(
        [codes, np.zeros((*codes.shape[:-1], pad), codes.dtype)], -1)
    codes = codes.reshape(*codes.shape[:-1], -1, fit).astype(np.uint64)
    words = (codes << (np.arange(fit, dtype=np.uint64) * np.uint64(bits)))
    return words.sum(-1).astype(np.uint32).view(np.int32)


def gptq(weight, bits, group, v2=False, symmetric=False, order=None):
    """({suffix: tensor}, expanded) of GPTQ's pack; expanded is float16."""
    codes, zeros, scales, full = rounded(
        weight, bits, group, lambda s: s.astype(np.float16), symmetric, order)
    scales = scales.astype(np.float16)
    kept = zeros if v2 else (zeros - 1) & (2 ** bits - 1)
    columns = weight.shape[1]
    of = np.arange(columns) // group if order is None else order
    return {
        ".qweight": np.ascontiguousarray(stream(codes, bits).T),
        ".qzeros": stream(np.ascontiguousarray(kept.T), bits),
        ".scales": np.ascontiguousarray(scales.T),
        ".g_idx": of.astype(np.int32)}, full.astype(np.float16)


AWQ_ORDER = {4: [0, 2, 4, 6, 1, 3, 5, 7], 8: [0, 2, 1, 3]}


def awq(weight, bits, group, zeros_stored=True):
    """({suffix: tensor}, expanded) of AWQ's pack; expanded is float16."""
    codes, zeros, scales, full = rounded(
        weight, bits, group, lambda s: s.astype(np.float16),
        symmetric=not zeros_stored)

    def words(values):  # [n, out], by the order within a word
        fit = 32 // bits
        values = values.reshape(values.shape[0], -1, fit)
        return whole_words(values[..., AWQ_ORDER[bits]], bits)[..., 0]

    tensors = {".qweight": words(np.ascontiguousarray(codes.T)),
               ".scales": np.ascontiguousarray(scales.T.astype(np.float16))}
    if zeros_stored:
        tensors[".qzeros"] = words(np.ascontiguousarray(zeros.T))
    return tensors, full.astype(np.float16)


def pack_quantized(weight, bits, group, symmetric=True, order=None):
    """({suffix: tensor}, expanded) of compressed-tensors' pack-quantized, which
    stores signed codes and zeros 2^(bits-1) higher; expanded is bfloat16."""
    group = weight.shape[1] if group is None else group
    codes, zeros, scales, full = rounded(
        weight, bits, group, bf16, symmetric, order)
    tensors = {
        ".weight_packed": whole_words(codes, bits),
        ".weight_scale": BF16(scales),
        ".weight_shape": np.array(weight.shape, np.int64)}
    if not symmetric:
        tensors[".weight_zero_point"] = np.ascontiguousarray(
            whole_words(np.ascontiguousarray(zeros.T), bits).T)
    if order is not None:
        tensors[".weight_g_idx"] = order.astype(np.int32)
    return tensors, BF16(full)
