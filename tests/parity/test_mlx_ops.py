"""What a GPU runs, on a CPU: PENNYWEIGHT_KERNEL=mlx makes every op of MLX's own.
Families against mlx-lm, and each method beside the CPU's kernels."""

import json
import sys
from pathlib import Path

import pytest

mx = pytest.importorskip("mlx.core")
pytest.importorskip("mlx_lm")

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/support"))
sys.path.insert(0, str(Path(__file__).parent))
import random_model  # noqa: E402
import short_runs  # noqa: E402
import walks  # noqa: E402
from short_runs import SLOW  # noqa: E402
from structures import chosen  # noqa: E402
from test_families import (  # noqa: E402
    EXPERTS, FAMILIES, METHODS, distance, make_tokens, round_trip, run_probe,
    their_logits, tolerance, write)
from test_model_parity import probe  # noqa: E402, F401

# Of the demo model's 4 blocks each of 12 ops (norms, linears, rope, attention,
# the gated activation) rounds to bfloat16, by 2^-8 at most. Roundings add up as
# their root, and a divergence is quadratic in what is off.
ALLOWED = 2 * (4 * 12) ** 0.5 * 2.0 ** -8


@pytest.mark.parametrize("family", chosen(FAMILIES))
def test_logits(probe, tmp_path, family):  # noqa: F811
    """In float32, where nothing but the order of sums sets both apart."""
    model, config = write(tmp_path / "model", family, "float32")
    tokens = make_tokens(config, 2, 40)
    ours, _ = run_probe(probe, tmp_path / "model", tokens, kernel="mlx")
    kernels, _ = run_probe(probe, tmp_path / "model", tokens)
    allowed = tolerance("float32", config)
    assert distance(ours, their_logits(model, tokens)) < allowed
    assert distance(ours, kernels) < allowed


# A family of each kind of block: attention, latent attention with experts, packed
# experts, scans, linear attention.
ROUND_TRIPS = FAMILIES if SLOW else [
    "qwen3", "deepseek_v3", "gpt_oss", "nemotron_h", "qwen3_5_moe"]


@pytest.mark.parametrize("family", ROUND_TRIPS)
def test_round_trips(probe, tmp_path, family, monkeypatch):  # noqa: F811
    write(tmp_path / "model", family, "bfloat16")
    monkeypatch.setenv("PENNYWEIGHT_KERNEL", "mlx")
    # By MLX's ops on a CPU, folding takes half a minute a family; rounding to
    # nearest multiplies nothing.
    for method in METHODS if SLOW else ["gptq"]:
        error = round_trip(
            probe, tmp_path / "model", tmp_path / method, method)
        assert error < 1e-4, method


def command(name, out, *flags):
    """MLX multiplies bfloat16 at a tenth of its rate in float32 on a CPU: of
    distillation the long run alone has that."""
    if SLOW or name != "dwq":
        return short_runs.command(name, out, *flags)
    wide = out.parent / "float32"
    if not wide.exists():
        done = short_runs.run([
            short_runs.BIN, "convert", "--model", short_runs.DEMO, "--mlx-path",
            wide, "--dtype", "float32", "--quiet"])
        assert done.returncode == 0, done.stderr
    return short_runs.command(name, out, *flags, model=wide)


# quantize, which is made of the others, has a smaller model below; of the demo
# model in the long run alone.
@pytest.mark.parametrize(
    "name", ["convert", "gptq", "learned", "awq", "dynamic-quant", "dwq",
             *["quantize"] * SLOW])
def test_methods(tmp_path, name):
    """Each on the demo model: as good a model as by the CPU's kernels."""
    found = {}
    for kernel in ("mlx", ""):
        out = tmp_path / f"out{kernel}"
        report = Path(f"{out}.json")
        done = short_runs.run(
            command(name, out, "--json", report),
            seconds=600, env={"PENNYWEIGHT_KERNEL": kernel})
        assert done.returncode == 0, done.stderr
        assert "diverged" not in done.stderr
        found[kernel] = walks.kl(out)
        if kernel == "mlx":
            assert json.loads(report.read_text())["kernels"]["choice"] == "mlx"
    assert abs(found["mlx"] - found[""]) <= ALLOWED * found[""], found
    if name == "convert":  # which multiplies nothing
        assert found["mlx"] == found[""]


def test_quantize(tmp_path):
    """Goes through all stages to the size asked for, and keeps the better ones."""
    model, report = tmp_path / "model", tmp_path / "report.json"
    random_model.write(model, dtype=mx.float32, torch_dtype="float32")
    done = short_runs.run(
        short_runs.command("quantize", tmp_path / "out", "--json", report,
                           model=model),
        seconds=600, env={"PENNYWEIGHT_KERNEL": "mlx"})
    assert done.returncode == 0, done.stderr
    result = json.loads(report.read_text())
    assert result["kernels"]["choice"] == "mlx"
    assert 3.2 * 0.99 <= result["bits_per_weight"] <= 3.2
    walks.least_kl(result["stages"])
    names = [stage["name"] for stage in result["stages"]]
    assert names == ["nearest", "gptq", "learned", "dwq"]
