"""Small models of published configurations, made by mlx-lm's own classes."""

import json
import shutil
from pathlib import Path

import random_model as demo
from hf_layout import unstack
from test_model_parity import random_model, save

HERE = Path(__file__).parent
# name, source (where a public copy of the file stands) and config, in which
# keys and values are the published ones.
PUBLISHED = [
    entry for file in ("published_configs.json", "published_dense.json")
    for entry in json.loads((HERE / file).read_text())]

HIDDEN, HEADS, PLAIN_HEAD, WIDE_HEAD = 64, 4, 16, 32
SIZES = {
    "hidden_size": HIDDEN, "intermediate_size": 128, "vocab_size": 3072,
    "num_attention_heads": HEADS, "moe_intermediate_size": 64,
    "shared_expert_intermediate_size": 64, "num_experts": 4,
    "num_local_experts": 4, "n_routed_experts": 4, "num_experts_per_tok": 2,
    "experts_per_token": 2, "kv_lora_rank": 32, "qk_nope_head_dim": 32,
    "qk_rope_head_dim": 16, "v_head_dim": 32, "qk_head_dim": 48,
    "linear_key_head_dim": 16, "linear_value_head_dim": 16,
    "linear_num_key_heads": 2, "linear_num_value_heads": 4,
    "query_pre_attn_scalar": 16, "rotary_dim": 8, "moe_num_experts": 4,
    "moe_k": 2, "kv_channels": PLAIN_HEAD, "block_dim": HIDDEN, "block_ff_dim": 128,
    "block_multiple_of": 32, "moe_shared_expert_intermediate_size": 64,
    "shared_intermediate_size": 128, "mamba_num_heads": 4,
    "mamba_head_dim": 16, "mamba_n_heads": 4, "mamba_d_head": 16,
    "mamba_d_ssm": 64, "mamba_d_state": 16, "ssm_state_size": 16,
    "n_groups": 2,
    "global_head_dim": 64,
    "num_global_key_value_heads": 1, "top_k_experts": 2,
    "hidden_size_per_layer_input": 32, "vocab_size_per_layer_input": 3072,
    "index_head_dim": 32, "index_n_heads": 2,
}
LISTS = ("layer_types", "layers_block_type", "hybrid_override_pattern",
         "no_rope_layers")


def layer_count(config):
    """Enough for each kind of layer."""
    for key in ("sliding_window_pattern", "_sliding_window_pattern",
                "full_attention_interval", "no_rope_layer_interval"):
        if config.get(key):
            return config[key]
    if config.get("full_attn_idxs"):
        return config["full_attn_idxs"][0] + 1
    types = next((config[key] for key in LISTS[:3] if config.get(key)), [])
    if len(set(types)) > 1:
        return max(types.index(kind) for kind in set(types)) + 1
    return {"gemma3_text": 6, "cohere2": 4}.get(config.get("model_type"), 2)


def scale_rope(scaling, dims):
    """Factors by dimension for heads of that many rotated dims."""
    if isinstance(scaling, dict):
        for key, value in scaling.items():
            if isinstance(value, dict):
                scale_rope(value, dims)
            elif key in ("short_factor", "long_factor"):
                scaling[key] = value[:dims // 2]


def scaled(config):
    """The same keys with sizes for a model of a moment."""
    config = json.loads(json.dumps(config))
    if "text_config" in config:
        inner = config["text_config"]
        config["text_config"] = scaled(inner)
        if "vocab_size" in config:
            config["vocab_size"] = SIZES["vocab_size"]
        return config
    if config.get("model_type") == "llama":  # in LLaVA's they are left out
        config.setdefault("intermediate_size", SIZES["intermediate_size"])
        config.setdefault("num_attention_heads", HEADS)
        config.setdefault("hidden_size", HIDDEN)
    heads = config.get("num_attention_heads")
    kv = config.get("num_key_value_heads")
    wide = bool(config.get("head_dim")) and (
        not heads or config["head_dim"] * heads != config["hidden_size"])
    head_dim = WIDE_HEAD if wide else PLAIN_HEAD
    layers = layer_count(config)
    if config.get("num_kv_shared_layers"):
        config["num_kv_shared_layers"] = layers
        layers *= 2
    part = config.get("partial_rotary_factor") or 1
    for key in ("rope_scaling", "rope_parameters"):
        inner = config.get(key)
        if isinstance(inner, dict):
            part = inner.get("partial_rotary_factor") or part
        scale_rope(inner, int(head_dim * part))
    for key in config.keys() & SIZES.keys():
        if config[key]:
            config[key] = SIZES[key]
    config["vocab_size"] = SIZES["vocab_size"]
    config["num_hidden_layers"] = layers
    config["hidden_size"] = HIDDEN
    if heads:
        config["num_attention_heads"] = HEADS
        if kv:
            config["num_key_value_heads"] = max(1, HEADS * kv // heads)
    if config.get("head_dim"):
        config["head_dim"] = head_dim
    if config.get("q_lora_rank"):
        config["q_lora_rank"] = 32
    if config.get("first_k_dense_replace"):
        config["first_k_dense_replace"] = 1
    if (config.get("n_group") or 1) > 1:
        config["n_group"], config["topk_group"] = 2, 1
    if config.get("full_attn_idxs"):
        config["full_attn_idxs"] = [layers - 1]
    for key in LISTS:
        if config.get(key):
            config[key] = config[key][:layers]
    if config.get("eos_token_id") is not None:
        config["eos_token_id"] = config["bos_token_id"] = 0
    return config


READ_PARAMETERS = ("gemma4_text", "glm_moe_dsa", "qwen3", "ministral3", "qwen3_5_text", "qwen3_5_moe_text",
                   "qwen3_5", "qwen3_5_moe")


def in_class_spelling(config):
    """What mlx-lm's class is to read: the keys that transformers 5 spells
    otherwise as transformers 4 does, by code of its own."""
    config = json.loads(json.dumps(config))
    for key in ("quantization", "quantization_config"):
        config.pop(key, None)
    if "text_config" in config:
        config["text_config"] = in_class_spelling(config["text_config"])
        if config["model_type"] == "gemma4":
            config.setdefault(
                "vocab_size", config["text_config"]["vocab_size"])
        if config["model_type"].startswith("qwen"):
            config["text_config"].setdefault(
                "tie_word_embeddings", config.get("tie_word_embeddings"))
        return config
    for a, b in (("num_experts", "num_local_experts"),):
        if config.get("model_type") == "qwen3_moe" and a not in config:
            config[a] = config[b]
    if "global_head_dim" in config:
        return config
    if "_sliding_window_pattern" in config:
        config.setdefault("sliding_window_pattern",
                          config["_sliding_window_pattern"])
    types = config.get("layer_types")
    if config["model_type"] in ("gemma3_text", "cohere2") and types:
        config.setdefault("sliding_window_pattern",
                          types.index("full_attention") + 1)
    if config["model_type"] == "glm4_moe":
        config.setdefault("rope_scaling", None)
    if config["model_type"] == "qwen3_next" and types:
        config.setdefault("full_attention_interval",
                          types.index("full_attention") + 1)
    if config["model_type"] == "olmoe":
        config.setdefault("rms_norm_eps", 1e-5)  # transformers' default
    rope = config.get("rope_parameters")
    if not rope or config["model_type"] in READ_PARAMETERS:
        return config
    if "full_attention" in rope:
        config["rope_local_base_freq"] = rope["sliding_attention"]["rope_theta"]
        rope = rope["full_attention"]
    config.setdefault("rope_theta", rope["rope_theta"])
    if "partial_rotary_factor" in rope:
        config.setdefault(
            "partial_rotary_factor", rope["partial_rotary_factor"])
    if rope.get("rope_type", "default") != "default":
        config.setdefault("rope_scaling", rope)
    return config


def type_of(config):
    named = (config.get("torch_dtype"),
             config.get("text_config", {}).get("dtype"), config.get("dtype"))
    return next((name for name in named if name), "bfloat16")


def write(folder, published):
    """The model in the hub's layout beside its published config. Returns
    mlx-lm's model of it and the small config."""
    config = scaled(published)
    model = random_model(in_class_spelling(config))
    # To which convert casts: so the unquantized output is exactly the model.
    model.set_dtype(getattr(demo.mx, type_of(config)))
    folder.mkdir(parents=True)
    save(folder, model, config, layout=unstack)
    for name in demo.TOKENIZER:
        shutil.copy(demo.ROOT / "assets/demo" / name, folder / name)
    if config["model_type"].startswith(("qwen3_5", "qwen3_next")):
        # The hub's norms lack a 1, and adding it rounds: the model is what
        # mlx-lm makes of the stored ones.
        model.load_weights(list(model.sanitize(
            demo.load(folder)).items()))
    return model, config
