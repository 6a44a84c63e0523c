"""The part of hf_layout for families whose layers mix tokens by short convolutions
or state spaces."""

import mlx.core as mx


def turned(weights):
    """Puts the width of convolutions last."""
    return {name: tensor.swapaxes(1, 2)
            if name.endswith(("conv.weight", "conv1d.weight")) else tensor
            for name, tensor in weights.items()}


def apart(weights, names):
    """Splits stacks into experts one by one, with the hub's names of matrices."""
    out = {}
    for name, tensor in weights.items():
        if ".switch_mlp." not in name:
            out[name] = tensor
            continue
        for i in range(tensor.shape[0]):
            one = name.replace("switch_mlp", f"experts.{i}")
            for mlx_name, hub_name in names.items():
                one = one.replace(mlx_name, hub_name)
            out[one] = tensor[i]
    return out


LIQUID = {"gate_proj": "w1", "up_proj": "w3", "down_proj": "w2"}


def lfm2_moe(weights, config):
    out = {}
    for name, tensor in apart(weights, LIQUID).items():
        for mlx_name, hub_name in LIQUID.items():
            name = name.replace(f"feed_forward.{mlx_name}",
                                f"feed_forward.{hub_name}")
        out[name] = tensor
    return turned(out)


def falcon_h1(weights, config):
    """Puts the width of convolutions last. The multipliers, which mlx-lm folds into
    the hub's weights, are not undone: a test loads mlx-lm's model from this form."""
    return turned(weights)


def granitemoehybrid(weights, config):
    """Puts gate above up in one matrix."""
    out = {}
    experts = config.get("num_local_experts")
    for name, tensor in weights.items():
        hub = name.replace(".switch_mlp.", ".") if experts else name.replace(
            ".mlp.", ".shared_mlp.")
        if hub == name or ".shared_mlp." in name:
            out[name] = tensor
        elif ".gate_proj." in name:
            up = weights[name.replace("gate_proj", "up_proj")]
            out[hub.replace("gate_proj", "input_linear")] = mx.concatenate(
                [tensor, up], axis=-2)
        elif ".down_proj." in name:
            out[hub.replace("down_proj", "output_linear")] = tensor
    return turned(out)


def nemotron_h(weights, config):
    return turned(apart(weights, {"fc1": "up_proj", "fc2": "down_proj"}))


LAYOUTS = {
    "falcon_h1": falcon_h1,
    "granitemoehybrid": granitemoehybrid,
    "mamba2": lambda weights, config: turned(weights),
    "nemotron_h": nemotron_h,
    "lfm2": lambda weights, config: turned(weights),
    "lfm2_moe": lfm2_moe,
}
