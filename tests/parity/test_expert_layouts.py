"""Experts one by one where a family is published with stacks, as tools write them
that quantize linears, and stacks where it is published with single experts, as
transformers 5 holds them: the output is that of the published form."""

import re
import sys
from pathlib import Path

import pytest

mx = pytest.importorskip("mlx.core")
mlx_lm = pytest.importorskip("mlx_lm")

ROOT = Path(__file__).resolve().parents[2]
for place in ("tests/support", "tests/parity"):
    sys.path.insert(0, str(ROOT / place))
import random_model as demo  # noqa: E402
import walks  # noqa: E402
from structures import chosen  # noqa: E402
from test_families import write  # noqa: E402
from test_folders import run, weights  # noqa: E402

STACKS = ["gemma4", "granitemoe", "granitemoehybrid", "qwen3_5_moe"]
SINGLE = ["afmoe", "deepseek_v3", "glm4_moe", "lfm2_moe", "minimax", "mixtral",
          "nemotron_h", "olmoe", "qwen2_moe", "qwen3_moe", "qwen3_next"]
NAMES = {"w1": "gate_proj", "w3": "up_proj", "w2": "down_proj"}


def apart(tensors):
    """{name: tensor} with each stack's experts alone."""
    out = {}
    for name, tensor in tensors.items():
        under, _, last = name.removesuffix(".weight").rpartition(".")
        under = under.removesuffix(".experts") + ".experts."
        if tensor.ndim == 3 and last in ("gate_up_proj", "input_linear"):
            half = tensor.shape[1] // 2
            parts = {"gate_proj": tensor[:, :half], "up_proj": tensor[:, half:]}
        elif tensor.ndim == 3 and last in ("output_linear", "down_proj"):
            parts = {"down_proj": tensor}
        else:
            out[name] = tensor
            continue
        for part, stack in parts.items():
            for i in range(stack.shape[0]):
                out[f"{under}{i}.{part}.weight"] = mx.contiguous(stack[i])
    return out


def stacked(tensors):
    """The same with stacks, gate above up, of experts that are alone."""
    out, stacks = {}, {}
    for name, tensor in tensors.items():
        one = re.fullmatch(r"(.*\.experts\.)(\d+)\.(\w+)\.weight", name)
        if not one:
            out[name] = tensor
            continue
        parts = stacks.setdefault(one[1], {})
        parts.setdefault(NAMES.get(one[3], one[3]), {})[int(one[2])] = tensor
    for under, parts in stacks.items():
        whole = {name: mx.stack([part[i] for i in range(len(part))])
                 for name, part in parts.items()}
        if "gate_proj" in whole:
            out[under + "gate_up_proj"] = mx.concatenate(
                [whole["gate_proj"], whole["up_proj"]], axis=1)
        else:
            out[under + "up_proj"] = whole["up_proj"]
        out[under + "down_proj"] = whole["down_proj"]
    return out


def convert(folder, out):
    done = run("convert", "--model", folder, "--mlx-path", out, "-q",
               "--q-group-size", "32")
    assert done.returncode == 0, done.stderr
    return weights(out), "are not held as this family's" in done.stderr


@pytest.mark.parametrize("family, turn", [
    *((family, apart) for family in STACKS),
    *((family, stacked) for family in SINGLE if family in chosen(SINGLE))])
def test_either_layout(tmp_path, family, turn):
    folder = tmp_path / "model"
    write(folder, family, "bfloat16")
    plain, told = convert(folder, tmp_path / "plain")
    assert not told
    file = folder / "model.safetensors"
    tensors = turn(mx.load(str(file)))
    mx.eval(tensors)
    mx.save_safetensors(str(file), tensors, {"format": "pt"})
    turned, told = convert(folder, tmp_path / "turned")
    assert turned == plain
    assert told == (family != "qwen3_5_moe")  # which is published in both


def test_experts_of_several_types(tmp_path):
    """Some left as they were where others come from float16 packs: mlx-lm stacks
    them in the type that holds all."""
    folder = tmp_path / "model"
    write(folder, "qwen3_moe", "bfloat16")
    file = folder / "model.safetensors"
    tensors = {name: tensor.astype(mx.float16) if ".experts.3." in name
               else tensor for name, tensor in mx.load(str(file)).items()}
    mx.eval(tensors)
    mx.save_safetensors(str(file), tensors, {"format": "pt"})
    convert(folder, tmp_path / "ours")
    mlx_lm.convert(str(folder), str(tmp_path / "theirs"), quantize=True,
                   q_group_size=32)
    ours, theirs = (demo.load(tmp_path / name) for name in ("ours", "theirs"))
    assert sorted(ours) == sorted(theirs)
    for name, tensor in theirs.items():
        assert ours[name].dtype == tensor.dtype, name
        assert mx.array_equal(ours[name], tensor).item(), name
    walks.run("gptq", folder, tmp_path / "gptq", "--num-samples", 4,
              "--group-size", 32, "--fallback-group-size", 32)
