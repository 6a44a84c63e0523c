"""Turns tensors in mlx-lm's form into the form that the hub has: experts one by one,
heads' matrices joined."""

import mlx.core as mx
from hf_layout_dense import LAYOUTS

import hf_layout_mixers

EXPERTS = {
    "mixtral": ("block_sparse_moe", {"gate_proj": "w1", "up_proj": "w3",
                                     "down_proj": "w2"}),
}


def inside(weights):
    """The names in a model of several modalities since transformers 4.52."""
    out = {}
    for name, tensor in weights.items():
        if name.startswith("language_model.model."):
            name = "model." + name.replace(".model.", ".", 1)
        elif name.startswith("language_model."):
            name = name.removeprefix("language_model.")
        else:
            name = "model." + name
        out[name] = tensor
    return out


NORMS = ("input_layernorm.weight", "post_attention_layernorm.weight",
         "model.norm.weight", "q_norm.weight", "k_norm.weight")


def raw_delta(weights):
    """Takes 1 from the norms, and puts the width of convolutions last."""
    out = {}
    for name, tensor in weights.items():
        if name.endswith("conv1d.weight"):
            tensor = tensor.swapaxes(1, 2)
        elif name.endswith(NORMS):
            tensor = tensor - 1
        out[name] = tensor
    return out


def fuse_experts(weights):
    """Puts gate above up in one stack of all experts."""
    out = {}
    for name, tensor in weights.items():
        if ".switch_mlp.gate_proj" in name:
            up = weights[name.replace("gate_proj", "up_proj")]
            path = name.split("switch_mlp")[0] + "experts."
            out[path + "gate_up_proj"] = mx.concatenate([tensor, up], axis=1)
        elif ".switch_mlp.down_proj" in name:
            path = name.split("switch_mlp")[0] + "experts."
            out[path + "down_proj"] = tensor
        elif ".switch_mlp." not in name:
            out[name] = tensor
    return out


def turn_experts(weights):
    """Transposes the experts' stacks, which are then multiplied from the right."""
    return {name: tensor.swapaxes(1, 2) if ".mlp.experts." in name else tensor
            for name, tensor in fuse_experts(weights).items()}


def gemma4(weights, config):
    """Puts experts' gate above up, and adds tensors that no layer reads: norms of
    keys, and ranges of activations."""
    out = {}
    for name, tensor in weights.items():
        path = name.split("switch_glu")[0]
        if ".switch_glu.gate_proj" in name:
            up = weights[name.replace("gate_proj", "up_proj")]
            out[path + "gate_up_proj"] = mx.concatenate([tensor, up], axis=1)
        elif ".switch_glu.down_proj" in name:
            out[path + "down_proj"] = tensor
        elif ".switch_glu." not in name:
            out[name] = tensor
    text = config.get("text_config", config)
    for i in range(text["num_hidden_layers"]):
        path = f"model.layers.{i}.self_attn."
        for name in [n for n in out if n.endswith(path + "q_norm.weight")]:
            unread = name.replace("q_norm", "k_norm")
            out.setdefault(unread, mx.zeros(out[name].shape))
        for name in [n for n in out if n.endswith(path + "q_proj.weight")]:
            out[name.replace("weight", "output_max")] = mx.zeros((1,))
    return out


def alone(weights):
    """The names of a language model alone."""
    return {name.removeprefix("language_model."): tensor
            for name, tensor in weights.items()}


def pack_experts(weights, config):
    """The hub's form of gpt_oss: blocks of mxfp4, with the rows of gate and up in
    turn."""
    out = {}
    for name, tensor in weights.items():
        if ".experts." not in name:
            out[name] = tensor.astype(mx.bfloat16)
    for layer in range(config["num_hidden_layers"]):
        path = f"model.layers.{layer}.mlp.experts"

        def take(name, path=path):
            words, scales = mx.quantize(
                weights[f"{path}.{name}.weight"], mode="mxfp4", group_size=32,
                bits=4)
            blocks = words.view(mx.uint8)
            blocks = blocks.reshape(*scales.shape, 16)
            return blocks, scales, weights[f"{path}.{name}.bias"]

        def in_turn(a, b, axis):
            both = mx.stack([a, b], axis=axis + 1)
            return mx.flatten(both, axis, axis + 1)

        gate, up, down = map(take, ("gate_proj", "up_proj", "down_proj"))
        for name, (blocks, scales, bias) in {
            "gate_up_proj": [in_turn(a, b, 1) for a, b in zip(gate, up)],
            "down_proj": down,
        }.items():
            out[f"{path}.{name}_blocks"] = blocks
            out[f"{path}.{name}_scales"] = scales
            out[f"{path}.{name}_bias"] = bias.astype(mx.bfloat16)
    return out


def unstack(weights, config):
    """The tensors of any family in the hub's form."""
    family = config["model_type"]
    if family in LAYOUTS:
        weights = LAYOUTS[family](weights)
        return {name: mx.contiguous(t) for name, t in weights.items()}
    if family in ("gemma4", "gemma4_text"):
        weights = gemma4(weights, config)
        weights = inside(weights) if family == "gemma4" else weights
        return {name: mx.contiguous(t) for name, t in weights.items()}
    if family in ("qwen2_vl", "qwen2_5_vl") and "text_config" not in config:
        return alone(weights)
    if family in ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_vl_moe"):
        weights = inside(turn_experts(weights))
        return {name: mx.contiguous(t) for name, t in weights.items()}
    if family in hf_layout_mixers.LAYOUTS:
        weights = hf_layout_mixers.LAYOUTS[family](weights, config)
        return {name: mx.contiguous(t) for name, t in weights.items()}
    if family in ("qwen3_5", "qwen3_5_moe"):
        weights = inside(fuse_experts(raw_delta(weights)))
        return {name: mx.contiguous(t) for name, t in weights.items()}
    if family == "qwen3_next":
        weights = raw_delta(weights)
    block, names = EXPERTS.get(family, ("mlp", {}))
    out = {}
    for name, tensor in weights.items():
        if f"{block}.switch_mlp." in name:
            for i in range(tensor.shape[0]):
                one = name.replace("switch_mlp", f"experts.{i}")
                for mlx_name, hub_name in names.items():
                    one = one.replace(mlx_name, hub_name)
                out[one] = tensor[i]
        elif name.endswith(".embed_q.weight"):
            path = name.removesuffix("embed_q.weight")
            keys = tensor.swapaxes(-1, -2)
            values = weights[path + "unembed_out.weight"]
            joined = mx.concatenate([keys, values], axis=1)
            out[path + "kv_b_proj.weight"] = joined.flatten(0, 1)
        elif not name.endswith(".unembed_out.weight"):
            out[name] = tensor
    if family in ("gemma3", "mistral3"):
        out = inside(out)
    return {name: mx.contiguous(tensor) for name, tensor in out.items()}
