"""Families by what their blocks are made of. Tests that run a family through a
whole method take the first of each structure, and with PENNYWEIGHT_SLOW=1 (`make
check-all`) every family."""

from short_runs import SLOW

# What sets a structure apart: families that have it, the richest first. Of
# plain llamas is the demo model, which most other tests run.
STRUCTURES = {
    "plain attention and MLP": [
        "qwen3", "ernie4_5", "glm", "helium", "internlm3", "llama", "mimo",
        "mistral", "nanbeige", "qwen2", "seed_oss", "telechat3"],
    "multipliers of the residual stream and logits": ["granite", "minicpm"],
    "parallel branches, layers without rope": ["cohere2", "smollm3"],
    "norms behind branches, windows by layer": [
        "gemma3_text", "exaone4", "glm4", "olmo2", "olmo3"],
    "capped scores and logits": ["gemma2"],
    "inside a model of several modalities": [
        "mistral3", "gemma3", "llava", "ministral3", "qwen2_vl", "qwen3_vl",
        "qwen3_vl_moe"],
    "fused projections": ["phi3"],
    "experts, shared ones too": [
        "qwen2_moe", "deepseek", "ernie4_5_moe", "granitemoe", "mixtral",
        "olmoe", "qwen3_moe"],
    "routers with a correction under plain attention": [
        "bailing_moe", "dots1", "minimax"],
    "latent attention, experts in groups": [
        "deepseek_v3", "deepseek_v2", "glm4_moe", "glm4_moe_lite", "solar_open"],
    "sinks, experts that come packed": ["gpt_oss"],
    "scans, blocks of one part": ["nemotron_h", "mamba2"],
    "scans with multipliers and experts": ["granitemoehybrid"],
    "a scan beside attention": ["falcon_h1"],
    "short convolutions": ["lfm2_moe", "lfm2"],
    "linear attention": ["qwen3_5_moe", "qwen3_5", "qwen3_next"],
}


def chosen(families):
    """Of `families` the first of each structure, in their order."""
    first = {next((name for name in alike if name in families), None)
             for alike in STRUCTURES.values()}
    return [name for name in families if SLOW or name in first]
