"""Published models by their shapes, and folders of a block or two of them with
random weights: what bench/shapes_bench.py measures."""

import json
import shutil
import struct
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
COMMON = {"rms_norm_eps": 1e-6, "rope_theta": 10000.0,
          "max_position_embeddings": 32768, "torch_dtype": "bfloat16",
          "tie_word_embeddings": False, "num_hidden_layers": 1,
          "hidden_act": "silu", "attention_bias": False}


def sizes(kind, hidden, mlp, heads, kv_heads, head_dim, vocab, **more):
    config = COMMON | {
        "model_type": kind, "hidden_size": hidden, "intermediate_size": mlp,
        "num_attention_heads": heads, "num_key_value_heads": kv_heads,
        "vocab_size": vocab} | more
    return config | ({"head_dim": head_dim} if head_dim else {})


def gemma(hidden, mlp, heads, kv_heads, head_dim, window, vocab=262144,
          query=None):
    """One block with a window and one without."""
    return sizes(
        "gemma3_text", hidden, mlp, heads, kv_heads, head_dim, vocab,
        num_hidden_layers=2, sliding_window_pattern=2, sliding_window=window,
        query_pre_attn_scalar=query or head_dim, tie_word_embeddings=True,
        rope_local_base_freq=10000.0, hidden_activation="gelu_pytorch_tanh")


QWEN_NEXT = {
    "num_hidden_layers": 2, "full_attention_interval": 2,
    "linear_num_value_heads": 32, "linear_num_key_heads": 16,
    "linear_key_head_dim": 128, "linear_value_head_dim": 128,
    "linear_conv_kernel_dim": 4, "num_experts": 512, "num_experts_per_tok": 10,
    "decoder_sparse_step": 1, "shared_expert_intermediate_size": 512,
    "mlp_only_layers": [], "moe_intermediate_size": 512,
    "partial_rotary_factor": 0.25, "norm_topk_prob": True}

# A scan and an attention; blocks of experts are like other models'.
NEMOTRON_NANO = {
    "hybrid_override_pattern": "M*", "num_hidden_layers": 2,
    "layer_norm_epsilon": 1e-5, "mamba_num_heads": 64, "mamba_head_dim": 64,
    "mamba_proj_bias": False, "ssm_state_size": 128, "conv_kernel": 4,
    "n_groups": 8, "mlp_bias": False, "use_bias": False,
    "use_conv_bias": True}

# From the models' published config.json; of the blocks, the kinds that there
# are.
MODELS = {
    "SmolLM2-135M": sizes(
        "llama", 576, 1536, 9, 3, 64, 49152, tie_word_embeddings=True),
    "Gemma-3-270M": gemma(640, 2048, 4, 1, 256, 512),
    "Gemma-3-4B": gemma(2560, 10240, 8, 4, 256, 1024),
    "Gemma-3-27B": gemma(5376, 21504, 32, 16, 128, 1024, query=168),
    "Qwen3-0.6B": sizes(
        "qwen3", 1024, 3072, 16, 8, 128, 151936, tie_word_embeddings=True),
    "Qwen3-8B": sizes("qwen3", 4096, 12288, 32, 8, 128, 151936),
    "Qwen2.5-1.5B": sizes(
        "qwen2", 1536, 8960, 12, 2, 128, 151936, tie_word_embeddings=True),
    "Llama-3.2-1B": sizes(
        "llama", 2048, 8192, 32, 8, 64, 128256, tie_word_embeddings=True),
    "Llama-3.1-8B": sizes("llama", 4096, 14336, 32, 8, 128, 128256),
    "Phi-4-mini": sizes(
        "phi3", 3072, 8192, 24, 8, 128, 200064, tie_word_embeddings=True,
        partial_rotary_factor=0.75,
        original_max_position_embeddings=4096),
    "Mistral-7B": sizes("mistral", 4096, 14336, 32, 8, 128, 32768),
    "Qwen3-30B-A3B": sizes(
        "qwen3_moe", 2048, 6144, 32, 4, 128, 151936, num_experts=128,
        num_experts_per_tok=8, moe_intermediate_size=768,
        decoder_sparse_step=1, mlp_only_layers=[], norm_topk_prob=True),
    "gpt-oss-20b": sizes(
        "gpt_oss", 2880, 2880, 64, 8, 64, 201088, num_hidden_layers=2,
        num_local_experts=32, num_experts_per_tok=4, sliding_window=128,
        layer_types=["sliding_attention", "full_attention"],
        rope_theta=150000),
    "DeepSeek-V2-Lite": sizes(
        "deepseek_v2", 2048, 10944, 16, 16, None, 102400,
        moe_intermediate_size=1408, n_shared_experts=2, n_routed_experts=64,
        num_experts_per_tok=6, first_k_dense_replace=0, moe_layer_freq=1,
        kv_lora_rank=512, q_lora_rank=None, qk_rope_head_dim=64,
        qk_nope_head_dim=128, v_head_dim=128, routed_scaling_factor=1.0,
        n_group=1, topk_group=1, topk_method="greedy", scoring_func="softmax",
        norm_topk_prob=False,
        rope_scaling={
            "type": "yarn", "factor": 40, "beta_fast": 32, "beta_slow": 1,
            "original_max_position_embeddings": 4096, "mscale": 0.707,
            "mscale_all_dim": 0.707}),
    "GLM-4.5-Air": sizes(
        "glm4_moe", 4096, 10944, 96, 8, 128, 151552,
        moe_intermediate_size=1408, n_routed_experts=128, n_shared_experts=1,
        num_experts_per_tok=8, first_k_dense_replace=0, n_group=1,
        topk_group=1, norm_topk_prob=True, routed_scaling_factor=1.0,
        rope_scaling=None, partial_rotary_factor=0.5, use_qk_norm=False, attention_bias=True,
        scoring_func="sigmoid", topk_method="noaux_tc",
        max_position_embeddings=131072),
    "Nemotron-3-Nano": sizes(
        "nemotron_h", 2688, 1856, 32, 2, 128, 131072, **NEMOTRON_NANO),
    "Qwen3-Next": sizes(
        "qwen3_next", 2048, 5120, 16, 2, 256, 151936, **QWEN_NEXT),
}


def shapes_of(config):
    """name -> shape of each parameter, by mlx-lm's class; nothing is made."""
    from mlx.utils import tree_flatten
    from mlx_lm.utils import _get_classes

    model_class, args_class = _get_classes(config)
    model = model_class(args_class.from_dict(config))
    return {name: tuple(x.shape) for name, x in
            tree_flatten(model.parameters())}


def values(name, count, noise):
    """bfloat16 bits of a parameter of `count` values."""
    if "norm" in name:
        return np.full(count, 0x3F80, np.uint16)
    return np.resize(noise, count)


def write(folder, config):
    """A checkpoint of random weights in bfloat16, one tensor in memory at a
    time."""
    folder = Path(folder)
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config))
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(ROOT / "assets/demo" / name, folder / name)
    generator = np.random.default_rng(0)
    noise = generator.standard_normal(1 << 22).astype(np.float32) * 0.02
    noise = (noise.view(np.uint32) >> 16).astype(np.uint16)
    header, at = {}, 0
    shapes = shapes_of(config)
    for name, shape in shapes.items():
        size = 2 * int(np.prod(shape))
        header[name] = {"dtype": "BF16", "shape": shape,
                        "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 64)
    with open(folder / "model.safetensors", "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name, shape in shapes.items():
            file.write(values(name, int(np.prod(shape)), noise).tobytes())
