"""Logits against mlx-lm's own model classes, on small random models of every
family and option. Needs the program probe_model of the C++ test build."""

import json
import math
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest

mx = pytest.importorskip("mlx.core")
nn = pytest.importorskip("mlx.nn")
mlx_lm_utils = pytest.importorskip("mlx_lm.utils")
import configs_dense  # noqa: E402
from mlx.utils import tree_flatten, tree_map_with_path  # noqa: E402

import configs_gem  # noqa: E402
import configs_mixers  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
DTYPES = {
    "float32": mx.float32,
    "bfloat16": mx.bfloat16,
    "float16": mx.float16,
}
# Unit round-off: half the spacing of the significand's last bit.
ROUND_OFF = {"float32": 2.0**-24, "bfloat16": 2.0**-8, "float16": 2.0**-11}

NULL = "null"
BASE = {
    "hidden_size": 64,
    "intermediate_size": 112,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 203,
    "rms_norm_eps": 1e-5,
    "max_position_embeddings": 128,
    "hidden_act": "silu",
    "tie_word_embeddings": True,
    "rope_theta": 10000.0,
}
YARN = {
    "rope_type": "yarn",
    "factor": 4.0,
    "original_max_position_embeddings": 32,
}
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
LONGROPE = {
    "type": "longrope",
    "original_max_position_embeddings": 32,
    "short_factor": [1.0] * 8,
    "long_factor": [1.0 + 0.4 * i for i in range(8)],
}
MROPE = {"type": "mrope", "mrope_section": [2, 3, 3]}


def case(name, family, length=40, **changes):
    return pytest.param(family, changes, length, id=f"{family}-{name}")


def rope(name, scaling, length=40, family="llama", **changes):
    return case(
        f"rope-{name}", family, length, rope_scaling=scaling, **changes
    )


GRANITE = {
    "attention_bias": False,
    "mlp_bias": False,
    "logits_scaling": 6.0,
    "attention_multiplier": 0.2,
    "embedding_multiplier": 12.0,
    "residual_multiplier": 0.22,
}
GEMMA3 = {
    "hidden_act": None,
    "hidden_activation": "gelu_pytorch_tanh",
    "tie_word_embeddings": None,
    "head_dim": 24,
    "num_hidden_layers": 4,
    "sliding_window": 8,
    "sliding_window_pattern": 3,
    "query_pre_attn_scalar": 20,
    "rope_local_base_freq": 1000.0,
}

MIXTRAL = {"num_local_experts": 8, "num_experts_per_tok": 2,
           "tie_word_embeddings": False}
QWEN2_MOE = {
    "num_experts": 8, "num_experts_per_tok": 3, "moe_intermediate_size": 48,
    "shared_expert_intermediate_size": 96, "tie_word_embeddings": False}
QWEN3_MOE = {
    "num_experts": 8, "num_experts_per_tok": 3, "moe_intermediate_size": 48,
    "norm_topk_prob": True, "decoder_sparse_step": 1, "mlp_only_layers": [0],
    "head_dim": 16, "tie_word_embeddings": False}
OLMOE = {"num_experts": 8, "num_experts_per_tok": 2}
ROUTED = {
    "n_routed_experts": 8, "num_experts_per_tok": 3, "n_shared_experts": 2,
    "moe_intermediate_size": 48, "first_k_dense_replace": 1,
    "routed_scaling_factor": 1.7, "tie_word_embeddings": False}
GLM4_MOE = ROUTED | {
    "norm_topk_prob": True, "n_group": 1, "topk_group": 1, "head_dim": 16,
    "use_qk_norm": True, "attention_bias": True, "partial_rotary_factor": 0.5,
    "rope_scaling": NULL}
LATENT = ROUTED | {
    "q_lora_rank": 40, "kv_lora_rank": 32, "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 32, "v_head_dim": 24, "num_key_value_heads": 4,
    "n_group": 4, "topk_group": 2}
DEEPSEEK_V2 = LATENT | {
    "topk_method": "group_limited_greedy",
    "rope_scaling": {"type": "yarn", "factor": 4.0, "mscale": 0.7,
                     "mscale_all_dim": 0.7, "beta_fast": 32, "beta_slow": 1,
                     "original_max_position_embeddings": 32}}
GPT_OSS = {
    "num_local_experts": 8, "num_experts_per_tok": 2, "head_dim": 16,
    "sliding_window": 8, "rope_scaling": YARN, "tie_word_embeddings": False}
DELTA = {
    "linear_num_value_heads": 4, "linear_num_key_heads": 2,
    "linear_key_head_dim": 16, "linear_value_head_dim": 8,
    "linear_conv_kernel_dim": 4, "full_attention_interval": 2, "head_dim": 16,
    "num_hidden_layers": 4, "tie_word_embeddings": False}
DELTA_EXPERTS = QWEN2_MOE | {"norm_topk_prob": True, "decoder_sparse_step": 1}
QWEN3_NEXT = DELTA_EXPERTS | DELTA | {
    "mlp_only_layers": [1], "partial_rotary_factor": 0.5}
QWEN3_5 = DELTA | {
    "rope_theta": None,
    "rope_parameters": {"rope_type": "default", "rope_theta": 50000.0,
                        "partial_rotary_factor": 0.5}}
DEEPSEEK_V3 = LATENT | {"topk_method": "noaux_tc", "scoring_func": "sigmoid",
                        "norm_topk_prob": True}
GEMMA2 = {
    "hidden_act": None, "hidden_activation": "gelu_pytorch_tanh",
    "tie_word_embeddings": None, "head_dim": 24,
    "attn_logit_softcapping": 3.0, "final_logit_softcapping": 20.0,
    "query_pre_attn_scalar": 20}
PHI3 = {"partial_rotary_factor": 0.5, "tie_word_embeddings": False}
PHI3_LONG = PHI3 | {
    "original_max_position_embeddings": 32,
    "rope_scaling": {"type": "longrope", "short_factor": [1.0] * 4,
                     "long_factor": [1.0, 1.5, 2.0, 3.0]}}
GLM4 = {"attention_bias": True, "head_dim": 16, "partial_rotary_factor": 0.5,
        "tie_word_embeddings": False}
COHERE2 = {
    "tie_word_embeddings": None, "rms_norm_eps": None, "head_dim": 16,
    "layer_norm_eps": 1e-5, "sliding_window": 8, "sliding_window_pattern": 2,
    "logit_scale": 0.25, "num_hidden_layers": 4}
MINISTRAL3 = {
    "rope_theta": None, "head_dim": 16, "num_hidden_layers": 3,
    "sliding_window": 8,
    "layer_types": ["sliding_attention", "full_attention",
                    "sliding_attention"],
    "rope_parameters": YARN | {
        "rope_theta": 50000.0, "llama_4_scaling_beta": 0.3,
        "original_max_position_embeddings": 16}}


CASES = [
    case("plain", "llama"),
    case("mha", "llama", num_key_value_heads=None),
    case("mqa", "llama", num_key_value_heads=1),
    case("separate-head", "llama", tie_word_embeddings=False),
    case("head-dim", "llama", head_dim=24),
    case("attention-bias", "llama", attention_bias=True),
    case("mlp-bias", "llama", mlp_bias=True, attention_bias=True),
    case("rope-traditional", "llama", rope_traditional=True),
    case("odd-mlp", "llama", intermediate_size=51),
    case("long", "llama", length=600),
    case(
        "sliding",
        "llama",
        length=70,
        num_hidden_layers=3,
        sliding_window=16,
        layer_types=[
            "sliding_attention",
            "full_attention",
            "sliding_attention",
        ],
    ),
    case(
        "sliding-shorter-than-window",
        "llama",
        length=12,
        sliding_window=16,
        layer_types=["sliding_attention", "full_attention"],
    ),
    rope("default", {"rope_type": "default"}),
    rope("linear", {"type": "linear", "factor": 3.0}),
    rope("dynamic-short", {"type": "dynamic", "factor": 2.0}),
    rope("dynamic-long", {"type": "dynamic", "factor": 2.0}, length=200),
    rope("llama3", LLAMA3, length=200),
    rope("llama3-traditional", LLAMA3, rope_traditional=True),
    rope("yarn", YARN, length=200),
    rope("yarn-all", YARN | {
        "beta_fast": 16,
        "beta_slow": 2,
        "mscale": 0.8,
        "mscale_all_dim": 0.5,
    }),
    rope("yarn-traditional", YARN, rope_traditional=True),
    rope("longrope", LONGROPE, length=100),
    rope("mrope", MROPE),
    rope("proportional", {
        "rope_type": "proportional",
        "partial_rotary_factor": 0.5,
        "factor": 2.0,
    }),
    case("plain", "mistral", sliding_window=8),
    case("head-dim", "mistral", head_dim=32, tie_word_embeddings=False),
    case("plain", "qwen2"),
    case("separate-head", "qwen2", tie_word_embeddings=False),
    case("defaults", "qwen2", rope_theta=None, tie_word_embeddings=None),
    case(
        "window-unused",
        "qwen2",
        use_sliding_window=True,
        sliding_window=8,
        max_window_layers=1,
    ),
    rope("yarn", YARN, family="qwen2"),
    rope("mrope", MROPE, family="qwen2"),
    case("plain", "qwen3", head_dim=16),
    case("head-dim", "qwen3", head_dim=40, tie_word_embeddings=False),
    rope("yarn", YARN, family="qwen3", head_dim=16),
    rope("dynamic", {"type": "dynamic", "factor": 2.0}, family="qwen3",
         head_dim=16, length=200),
    case(
        "rope-parameters",
        "qwen3",
        head_dim=16,
        rope_theta=None,
        rope_parameters={"rope_theta": 50000.0, **YARN},
    ),
    case("plain", "granite", **GRANITE),
    case("separate-head", "granite", tie_word_embeddings=False,
         **GRANITE | {"attention_bias": True, "mlp_bias": True}),
    case("plain", "olmo2"),
    case("separate-head", "olmo2", tie_word_embeddings=False, head_dim=24),
    case("plain", "smollm3", num_hidden_layers=4),
    case("listed", "smollm3", no_rope_layers=[0, 1]),
    case("plain", "gemma3_text", **GEMMA3),
    case("long", "gemma3_text", length=70, **GEMMA3),
    case("no-key-heads", "gemma3_text", **GEMMA3 | {"sliding_window": None}),
    case("plain", "gemma2", **GEMMA2),
    case("plain", "phi3", **PHI3),
    case("longrope", "phi3", length=70, **PHI3_LONG),
    case("tied", "phi3", **PHI3 | {"tie_word_embeddings": True}),
    case("plain", "glm4", **GLM4),
    case("plain", "cohere2", **COHERE2),
    case("biases", "cohere2", **COHERE2 | {
        "attention_bias": True, "layer_norm_bias": True}),
    case("plain", "ministral3", length=70, **MINISTRAL3),
    case("plain", "mixtral", **MIXTRAL),
    case("plain", "qwen2_moe", **QWEN2_MOE),
    case("plain", "qwen3_moe", **QWEN3_MOE),
    case("not-normalized", "qwen3_moe", **QWEN3_MOE | {
        "norm_topk_prob": False, "decoder_sparse_step": 2}),
    case("plain", "olmoe", **OLMOE),
    case("normalized", "olmoe", **OLMOE | {
        "norm_topk_prob": True, "mlp_bias": True}),
    case("plain", "glm4_moe", **GLM4_MOE),
    case("groups", "glm4_moe", **GLM4_MOE | {
        "n_group": 4, "topk_group": 2, "use_qk_norm": False}),
    case("plain", "deepseek_v2", **DEEPSEEK_V2),
    case("greedy", "deepseek_v2", **DEEPSEEK_V2 | {
        "topk_method": "greedy", "q_lora_rank": NULL,
        "n_shared_experts": None}),
    case("plain", "gpt_oss", length=70, **GPT_OSS),
    case("plain", "qwen3_next", length=70, **QWEN3_NEXT),
    case("plain", "qwen3_5", length=70, **QWEN3_5),
    case("tied", "qwen3_5", **QWEN3_5 | {"tie_word_embeddings": True}),
    case("plain", "qwen3_5_moe", **QWEN3_5 | DELTA_EXPERTS),
    case("plain", "deepseek_v3", **DEEPSEEK_V3),
    case("yarn", "deepseek_v3", **DEEPSEEK_V3 | {
        "rope_scaling": DEEPSEEK_V2["rope_scaling"], "q_lora_rank": NULL}),
]
CASES += [case(name, family, length, **changes)
          for name, family, length, changes in configs_gem.CASES]
CASES += [case(name, family, length, **changes)
          for name, family, length, changes in configs_mixers.CASES]
HEIRS = [case(name, family, length, **changes)
         for name, family, changes, length in configs_dense.CASES]
# Scales are folded in one case of each of these families, or in all.
FOLDED = CASES + [heir for heir in HEIRS
                  if os.environ.get("PENNYWEIGHT_SLOW")
                  or heir.id.endswith("-plain")]
CASES += HEIRS


@pytest.fixture(scope="session")
def probe():
    folder = os.environ.get("PENNYWEIGHT_BUILD_DIR")
    if not folder:
        pytest.skip("PENNYWEIGHT_BUILD_DIR is not set")
    program = Path(folder) / "tests" / "probe_model"
    assert program.exists(), f"{program} is not built"
    return program


def run_probe(probe, folder, tokens, dtype="own", mode="full", kernel=None):
    """Our logits and what the spec notes."""
    ids = folder / "tokens.bin"
    out = folder / "logits.bin"
    np.asarray(tokens, np.int32).tofile(ids)
    batch, length = tokens.shape
    environment = dict(os.environ)
    if kernel:
        environment["PENNYWEIGHT_KERNEL"] = kernel
    done = subprocess.run(
        [probe, folder, ids, str(batch), str(length), out, dtype, mode],
        capture_output=True,
        text=True,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    logits = np.fromfile(out, np.float32).reshape(batch, length, -1)
    return logits, done.stdout


def make_config(family, changes):
    """None leaves a key out; NULL is a null in the file."""
    config = {"model_type": family} | BASE | changes
    return {key: None if value == NULL else value
            for key, value in config.items() if value is not None}


def layers_of(config):
    names = ("num_hidden_layers", "num_layers", "n_layer",
             "num_transformer_layers")
    return next(config[name] for name in names if name in config)


def random_model(config, seed=0):
    """mlx-lm's model of `config` with weights at which every part matters:
    attention is not flat, norms and biases differ from their defaults."""
    random = np.random.default_rng(seed)
    model_class, args_class = mlx_lm_utils._get_classes(config)
    model = model_class(args_class.from_dict(config))

    def fill(path, value):
        noise = random.standard_normal(value.shape)
        if not value.shape:
            own = path.endswith((".beta", ".eps"))  # of a fixed meaning
            return value if own else value + 0.3 * float(noise)
        if path.endswith(".bias"):
            noise = 0.3 * noise
        elif path.endswith(".expert_bias"):
            # Below 0 they would tie with the zeros of groups left out.
            noise = 0.3 * abs(noise)
        elif "norm" in path:
            # Gemma's norms add 1 to their weights, up to Gemma 3.
            adds = config["model_type"].startswith(
                ("gemma2", "gemma3")) or config["model_type"] == "gemma"
            noise = (0 if adds else 1) + 0.3 * noise
        elif path.endswith(("scale", "scalar")):
            noise = 1 + 0.3 * noise
        elif "embed" not in path:
            noise = 1.5 * noise / math.sqrt(value.shape[-1])
        return mx.array(noise.astype(np.float32))

    model.update(tree_map_with_path(fill, model.parameters()))
    return model


def save(folder, model, config, extra=None, layout=None):
    weights = dict(tree_flatten(model.parameters())) | (extra or {})
    if layout:
        weights = layout(weights, config)
    mx.save_safetensors(
        str(folder / "model.safetensors"), weights, {"format": "mlx"}
    )
    (folder / "config.json").write_text(json.dumps(config))


def make_tokens(config, batch, length, seed=1):
    random = np.random.default_rng(seed)
    return random.integers(0, config["vocab_size"], (batch, length))


def their_logits(model, tokens):
    return np.array(model(mx.array(tokens)).astype(mx.float32))


def distance(ours, theirs):
    """Largest difference relative to the largest logit."""
    assert ours.shape == theirs.shape
    assert np.isfinite(ours).all()
    return np.abs(ours - theirs).max() / np.abs(theirs).max()


@pytest.mark.parametrize("family, changes, length", CASES)
def test_float32_logits(probe, tmp_path, family, changes, length):
    config = make_config(family, changes)
    model = random_model(config)
    save(tmp_path, model, config)
    tokens = make_tokens(config, 2, length)
    theirs = their_logits(model, tokens)
    ours, _ = run_probe(probe, tmp_path, tokens)
    assert distance(ours, theirs) < 1e-4


@pytest.mark.parametrize("family, changes, length", FOLDED)
def test_folded_scales_change_nothing(
    probe, tmp_path, family, changes, length
):
    config = make_config(family, changes)
    save(tmp_path, random_model(config), config)
    tokens = make_tokens(config, 2, length)
    plain, _ = run_probe(probe, tmp_path, tokens)
    folded, notes = run_probe(probe, tmp_path, tokens, mode="folded")
    assert notes.count("scale groups") == layers_of(config)
    assert " 0 scale groups" not in notes
    assert (folded != plain).any()
    assert distance(folded, plain) < 1e-4


@pytest.mark.parametrize("kernel", ["reference", "simd", "onednn", "mlx"])
@pytest.mark.parametrize("family, changes, length", [
    case("plain", "llama"),
    case("bias", "qwen2"),
    case("norms", "qwen3", head_dim=24),
    case("sliding", "llama", length=70, sliding_window=16,
         layer_types=["sliding_attention", "full_attention"]),
])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_every_kernel(
    probe, tmp_path, family, changes, length, kernel, dtype
):
    config = make_config(family, changes)
    model = random_model(config)
    model.set_dtype(DTYPES[dtype])
    save(tmp_path, model, config)
    model.set_dtype(mx.float32)
    tokens = make_tokens(config, 2, length)
    ours, _ = run_probe(probe, tmp_path, tokens, kernel=kernel)
    theirs = their_logits(model, tokens)
    assert distance(ours, theirs) < tolerance(dtype, config)


def tolerance(dtype, config):
    """Relative to the largest logit. In a 16-bit type the weights are exact
    and each activation is rounded once an op, the sums and the residual
    stream stay float32. A block rounds 9 times on the way of a value (norm,
    projection, rope, attention; norm, gate, up, their product), and the final
    norm once. A rounding errs by u / sqrt(3) in the mean square; the errors
    are independent and add in squares. The largest logit error stands to its
    mean square as the largest logit to its own; the softmax multiplies an
    error of the scores by their size, some 4 here, which 4 sqrt(3) u covers
    with the rest."""
    if dtype == "float32":
        return 1e-4
    roundings = 9 * layers_of(config) + 1
    return 4 * ROUND_OFF[dtype] * math.sqrt(roundings)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("family, changes", [
    ("llama", {}),
    ("llama", {"rope_scaling": LLAMA3, "tie_word_embeddings": False}),
    ("mistral", {"head_dim": 32}),
    ("qwen2", {}),
    ("qwen3", {"head_dim": 16}),
    ("granite", GRANITE),
    ("olmo2", {}),
    ("smollm3", {"num_hidden_layers": 4}),
    ("gemma3_text", GEMMA3),
])
def test_half_logits(probe, tmp_path, family, changes, dtype):
    """Against mlx-lm in float32 with the same 16-bit weights."""
    config = make_config(family, changes)
    model = random_model(config)
    model.set_dtype(DTYPES[dtype])
    save(tmp_path, model, config)
    model.set_dtype(mx.float32)
    tokens = make_tokens(config, 2, 100)
    theirs = their_logits(model, tokens)
    ours, _ = run_probe(probe, tmp_path, tokens)
    assert distance(ours, theirs) < tolerance(dtype, config)
    # And the same weights computed in float32.
    exact, _ = run_probe(probe, tmp_path, tokens, dtype="float32")
    assert distance(exact, theirs) < 1e-4


QUANTIZED = [
    ("affine", bits, group)
    for bits in (2, 3, 4, 5, 6, 8)
    for group in (32, 64, 128)
] + [("mxfp4", 4, 32), ("mxfp8", 8, 32), ("nvfp4", 4, 16)]


def quantize(model, config, mode, bits, group, predicate=None):
    return mlx_lm_utils.quantize_model(
        model, config, group, bits, mode=mode, quant_predicate=predicate
    )


def quantized_config(family, **changes):
    wide = {"hidden_size": 128, "intermediate_size": 256}
    return make_config(family, wide | changes)


@pytest.mark.parametrize("mode, bits, group", QUANTIZED)
@pytest.mark.parametrize("family", ["llama", "qwen2"])
def test_quantized_logits(probe, tmp_path, family, mode, bits, group):
    config = quantized_config(family, tie_word_embeddings=family == "llama")
    model, config = quantize(random_model(config), config, mode, bits, group)
    save(tmp_path, model, config)
    tokens = make_tokens(config, 2, 24)
    theirs = their_logits(model, tokens)
    ours, _ = run_probe(probe, tmp_path, tokens, dtype="float32")
    assert distance(ours, theirs) < 1e-4


@pytest.mark.parametrize("mode, bits, group", [
    ("affine", 4, 64), ("affine", 3, 32), ("mxfp4", 4, 32),
    ("mxfp8", 8, 32), ("nvfp4", 4, 16),
])
def test_quantized_bfloat16(probe, tmp_path, mode, bits, group):
    """Scales in bfloat16, matrices in bfloat16: the weight's own rounding is
    one more a linear, of which a value passes four a block."""
    config = quantized_config("llama")
    model = random_model(config)
    model.set_dtype(mx.bfloat16)
    model, config = quantize(model, config, mode, bits, group)
    save(tmp_path, model, config)
    model.set_dtype(mx.float32)
    tokens = make_tokens(config, 2, 40)
    ours, _ = run_probe(probe, tmp_path, tokens)
    theirs = their_logits(model, tokens)
    assert distance(ours, theirs) < math.sqrt(2) * tolerance(
        "bfloat16", config
    )


def test_quantized_with_overrides(probe, tmp_path):
    """Mixed widths, and modules left as they are."""
    config = quantized_config("llama", tie_word_embeddings=False)

    def predicate(path, module):
        if "k_proj" in path or path == "lm_head":
            return False
        if "down_proj" in path:
            return {"group_size": 32, "bits": 8, "mode": "affine"}
        return True

    model, config = quantize(
        random_model(config), config, "affine", 4, 64, predicate
    )
    save(tmp_path, model, config)
    tokens = make_tokens(config, 2, 24)
    ours, _ = run_probe(probe, tmp_path, tokens, dtype="float32")
    assert distance(ours, their_logits(model, tokens)) < 1e-4


@pytest.mark.parametrize("family, changes, length", [
    case("plain", "llama", length=40),
    case("past-a-cache-step", "llama", length=300),
    case("sliding", "llama", length=70, sliding_window=16,
         layer_types=["sliding_attention", "full_attention"]),
    case("norms", "qwen3", head_dim=16),
    rope("llama3", LLAMA3),
    rope("longrope", LONGROPE),
    case("short-convolution", "lfm2", **configs_mixers.LFM2),
    case("scan", "nemotron_h", **configs_mixers.NEMOTRON_H),
    case("side-scan", "falcon_h1", **configs_mixers.FALCON_H1),
])
def test_cached_equals_full(probe, tmp_path, family, changes, length):
    config = make_config(family, changes)
    save(tmp_path, random_model(config), config)
    tokens = make_tokens(config, 3, length)
    full, _ = run_probe(probe, tmp_path, tokens)
    cached, _ = run_probe(probe, tmp_path, tokens, mode="cached")
    # The same float32 sums in another order.
    assert distance(cached, full) < 1e-5


def test_tied_head_is_dropped(probe, tmp_path):
    """As mlx-lm's sanitize: an lm_head beside a tied embedding, and rotary
    frequencies, are no part of the model."""
    config = make_config("llama", {})
    model = random_model(config)
    extra = {
        "lm_head.weight": mx.zeros((203, 64)),
        "model.layers.0.self_attn.rotary_emb.inv_freq": mx.zeros((8,)),
    }
    save(tmp_path, model, config, extra)
    tokens = make_tokens(config, 1, 20)
    ours, notes = run_probe(probe, tmp_path, tokens)
    assert distance(ours, their_logits(model, tokens)) < 1e-4
    assert "lm_head.weight is dropped" in notes


def test_rope_parameters_of_llama(probe, tmp_path):
    """transformers 5 spells rope_theta and rope_scaling as rope_parameters,
    which mlx-lm's llama does not read: the model that is meant is run, and a
    note says what an output's config needs."""
    parameters = {"rope_theta": 50000.0, **LLAMA3}
    meant = make_config(
        "llama", {"rope_theta": 50000.0, "rope_scaling": LLAMA3}
    )
    model = random_model(meant)
    written = make_config(
        "llama", {"rope_theta": None, "rope_parameters": parameters}
    )
    save(tmp_path, model, written)
    tokens = make_tokens(meant, 1, 100)
    ours, notes = run_probe(probe, tmp_path, tokens)
    assert distance(ours, their_logits(model, tokens)) < 1e-4
    assert "rope_parameters" in notes
