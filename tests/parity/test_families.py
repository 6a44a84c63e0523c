"""Every family: logits against mlx-lm's class, and the way through convert,
gptq, awq and quantize into stock mlx-lm. Printed as a table by

    .venv/bin/python tests/parity/test_families.py [FAMILY...]
"""

import json
import math
import os
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest

mx = pytest.importorskip("mlx.core")
mlx_lm = pytest.importorskip("mlx_lm")
mlx_lm_utils = pytest.importorskip("mlx_lm.utils")

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/support"))
sys.path.insert(0, str(Path(__file__).parent))
import configs_dense  # noqa: E402
import configs_gem  # noqa: E402
import configs_mixers  # noqa: E402
import random_model as demo  # noqa: E402
import walks  # noqa: E402
from hf_layout import pack_experts, unstack  # noqa: E402
from short_runs import SLOW  # noqa: E402
from structures import STRUCTURES, chosen  # noqa: E402
from test_model_parity import (  # noqa: E402, F401
    COHERE2, DELTA_EXPERTS, DEEPSEEK_V2, DEEPSEEK_V3, DTYPES, GEMMA2, GEMMA3, GLM4, GLM4_MOE,
    GPT_OSS, GRANITE, MINISTRAL3, MIXTRAL, OLMOE, PHI3, QWEN2_MOE, QWEN3_5, QWEN3_MOE, QWEN3_NEXT, distance, make_config, make_tokens, probe,
    random_model, run_probe, save, their_logits, tolerance)

EXPERTS = {"moe_intermediate_size": 64}
FAMILIES = {
    "cohere2": COHERE2 | {"head_dim": 32},
    "deepseek_v2": DEEPSEEK_V2 | EXPERTS,
    "deepseek_v3": DEEPSEEK_V3 | EXPERTS,
    "gemma2": GEMMA2 | {"head_dim": 32},
    "gemma3": GEMMA3 | {"head_dim": 32},
    "gemma3_text": GEMMA3 | {"head_dim": 32},
    "glm4": GLM4,
    "glm4_moe": GLM4_MOE | EXPERTS,
    "gpt_oss": GPT_OSS,
    "granite": GRANITE | {"tie_word_embeddings": False},
    "llama": {"attention_bias": True, "mlp_bias": True},
    "llava": {},
    "ministral3": MINISTRAL3,
    "mistral": {"head_dim": 32},
    "mistral3": MINISTRAL3 | {"tie_word_embeddings": False},
    "mixtral": MIXTRAL,
    "olmo2": {},
    "olmoe": OLMOE,
    "phi3": PHI3,
    "qwen2": {},
    "qwen2_moe": QWEN2_MOE | EXPERTS,
    "qwen3": {"head_dim": 32},
    "qwen3_5": QWEN3_5,
    "qwen3_5_moe": QWEN3_5 | DELTA_EXPERTS | EXPERTS,
    "qwen3_moe": QWEN3_MOE | EXPERTS,
    "qwen3_next": QWEN3_NEXT | EXPERTS,
    "smollm3": {"num_hidden_layers": 4},
} | configs_dense.FAMILIES | configs_gem.FAMILIES | configs_mixers.FAMILIES
WIDTHS = {"hidden_size": 128, "intermediate_size": 192, "vocab_size": 3072}
METHODS = {
    "convert": ["-q", "--q-bits", 4, "--q-group-size", 32],
    "gptq": ["--num-samples", 12, "--group-size", 32,
             "--fallback-group-size", 32],
    "awq": ["--num-samples", 12, "--group-size", 32, "--n-grid", 6],
    "quantize": ["--target-bpw", 6, "--effort", "fast", "--gptq-samples", 8,
                 "--data-path", walks.TEXT, "--sequence-length", 32],
}

# The language model inside those of several modalities.
INNER = {"gemma3": "gemma3_text", "llava": "llama", "mistral3": "ministral3"
         } | configs_gem.INNER | configs_dense.INNER
# Their experts come packed, which is in bfloat16.
PUBLISHED = {"gpt_oss"}
VISION = {
    "vision_tower.patch.weight": mx.arange(12).reshape(3, 4).astype(mx.float32),
    "multi_modal_projector.linear.bias": mx.ones((5,)),
}


def beside(family):
    """Tensors beside the language model's."""
    if family in configs_gem.BESIDE:
        return {name: mx.arange(math.prod(shape)).reshape(shape).astype(
            mx.float32) for name, shape in configs_gem.BESIDE[family].items()}
    return VISION if family in INNER else {}


def config_of(family):
    changes = WIDTHS | FAMILIES[family]
    if family not in INNER:
        return make_config(family, changes)
    text = make_config(INNER[family], changes)
    config = {"model_type": family, "text_config": text,
              "vision_config": {"hidden_size": 48}, "image_token_index": 7}
    if family in ("gemma3", "gemma4"):
        config["vocab_size"] = text.pop("vocab_size")
    return config


def text_of(config):
    """What tokens and tolerances are made of."""
    return config | config.get("text_config", {})


def write(folder, family, dtype):
    config = config_of(family)
    model = random_model(json.loads(json.dumps(config)))
    model.set_dtype(DTYPES[dtype])
    folder.mkdir()
    said, layout = {"torch_dtype": dtype}, unstack
    if family in PUBLISHED and dtype == "bfloat16":
        said["quantization_config"] = {"quant_method": "mxfp4"}
        layout = pack_experts
    save(folder, model, config | said, extra=beside(family), layout=layout)
    for name in demo.TOKENIZER:
        shutil.copy(ROOT / "assets/demo" / name, folder / name)
    if family != "gemma3":  # which mlx-lm has no newer layout of
        model, _ = mlx_lm_utils.load_model(folder)
    model.set_dtype(mx.float32)
    return model, text_of(config)


def parity(probe, folder, family, dtype):  # noqa: F811
    """Distance of our logits to mlx-lm's, and what it may be."""
    model, config = write(folder, family, dtype)
    tokens = make_tokens(config, 2, 40)
    ours, _ = run_probe(probe, folder, tokens)
    theirs = their_logits(model, tokens)
    if dtype == "bfloat16" and any("experts" in key for key in config):
        return typical_distance(ours, theirs), tolerance(dtype, config)
    return distance(ours, theirs), tolerance(dtype, config)


def typical_distance(ours, theirs):
    """The median over positions: where two experts' scores are closer than a
    rounding, another one is chosen, and the token is another one from there
    on, here and in mlx-lm."""
    worst = np.abs(ours - theirs).max(axis=-1) / np.abs(theirs).max()
    return float(np.median(worst))


def round_trip(probe, source, out, method):  # noqa: F811
    """Distance of our logits to stock mlx-lm's, both of the output."""
    flags = METHODS[method]
    if method == "convert":
        walks.convert(source, out, *flags)
    elif method == "quantize":
        walks.report_of(method, source, out, *flags)
    else:
        walks.run(method, source, out, *flags)
    config = json.loads((out / "config.json").read_text())
    assert method == "quantize" or config["quantization"]["bits"] == 4
    tensors = demo.load(out)
    for name, tensor in beside(config["model_type"]).items():
        assert tensors[name].dtype == tensor.dtype
        assert mx.array_equal(tensors[name], tensor).item()
    model, _ = mlx_lm_utils.load(str(out))
    model.set_dtype(mx.float32)
    tokens = make_tokens(text_of(config), 2, 40)
    ours, _ = run_probe(probe, out, tokens, dtype="float32")
    return distance(ours, their_logits(model, tokens))


def methods_of(every=SLOW):
    """Without `every` not quantize, which test_published_configs.py runs on one
    family of each structure, and test_published_packs.py on packs."""
    return [method for method in METHODS if method != "quantize" or every]


@pytest.mark.parametrize("family", chosen(FAMILIES))
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_logits(probe, tmp_path, family, dtype):  # noqa: F811
    error, allowed = parity(probe, tmp_path / "model", family, dtype)
    assert error < allowed


@pytest.mark.parametrize("family", chosen(FAMILIES))
def test_round_trips(probe, tmp_path, family):  # noqa: F811
    write(tmp_path / "model", family, "bfloat16")
    for method in methods_of():
        # float32 throughout but for the codes, which both expand alike.
        error = round_trip(
            probe, tmp_path / "model", tmp_path / method, method)
        assert error < 1e-4, method


@pytest.mark.parametrize("family", chosen(FAMILIES))
def test_convert_is_mlx_lms(tmp_path, family):
    """Every tensor bit by bit, and the same modules packed."""
    if family == "gemma3":
        pytest.skip("mlx-lm does not read this layout of the hub")
    write(tmp_path / "model", family, "bfloat16")
    walks.convert(tmp_path / "model", tmp_path / "ours", *METHODS["convert"])
    mlx_lm.convert(
        str(tmp_path / "model"), str(tmp_path / "theirs"), quantize=True,
        q_bits=4, q_group_size=32)
    ours, theirs = demo.load(tmp_path / "ours"), demo.load(tmp_path / "theirs")
    assert sorted(ours.keys() - beside(family)) == sorted(theirs)
    for name, tensor in theirs.items():
        assert ours[name].dtype == tensor.dtype, name
        assert mx.array_equal(ours[name], tensor).item(), name


def test_mistral4_inside_mistral3(probe, tmp_path, monkeypatch):  # noqa: F811
    """The wrapper has either; what its tensors are made of is inside, too."""
    monkeypatch.setitem(INNER, "mistral3", "mistral4")
    monkeypatch.setitem(FAMILIES, "mistral3", configs_dense.MISTRAL4)
    error, allowed = parity(probe, tmp_path / "model", "mistral3", "float32")
    assert error < allowed
    write(tmp_path / "half", "mistral3", "bfloat16")
    assert round_trip(
        probe, tmp_path / "half", tmp_path / "out", "convert") < 1e-4


def test_unknown_type_is_offered(tmp_path):
    write(tmp_path / "model", "qwen3", "bfloat16")
    file = tmp_path / "model/config.json"
    config = json.loads(file.read_text())
    file.write_text(json.dumps(config | {"model_type": "newcomer"}))
    error = walks.run("gptq", tmp_path / "model", tmp_path / "out", code=6)
    assert '"newcomer" is not supported' in error
    assert "--assume-family qwen3" in error
    assert not (tmp_path / "out").exists()
    report = walks.run(
        "gptq", tmp_path / "model", tmp_path / "out", *METHODS["gptq"],
        "--assume-family", "qwen3")
    assert any("newcomer is assumed to be qwen3" in n for n in report["notes"])
    model, out = mlx_lm_utils.load_model(tmp_path / "out")
    assert out["model_type"] == "qwen3"
    # Nothing is like it: another width of a tensor.
    file.write_text(json.dumps(
        config | {"model_type": "newcomer", "intermediate_size": 200}))
    error = walks.run("gptq", tmp_path / "model", tmp_path / "no", code=6)
    assert "known are" in error and "--assume-family" not in error


def test_no_family_is_left_out():
    source = (ROOT / "src/model/families/families.def").read_text()
    names = [line.split('"')[1] for line in source.splitlines() if '("' in line]
    assert sorted(names) == sorted(FAMILIES)
    assert sorted(names) == sorted(sum(STRUCTURES.values(), []))


def main():
    build = os.environ.get("PENNYWEIGHT_BUILD_DIR", ROOT / "build/release")
    program = Path(build) / "tests/probe_model"
    families = sys.argv[1:] or list(FAMILIES)
    print(f"{'family':16} {'float32':>9} {'bfloat16':>9} "
          + " ".join(f"{method:>9}" for method in METHODS))
    off = 0
    with tempfile.TemporaryDirectory() as name:
        for family in families:
            folder = Path(name) / family
            folder.mkdir()
            found = [parity(program, folder / dtype, family, dtype)
                     for dtype in ("float32", "bfloat16")]
            found += [
                (round_trip(program, folder / "bfloat16", folder / m, m), 1e-4)
                for m in methods_of(every=True)]
            ok = all(error < allowed for error, allowed in found)
            off += not ok
            print(f"{family:16} " + " ".join(f"{e:9.1e}" for e, _ in found)
                  + ("  ok" if ok else "  OFF"), flush=True)
            shutil.rmtree(folder)
    print(f"{len(families)} families, {off} of them off")
    sys.exit(off > 0)


if __name__ == "__main__":
    main()
