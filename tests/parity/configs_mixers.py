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

FAMILIES = {
    "lfm2": LFM2 | {"block_dim": 128, "block_ff_dim": 192},
    "lfm2_moe": LFM2_MOE | {"moe_intermediate_size": 64},
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
]
