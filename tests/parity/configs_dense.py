"""What the small models of families that are llama's or its experts' heirs
have in their configs, beside test_model_parity's BASE. None leaves a key out,
"null" is a null in the file."""

LLAMA3 = {
    "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
    "high_freq_factor": 4.0, "original_max_position_embeddings": 64}

YARN = {"rope_type": "yarn", "factor": 4.0,
        "original_max_position_embeddings": 32}

AFMOE = {
    "layer_types": ["sliding_attention", "full_attention",
                    "sliding_attention"],
    "num_hidden_layers": 3, "sliding_window": 8, "head_dim": 32,
    "num_experts": 8, "num_experts_per_tok": 3, "num_dense_layers": 1,
    "moe_intermediate_size": 64, "tie_word_embeddings": False}
APERTUS = {
    "mlp_bias": False, "attention_bias": False, "post_norm": False,
    "qk_norm": True, "hidden_act": "xielu", "rope_scaling": LLAMA3,
    "tie_word_embeddings": False}
BAILING_MOE = {
    "num_experts": 8, "num_experts_per_tok": 3, "num_shared_experts": 2,
    "moe_intermediate_size": 64, "first_k_dense_replace": 1,
    "norm_topk_prob": True, "use_bias": False, "use_qkv_bias": True,
    "tie_word_embeddings": False}
LAYER_NORMS = {"layer_norm_eps": 1e-5, "rms_norm_eps": None}
COHERE = LAYER_NORMS | {
    "tie_word_embeddings": None, "logit_scale": 0.25, "use_qk_norm": True}
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
EXAONE = {
    "num_layers": 2, "num_hidden_layers": None, "rms_norm_eps": None,
    "layer_norm_epsilon": 1e-5, "hidden_act": None,
    "activation_function": "silu"}
EXAONE_MOE = {
    "num_hidden_layers": 4, "head_dim": 32, "sliding_window": 8,
    "layer_types": ["sliding_attention"] * 3 + ["full_attention"],
    "is_moe_layer": [False, True, True, True], "num_experts": 8,
    "num_experts_per_tok": 3, "num_shared_experts": 1,
    "moe_intermediate_size": 64, "tie_word_embeddings": False}
EXAONE4 = {
    "head_dim": 32, "num_hidden_layers": 4, "sliding_window": 8,
    "sliding_window_pattern": "LLLG", "rope_scaling": LLAMA3,
    "layer_types": ["sliding_attention"] * 3 + ["full_attention"]}
GEMMA = {"head_dim": 32, "hidden_act": "gelu", "tie_word_embeddings": None}
GLM = {"attention_bias": True, "head_dim": 32}
GPT_NEOX = LAYER_NORMS | {
    "rope_theta": None, "rotary_emb_base": 10000, "rotary_pct": 0.25,
    "intermediate_size": 512, "num_key_value_heads": None,
    "hidden_act": "gelu_new", "tie_word_embeddings": False}
GPTJ = {
    "hidden_size": None, "num_attention_heads": None, "rms_norm_eps": None,
    "num_key_value_heads": None, "num_hidden_layers": None,
    "intermediate_size": None, "max_position_embeddings": None,
    "rope_theta": None, "hidden_act": None, "n_embd": 128, "n_head": 4,
    "n_layer": 2, "n_positions": 128, "rotary_dim": 16,
    "layer_norm_epsilon": 1e-5, "activation_function": "gelu_new",
    "tie_word_embeddings": False}
GRANITEMOE = {
    "attention_bias": False, "logits_scaling": 6.0,
    "attention_multiplier": 0.2, "embedding_multiplier": 12.0,
    "residual_multiplier": 0.22, "num_local_experts": 8,
    "num_experts_per_tok": 3, "tie_word_embeddings": False}
HELIUM = {"attention_bias": True, "mlp_bias": False, "head_dim": 32,
          "tie_word_embeddings": False}
HUNYUAN_V1_DENSE = {
    "attention_bias": True, "head_dim": 32, "rope_scaling": {
        "type": "dynamic", "alpha": 1000.0, "factor": 1.0}}
INTERNLM2 = {"bias": True, "tie_word_embeddings": False,
             "rope_scaling": {"type": "dynamic", "factor": 2.0}}
INTERNLM3 = {"bias": True, "qkv_bias": True,
             "rope_scaling": {"rope_type": "dynamic", "factor": 6.0}}
LAGUNA = {
    "num_hidden_layers": 4, "head_dim": 32, "sliding_window": 8,
    "layer_types": ["full_attention"] + ["sliding_attention"] * 3,
    "num_attention_heads_per_layer": [4, 6, 6, 6], "num_experts": 8,
    "num_experts_per_tok": 3, "moe_intermediate_size": 64,
    "shared_expert_intermediate_size": 64, "moe_routed_scaling_factor": 1.5,
    "tie_word_embeddings": False, "rope_theta": None, "rope_parameters": {
        "full_attention": {
            "rope_type": "yarn", "factor": 4.0, "rope_theta": 50000.0,
            "original_max_position_embeddings": 32,
            "partial_rotary_factor": 0.5},
        "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0}}}
LILLE = {
    "hidden_size": None, "num_attention_heads": None, "rms_norm_eps": None,
    "num_key_value_heads": None, "num_hidden_layers": None,
    "intermediate_size": None, "max_position_embeddings": None, "n_embd": 128,
    "n_head": 4, "n_kv_heads": 2, "n_layer": 2, "block_size": 128,
    "layer_norm_eps": 1e-5}
MELLUM = {
    "num_hidden_layers": 3, "head_dim": 32, "sliding_window": 8,
    "layer_types": ["sliding_attention", "full_attention",
                    "sliding_attention"],
    "num_experts": 8, "num_experts_per_tok": 3, "moe_intermediate_size": 64,
    "norm_topk_prob": True, "tie_word_embeddings": False, "rope_theta": None,
    "rope_parameters": {
        "full_attention": YARN | {"rope_theta": 50000.0},
        "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0}}}
MIMO = {"tie_word_embeddings": False, "num_nextn_predict_layers": 1}
MINICPM = {"scale_emb": 12, "scale_depth": 1.4, "dim_model_base": 24,
           "tie_word_embeddings": False}
MINICPM3 = {
    "q_lora_rank": 64, "kv_lora_rank": 64, "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 32, "num_key_value_heads": 4, "scale_emb": 12,
    "scale_depth": 1.4, "dim_model_base": 24, "tie_word_embeddings": False,
    "rope_scaling": {
        "type": "longrope", "original_max_position_embeddings": 32,
        "short_factor": [1.0] * 4, "long_factor": [1.0, 1.5, 2.0, 3.0]}}
MINIMAX = {
    "num_local_experts": 8, "num_experts_per_tok": 3, "rotary_dim": 16,
    "head_dim": 32, "shared_intermediate_size": 0,
    "tie_word_embeddings": False}
LATENT = {
    "q_lora_rank": 40, "kv_lora_rank": 32, "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 32, "v_head_dim": 24, "num_key_value_heads": 4}
KIMI_K25 = LATENT | {
    "n_routed_experts": 8, "num_experts_per_tok": 3, "n_shared_experts": 2,
    "moe_intermediate_size": 64, "first_k_dense_replace": 1, "n_group": 4,
    "topk_group": 2, "routed_scaling_factor": 1.7, "norm_topk_prob": True,
    "topk_method": "noaux_tc", "scoring_func": "sigmoid",
    "tie_word_embeddings": False}
MISTRAL4 = LATENT | {
    "n_routed_experts": 8, "num_experts_per_tok": 3, "n_shared_experts": 1,
    "moe_intermediate_size": 64, "first_k_dense_replace": 1, "n_group": 1,
    "topk_group": 1, "routed_scaling_factor": 1.5, "norm_topk_prob": True,
    "rope_theta": None, "tie_word_embeddings": False, "rope_parameters": {
        "rope_type": "yarn", "type": "yarn", "factor": 4.0,
        "rope_theta": 10000.0, "original_max_position_embeddings": 16,
        "beta_fast": 32.0, "beta_slow": 1.0, "mscale": 1.0,
        "mscale_all_dim": 1.0, "llama_4_scaling_beta": 0.3}}
MUSE_GLIMMER = {
    "head_dim": 32, "num_hidden_layers": 4, "sliding_window": 8,
    "hidden_act": None, "hidden_activation": "silu", "qk_scale_factor": 2.0,
    "post_norm_eps": 1e-8, "final_logit_softcapping": 20.0,
    "output_multiplier": 0.2, "tie_word_embeddings": False}
NANBEIGE = {"tie_word_embeddings": False, "num_loops": 1, "mlp_bias": True}
NEMOTRON = {
    "norm_eps": 1e-5, "rms_norm_eps": None, "hidden_act": "relu2",
    "partial_rotary_factor": 0.5, "tie_word_embeddings": False}
OLMO3 = {
    "num_hidden_layers": 4, "sliding_window": 8, "tie_word_embeddings": False,
    "attention_bias": True, "rope_scaling": {
        "rope_type": "yarn", "factor": 8.0, "beta_fast": 32.0,
        "beta_slow": 1.0, "attention_factor": 1.2,
        "original_max_position_embeddings": 32}}
PHI = LAYER_NORMS | {
    "partial_rotary_factor": 0.5, "hidden_act": "gelu_new",
    "tie_word_embeddings": False}
PHIMOE = {
    "num_local_experts": 8, "num_experts_per_tok": 2,
    "router_jitter_noise": 0.2, "rope_scaling": "null",
    "tie_word_embeddings": False}
QWEN = {
    "kv_channels": 32, "layer_norm_epsilon": 1e-5, "rms_norm_eps": None,
    "intermediate_size": 384, "num_key_value_heads": None,
    "rope_theta": None, "tie_word_embeddings": False}
OPENELM = {
    key: None for key in (
        "hidden_size", "num_attention_heads", "num_key_value_heads",
        "num_hidden_layers", "intermediate_size", "rope_theta",
        "tie_word_embeddings", "max_position_embeddings", "hidden_act")
} | {
    "model_dim": 128, "num_transformer_layers": 3, "head_dim": 32,
    "num_query_heads": [4, 4, 6], "num_kv_heads": [1, 2, 3],
    "ffn_multipliers": [0.5, 1.0, 1.6], "ffn_dim_divisor": 64,
    "rope_freq_constant": 10000, "activation_fn_name": "swish"}
SEED_OSS = {"head_dim": 32, "attention_bias": True,
            "attention_out_bias": False, "mlp_bias": False,
            "tie_word_embeddings": False}
SOLAR_OPEN = {
    "n_routed_experts": 8, "num_experts_per_tok": 3, "n_shared_experts": 1,
    "moe_intermediate_size": 64, "first_k_dense_replace": 0, "head_dim": 32,
    "routed_scaling_factor": 1.5, "norm_topk_prob": True, "n_group": 1,
    "topk_group": 1, "partial_rotary_factor": 1.0,
    "tie_word_embeddings": False}
STABLELM = LAYER_NORMS | {
    "use_qkv_bias": True, "partial_rotary_factor": 0.25,
    "tie_word_embeddings": False}
STARCODER2 = {"norm_epsilon": 1e-5, "rms_norm_eps": None,
              "hidden_act": "gelu"}
TELECHAT3 = {"attention_bias": True, "mlp_bias": True, "head_dim": 32,
             "tie_word_embeddings": False}
YOUTU_LLM = LATENT | {
    "q_lora_rank": 64, "kv_lora_rank": 64, "v_head_dim": 32, "mlp_bias": True}

FAMILIES = {
    "afmoe": AFMOE,
    "apertus": APERTUS,
    "bailing_moe": BAILING_MOE,
    "cohere": COHERE,
    "deepseek": DEEPSEEK,
    "dots1": DOTS1,
    "ernie4_5": ERNIE4_5,
    "ernie4_5_moe": ERNIE4_5_MOE,
    "exaone": EXAONE,
    "exaone4": EXAONE4,
    "exaone_moe": EXAONE_MOE,
    "gemma": GEMMA,
    "glm": GLM,
    "gpt_neox": GPT_NEOX,
    "gptj": GPTJ,
    "granitemoe": GRANITEMOE,
    "helium": HELIUM,
    "hunyuan_v1_dense": HUNYUAN_V1_DENSE,
    "internlm2": INTERNLM2,
    "internlm3": INTERNLM3,
    "kimi_k25": KIMI_K25,
    "laguna": LAGUNA,
    "lille-130m": LILLE,
    "mellum": MELLUM,
    "mimo": MIMO,
    "minicpm": MINICPM,
    "minicpm3": MINICPM3,
    "minimax": MINIMAX,
    "mistral4": MISTRAL4,
    "muse_glimmer": MUSE_GLIMMER,
    "nanbeige": NANBEIGE,
    "nemotron": NEMOTRON,
    "olmo3": OLMO3,
    "openelm": OPENELM,
    "phi": PHI,
    "phimoe": PHIMOE,
    "qwen": QWEN,
    "seed_oss": SEED_OSS,
    "solar_open": SOLAR_OPEN,
    "stablelm": STABLELM,
    "starcoder2": STARCODER2,
    "telechat3": TELECHAT3,
    "youtu_llm": YOUTU_LLM,
}

# What goes with a hidden size of 64; FAMILIES are of 128.
# The family of the language model of those of several modalities.
INNER = {"kimi_k25": "deepseek_v3"}
HALF = {"qwen": {"kv_channels": 16}}
# name, family, changes, tokens.
CASES = [
    *(("plain", family, changes | HALF.get(family, {}), 70)
      for family, changes in FAMILIES.items() if family not in INNER),
    ("groups", "afmoe", AFMOE | {
        "n_group": 4, "topk_group": 2, "score_func": "softmax",
        "num_shared_experts": 0, "mup_enabled": False}, 40),
    ("tied", "minicpm3", MINICPM3 | {
        "tie_word_embeddings": True, "attention_bias": True}, 40),
    ("no-query-latent", "mistral4", MISTRAL4 | {
        "q_lora_rank": "null", "rope_interleave": False,
        "norm_topk_prob": False}, 40),
    ("bases", "muse_glimmer", MUSE_GLIMMER | {
        "layer_rope_theta": [0, 1.0, 0, 1.0], "tie_word_embeddings": True},
     40),
    ("untied", "openelm", OPENELM | {
        "share_input_output_layers": False,
        "normalize_qk_projections": False}, 40),
    ("longrope", "phimoe", PHIMOE | {
        "original_max_position_embeddings": 32, "rope_scaling": {
            "type": "longrope", "short_factor": [1.0] * 8,
            "long_factor": [1.0 + 0.4 * i for i in range(8)],
            "short_mscale": 1.1, "long_mscale": 1.2}}, 70),
    ("yarn", "youtu_llm", YOUTU_LLM | {
        "q_lora_rank": "null", "attention_bias": True,
        "tie_word_embeddings": False, "rope_traditional": False}, 40),
    ("biases", "apertus", APERTUS | {
        "mlp_bias": True, "tie_word_embeddings": True}, 40),
    ("biases", "cohere", COHERE | {
        "attention_bias": True, "layer_norm_bias": True,
        "use_qk_norm": False}, 40),
    ("biases", "exaone", EXAONE | {
        "rope_scaling": LLAMA3, "attention_bias": True, "mlp_bias": True,
        "tie_word_embeddings": False}, 40),
    ("full", "exaone_moe", EXAONE_MOE | {
        "layer_types": ["full_attention"] * 4, "num_shared_experts": 0,
        "n_group": 4, "topk_group": 2, "rope_scaling": LLAMA3}, 40),
    ("whole", "gptj", GPTJ | {"rotary_dim": 0}, 40),
    ("plain-gates", "laguna", LAGUNA | {
        "gating": False, "qkv_bias": True, "attention_bias": True,
        "mlp_layer_types": ["sparse", "dense"] * 2,
        "num_attention_heads_per_layer": None}, 40),
    ("tied", "mellum", MELLUM | {
        "tie_word_embeddings": True, "norm_topk_prob": False}, 40),
    ("one-after-another", "gpt_neox", GPT_NEOX | {
        "use_parallel_residual": False, "rotary_pct": 1.0}, 40),
    ("plain-rope", "hunyuan_v1_dense", HUNYUAN_V1_DENSE | {
        "rope_scaling": None, "tie_word_embeddings": False}, 40),
    ("no-norms", "hunyuan_v1_dense", HUNYUAN_V1_DENSE | {
        "use_qk_norm": False}, 40),
    ("long", "internlm2", INTERNLM2, 200),
    ("tied", "internlm2", INTERNLM2 | {
        "bias": False, "rope_scaling": None, "tie_word_embeddings": True}, 40),
    ("biases", "nemotron", NEMOTRON | {
        "attention_bias": True, "mlp_bias": True, "head_dim": 32,
        "rope_scaling": {"type": "linear", "factor": 2.0}}, 40),
    ("biases", "qwen", QWEN | HALF["qwen"] | {"no_bias": False}, 40),
    ("parallel", "stablelm", STABLELM | {
        "use_parallel_residual": True, "use_qkv_bias": False}, 40),
    ("untied", "starcoder2", STARCODER2 | {"tie_word_embeddings": False}, 40),
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
    ("tied", "granitemoe", GRANITEMOE | {
        "tie_word_embeddings": True, "attention_bias": True}, 40),
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
