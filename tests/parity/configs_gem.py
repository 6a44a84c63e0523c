"""Changes of the tests' base configuration for families of GLM, Qwen-VL and
Gemma 4."""

NULL = "null"

GLM4_MOE_LITE = {
    "n_routed_experts": 8, "num_experts_per_tok": 3, "n_shared_experts": 2,
    "moe_intermediate_size": 48, "first_k_dense_replace": 1,
    "routed_scaling_factor": 1.7, "tie_word_embeddings": False,
    "q_lora_rank": 40, "kv_lora_rank": 32, "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 32, "v_head_dim": 24, "num_key_value_heads": 4,
    "n_group": 1, "topk_group": 1, "rms_norm_eps": 0.01}

MROPE = {"mrope_section": [4, 2, 2], "rope_type": "default", "type": "mrope"}
QWEN2_VL = {"tie_word_embeddings": False, "rope_scaling": MROPE,
            "use_sliding_window": False, "sliding_window": 32}
QWEN3_VL = {"head_dim": 32, "rope_scaling": MROPE | {
    "mrope_interleaved": True, "type": "default"}}
QWEN3_VL_MOE = QWEN3_VL | {
    "num_experts": 8, "num_experts_per_tok": 3, "moe_intermediate_size": 64,
    "norm_topk_prob": True, "decoder_sparse_step": 1, "mlp_only_layers": [0],
    "tie_word_embeddings": False}

FAMILIES = {
    "glm4_moe_lite": GLM4_MOE_LITE | {"moe_intermediate_size": 64},
    "qwen2_vl": QWEN2_VL,
    "qwen3_vl": QWEN3_VL,
    "qwen3_vl_moe": QWEN3_VL_MOE,
}
# The language model inside those of several modalities; of qwen2_vl the config
# was all text_config at first.
INNER = {"qwen3_vl": "qwen3", "qwen3_vl_moe": "qwen3_moe"}
# What stands beside the language model under mlx-lm's names.
VISUAL = {"visual.patch_embed.proj.weight": (3, 4), "visual.merger.bias": (5,)}
BESIDE = {"qwen2_vl": VISUAL, "qwen3_vl": VISUAL, "qwen3_vl_moe": VISUAL}

# Name, family, length and changes of more cases of logits.
CASES = [
    ("plain", "glm4_moe_lite", 40, GLM4_MOE_LITE),
    ("groups", "glm4_moe_lite", 40, GLM4_MOE_LITE | {
        "n_group": 4, "topk_group": 2, "q_lora_rank": NULL,
        "norm_topk_prob": False, "attention_bias": True,
        "n_shared_experts": NULL}),
]
