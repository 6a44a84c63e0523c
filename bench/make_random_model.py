"""Writes a random model of a published shape, for measurements of what a
model of that size takes.

    .venv/bin/python bench/make_random_model.py llama-3.1-8b OUT \\
        [--blocks 4] [--scale 16] [--tokenizer assets/demo] [--seed 0]

bfloat16 in shards of 5 GB in the Hugging Face layout, written a few megabytes
at a time. Weights are normal with the deviation that keeps activations of
order one; they come from one block of random numbers that each part of a
tensor reads from another place. `--scale` divides hidden size, MLP and
vocabulary, for tests. The tokenizer is another model's: its tokens are in the
vocabulary, which is all that a measurement asks for.
"""

import argparse
import json
import shutil
import struct
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
SIDE_FILES = ["tokenizer.json", "tokenizer_config.json",
              "special_tokens_map.json", "generation_config.json"]
SHARD = 5_000_000_000
CHUNK = 1 << 22  # values written at a time
BLOCK = CHUNK + 1_000_003  # random values, of which a chunk takes some

COMMON = {
    "hidden_act": "silu",
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "bos_token_id": 0,
    "eos_token_id": 0,
}
CONFIGS = {
    "llama-3.1-8b": {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "vocab_size": 128256,
        "rms_norm_eps": 1e-5,
        "rope_theta": 500000.0,
        "rope_scaling": {
            "factor": 8.0,
            "high_freq_factor": 4.0,
            "low_freq_factor": 1.0,
            "original_max_position_embeddings": 8192,
            "rope_type": "llama3",
        },
        "max_position_embeddings": 131072,
    },
    "qwen2.5-7b": {
        "architectures": ["Qwen2ForCausalLM"],
        "model_type": "qwen2",
        "hidden_size": 3584,
        "intermediate_size": 18944,
        "num_hidden_layers": 28,
        "num_attention_heads": 28,
        "num_key_value_heads": 4,
        "vocab_size": 152064,
        "rms_norm_eps": 1e-6,
        "rope_theta": 1000000.0,
        "max_position_embeddings": 32768,
        "use_sliding_window": False,
    },
    "qwen2.5-14b": {
        "architectures": ["Qwen2ForCausalLM"],
        "model_type": "qwen2",
        "hidden_size": 5120,
        "intermediate_size": 13824,
        "num_hidden_layers": 48,
        "num_attention_heads": 40,
        "num_key_value_heads": 8,
        "vocab_size": 152064,
        "rms_norm_eps": 1e-6,
        "rope_theta": 1000000.0,
        "max_position_embeddings": 32768,
        "use_sliding_window": False,
    },
    "qwen3-30b-a3b": {
        "architectures": ["Qwen3MoeForCausalLM"],
        "model_type": "qwen3_moe",
        "hidden_size": 2048,
        "intermediate_size": 6144,
        "moe_intermediate_size": 768,
        "num_experts": 128,
        "num_experts_per_tok": 8,
        "norm_topk_prob": True,
        "decoder_sparse_step": 1,
        "mlp_only_layers": [],
        "num_hidden_layers": 48,
        "num_attention_heads": 32,
        "num_key_value_heads": 4,
        "head_dim": 128,
        "vocab_size": 151936,
        "rms_norm_eps": 1e-6,
        "rope_theta": 1000000.0,
        "max_position_embeddings": 32768,
        "use_sliding_window": False,
    },
}


def make_config(name, blocks, scale):
    config = CONFIGS[name] | COMMON
    if blocks:
        config["num_hidden_layers"] = blocks
    for key in ("hidden_size", "intermediate_size", "moe_intermediate_size",
                "num_attention_heads", "num_key_value_heads", "vocab_size"):
        if key in config:
            least = 64 if key.endswith("_size") else 1
            config[key] = max(least, config[key] // scale // least * least)
    heads = config["num_attention_heads"]
    config["num_key_value_heads"] = next(
        n for n in range(config["num_key_value_heads"], heads + 1)
        if heads % n == 0)
    return config


def list_tensors(config):
    """name -> shape, in the order of the files."""
    hidden = config["hidden_size"]
    heads = config["num_attention_heads"]
    head = config.get("head_dim") or hidden // heads
    q, kv = heads * head, config["num_key_value_heads"] * head
    family = config["model_type"]
    shapes = {"model.embed_tokens.weight": (config["vocab_size"], hidden)}

    def mlp(path, wide):
        shapes[path + ".gate_proj.weight"] = (wide, hidden)
        shapes[path + ".up_proj.weight"] = (wide, hidden)
        shapes[path + ".down_proj.weight"] = (hidden, wide)

    for i in range(config["num_hidden_layers"]):
        block = f"model.layers.{i}."
        shapes[block + "input_layernorm.weight"] = (hidden,)
        for name, rows in {"q": q, "k": kv, "v": kv}.items():
            shapes[block + f"self_attn.{name}_proj.weight"] = (rows, hidden)
            if family == "qwen2":
                shapes[block + f"self_attn.{name}_proj.bias"] = (rows,)
        shapes[block + "self_attn.o_proj.weight"] = (hidden, q)
        if family == "qwen3_moe":
            shapes[block + "self_attn.q_norm.weight"] = (head,)
            shapes[block + "self_attn.k_norm.weight"] = (head,)
        shapes[block + "post_attention_layernorm.weight"] = (hidden,)
        if family != "qwen3_moe":
            mlp(block + "mlp", config["intermediate_size"])
            continue
        shapes[block + "mlp.gate.weight"] = (config["num_experts"], hidden)
        for e in range(config["num_experts"]):
            mlp(block + f"mlp.experts.{e}", config["moe_intermediate_size"])
    shapes["model.norm.weight"] = (hidden,)
    shapes["lm_head.weight"] = (config["vocab_size"], hidden)
    return shapes


class Numbers:
    """Random bfloat16, as bits, from one block of normal ones."""

    def __init__(self, seed):
        self.random = np.random.default_rng(seed)
        self.normal = self.random.standard_normal(BLOCK, dtype=np.float32)
        self.blocks = {}  # by deviation

    def block(self, deviation):
        if deviation not in self.blocks:
            bits = (self.normal * np.float32(deviation)).view(np.uint32)
            self.blocks[deviation] = (bits >> 16).astype(np.uint16)
        return self.blocks[deviation]

    def chunks(self, name, shape, blocks):
        count = int(np.prod(shape))
        if len(shape) == 1:
            values = self.normal[:count] * np.float32(0.05)
            values += 1.0 if name.endswith("norm.weight") else 0.0
            yield (values.view(np.uint32) >> 16).astype(np.uint16)
            return
        deviation = shape[1] ** -0.5
        if name.endswith(("o_proj.weight", "down_proj.weight")):
            deviation /= (2 * blocks) ** 0.5
        if name == "model.embed_tokens.weight":
            deviation = 1.0
        block = self.block(deviation)
        for begin in range(0, count, CHUNK):
            size = min(CHUNK, count - begin)
            at = int(self.random.integers(BLOCK - size + 1))
            yield block[at:at + size]


def split_shards(shapes):
    shards, room = [], 0
    for name, shape in shapes.items():
        size = 2 * int(np.prod(shape))
        if size > room:
            shards.append({})
            room = max(SHARD, size)
        shards[-1][name] = shape
        room -= size
    return shards


def write_shard(path, shapes, numbers, blocks):
    header, at = {"__metadata__": {"format": "pt"}}, 0
    for name, shape in shapes.items():
        end = at + 2 * int(np.prod(shape))
        header[name] = {
            "dtype": "BF16", "shape": shape, "data_offsets": [at, end]}
        at = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 64)
    with open(path, "wb", buffering=0) as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name, shape in shapes.items():
            for chunk in numbers.chunks(name, shape, blocks):
                file.write(memoryview(chunk).cast("B"))
    return at


def write(folder, config, tokenizer, seed):
    """Returns the bytes of all tensors."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config, indent=2))
    for name in SIDE_FILES:
        if (tokenizer / name).exists():
            shutil.copy(tokenizer / name, folder / name)
    shards = split_shards(list_tensors(config))
    numbers = Numbers(seed)
    total, places = 0, {}
    for i, shapes in enumerate(shards):
        name = f"model-{i + 1:05d}-of-{len(shards):05d}.safetensors"
        total += write_shard(
            folder / name, shapes, numbers, config["num_hidden_layers"])
        places |= dict.fromkeys(shapes, name)
    (folder / "model.safetensors.index.json").write_text(json.dumps(
        {"metadata": {"total_size": total}, "weight_map": places}))
    return total


def main():
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shape", choices=CONFIGS)
    parser.add_argument("out", type=Path)
    parser.add_argument("--blocks", type=int, default=0, help="0: all")
    parser.add_argument("--scale", type=int, default=1)
    parser.add_argument(
        "--tokenizer", type=Path, default=ROOT / "assets/demo",
        help="a folder to copy the tokenizer's files from")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    config = make_config(args.shape, args.blocks, args.scale)
    total = write(args.out, config, args.tokenizer, args.seed)
    print(f"{args.out}: {total / 1e9:.2f} GB of tensors")


if __name__ == "__main__":
    main()
