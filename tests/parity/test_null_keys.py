"""Keys of config.json that are null: what mlx-lm's class makes of one, or, where
it can't be run with it, an output whose config says what was taken for it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

np = pytest.importorskip("numpy")
mx = pytest.importorskip("mlx.core")
mlx_lm_utils = pytest.importorskip("mlx_lm.utils")

from mlx_lm.models.cache import make_prompt_cache  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
for place in ("tests/support", "tests/parity"):
    sys.path.insert(0, str(ROOT / place))
import walks  # noqa: E402
from structures import chosen  # noqa: E402
from test_families import FAMILIES, config_of, text_of, write  # noqa: E402
from test_model_parity import (  # noqa: E402, F401
    distance, make_tokens, probe, run_probe, their_logits)


def put_null(folder, key):
    file = folder / "config.json"
    config = json.loads(file.read_text())
    config.get("text_config", config)[key] = None
    file.write_text(json.dumps(config))
    return make_tokens(text_of(config), 1, 24)


def logits(folder, tokens):
    model, _ = mlx_lm_utils.load_model(folder)
    model.set_dtype(mx.float32)
    return their_logits(model, tokens)


@pytest.mark.parametrize("family, key", [
    ("bailing_moe", "norm_topk_prob"), ("deepseek_v3", "norm_topk_prob"),
    ("qwen3_5", "rope_parameters"), ("solar_open", "norm_topk_prob")])
def test_as_in_mlx_lm(probe, tmp_path, family, key):  # noqa: F811
    write(tmp_path / "model", family, "float32")
    tokens = put_null(tmp_path / "model", key)
    ours, _ = run_probe(probe, tmp_path / "model", tokens)
    assert distance(ours, logits(tmp_path / "model", tokens)) < 1e-4


@pytest.mark.parametrize("family, key", [
    ("cohere2", "head_dim"), ("deepseek_v3", "n_group"),
    ("glm4_moe", "partial_rotary_factor"), ("qwen3", "head_dim"),
    ("qwen3_next", "decoder_sparse_step"),
    ("solar_open", "routed_scaling_factor")])
def test_the_output_can_be_run(probe, tmp_path, family, key):  # noqa: F811
    write(tmp_path / "model", family, "float32")
    tokens = put_null(tmp_path / "model", key)
    with pytest.raises(TypeError):
        logits(tmp_path / "model", tokens)
    ours, _ = run_probe(probe, tmp_path / "model", tokens)
    walks.convert(tmp_path / "model", tmp_path / "out")
    assert distance(ours, logits(tmp_path / "out", tokens)) < 1e-4


def token_by_token(folder, tokens):
    """As mlx-lm generates: with a cache, in which windows are rings."""
    model, _ = mlx_lm_utils.load_model(folder)
    model.set_dtype(mx.float32)
    cache = make_prompt_cache(model)
    parts = [tokens[:, :16], *(tokens[:, i:i + 1] for i in range(16, 24))]
    return np.concatenate([
        np.array(model(mx.array(part), cache=cache)) for part in parts], axis=1)


WINDOWS = [family for family in FAMILIES
           if text_of(config_of(family)).get("sliding_window") == 8]


def test_what_has_windows():
    assert {"cohere2", "gemma3", "gemma4", "gpt_oss", "laguna", "ministral3",
            "olmo3"} <= set(WINDOWS)


@pytest.mark.parametrize("family", chosen(WINDOWS))
def test_no_window(probe, tmp_path, family):  # noqa: F811
    """mlx-lm takes a null for none, and fails at the first token that it
    generates with one: an output has a window that never ends."""
    write(tmp_path / "model", family, "float32")
    tokens = make_tokens(text_of(config_of(family)), 1, 24)
    slides = run_probe(probe, tmp_path / "model", tokens)[0]
    put_null(tmp_path / "model", "sliding_window")
    # mlx-lm has no newer layout of gemma3, and no rings for mistral3.
    if family not in ("gemma3", "mistral3"):
        with pytest.raises(TypeError):
            token_by_token(tmp_path / "model", tokens)
    ours, said = run_probe(probe, tmp_path / "model", tokens)
    assert "no layer has a window" in said
    assert distance(ours, slides) > 1e-3
    walks.convert(tmp_path / "model", tmp_path / "out")
    assert distance(ours, logits(tmp_path / "out", tokens)) < 1e-4
    assert distance(ours, token_by_token(tmp_path / "out", tokens)) < 1e-4
    if family != "gemma3":
        assert distance(ours, logits(tmp_path / "model", tokens)) < 1e-4


@pytest.mark.parametrize("family, changes, code, words", [
    ("gemma3", {"num_attention_heads": None}, None, ""),
    ("gemma3", {"num_key_value_heads": "4"}, 4, "num_key_value_heads"),
    # Each family is asked whether the model is one of its own.
    ("granite", {"model_type": "newcomer"}, 6, '"newcomer" is not supported'),
    ("granite", {"model_type": "granitemoehybrid"}, None, "is missing"),
])
def test_no_value_is_an_internal_error(tmp_path, family, changes, code, words):
    write(tmp_path / "model", family, "bfloat16")
    file = tmp_path / "model/config.json"
    config = json.loads(file.read_text())
    config.get("text_config", config).update(changes)
    file.write_text(json.dumps(config))
    done = subprocess.run([walks.BIN, "inspect", tmp_path / "model"], text=True,
                          capture_output=True, timeout=60)
    assert done.returncode in ([code] if code else [0, 4, 6]), done.stderr
    assert words in done.stderr and "[internal]" not in done.stderr


def test_sizes_that_llava_leaves_out_or_null(probe, tmp_path):  # noqa: F811
    """An output has what was taken, though the key is there, as a null."""
    write(tmp_path / "model", "llava", "float32")
    file = tmp_path / "model/config.json"
    config = json.loads(file.read_text())
    config["text_config"] |= {"rms_norm_eps": None}
    file.write_text(json.dumps(config))
    tokens = make_tokens(text_of(config), 1, 24)
    ours, _ = run_probe(probe, tmp_path / "model", tokens)
    walks.convert(tmp_path / "model", tmp_path / "out")
    assert distance(ours, logits(tmp_path / "out", tokens)) < 1e-4
