"""pennyweight awq: against rounding to nearest, and what it shares with gptq."""

import json
import os
import shutil
import sys
from pathlib import Path

import pytest

mx = pytest.importorskip("mlx.core")
pytest.importorskip("mlx_lm")

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/support"))
import random_model  # noqa: E402
import walks  # noqa: E402
from short_runs import SLOW  # noqa: E402
from walks import DEMO, kl, leftovers, mpirun, same_files  # noqa: E402, F401

STORIES = Path(
    os.environ.get("PENNYWEIGHT_SHARED", ROOT.parent / "shared")
) / "models/stories260k"


def awq(model, out, *flags, **how):
    return walks.run("awq", model, out, *flags, **how)


@pytest.mark.parametrize("bits", [3, 4] if SLOW else [3])
def test_beats_rounding_and_loads(bits, tmp_path):
    from mlx_lm import generate, load
    nearest = awq(DEMO, tmp_path / "nearest", "--bits", bits, "--no-scale",
                  "--no-clip", "--no-fit-embed")
    assert {b["kept"] for b in nearest["blocks"]} == {"round to nearest"}
    out = tmp_path / "out"
    report = awq(DEMO, out, "--bits", bits, "--num-samples", 48)
    for block in report["blocks"]:
        errors = block["held_out_error"]
        assert errors[block["kept"]] == min(errors.values())
        for figures in block["scales"].values():
            assert 0 <= figures["ratio"] < 1
    assert report["embedding_and_head"]["model.embed_tokens"]["loss_share"] < 0.8
    model, tokenizer = load(str(out))
    assert generate(model, tokenizer, prompt="The", max_tokens=4)
    config = json.loads((out / "config.json").read_text())["quantization"]
    assert (config["bits"], config["group_size"]) == (bits, 64)
    embedding = config["model.embed_tokens"]
    assert (embedding["bits"], embedding["group_size"]) == (4, 32)
    assert kl(out) < 0.85 * kl(tmp_path / "nearest")


def test_nearest_is_mlxs(tmp_path):
    """Without scales and ranges the tensors are those of mx.quantize."""
    out = tmp_path / "out"
    awq(DEMO, out, "--no-scale", "--no-clip", "--no-fit-embed",
        "--num-samples", 8)
    source = random_model.load(DEMO)
    tensors = random_model.load(out)
    same = total = 0
    for name, scales in tensors.items():
        if not name.endswith(".scales"):
            continue
        path = name.removesuffix(".scales")
        group = 32 if "embed" in path else 64
        parts = mx.quantize(source[path + ".weight"], group, 4)
        # In the last bit of a scale: mlx works in bfloat16, we in float32.
        close = mx.abs(parts[1] - scales) <= 2**-7 * mx.abs(scales)
        same += mx.sum(close).item()
        total += scales.size
    assert same > 0.999 * total


def test_scales_are_folded(tmp_path):
    """Norms take the scales over; the logits of the output are those that
    its tensors stand for, so mlx-lm's on it are finite and near."""
    out = tmp_path / "out"
    report = awq(DEMO, out, "--bits", 8, "--embed-bits", 8, "--no-clip",
                 "--num-samples", 24)
    scaled = [i for i, b in enumerate(report["blocks"])
              if b["kept"] == "scaled"]
    source, tensors = random_model.load(DEMO), random_model.load(out)
    for i in scaled:
        names = [f"model.layers.{i}.{n}.weight"
                 for n in ("input_layernorm", "post_attention_layernorm")]
        ratios = [b["ratio"] for b in report["blocks"][i]["scales"].values()]
        changed = [not mx.array_equal(source[n], tensors[n]) for n in names]
        assert any(changed) or max(ratios) == 0 or not any(
            v for k, v in report["blocks"][i]["scales"].items()
            if ("q_proj" in k or "gate_proj" in k) and v["ratio"] > 0)
    # At 8 bits what is left of an error would be the folding's.
    assert kl(out) < 0.01


def test_then_gptq(tmp_path):
    report = awq(DEMO, tmp_path / "out", "--then", "gptq",
                 "--num-samples", 24)
    for block in report["blocks"]:
        errors = block["held_out_error"]
        assert errors[block["kept"]] == min(errors.values())
        assert block["gptq"]["modules"]
    awq(DEMO, tmp_path / "alone", "--num-samples", 24)
    assert kl(tmp_path / "out") < kl(tmp_path / "alone")


def test_full_inputs(tmp_path):
    report = awq(DEMO, tmp_path / "out", "--full-inputs", "--num-samples", 24)
    assert len(report["blocks"]) > 0
    assert kl(tmp_path / "out") < 1


def test_killed_and_gone_on_with(tmp_path):
    model = tmp_path / "model"
    random_model.write(model, num_hidden_layers=8)
    # tests/contract kills awq without --then.
    for flags in ([], ["--then", "gptq"])[0 if SLOW else 1:]:
        straight, out = tmp_path / "straight", tmp_path / "out"
        awq(model, straight, "--num-samples", 24, *flags)
        block = tmp_path / ".out.pennyweight" / "block-00002"
        walks.kill_when(
            walks.command("awq", model, out, "--num-samples", 24, *flags),
            block.exists)
        report = awq(model, out, "--num-samples", 24, *flags)
        assert report["resumed_blocks"] > 0
        assert same_files(straight, out)
        assert not leftovers(tmp_path)
        shutil.rmtree(straight)
        shutil.rmtree(out)


def test_memory_does_not_grow_with_blocks(tmp_path):
    # A block has 1.6 MB: what stays of 8 would be 12 % of the peak.
    peaks = [awq(walks.wide_model(tmp_path / f"model{blocks}", blocks),
                 tmp_path / f"out{blocks}", "--num-samples", 8,
                 "--n-grid", 5)["peak_rss"]
             for blocks in (4, 12)]
    print(f"{peaks[0] / 1e6:.1f} MB, {peaks[1] / 1e6:.1f} MB")
    assert abs(peaks[1] - peaks[0]) < 0.05 * peaks[0]


def test_two_processes(mpirun, tmp_path):  # noqa: F811
    awq(DEMO, tmp_path / "one", "--num-samples", 24)
    two = awq(
        DEMO, tmp_path / "two", "--num-samples", 24, launcher=mpirun)
    assert two["processes"] == 2
    assert walks.equally_good(tmp_path / "two", tmp_path / "one")


def test_a_width_that_no_group_divides(tmp_path):
    if not STORIES.exists():
        pytest.skip(f"{STORIES} is not there")
    from mlx_lm import load
    for method, flags in (("awq", ["--group-size", 32]),
                          ("gptq", ["--group-size", 32]),
                          ("awq", ["--group-size", 32, "--then", "gptq"])):
        out = tmp_path / f"{method}{len(flags)}"
        report = walks.run(
            method, STORIES, out, "--num-samples", 24, *flags)
        assert any("down_proj" in kept for kept in report["kept"])
        load(str(out))
