"""What the small models of families that are llama's or its experts' heirs
have in their configs, beside test_model_parity's BASE. None leaves a key out,
"null" is a null in the file."""

LLAMA3 = {
    "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
    "high_freq_factor": 4.0, "original_max_position_embeddings": 64}

BAILING_MOE = {
    "num_experts": 8, "num_experts_per_tok": 3, "num_shared_experts": 2,
    "moe_intermediate_size": 64, "first_k_dense_replace": 1,
    "norm_topk_prob": True, "use_bias": False, "use_qkv_bias": True,
    "tie_word_embeddings": False}
DEEPSEEK = {
    "n_routed_experts": 8, "num_experts_per_tok": 3, "n_shared_experts": 2,
    "moe_intermediate_size": 64, "first_k_dense_replace": 1,
    "num_hidden_layers": 3, "tie_word_embeddings": False}
DOTS1 = DEEPSEEK | {
    "norm_topk_prob": True, "routed_scaling_factor": 2.5, "head_dim": 32,
    "scoring_func": "noaux_tc"}
ERNIE4_5 = {"use_bias": False, "head_dim": 32}
ERNIE4_5_MOE = {
    "use_bias": False, "moe_num_experts": 8, "moe_k": 3,
    "moe_intermediate_size": 64, "moe_num_shared_experts": 1,
    "moe_layer_start_index": 1, "num_hidden_layers": 3}
EXAONE4 = {
    "head_dim": 32, "num_hidden_layers": 4, "sliding_window": 8,
    "sliding_window_pattern": "LLLG", "rope_scaling": LLAMA3,
    "layer_types": ["sliding_attention"] * 3 + ["full_attention"]}
GLM = {"attention_bias": True, "head_dim": 32}
GRANITEMOE = {
    "attention_bias": False, "logits_scaling": 6.0,
    "attention_multiplier": 0.2, "embedding_multiplier": 12.0,
    "residual_multiplier": 0.22, "num_local_experts": 8,
    "num_experts_per_tok": 3}
HELIUM = {"attention_bias": True, "mlp_bias": False, "head_dim": 32,
          "tie_word_embeddings": False}
INTERNLM3 = {"bias": True, "qkv_bias": True,
             "rope_scaling": {"rope_type": "dynamic", "factor": 6.0}}
MIMO = {"tie_word_embeddings": False, "num_nextn_predict_layers": 1}
MINICPM = {"scale_emb": 12, "scale_depth": 1.4, "dim_model_base": 24,
           "tie_word_embeddings": False}
MINIMAX = {
    "num_local_experts": 8, "num_experts_per_tok": 3, "rotary_dim": 16,
    "head_dim": 32, "shared_intermediate_size": 0,
    "tie_word_embeddings": False}
NANBEIGE = {"tie_word_embeddings": False, "num_loops": 1, "mlp_bias": True}
OLMO3 = {
    "num_hidden_layers": 4, "sliding_window": 8, "tie_word_embeddings": False,
    "attention_bias": True, "rope_scaling": {
        "rope_type": "yarn", "factor": 8.0, "beta_fast": 32.0,
        "beta_slow": 1.0, "attention_factor": 1.2,
        "original_max_position_embeddings": 32}}
SEED_OSS = {"head_dim": 32, "attention_bias": True,
            "attention_out_bias": False, "mlp_bias": False,
            "tie_word_embeddings": False}
SOLAR_OPEN = {
    "n_routed_experts": 8, "num_experts_per_tok": 3, "n_shared_experts": 1,
    "moe_intermediate_size": 64, "first_k_dense_replace": 0, "head_dim": 32,
    "routed_scaling_factor": 1.5, "norm_topk_prob": True, "n_group": 1,
    "topk_group": 1, "partial_rotary_factor": 1.0,
    "tie_word_embeddings": False}
TELECHAT3 = {"attention_bias": True, "mlp_bias": True, "head_dim": 32,
             "tie_word_embeddings": False}

FAMILIES = {
    "bailing_moe": BAILING_MOE,
    "deepseek": DEEPSEEK,
    "dots1": DOTS1,
    "ernie4_5": ERNIE4_5,
    "ernie4_5_moe": ERNIE4_5_MOE,
    "exaone4": EXAONE4,
    "glm": GLM,
    "granitemoe": GRANITEMOE,
    "helium": HELIUM,
    "internlm3": INTERNLM3,
    "mimo": MIMO,
    "minicpm": MINICPM,
    "minimax": MINIMAX,
    "nanbeige": NANBEIGE,
    "olmo3": OLMO3,
    "seed_oss": SEED_OSS,
    "solar_open": SOLAR_OPEN,
    "telechat3": TELECHAT3,
}

# name, family, changes, tokens.
CASES = [
    *(("plain", family, changes, 70) for family, changes in FAMILIES.items()),
    ("corrected", "bailing_moe", BAILING_MOE | {
        "moe_router_enable_expert_bias": True, "routed_scaling_factor": 2.5,
        "n_group": 4, "topk_group": 2, "use_bias": True, "use_qk_norm": True,
        "partial_rotary_factor": 0.5}, 40),
    ("sigmoid", "bailing_moe", BAILING_MOE | {
        "score_function": "sigmoid", "tie_word_embeddings": True}, 40),
    ("linear", "deepseek", DEEPSEEK | {
        "moe_layer_freq": 2,
        "rope_scaling": {"type": "linear", "factor": 4.0}}, 40),
    ("dense", "deepseek", {
        "tie_word_embeddings": False, "attention_bias": True}, 40),
    ("groups", "dots1", DOTS1 | {
        "n_group": 4, "topk_group": 2, "mlp_bias": True}, 40),
    ("sigmoid", "ernie4_5_moe", ERNIE4_5_MOE | {
        "moe_gate_act": "sigmoid", "moe_layer_interval": 2, "use_bias": True,
        "moe_num_shared_experts": 0, "moe_layer_start_index": 0}, 40),
    ("untied", "granitemoe", GRANITEMOE | {
        "tie_word_embeddings": False, "attention_bias": True}, 40),
    ("no-norms", "minimax", MINIMAX | {"use_qk_norm": False}, 40),
    ("biases", "ernie4_5", ERNIE4_5 | {
        "use_bias": True, "tie_word_embeddings": False}, 40),
    ("no-windows", "exaone4", EXAONE4 | {
        "sliding_window": "null", "sliding_window_pattern": "null",
        "layer_types": ["full_attention"] * 4}, 40),
    ("letters", "exaone4", EXAONE4 | {"layer_types": None}, 40),
    ("untied", "glm", GLM | {"tie_word_embeddings": False}, 40),
    ("long", "internlm3", INTERNLM3, 200),
    ("tied", "mimo", MIMO | {"tie_word_embeddings": True}, 40),
    ("listed", "olmo3", OLMO3 | {"layer_types": [
        "full_attention", "sliding_attention"] * 2}, 40),
    ("biases", "seed_oss", SEED_OSS | {
        "attention_out_bias": True, "mlp_bias": True}, 40),
]
