"""Packed sources as they were published: entries in other words than the
format's own, and tensors that an entry is wrong about."""

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
import walks  # noqa: E402
from test_folders import config, run, weights  # noqa: E402


def entry(*gone, **changes):
    def change(tensors, entry):
        for key in gone:
            del entry[key]
        entry.update(changes)
    return change


def whole_entry(**entry):
    def change(tensors, old):
        old.clear()
        old.update(entry)
    return change


def scheme(**changes):
    def change(tensors, entry):
        entry["config_groups"]["group_0"]["weights"].update(changes)
    return change


def turned(suffix, new=None, how=lambda tensor: tensor):
    def change(tensors, entry):
        for name in [n for n in tensors if n.endswith(suffix)]:
            tensor = how(tensors.pop(name))
            tensors[name.removesuffix(suffix) + (new or suffix)] = tensor
    return change


def both(*changes):
    def change(tensors, entry):
        for one in changes:
            one(tensors, entry)
    return change


def float_zeros(tensors, entry):
    for name in [n for n in tensors if n.endswith(".weight_scale")]:
        zeros = np.zeros(tensors[name].shape, np.float32)
        tensors[name.replace("_scale", "_zero_point")] = packers.BF16(zeros)


def blocks_apart(scales):
    return scales[:, None, :, None].copy()


GPTQ = {"quant_method": "gptq", "bits": 4, "group_size": 32}
ROUND = {"quant_method": "auto-round", "bits": 4, "group_size": 32}
CASES = {
    # Stored as they are, though the entry stands for zeros less one.
    "gptq zeros of v2": ("gptq v2", entry("checkpoint_format")),
    "gptq zeros of v1": (
        "auto-round", whole_entry(**GPTQ, checkpoint_format="gptq_v2")),
    "gptq in capitals": ("gptq", entry(checkpoint_format="GPTQ")),
    "auto-round's own zeros": (
        "gptq v2", whole_entry(**ROUND, packing_format="auto_round")),
    "auto-round for GPTQModel": (
        "gptq v2",
        whole_entry(**ROUND, packing_format="auto_round:gptqmodel")),
    "auto-round of transformers": (
        "auto-round", entry(packing_format="auto_round:gptq")),
    "auto-round's backend": (
        "auto-round",
        whole_entry(**ROUND, backend="auto_round:gptq:exllamav2")),
    "auto-round awq": (
        "awq", whole_entry(**ROUND, packing_format="auto_round:awq")),
    "auto-round fp8": (
        "fp8", whole_entry(quant_method="auto-round", bits=8,
                           packing_format="auto_round:fp8")),
    "auto-round nvfp4": (
        "nvfp4", whole_entry(quant_method="auto-round", bits=4,
                             packing_format="auto_round:llm_compressor")),
    "auto-round mxfp8": (
        "mxfp8", both(turned("_scale_inv", "_scale"), whole_entry(
            quant_method="auto-round", bits=8,
            packing_format="auto_round:llm_compressor"))),
    "float zero points": ("pack-quantized", float_zeros),
    "a transform of no groups": (
        "pack-quantized", entry(transform_config={"config_groups": {}})),
    "blocks in a word": ("fp8", both(
        turned("_scale_inv", "_scale"),
        lambda tensors, entry: entry.update(packed_models.compressed(
            "float-quantized", "float", num_bits=8, strategy="block",
            block_structure="128x128")))),
    "modelopt's blocks as DeepSeek's": (
        "fp8", whole_entry(
            quant_method="modelopt", quant_algo="MIXED_PRECISION")),
    "modelopt's blocks in four dimensions": (
        "fp8", both(
            turned("_scale_inv", "_scale", blocks_apart),
            whole_entry(quant_method="modelopt", quant_algo="FP8_PB_WO"))),
}


@pytest.mark.parametrize("case", CASES)
def test_read_as_it_was_meant(tmp_path, case):
    kind, change = CASES[case]
    tensors = packed_models.write(tmp_path, kind, num_hidden_layers=1)
    found = config(tmp_path / "packed")
    change(tensors, found["quantization_config"])
    (tmp_path / "packed/config.json").write_text(json.dumps(found))
    packers.write(tmp_path / "packed/model.safetensors", tensors)
    for name in ("packed", "plain"):
        done = run("convert", "--model", tmp_path / name, "--mlx-path",
                   tmp_path / f"{name}-out")
        assert done.returncode == 0, done.stderr
        told = "the middle of the codes' range" in done.stderr
        assert told == (name == "packed" and case.startswith("gptq zeros"))
    assert weights(tmp_path / "packed-out") == weights(tmp_path / "plain-out")


def rows_of(weight, dtype, divisor=1):
    return np.zeros((weight.shape[0], weight.shape[1] // divisor), dtype)


def marlin(weight):
    rows, columns = weight.shape
    return {".B": np.zeros((columns // 16, 2 * rows), np.int32),
            ".s": np.ones((columns // 32, rows), np.float16),
            ".workspace": np.zeros((16,), np.int32)}


def fp8_with_a_scale(weight):
    return packed_models.fp8_tensor(weight)[0]


def int4_with_fp8_scales(weight):
    return {".weight": rows_of(weight, np.int8, 2),
            ".weight_scale_inv": rows_of(weight, np.float32, 32)}


QUARK = {"quant_method": "quark", "export": {"pack_method": "reorder"}}
# Who packed it, as the program names them; entry; tensors of a matrix.
UNREAD = {
    "quark FP8": ("quark", QUARK, fp8_with_a_scale),
    "quark int4": ("quark", QUARK, lambda w: {
        ".weight": rows_of(w, np.int32, 8), ".weight_scale": np.ones(
            (w.shape[0], 1), np.float16)}),
    "quark mxfp4": ("quark", QUARK, lambda w: {
        ".weight": rows_of(w, np.uint8, 2),
        ".weight_scale": rows_of(w, np.uint8, 32)}),
    "quark's plain floats with a scale": ("quark", QUARK, lambda w: {
        ".weight": packers.BF16(w), ".weight_scale": packed_models.scalar(2)}),
    "marlin": ("marlin", {"quant_method": "marlin"}, marlin),
    "gptq in marlin's order": (
        "gptq", GPTQ | {"checkpoint_format": "marlin"},
        lambda w: packers.gptq(w, 4, 32)[0]),
    "gptq that is marlin": ("gptq", GPTQ | {"is_marlin_format": True}, marlin),
    "gptq_marlin": ("gptq_marlin", GPTQ | {"quant_method": "gptq_marlin"},
                    lambda w: packers.gptq(w, 4, 32)[0]),
    "gptq_marlin by marlin's names": (
        "gptq_marlin", GPTQ | {"quant_method": "gptq_marlin"}, marlin),
    "W4A8 by QQQ": ("qqq", {"quant_method": "qqq"}, lambda w: {
        ".B": marlin(w)[".B"], ".s_channel": np.ones((1, w.shape[0]), np.float32),
        ".s_group": marlin(w)[".s"]}),
    "W4A8 with FP8": (
        "w4afp8", {"quant_method": "w4afp8"}, int4_with_fp8_scales),
    "W4A8 by ModelOpt": (
        "modelopt", {"quant_method": "modelopt", "quant_algo": "W4A8_AWQ"},
        int4_with_fp8_scales),
    "exl2": ("exl2", {"quant_method": "exl2", "bits": 4}, lambda w: {
        ".q_weight": rows_of(w, np.int32, 8),
        ".q_scale": rows_of(w, np.int32, 32)}),
    "quanto": ("quanto", {"quant_method": "quanto"}, lambda w: {
        ".weight._data": rows_of(w, np.int8),
        ".weight._scale": np.ones((w.shape[0], 1), np.float16)}),
}


@pytest.mark.parametrize("case", UNREAD)
def test_what_is_not_read_is_said_in_one_line(tmp_path, case):
    """Before any work, and by every command alike: whose packs they are, and
    what to do."""
    who, entry, parts = UNREAD[case]
    config = packed_models.CONFIG | packed_models.SMALL | {
        "num_hidden_layers": 1}
    packed, _ = packed_models.pack(
        packed_models.random_tensors(config),
        lambda weight: (parts(weight), weight))
    packed_models.save(tmp_path / "model", config, packed, entry)
    out = tmp_path / "out"
    for words in (["inspect", tmp_path / "model"],
                  ["convert", "--model", tmp_path / "model", "--mlx-path", out],
                  ["quantize", tmp_path / "model", "-o", out, "--target-bpw", 4,
                   "--data-path", walks.TEXT]):
        done = run(*words)
        assert done.returncode == 6, done.stderr
        lines = done.stderr.strip().splitlines()
        assert len(lines) == 1, lines
        for part in (f'quantized by "{who}"', "read",
                     "start from the full-precision model"):
            assert part in lines[0], lines
        assert "missing" not in lines[0] and "BF16" not in lines[0]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model"]


def test_what_is_missing_of_a_plain_model_is_said(tmp_path):
    """Also where an entry still speaks of packs that it had once."""
    config = packed_models.CONFIG | packed_models.SMALL
    tensors = {name: packers.BF16(value) for name, value
               in packed_models.random_tensors(config).items()}
    tensors.pop("model.norm.weight")
    packed_models.save(tmp_path / "model", config, tensors, QUARK)
    done = run("inspect", tmp_path / "model")
    assert done.returncode == 4 and "model.norm.weight is missing" in done.stderr


def test_an_asymmetric_entry_is_believed(tmp_path):
    """Where zeros are free, that all are the middle says nothing."""
    tensors = packed_models.write(tmp_path, "gptq v2", num_hidden_layers=1)
    found = config(tmp_path / "packed")
    found["quantization_config"] = GPTQ | {"sym": False}
    (tmp_path / "packed/config.json").write_text(json.dumps(found))
    packers.write(tmp_path / "packed/model.safetensors", tensors)
    done = run("convert", "--model", tmp_path / "packed", "--mlx-path",
               tmp_path / "out")
    assert done.returncode == 0 and "the middle" not in done.stderr
    run("convert", "--model", tmp_path / "plain", "--mlx-path",
        tmp_path / "plain-out")
    assert weights(tmp_path / "out") != weights(tmp_path / "plain-out")


def test_dequantize_is_what_is_done(tmp_path):
    """As mlx_lm.convert has it, for packs of others, too."""
    packed_models.write(tmp_path, "awq", num_hidden_layers=1)
    for flags in ([], ["--dequantize"]):
        done = run("convert", "--model", tmp_path / "packed", "--mlx-path",
                   tmp_path / f"out{len(flags)}", *flags)
        assert done.returncode == 0, done.stderr
    assert weights(tmp_path / "out0") == weights(tmp_path / "out1")
