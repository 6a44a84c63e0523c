"""A tiny configuration of each class of mlx-lm that is known by its tensors'
names only, and the forms in which the hub may have these. Nothing here is
taken as true: tools/class_names.py tries all of it on the class itself."""

BASE = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 3,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 32,
        "rms_norm_eps": 1e-5, "vocab_size": 384, "rope_theta": 10000.0,
        "max_position_embeddings": 256}
MLA = {"kv_lora_rank": 32, "q_lora_rank": 96, "qk_rope_head_dim": 16,
       "qk_nope_head_dim": 32, "v_head_dim": 64}
PROJECTIONS = ("gate_proj", "up_proj", "down_proj")
MIXTRAL = {"gate_proj": "w1", "up_proj": "w3", "down_proj": "w2"}


def stacks(source, target, count, names=None, suffixes=("weight",)):
    """Experts one by one, of which mlx-lm makes stacks. `source` holds a '#',
    and a '@' where the matrix's name goes."""
    names = names or {name: name for name in PROJECTIONS}
    return [{"from": source.replace("@", theirs) + "." + suffix,
             "to": f"{target}.{ours}.{suffix}", "count": count}
            for ours, theirs in names.items() for suffix in suffixes]


def latent(path, heads="num_attention_heads", nope="qk_nope_head_dim"):
    """Keys' and values' matrices of each head, above one another."""
    return [{"from": f"{path}.kv_b_proj.weight",
             "to": f"{path}.embed_q.weight", "split": heads, "end": nope,
             "transposed": True},
            {"from": f"{path}.kv_b_proj.weight",
             "to": f"{path}.unembed_out.weight", "split": heads,
             "first": nope}]


def widths_first(*names):
    return [{"from": name, "to": name, "width_first": True} for name in names]


def renamed(names):
    return [{"from": theirs, "to": ours} for theirs, ours in names.items()]


LAYER = "model.layers.*"
KIMI_LINEAR = BASE | MLA | {
    "linear_attn_config": {"kda_layers": [1, 3], "full_attn_layers": [2],
                           "num_heads": 4, "head_dim": 16,
                           "short_conv_kernel_size": 4},
    "model_max_length": 256, "num_experts": 5, "moe_intermediate_size": 64,
    "num_experts_per_token": 2, "num_shared_experts": 1,
    "first_k_dense_replace": 1}
LONGCAT = {k: v for k, v in (BASE | MLA).items() if k != "num_hidden_layers"
           } | {"num_layers": 2, "ffn_hidden_size": 128, "moe_topk": 2,
                "expert_ffn_hidden_size": 64, "n_routed_experts": 5,
                "zero_expert_num": 2, "routed_scaling_factor": 1.0,
                "mla_scale_q_lora": True, "mla_scale_kv_lora": True,
                "attention_bias": False, "zero_expert_type": "identity",
                "attention_method": "MLA", "layers": "num_layers"}
LONGCAT_RULES = (
    stacks(f"{LAYER}.mlp.experts.#.@", f"{LAYER}.mlp.switch_mlp",
           "n_routed_experts") + latent(f"{LAYER}.self_attn.*"))
QWEN3_5 = BASE | {
    "model_type": "qwen3_5_text", "linear_num_value_heads": 4,
    "linear_num_key_heads": 2, "linear_key_head_dim": 32,
    "linear_value_head_dim": 32, "linear_conv_kernel_dim": 4,
    "full_attention_interval": 2}

CLASSES = {
    "Klear": {
        "config": BASE | {
            "attention_bias": False, "mlp_only_layers": [0],
            "num_experts": 5, "num_experts_per_tok": 2,
            "decoder_sparse_step": 1, "n_shared_experts": 1,
            "moe_intermediate_size": 64, "norm_topk_prob": True},
        "rules": stacks(f"{LAYER}.mlp.experts.#.@", f"{LAYER}.mlp.experts",
                        "num_experts")},
    "afm7": {
        "config": {"vocab_size": 384, "hidden_dim": 64, "num_layers": 2,
                   "num_kv_reuse_layers": 1, "num_heads": 4,
                   "num_kv_heads": 2}},
    "baichuan_m1": {
        "config": BASE | {"sliding_window": 32, "sliding_window_layers": [1],
                          "conv_window": 2}},
    "bailing_hybrid": {
        "config": BASE | MLA | {
            "moe_intermediate_size": 64, "num_experts": 5,
            "num_experts_per_tok": 2, "num_shared_experts": 1, "n_group": 1,
            "topk_group": 1, "first_k_dense_replace": 1,
            "layer_group_size": 3, "group_norm_size": 2,
            "routed_scaling_factor": 1.0, "num_key_value_heads": 4},
        "variants": [{"q_lora_rank": None}],
        "rules": stacks(f"{LAYER}.mlp.experts.#.@", f"{LAYER}.mlp.switch_mlp",
                        "num_experts")
        + renamed({f"{LAYER}.mlp.gate.weight":
                   f"{LAYER}.mlp.gate.gate_proj.weight"})
        + latent(f"{LAYER}.attention")},
    "bailing_moe_linear": {
        "config": BASE | {
            "moe_intermediate_size": 64, "num_experts": 5,
            "num_experts_per_tok": 2, "num_shared_experts": 1,
            "norm_topk_prob": True, "first_k_dense_replace": 1,
            "layer_group_size": 3, "group_norm_size": 2, "topk_group": 1},
        "not_where": {"norm_head": "mlx-lm changes lm_head.weight"},
        "rules": stacks(f"{LAYER}.mlp.experts.#.@", f"{LAYER}.mlp.switch_mlp",
                        "num_experts")
        + renamed({f"{LAYER}.mlp.gate.{part}":
                   f"{LAYER}.mlp.gate.gate_proj.{part}"
                   for part in ("weight", "bias")})},
    "bailing_moe_v3": {
        "config": BASE | MLA | {
            "moe_intermediate_size": 64,
            "moe_shared_expert_intermediate_size": 64, "num_experts": 5,
            "num_experts_per_tok": 2, "n_group": 1, "topk_group": 1,
            "layer_group_size": 3},
        "variants": [{"q_lora_rank": None}],
        "rules": stacks(f"{LAYER}.mlp.experts.#.@", f"{LAYER}.mlp.switch_mlp",
                        "num_experts") + latent(f"{LAYER}.attention")
        + widths_first(*[f"{LAYER}.attention.{x}_conv1d.weight"
                         for x in "qkv"])},
    "bitnet": {"not_taken": "its matrices are stored in three levels"},
    "dbrx": {
        "config": {
            "vocab_size": 384, "d_model": 64, "n_layers": 2, "n_heads": 4,
            "ffn_config": {"ffn_hidden_size": 128, "moe_num_experts": 5,
                           "moe_top_k": 2},
            "attn_config": {"kv_n_heads": 2, "clip_qkv": 8,
                            "rope_theta": 10000.0}},
        "layers": "n_layers",
        "rules": [
            {"from": f"transformer.blocks.*.ffn.experts.mlp.{name}",
             "to": f"transformer.blocks.*.ffn.experts.#.{name}.weight",
             "parts": "ffn_config.moe_num_experts"}
            | ({"transposed": True} if name == "w2" else {})
            for name in ("w1", "v1", "w2")]},
    "deepseek_v41": {
        "not_taken": "its published weights are FP8 and FP4, which mlx-lm "
                     "keeps as they are"},
    "gear": {
        "config": BASE | {
            "layer_types": ["full_attention", "sliding_attention",
                            "full_attention"]},
        "rules": widths_first(f"{LAYER}.self_attn.key_conv.weight",
                              f"{LAYER}.self_attn.value_conv.weight")},
    "gemma3n": {
        "config": {"text_config": BASE | {
            "model_type": "gemma3n_text", "num_kv_shared_layers": 1,
            "num_hidden_layers": 4,
            "vocab_size_per_layer_input": 384, "sliding_window": 32,
            "rope_local_base_freq": 10000.0, "final_logit_softcapping": 30.0,
            "layer_types": ["sliding_attention", "full_attention"] * 2,
            "activation_sparsity_pattern": [0.9, 0.0, 0.0, 0.0],
            "hidden_size_per_layer_input": 32, "altup_num_inputs": 4,
            "altup_coef_clip": 120.0, "altup_correct_scale": True,
            "altup_active_idx": 0, "laurel_rank": 32}}},
    "gpt2": {
        "config": {"n_ctx": 64, "n_embd": 64, "n_head": 4, "n_layer": 2,
                   "n_positions": 64, "layer_norm_epsilon": 1e-5,
                   "vocab_size": 384},
        "layers": "n_layer", "adds": "model.",
        "rules": [{"from": f"h.*.{name}.weight",
                   "to": f"model.h.*.{name}.weight", "transposed": True}
                  for name in ("attn.c_attn", "attn.c_proj", "mlp.c_fc",
                               "mlp.c_proj")]},
    "gpt_bigcode": {
        "config": {"n_embd": 64, "n_layer": 2, "n_inner": 128, "n_head": 4,
                   "n_positions": 64, "layer_norm_epsilon": 1e-5,
                   "vocab_size": 384},
        "layers": "n_layer", "variants": [{"multi_query": False}]},
    "hunyuan": {
        "config": BASE | {
            "attention_bias": False, "moe_topk": 2, "num_experts": 5,
            "num_shared_expert": 1, "use_mixed_mlp_moe": True,
            "use_qk_norm": True, "use_cla": True, "cla_share_factor": 2,
            "num_hidden_layers": 4, "rope_scaling": {
                "type": "dynamic", "alpha": 1000.0, "factor": 1.0}},
        "variants": [{"num_experts": 1, "moe_topk": 1}],
        "rules": stacks(f"{LAYER}.mlp.experts.#.@", f"{LAYER}.mlp.switch_mlp",
                        "num_experts")},
    "iquestloopcoder": {"config": BASE},
    "jamba": {
        "config": BASE | {
            "num_hidden_layers": 4, "attn_layer_offset": 1,
            "attn_layer_period": 2, "expert_layer_offset": 1,
            "expert_layer_period": 2, "mamba_d_conv": 4, "mamba_d_state": 16,
            "mamba_expand": 2, "num_experts": 5, "num_experts_per_tok": 2},
        "variants": [{"layers_block_type":
                      ["attention", "mamba", "attention", "mamba"]}],
        "rules": stacks(f"{LAYER}.feed_forward.experts.#.@",
                        f"{LAYER}.feed_forward.switch_mlp", "num_experts")
        + widths_first(f"{LAYER}.mamba.conv1d.weight")},
    "kimi_k3": {
        "not_taken": "mlx-lm joins its queries, keys and values to one "
                     "matrix"},
    "kimi_linear": {
        "config": KIMI_LINEAR,
        "rules": stacks(f"{LAYER}.block_sparse_moe.experts.#.@",
                        f"{LAYER}.mlp.switch_mlp", "num_experts", MIXTRAL)
        + renamed({f"{LAYER}.block_sparse_moe.shared_experts.{name}.weight":
                   f"{LAYER}.mlp.shared_experts.{name}.weight"
                   for name in PROJECTIONS})
        + renamed({f"{LAYER}.block_sparse_moe.gate.weight":
                   f"{LAYER}.mlp.gate.weight",
                   f"{LAYER}.block_sparse_moe.gate.e_score_correction_bias":
                   f"{LAYER}.mlp.e_score_correction_bias"})
        + [{"from": f"{LAYER}.self_attn.{x}_conv1d.weight",
            "to": f"{LAYER}.self_attn.{x}_conv.conv.weight",
            "width_first": True} for x in "qkv"]
        + latent(f"{LAYER}.self_attn")},
    "kimi_vl": {
        "config": {"text_config": BASE | MLA | {
            "moe_intermediate_size": 64, "n_shared_experts": 1,
            "n_routed_experts": 5, "num_experts_per_tok": 2,
            "first_k_dense_replace": 1}},
        "variants": [{"q_lora_rank": None}],
        "rules": stacks(f"language_model.{LAYER}.mlp.experts.#.@",
                        f"language_model.{LAYER}.mlp.switch_mlp",
                        "text_config.n_routed_experts")},
    "lfm2-vl": {
        "config": {"text_config": BASE | {
            "model_type": "lfm2", "norm_eps": 1e-5, "conv_bias": False,
            "conv_L_cache": 3, "block_dim": 64, "block_ff_dim": 128,
            "block_multiple_of": 32, "block_ffn_dim_multiplier": 1.0,
            "block_auto_adjust_ff_dim": False, "full_attn_idxs": [1]}}},
    "llama4": {
        "config": {"text_config": BASE | {
            "model_type": "llama4_text", "attention_bias": False,
            "attention_chunk_size": 64, "interleave_moe_layer_step": 2,
            "num_hidden_layers": 4, "intermediate_size": 64,
            "intermediate_size_mlp": 128, "num_experts_per_tok": 1,
            "num_local_experts": 5, "rope_scaling": None,
            "use_qk_norm": True}},
        "rules": [{"from": f"language_model.{LAYER}.feed_forward.experts."
                           "gate_up_proj",
                   "to": f"language_model.{LAYER}.feed_forward.experts."
                         f"{name}.weight", "half": half, "transposed": True}
                  for half, name in enumerate(("gate_proj", "up_proj"))]
        + [{"from": f"language_model.{LAYER}.feed_forward.experts.down_proj",
            "to": f"language_model.{LAYER}.feed_forward.experts."
                  "down_proj.weight", "transposed": True}]},
    "llama4_text": {
        "config": BASE | {"intermediate_size_mlp": 128,
                          "tie_word_embeddings": False,
                          "no_rope_layers": [1, 1, 0], "use_qk_norm": True}},
    "longcat_flash": {"config": LONGCAT, "layers": "num_layers",
                      "rules": LONGCAT_RULES},
    "longcat_flash_ngram": {
        "config": LONGCAT | {"ngram_vocab_size_ratio": 2,
                             "emb_neighbor_num": 2, "emb_split_num": 2},
        "layers": "num_layers",
        "rules": LONGCAT_RULES + renamed({
            "model.embed_tokens.weight":
            "model.ngram_embeddings.word_embeddings.weight"})},
    "mamba": {
        "config": {"vocab_size": 384, "hidden_size": 64,
                   "intermediate_size": 128, "state_size": 16,
                   "num_hidden_layers": 2, "conv_kernel": 4,
                   "use_bias": False, "use_conv_bias": True,
                   "time_step_rank": 32},
        "rules": widths_first("backbone.layers.*.mixer.conv1d.weight")},
    "mimo_v2_flash": {
        "config": BASE | {
            "num_experts_per_tok": 2, "hybrid_layer_pattern": [0, 1, 1],
            "moe_layer_freq": [0, 1, 1], "add_swa_attention_sink_bias": True,
            "add_full_attention_sink_bias": False, "sliding_window_size": 32,
            "moe_intermediate_size": 64, "n_shared_experts": None,
            "n_routed_experts": 5, "routed_scaling_factor": None,
            "topk_method": "noaux_tc", "scoring_func": "sigmoid",
            "norm_topk_prob": True, "n_group": 1, "topk_group": 1,
            "layernorm_epsilon": 1e-5, "swa_rope_theta": 10000.0,
            "swa_num_attention_heads": 4, "swa_num_key_value_heads": 2,
            "v_head_dim": 32, "swa_head_dim": 32, "swa_v_head_dim": 32,
            "partial_rotary_factor": 0.5},
        "variants": [{"n_shared_experts": 1},
                     {"add_full_attention_sink_bias": True}],
        "rules": stacks(f"{LAYER}.mlp.experts.#.@", f"{LAYER}.mlp.switch_mlp",
                        "n_routed_experts")},
    "minimax_m3_vl": {
        "config": {"text_config": BASE | {
            "intermediate_size": 64, "dense_intermediate_size": 128,
            "shared_intermediate_size": 64, "num_local_experts": 5,
            "num_experts_per_tok": 2, "moe_layer_freq": [0, 1, 1]}},
        "rules": stacks(
            f"language_model.{LAYER}.block_sparse_moe.experts.#.@",
            f"language_model.{LAYER}.block_sparse_moe.switch_mlp",
            "text_config.num_local_experts", MIXTRAL)
        + renamed({f"language_model.{LAYER}.block_sparse_moe.{name}.weight":
                   f"language_model.{LAYER}.mlp.{name}.weight"
                   for name in PROJECTIONS})},
    "muse_spark": {
        "not_taken": "mlx-lm computes its gates and norms from what is "
                     "stored"},
    "nanochat": {"config": BASE},
    "nemotron-nas": {
        "config": BASE | {
            "block_configs": [
                {"attention": {"n_heads_in_group": 2}, "ffn":
                 {"ffn_mult": 1.0}},
                {"attention": {"no_op": True}, "ffn": {"ffn_mult": 2.0}},
                {"attention": {"replace_with_linear": True}, "ffn":
                 {"ffn_mult": 1.0}},
                {"attention": {"n_heads_in_group": 4}, "ffn":
                 {"replace_with_linear": True}},
                {"attention": {"n_heads_in_group": 4}, "ffn":
                 {"no_op": True}}], "num_hidden_layers": 5}},
    "olmo": {
        "not_taken": "mlx-lm's class is read by a package of its own, "
                     "ai2-olmo"},
    "olmo_hybrid": {
        "config": BASE | {
            "linear_num_key_heads": 2, "linear_num_value_heads": 4,
            "linear_key_head_dim": 32, "linear_value_head_dim": 32,
            "linear_conv_kernel_dim": 4, "linear_allow_neg_eigval": True,
            "tie_word_embeddings": False, "attention_bias": False,
            "layer_types": ["linear_attention", "linear_attention",
                            "full_attention"]},
        "rules": widths_first(*[f"{LAYER}.linear_attn.{x}_conv1d.weight"
                                for x in "qkv"])},
    "phi3small": {  # which writes to logits up to this one
        "config": BASE | {
            "vocab_size": 100352,
            "dense_attention_every_n_layers": 2, "ff_intermediate_size": 128,
            "gegelu_limit": 20.0, "layer_norm_epsilon": 1e-5}},
    "phixtral": {
        "config": {"num_vocab": 384, "model_dim": 64, "num_heads": 2,
                   "num_layers": 2, "rotary_dim": 32, "num_local_experts": 5},
        "layers": "num_layers",
        "rules": stacks("transformer.h.*.moe.mlp.#.@",
                        "transformer.h.*.moe.switch_mlp", "num_local_experts",
                        {"fc1": "fc1", "fc2": "fc2"}, ("weight", "bias"))},
    "pixtral": {"config": {"text_config": BASE | {"model_type": "mistral"}}},
    "plamo": {"config": BASE | {"n_shared_head": 2}},
    "plamo2": {
        "config": BASE | {"hidden_size_per_head": 32, "mamba_d_state": 16,
                          "attention_window_size": 64, "mamba_num_heads": 4},
        "rules": widths_first(
            "model.layers.layers.*.mixer.conv1d.weight")},
    "plamo3": {"config": BASE | {"window_size": 64},
               "variants": [{"sliding_window": 32}]},
    "prism_hadamard_qwen35": {
        "not_taken": "its weights come packed behind rotations"},
    "recurrent_gemma": {
        "config": BASE | {
            "attention_bias": False, "conv1d_width": 4,
            "logits_soft_cap": 30.0, "attention_window_size": 64,
            "num_key_value_heads": 1,
            "block_types": ["recurrent", "recurrent", "attention"]},
        "variants": [{"block_types": None,
                      "_block_types": ["recurrent", "attention"]}],
        "rules": widths_first(
            f"{LAYER}.temporal_block.conv_1d.weight")},
    "rwkv7": {
        "config": {"vocab_size": 384, "hidden_size": 64,
                   "intermediate_size": 128, "norm_eps": 1e-5,
                   "head_dim": 32, "num_hidden_layers": 2,
                   "a_low_rank_dim": 64, "v_low_rank_dim": 64,
                   "gate_low_rank_dim": 64, "decay_low_rank_dim": 64},
        "rules": [{"from": f"{LAYER}.attn.{name}", "to":
                   f"{LAYER}.attn.{name}", "row": "head_dim"}
                  for name in ("k_k", "k_a", "g_norm.weight",
                               "g_norm.bias")]},
    "spark2_5": {
        "config": BASE | {
            "sliding_window": 32, "rope_parameters": {
                "full_attention": {"rope_theta": 10000.0,
                                   "rope_type": "default"},
                "sliding_attention": {"rope_theta": 10000.0,
                                      "rope_type": "default"}},
            "layer_types": ["sliding_attention", "full_attention",
                            "full_attention"]},
        "rules": renamed({"model.embed_tokens.weight":
                          "model.embedding.weight"})},
    "step3p5": {
        "config": BASE | {
            "num_attention_groups": 2, "moe_num_experts": 5, "moe_top_k": 2,
            "moe_intermediate_size": 64, "share_expert_dim": 64,
            "moe_layers_enum": "1,2"},
        "variants": [{
            "layer_types": ["full_attention", "sliding_attention",
                            "full_attention"],
            "attention_other_setting": {
                "num_attention_heads": 8, "num_attention_groups": 4}}],
        "rules": renamed({
            f"{LAYER}.moe.{theirs}": f"{LAYER}.mlp.{ours}"
            for theirs, ours in {
                "gate.weight": "gate.gate.weight",
                "router_bias": "gate.router_bias"}.items()}
            | {f"{LAYER}.moe.{name}.weight":
               f"{LAYER}.mlp.switch_mlp.{name}.weight"
               for name in PROJECTIONS}
            | {f"{LAYER}.share_expert.{name}.weight":
               f"{LAYER}.mlp.share_expert.{name}.weight"
               for name in PROJECTIONS})
        + [{"from": name, "to": name, "add": 1, "where_renamed": True}
           for name in ("model.norm.weight",
                        f"{LAYER}.input_layernorm.weight",
                        f"{LAYER}.post_attention_layernorm.weight",
                        f"{LAYER}.self_attn.q_norm.weight",
                        f"{LAYER}.self_attn.k_norm.weight")]},
    "talkie": {
        "config": {key: value for key, value in BASE.items()
                   if key != "num_key_value_heads"} | {"head_dim": 16}},
}
