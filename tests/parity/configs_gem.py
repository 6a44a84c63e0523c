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

FAMILIES = {
    "glm4_moe_lite": GLM4_MOE_LITE | {"moe_intermediate_size": 64},
}
# Name, family, length and changes of more cases of logits.
CASES = [
    ("plain", "glm4_moe_lite", 40, GLM4_MOE_LITE),
    ("groups", "glm4_moe_lite", 40, GLM4_MOE_LITE | {
        "n_group": 4, "topk_group": 2, "q_lora_rank": NULL,
        "norm_topk_prob": False, "attention_bias": True,
        "n_shared_experts": NULL}),
]
