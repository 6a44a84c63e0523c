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

SLIDES, FULL = "sliding_attention", "full_attention"
GEMMA4 = {
    "hidden_act": None, "hidden_activation": "gelu_pytorch_tanh",
    "rope_theta": None, "head_dim": 16, "global_head_dim": 32,
    "num_hidden_layers": 4, "sliding_window": 8,
    "layer_types": [SLIDES, FULL, SLIDES, FULL],
    "rope_parameters": {
        FULL: {"partial_rotary_factor": 0.25, "rope_theta": 1000000.0,
               "rope_type": "proportional"},
        SLIDES: {"rope_theta": 5000.0, "rope_type": "default"}},
    "num_kv_shared_layers": 0, "hidden_size_per_layer_input": 0,
    "attention_k_eq_v": True, "num_global_key_value_heads": 1,
    "use_double_wide_mlp": False, "final_logit_softcapping": 20.0}
GEMMA4_EXPERTS = GEMMA4 | {
    "enable_moe_block": True, "num_experts": 8, "top_k_experts": 3,
    "moe_intermediate_size": 64}
# Layers 1 and 2 are the last of their kind with keys of their own.
GEMMA4_SMALL = GEMMA4 | {
    "attention_k_eq_v": False, "num_global_key_value_heads": None,
    "num_hidden_layers": 6, "num_kv_shared_layers": 3,
    "layer_types": [SLIDES, FULL, SLIDES, SLIDES, FULL, SLIDES],
    "hidden_size_per_layer_input": 32, "vocab_size_per_layer_input": 203,
    "use_double_wide_mlp": True}

GEMMA = {"head_dim": 24, "hidden_act": "gelu", "tie_word_embeddings": None}
DEEPSEEK_V32 = GLM4_MOE_LITE | {
    "index_head_dim": 16, "index_n_heads": 2, "index_topk": 2048,
    "topk_method": "noaux_tc", "scoring_func": "sigmoid",
    "norm_topk_prob": True, "moe_layer_freq": 1, "attention_bias": False,
    "rms_norm_eps": 1e-5}
GLM_MOE_DSA = DEEPSEEK_V32 | {
    "rope_theta": None,
    "rope_parameters": {"rope_theta": 5000.0, "rope_type": "default"}}

FAMILIES = {
    "deepseek_v32": DEEPSEEK_V32 | {
        "moe_intermediate_size": 64, "index_head_dim": 32},
    "gemma": GEMMA | {"head_dim": 32},
    "gemma4": GEMMA4_EXPERTS,
    "gemma4_text": GEMMA4_SMALL | {
        "hidden_size_per_layer_input": 64, "vocab_size_per_layer_input": 3072},
    "glm_moe_dsa": GLM_MOE_DSA | {
        "moe_intermediate_size": 64, "index_head_dim": 32},
    "glm4_moe_lite": GLM4_MOE_LITE | {"moe_intermediate_size": 64},
    "qwen2_vl": QWEN2_VL,
    "qwen3_vl": QWEN3_VL,
    "qwen3_vl_moe": QWEN3_VL_MOE,
}
# The language model inside those of several modalities; of qwen2_vl the config
# was all text_config at first.
INNER = {"gemma4": "gemma4_text", "qwen3_vl": "qwen3",
         "qwen3_vl_moe": "qwen3_moe"}
# What stands beside the language model under mlx-lm's names.
VISUAL = {"visual.patch_embed.proj.weight": (3, 4), "visual.merger.bias": (5,)}
BESIDE = {"gemma4": {"vision_tower.patch.weight": (3, 4),
                     "vision_tower.patch.input_max": (1,),
                     "audio_tower.layer.weight": (2, 3),
                     "embed_vision.projection.weight": (4, 2)},
          "qwen2_vl": VISUAL, "qwen3_vl": VISUAL,
          "qwen3_vl_moe": VISUAL}

# Name, family, length and changes of more cases of logits.
CASES = [
    ("plain", "deepseek_v32", 40, DEEPSEEK_V32),
    ("plain", "glm_moe_dsa", 40, GLM_MOE_DSA),
    ("plain", "gemma", 40, GEMMA),
    ("dense", "gemma4_text", 40, GEMMA4),
    ("long", "gemma4_text", 70, GEMMA4 | {
        "final_logit_softcapping": NULL, "tie_word_embeddings": False,
        "attention_k_eq_v": False}),
    ("experts", "gemma4_text", 40, GEMMA4_EXPERTS),
    ("shared-keys", "gemma4_text", 40, GEMMA4_SMALL | {
        "hidden_size_per_layer_input": 0}),
    ("token-inputs", "gemma4_text", 40, GEMMA4_SMALL | {
        "num_kv_shared_layers": 0}),
    ("small", "gemma4_text", 40, GEMMA4_SMALL),
    ("own-defaults", "gemma4_text", 40, GEMMA4_SMALL | {
        "rope_parameters": None, "layer_types": None,
        "sliding_window_pattern": 2, "num_hidden_layers": 5,
        "num_kv_shared_layers": 2}),
    ("plain", "glm4_moe_lite", 40, GLM4_MOE_LITE),
    ("groups", "glm4_moe_lite", 40, GLM4_MOE_LITE | {
        "n_group": 4, "topk_group": 2, "q_lora_rank": NULL,
        "norm_topk_prob": False, "attention_bias": True,
        "n_shared_experts": NULL}),
]
