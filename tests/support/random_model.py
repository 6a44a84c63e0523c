"""Small random Llama checkpoints for tests, with the demo's tokenizer."""

import json
import shutil
from pathlib import Path

import mlx.core as mx

ROOT = Path(__file__).resolve().parents[2]
TOKENIZER = ["tokenizer.json", "tokenizer_config.json",
             "special_tokens_map.json", "generation_config.json"]

CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "vocab_size": 3072,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "max_position_embeddings": 256,
    "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
    "bos_token_id": 0,
    "eos_token_id": 0,
}


def shapes(config):
    """{name: shape} of all tensors that the config describes."""
    hidden = config["hidden_size"]
    wide = config["intermediate_size"]
    head = config["head_dim"]
    q = config["num_attention_heads"] * head
    kv = config["num_key_value_heads"] * head
    out = {"model.embed_tokens.weight": (config["vocab_size"], hidden),
           "model.norm.weight": (hidden,)}
    if not config["tie_word_embeddings"]:
        out["lm_head.weight"] = (config["vocab_size"], hidden)
    for i in range(config["num_hidden_layers"]):
        block = f"model.layers.{i}"
        out[f"{block}.input_layernorm.weight"] = (hidden,)
        out[f"{block}.post_attention_layernorm.weight"] = (hidden,)
        linears = {"self_attn.q_proj": (q, hidden),
                   "self_attn.k_proj": (kv, hidden),
                   "self_attn.v_proj": (kv, hidden),
                   "self_attn.o_proj": (hidden, q),
                   "mlp.gate_proj": (wide, hidden),
                   "mlp.up_proj": (wide, hidden),
                   "mlp.down_proj": (hidden, wide)}
        for name, shape in linears.items():
            out[f"{block}.{name}.weight"] = shape
            attention = name.startswith("self_attn")
            if config.get("attention_bias" if attention else "mlp_bias"):
                out[f"{block}.{name}.bias"] = shape[:1]
    return out


def write(folder, dtype=mx.bfloat16, seed=0, shards=1, extra=None, **changes):
    """Writes a checkpoint and returns its tensors. Several shards get an index;
    `extra` are tensors beside the model's own, `changes` keys of the config."""
    folder = Path(folder)
    folder.mkdir(parents=True)
    config = {k: v for k, v in (CONFIG | changes).items() if v is not None}
    (folder / "config.json").write_text(json.dumps(config, indent=2))
    for name in TOKENIZER:
        shutil.copy(ROOT / "assets/demo" / name, folder / name)
    mx.random.seed(seed)
    tensors = {}
    for name, shape in shapes(config).items():
        noise = mx.random.normal(shape)
        if len(shape) == 1:
            value = 1 + 0.1 * noise if "norm" in name else 0.1 * noise
        else:
            value = noise / shape[-1] ** 0.5
        tensors[name] = value.astype(dtype)
    tensors |= extra or {}
    mx.eval(tensors)
    save(folder, tensors, shards)
    return tensors


def save(folder, tensors, shards=1):
    metadata = {"format": "pt"}
    if shards == 1:
        mx.save_safetensors(
            str(folder / "model.safetensors"), tensors, metadata)
        return
    names = sorted(tensors)
    weight_map = {}
    for i in range(shards):
        file = f"model-{i + 1:05d}-of-{shards:05d}.safetensors"
        part = names[i::shards]
        mx.save_safetensors(
            str(folder / file), {n: tensors[n] for n in part}, metadata)
        weight_map |= {n: file for n in part}
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {}, "weight_map": weight_map}))


def load(folder):
    """All tensors of a folder, by mlx's own reader."""
    tensors = {}
    for file in sorted(Path(folder).glob("model*.safetensors")):
        tensors |= mx.load(str(file))
    return tensors
