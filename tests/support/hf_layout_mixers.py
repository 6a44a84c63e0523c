"""mlx-lm's tensors back in the form of the hub, for families whose layers mix
tokens by short convolutions or state spaces."""


def turned(weights):
    """Convolutions with their width last."""
    return {name: tensor.swapaxes(1, 2)
            if name.endswith(("conv.weight", "conv1d.weight")) else tensor
            for name, tensor in weights.items()}


def apart(weights, names):
    """Experts one by one, by the hub's names of their matrices."""
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


LAYOUTS = {
    "lfm2": lambda weights, config: turned(weights),
    "lfm2_moe": lfm2_moe,
}
