"""Families by what their blocks are made of. Tests that run a family through a
whole method take the first of each structure, and with PENNYWEIGHT_SLOW=1 (`make
check-all`) every family."""

from short_runs import SLOW

# What sets a structure apart, and the families that have it, the one with most of
# it first. llama is not first in its own, since most other tests run the demo model.
STRUCTURES = {
    "plain attention and MLP": [
        "qwen3", "ernie4_5", "exaone", "gemma", "glm", "helium",
        "hunyuan_v1_dense", "internlm3", "llama", "mimo", "mistral", "nanbeige",
        "qwen2", "seed_oss", "telechat3"],
    "multipliers of the residual stream and logits": ["granite", "minicpm"],
    "parallel branches, layers without rope": ["cohere2", "cohere", "smollm3"],
    "norms behind branches, windows by layer": [
        "gemma3_text", "exaone4", "glm4", "olmo2", "olmo3"],
    "capped scores and logits": ["gemma2"],
    "inside a model of several modalities": [
        "mistral3", "gemma3", "kimi_k25", "llava", "ministral3", "qwen2_vl",
        "qwen3_vl", "qwen3_vl_moe"],
    "fused projections": ["phi3", "internlm2", "lille-130m", "openelm", "qwen"],
    "layer norms, MLPs without a gate": [
        "gpt_neox", "apertus", "gptj", "nemotron", "phi", "stablelm",
        "starcoder2"],
    "gates of attention, norms without weights": [
        "muse_glimmer", "afmoe", "laguna"],
    "experts, shared ones too": [
        "qwen2_moe", "deepseek", "ernie4_5_moe", "granitemoe", "mellum",
        "mixtral", "olmoe", "phimoe", "qwen3_moe"],
    "latent attention, experts in groups": [
        "deepseek_v3", "bailing_moe", "deepseek_v2", "deepseek_v32", "dots1",
        "exaone_moe", "glm4_moe", "glm4_moe_lite", "glm_moe_dsa", "minicpm3",
        "minimax", "mistral4", "solar_open", "youtu_llm"],
    "sinks, experts that come packed": ["gpt_oss"],
    "heads of two sizes, experts beside an MLP": ["gemma4"],
    "shared keys, an embedding for each layer": ["gemma4_text"],
    "scans, blocks of one part": ["nemotron_h", "mamba2"],
    "scans with multipliers and experts": ["granitemoehybrid"],
    "a scan beside attention": ["falcon_h1"],
    "short convolutions": ["lfm2_moe", "lfm2"],
    "linear attention": ["qwen3_5_moe", "qwen3_5", "qwen3_next"],
}


def chosen(families):
    """The first of `families` of each structure, or all with PENNYWEIGHT_SLOW; in
    their order."""
    first = {next((name for name in alike if name in families), None)
             for alike in STRUCTURES.values()}
    return [name for name in families if SLOW or name in first]
