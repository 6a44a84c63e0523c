"""mlx-lm's tensors back in the form in which the hub has them: experts one by
one, heads' matrices joined."""

import mlx.core as mx

EXPERTS = {
    "mixtral": ("block_sparse_moe", {"gate_proj": "w1", "up_proj": "w3",
                                     "down_proj": "w2"}),
}


def inside(weights):
    """The layout of a model of several modalities since transformers 4.52."""
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


def unstack(weights, config):
    family = config["model_type"]
    if family in ("gemma3", "mistral3"):
        return inside(weights)
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
    return {name: mx.contiguous(tensor) for name, tensor in out.items()}
