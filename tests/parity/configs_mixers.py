"""Changes of the tests' base configuration for families whose layers mix
tokens by short convolutions or state spaces."""

LFM2 = {
    "rms_norm_eps": None, "norm_eps": 1e-5, "conv_bias": False,
    "conv_L_cache": 3, "block_dim": 64, "block_ff_dim": 150,
    "block_multiple_of": 16, "block_ffn_dim_multiplier": 1.0,
    "block_auto_adjust_ff_dim": True, "num_hidden_layers": 3,
    "full_attn_idxs": [1], "tie_word_embeddings": None}
LFM2_MOE = {
    "rms_norm_eps": None, "norm_eps": 1e-5, "conv_bias": False,
    "conv_L_cache": 3, "num_experts": 8, "num_experts_per_tok": 3,
    "moe_intermediate_size": 48, "norm_topk_prob": True,
    "use_expert_bias": True, "num_dense_layers": 1,
    "routed_scaling_factor": 1.3, "num_hidden_layers": 3,
    "layer_types": ["conv", "full_attention", "conv"],
    "tie_word_embeddings": None}

INF = float("inf")
NEMOTRON_H = {
    "rms_norm_eps": None, "layer_norm_epsilon": 1e-5, "rope_theta": None,
    "tie_word_embeddings": None, "hidden_act": None,
    "num_hidden_layers": 5, "hybrid_override_pattern": "M-*EM",
    "attention_bias": False, "mamba_num_heads": 6, "mamba_head_dim": 16,
    "mamba_proj_bias": False, "ssm_state_size": 24, "conv_kernel": 4,
    "n_groups": 2, "mlp_bias": False, "use_bias": False,
    "use_conv_bias": True, "time_step_limit": [0.0, INF], "head_dim": 24,
    "n_routed_experts": 8, "num_experts_per_tok": 3, "n_shared_experts": 1,
    "moe_intermediate_size": 48, "moe_shared_expert_intermediate_size": 96,
    "norm_topk_prob": True, "routed_scaling_factor": 2.5, "n_group": 1,
    "topk_group": 1}
GRANITE_HYBRID = {
    "attention_bias": False, "embedding_multiplier": 12.0,
    "attention_multiplier": 0.2, "logits_scaling": 6.0,
    "residual_multiplier": 0.22, "num_hidden_layers": 3,
    "layer_types": ["mamba", "attention", "mamba"], "mamba_n_heads": 6,
    "mamba_d_head": 16, "mamba_proj_bias": False, "mamba_d_state": 24,
    "mamba_d_conv": 4, "mamba_n_groups": 1, "mamba_conv_bias": True,
    "position_embedding_type": "nope"}
GRANITE_EXPERTS = GRANITE_HYBRID | {
    "num_local_experts": 8, "num_experts_per_tok": 3,
    "intermediate_size": 48, "shared_intermediate_size": 96}
FALCON_H1 = {
    "num_hidden_layers": 2, "head_dim": 24, "mamba_d_ssm": 96,
    "mamba_n_heads": 6, "mamba_d_head": 16, "mamba_d_state": 24,
    "mamba_d_conv": 4, "mamba_n_groups": 1, "rope_theta": 1e11,
    "tie_word_embeddings": False, "attention_in_multiplier": 1.25}
MAMBA2 = {
    "rms_norm_eps": None, "rope_theta": None, "hidden_act": None,
    "num_attention_heads": None, "num_key_value_heads": None,
    "layer_norm_epsilon": 1e-5, "num_heads": 6, "head_dim": 16,
    "state_size": 24, "conv_kernel": 4, "n_groups": 2, "use_bias": False,
    "use_conv_bias": True, "time_step_limit": [0.0, INF],
    "time_step_rank": "auto", "tie_word_embeddings": False}

FAMILIES = {
    "falcon_h1": FALCON_H1 | {
        "head_dim": 32, "mamba_d_ssm": 128, "mamba_d_head": 32,
        "mamba_n_heads": 4},
    "granitemoehybrid": GRANITE_EXPERTS | {
        "intermediate_size": 64, "shared_intermediate_size": 128,
        "mamba_d_head": 32, "mamba_n_heads": 8,
        # Tied, each token is so sure of itself that gradients are roundings.
        "tie_word_embeddings": False},
    "lfm2": LFM2 | {"block_dim": 128, "block_ff_dim": 192},
    "lfm2_moe": LFM2_MOE | {"moe_intermediate_size": 64},
    "mamba2": MAMBA2 | {"num_heads": 8, "head_dim": 32},
    "nemotron_h": NEMOTRON_H | {
        "head_dim": 32, "moe_intermediate_size": 64, "moe_latent_size": 64,
        "mamba_num_heads": 4, "mamba_head_dim": 32,
        "moe_shared_expert_intermediate_size": 128},
}

# Name, family, length and changes of cases of logits.
CASES = [
    ("plain", "lfm2", 40, LFM2),
    ("biases", "lfm2", 40, LFM2 | {
        "conv_bias": True, "block_auto_adjust_ff_dim": False,
        "block_ff_dim": "null", "full_attn_idxs": None, "rope_theta": None,
        "rope_parameters": {"rope_type": "default", "rope_theta": 50000.0},
        "layer_types": ["conv", "conv", "full_attention"]}),
    ("plain", "lfm2_moe", 40, LFM2_MOE),
    ("not-normalized", "lfm2_moe", 40, LFM2_MOE | {
        "norm_topk_prob": False, "use_expert_bias": False,
        "num_dense_layers": 0, "conv_bias": True}),
    ("plain", "nemotron_h", 70, NEMOTRON_H),
    ("listed", "nemotron_h", 40, NEMOTRON_H | {
        "num_hidden_layers": 4, "hybrid_override_pattern": None,
        "layers_block_type": ["mamba", "moe", "full_attention", "mlp"],
        "n_groups": 1, "attention_bias": True, "mamba_proj_bias": True,
        "mlp_bias": True, "use_conv_bias": False, "time_step_limit": None,
        "n_shared_experts": None, "norm_topk_prob": False, "n_group": 4,
        "topk_group": 2}),
    ("latents", "nemotron_h", 40, NEMOTRON_H | {
        "moe_latent_size": 40, "mlp_bias": True, "num_hidden_layers": 3,
        "hybrid_override_pattern": "ME*"}),
    ("experts", "granitemoehybrid", 70, GRANITE_EXPERTS),
    ("dense", "granitemoehybrid", 40, GRANITE_HYBRID | {
        "mamba_proj_bias": True, "mlp_bias": True, "attention_bias": True,
        "mamba_n_groups": 3, "mamba_conv_bias": False, "rope_theta": None,
        "rope_parameters": {"rope_type": "default", "rope_theta": 50000.0},
        "position_embedding_type": "rope", "tie_word_embeddings": False}),
    ("plain", "falcon_h1", 70, FALCON_H1),
    ("norm", "falcon_h1", 40, FALCON_H1 | {
        "mamba_rms_norm": True, "tie_word_embeddings": True,
        "mamba_conv_bias": False, "mamba_n_groups": 2}),
    ("norm-first", "falcon_h1", 40, FALCON_H1 | {
        "mamba_rms_norm": True, "mamba_norm_before_gate": True,
        "mamba_proj_bias": True, "projectors_bias": True, "mlp_bias": True,
        "attention_bias": True, "rope_traditional": True}),
    ("plain", "mamba2", 70, MAMBA2),
    ("tied", "mamba2", 40, MAMBA2 | {
        "tie_word_embeddings": True, "use_bias": True, "n_groups": 1,
        "use_conv_bias": False, "time_step_limit": [0.001, 0.5]}),
]
