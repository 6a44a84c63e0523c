"""Mixtures of experts of which some get no token."""

import json
import shutil
import sys
from pathlib import Path

import pytest

mx = pytest.importorskip("mlx.core")
mlx_lm_utils = pytest.importorskip("mlx_lm.utils")

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/support"))
sys.path.insert(0, str(Path(__file__).parent))
import random_model as demo  # noqa: E402
import walks  # noqa: E402
from hf_layout import pack_experts, unstack  # noqa: E402
from test_model_parity import (  # noqa: E402, F401
    DEEPSEEK_V2, GPT_OSS, MIXTRAL, QWEN3_MOE, distance, make_config,
    make_tokens, probe, random_model, run_probe, save, their_logits)
from walks import mpirun  # noqa: E402, F401

COUNT = 16
UNCHOSEN = [3, 8, 15]
SHAPES = {
    "deepseek_v2": DEEPSEEK_V2 | {
        "n_routed_experts": COUNT, "num_experts_per_tok": 2,
        "topk_method": "greedy", "moe_intermediate_size": 64},
    "mixtral": MIXTRAL | {"num_local_experts": COUNT},
    "qwen3_moe": QWEN3_MOE | {
        "num_experts": COUNT, "num_experts_per_tok": 2,
        "moe_intermediate_size": 64, "head_dim": 32},
}
WIDTHS = {"hidden_size": 128, "intermediate_size": 64, "vocab_size": 3072}
FLAGS = ["--num-samples", 48, "--group-size", 32, "--gate-every", 1]


def clusters(width, seed=0):
    """Centers [COUNT, width] and for each the channels in which its tokens
    differ most: experts see different tokens, as they do in a trained
    model."""
    mx.random.seed(seed)
    centers = mx.random.normal((COUNT, width))
    channel = mx.arange(width)[None]
    own = channel // (width // COUNT) == mx.arange(COUNT)[:, None]
    return centers, mx.where(own, 3.0, 0.3)


def write(folder, family):
    """The routers' rows are the clusters' centers, but that some turn away
    from a channel that all tokens have in common."""
    config = make_config(family, WIDTHS | SHAPES[family])
    model = random_model(config)
    table = model.model.embed_tokens
    rows, width = table.weight.shape
    centers, spread = clusters(width)
    chosen = mx.arange(rows) % COUNT
    common = mx.arange(width) == 0
    table.weight = mx.where(
        common, 6.0, 0.7 * centers[chosen] + spread[chosen] * table.weight)
    for layer in model.layers:
        layer.self_attn.o_proj.weight *= 0.2
        layer.self_attn.o_proj.weight[0] = 0  # the channel stays as it is
        moe = getattr(layer, "block_sparse_moe", layer.mlp
                      if hasattr(layer, "mlp") else None)
        if not hasattr(moe, "switch_mlp"):
            moe.down_proj.weight *= 0.2
            moe.down_proj.weight[0] = 0
            continue
        if hasattr(moe, "shared_experts"):
            moe.shared_experts.down_proj.weight *= 0.2
            moe.shared_experts.down_proj.weight[0] = 0
        moe.switch_mlp.down_proj.weight[:, 0] = 0
        gate = moe.gate
        gate.weight = mx.where(common, 0.0, centers / width**0.5)
        for expert in UNCHOSEN:
            gate.weight[expert] = mx.where(common, -100.0, 0.0)
    model.set_dtype(mx.bfloat16)
    folder.mkdir()
    save(folder, model, config | {"torch_dtype": "bfloat16"}, layout=unstack)
    for name in demo.TOKENIZER:
        shutil.copy(ROOT / "assets/demo" / name, folder / name)


def blocks_with_experts(report):
    return [block for block in report["blocks"] if "experts" in block]


@pytest.mark.parametrize("family", SHAPES)
def test_experts_without_tokens(tmp_path, family):
    write(tmp_path / "model", family)
    report = walks.run(
        "gptq", tmp_path / "model", tmp_path / "own", *FLAGS)
    blocks = blocks_with_experts(report)
    assert len(blocks) == (2 if family == "mixtral" else 1)
    for block in blocks:
        counts = block["experts"]["tokens"]
        assert [i for i, n in enumerate(counts) if n == 0] == UNCHOSEN
        assert sum(counts) == 2 * report["tokens"]
        assert block["experts"]["unchosen"] == len(UNCHOSEN)
        assert any("(3, 8, 15) were chosen by no token" in text
                   for text in block["warnings"])
    # They are there and loaded by stock mlx-lm.
    model, _ = mlx_lm_utils.load(str(tmp_path / "own"))
    logits = model(mx.array([[1, 2, 3, 4]]))
    assert mx.isfinite(logits).all().item()

    together = walks.run(
        "gptq", tmp_path / "model", tmp_path / "together", *FLAGS,
        "--no-expert-hessians")
    def error(report):
        # Of the first block that has experts: what it reads is the same.
        return blocks_with_experts(report)[0]["held_out_error"]["all"]

    assert error(report) < 0.9 * error(together)


def test_routers_keep_eight_bits(tmp_path):
    write(tmp_path / "model", "mixtral")
    for method in ("gptq", "awq"):
        out = tmp_path / method
        walks.run(method, tmp_path / "model", out, "--num-samples", 12,
                  "--group-size", 32)
        quantization = json.loads(
            (out / "config.json").read_text())["quantization"]
        gate = quantization["model.layers.0.block_sparse_moe.gate"]
        assert gate["bits"] == 8 and gate["group_size"] == 64
        assert quantization["bits"] == 4


def test_awq_of_experts_without_tokens(tmp_path):
    write(tmp_path / "model", "qwen3_moe")
    report = walks.run(
        "awq", tmp_path / "model", tmp_path / "out", "--num-samples", 12,
        "--group-size", 32, "--n-grid", 6)
    assert blocks_with_experts(report)[0]["experts"]["unchosen"] == 3
    model, _ = mlx_lm_utils.load(str(tmp_path / "out"))
    logits = model(mx.array([[1, 2, 3, 4]]))
    assert mx.isfinite(logits).all().item()


def test_published_mxfp4(probe, tmp_path):  # noqa: F811
    folder = tmp_path / "model"
    folder.mkdir()
    config = make_config("gpt_oss", WIDTHS | GPT_OSS | {
        "torch_dtype": "bfloat16",
        "quantization_config": {"quant_method": "mxfp4"}})
    save(folder, random_model(config), config, layout=pack_experts)
    for name in demo.TOKENIZER:
        shutil.copy(ROOT / "assets/demo" / name, folder / name)

    def check(out):
        model, loaded = mlx_lm_utils.load_model(out)
        model.set_dtype(mx.float32)
        tokens = make_tokens(config, 2, 40)
        ours, _ = run_probe(probe, out, tokens, dtype="float32")
        assert distance(ours, their_logits(model, tokens)) < 1e-4
        return loaded["quantization"]

    check(folder)
    before = demo.load(folder)
    for method in ("convert", "gptq", "awq"):
        out = tmp_path / method
        if method == "convert":
            walks.convert(folder, out, "-q", "--q-bits", 4,
                          "--q-group-size", 32)
        else:
            walks.run(method, folder, out, "--num-samples", 12,
                      "--group-size", 32)
        quantization = check(out)
        expert = "model.layers.0.mlp.experts.up_proj"
        assert quantization[expert]["mode"] == "mxfp4"
        assert quantization["mode"] == "affine"
        # Bit by bit as it was published.
        scales = demo.load(out)[expert + ".scales"]
        source = before["model.layers.0.mlp.experts.gate_up_proj_scales"]
        assert mx.array_equal(scales, source[:, 1::2]).item()


def test_experts_of_two_processes(tmp_path, mpirun):  # noqa: F811
    """Tokens are counted, and Hessians summed, over both."""
    write(tmp_path / "model", "mixtral")
    one = walks.run("gptq", tmp_path / "model", tmp_path / "one", *FLAGS)
    two = walks.run("gptq", tmp_path / "model", tmp_path / "two", *FLAGS,
                    launcher=mpirun)
    assert two["processes"] == 2
    first, other = (blocks_with_experts(r)[0] for r in (one, two))
    assert sum(other["experts"]["tokens"]) == sum(first["experts"]["tokens"])
    assert other["experts"]["unchosen"] == len(UNCHOSEN)
    # What the first block reads is the same but for the order of sums: so are
    # its Hessians, which these losses are of. A scale or code of a few groups
    # may fall otherwise, which moves them by less than a hundredth, and may
    # choose another expert for a few tokens. Without the other process's part
    # of the sums the losses would be those of half the text.
    half = walks.run("gptq", tmp_path / "model", tmp_path / "half", *FLAGS[2:],
                     "--num-samples", 24)
    half = blocks_with_experts(half)[0]
    for name, module in first["modules"].items():
        if "self_attn" in name:
            loss, summed, part = (b["modules"][name]["loss_nearest"]
                                  for b in (first, other, half))
            assert summed == pytest.approx(loss, rel=0.01)
            assert part < 0.7 * loss
    nearest, error = ([b["held_out_error"][name] for b in (first, other)]
                      for name in ("round to nearest", "all"))
    assert nearest[1] == pytest.approx(nearest[0], rel=1e-4)
    assert max(error) < 0.4 * nearest[0]
    for count, same in zip(first["experts"]["tokens"],
                           other["experts"]["tokens"]):
        assert abs(count - same) <= 0.02 * max(count, same)


def test_damaged_stacks(tmp_path):
    """A missing expert, one of another shape, more of them than anyone has:
    one line that names it, and no output."""
    write(tmp_path / "model", "mixtral")
    file = tmp_path / "model/model.safetensors"
    tensors = mx.load(str(file))
    name = "model.layers.1.block_sparse_moe.experts.5.w3.weight"

    def refused(code, *words):
        error = walks.run(
            "gptq", tmp_path / "model", tmp_path / "out", code=code)
        assert all(word in error for word in words), error
        assert error.count("error:") == 1
        assert not (tmp_path / "out").exists()

    whole = tensors.pop(name)
    mx.save_safetensors(str(file), tensors)
    refused(4, name, "missing")
    mx.save_safetensors(str(file), tensors | {name: whole[:3]})
    refused(4, name, "shape")
    mx.save_safetensors(str(file), tensors | {name: whole * float("nan")})
    refused(7, "block_sparse_moe.switch_mlp.up_proj.5")
    mx.save_safetensors(str(file), tensors | {name: whole})
    config = json.loads((tmp_path / "model/config.json").read_text())
    for count in (10**9, 4000):
        (tmp_path / "model/config.json").write_text(json.dumps(
            config | {"num_local_experts": count,
                      "num_hidden_layers": 4000}))
        refused(4, "num_local_experts")


def test_an_expert_that_cannot_be_rounded_is_named(tmp_path):
    """The error leaves the threads that round experts side by side."""
    write(tmp_path / "model", "mixtral")
    file = tmp_path / "model/model.safetensors"
    weights = mx.load(str(file))
    bad = UNCHOSEN[0]
    name = f"model.layers.0.block_sparse_moe.experts.{bad}.w3.weight"
    weights[name][0, :2] = mx.array([3e38, -3e38])
    mx.save_safetensors(str(file), weights)
    said = walks.run("gptq", tmp_path / "model", tmp_path / "out", *FLAGS,
                     code=7)
    assert said.count("error:") == 1
    assert f"block_sparse_moe.switch_mlp.up_proj.{bad}" in said
    assert not (tmp_path / "out").exists()
