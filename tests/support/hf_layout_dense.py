"""The part of hf_layout for families with names of their own."""

import mlx.core as mx

W = {"gate_proj": "w1", "up_proj": "w3", "down_proj": "w2"}


def split_experts(weights, stack="mlp.switch_mlp", to="mlp.experts", names={}):
    """Splits stacks into experts one by one."""
    out = {}
    for name, tensor in weights.items():
        if f".{stack}." not in name:
            out[name] = tensor
            continue
        for i in range(tensor.shape[0]):
            one = name.replace(stack, f"{to}.{i}")
            for mlx_name, hub_name in names.items():
                one = one.replace(mlx_name, hub_name)
            out[one] = tensor[i]
    return out


def renamed(weights, *pairs):
    out = {}
    for name, tensor in weights.items():
        for ours, theirs in pairs:
            name = name.replace(ours, theirs)
        out[name] = tensor
    return out


def join_gates(weights):
    """Puts gate above up in one tensor of all experts."""
    out = {}
    for name, tensor in weights.items():
        path, _, rest = name.partition("switch_mlp.")
        if rest == "gate_proj.weight":
            up = weights[f"{path}switch_mlp.up_proj.weight"]
            out[f"{path}input_linear.weight"] = mx.concatenate(
                [tensor, up], axis=1)
        elif rest == "down_proj.weight":
            out[f"{path}output_linear.weight"] = tensor
        elif rest != "up_proj.weight":
            out[name] = tensor
    return out


def raw_alphas(weights):
    """Makes vectors of one entry of the activation's two scalars."""
    return {name: tensor.reshape(1) if "act_fn.alpha" in name else tensor
            for name, tensor in weights.items()}


LAYOUTS = {
    "afmoe": lambda w: split_experts(w, "mlp.experts"),
    "apertus": raw_alphas,
    "bailing_moe": lambda w: renamed(
        split_experts(w), (".gate.gate_proj.", ".gate.")),
    "dots1": lambda w: split_experts(w, "mlp.experts"),
    "exaone_moe": lambda w: renamed(
        split_experts(w), (".gate.e_score", ".e_score")),
    "gptj": lambda w: renamed(w, ("model.", "transformer.")),
    "gpt_neox": lambda w: renamed(
        w, ("model.h.", "gpt_neox.layers."), ("model.embed_out", "embed_out"),
        ("model.", "gpt_neox.")),
    "granitemoe": join_gates,
    "laguna": lambda w: renamed(
        split_experts(w), (".gate.proj.", ".gate."),
        (".gate.e_score", ".experts.e_score")),
    "minimax": lambda w: split_experts(
        w, "block_sparse_moe.switch_mlp", "block_sparse_moe.experts", W),
}
LAYOUTS["phimoe"] = LAYOUTS["minimax"]
LAYOUTS["minimax_m2"] = LAYOUTS["minimax"]
