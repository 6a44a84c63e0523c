"""Every method writes the same bytes for any number of threads, a killed run
that goes on with another number too, and a recipe says by which kernels."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests/support"), str(ROOT / "tests/parity")]
import test_experts  # noqa: E402
import test_memory  # noqa: E402
from short_runs import SLOW  # noqa: E402
from walks import BIN, DEMO, TEXT, kill_when, wide_model  # noqa: E402

# More than the cores of most machines that test: only how work is shared
# counts. 3 divides few shapes, 8 shares among more than there are tasks.
COUNTS = [2, 3, 8] if SLOW else [3, 8]
# For what shares its work as gptq does, or is made of methods that are compared
# for all counts.
ALIKE = COUNTS if SLOW else [3]
LENGTH = ["--sequence-length", 96]
WALK = [*LENGTH, "--num-samples", 8, "--data-path", TEXT]
FEW = [*LENGTH, "--data-path", TEXT, "--gptq-samples", 8, "--dwq-samples", 8,
       "--learn-steps", 2]
# oneDNN's products for processors without AVX-512 share a depth among
# threads where they may; those for others mostly do not.
PLAIN = {"ONEDNN_MAX_CPU_ISA": "AVX2"}
CPU = Path("/proc/cpuinfo")
HAS_MORE = not CPU.exists() or "avx512" in CPU.read_text()
KINDS = [pytest.param(PLAIN, id="avx2"), pytest.param({}, id="best", marks=(
    pytest.mark.skipif(not HAS_MORE, reason="AVX2 is the best here")))]


def command(name, model, out, *flags):
    ours = [model, "-o", out] if name in ("quantize", "sweep") else [
        "--model", model, "--mlx-path", out]
    return [BIN, name, *map(str, ours), *map(str, flags)]


def run(threads, name, model, out, *flags, **env):
    done = subprocess.run(
        [*command(name, model, out, *flags), "--json", f"{out}.json"],
        capture_output=True, text=True, timeout=300,
        env=os.environ | {"OMP_NUM_THREADS": str(threads)} | env)
    assert done.returncode == 0, done.stderr
    return done.stderr


def weights(out):
    files = sorted(out.rglob("*.safetensors"))
    assert files
    return {str(file.relative_to(out)): file.read_bytes() for file in files}


def assert_same(folder, name, model, *flags, kind=PLAIN, counts=COUNTS):
    run(1, name, model, folder / "1", *flags, **kind)
    one = weights(folder / "1")
    for threads in counts:
        run(threads, name, model, folder / str(threads), *flags, **kind)
        assert weights(folder / str(threads)) == one, f"{threads} threads"


@pytest.fixture(scope="module")
def nearest(tmp_path_factory):
    out = tmp_path_factory.mktemp("nearest") / "out"
    run(1, "convert", DEMO, out, "-q", "--q-bits", 2)
    return out


@pytest.fixture(scope="module")
def experts(tmp_path_factory):
    """Few of which are chosen by as many tokens as another."""
    model = tmp_path_factory.mktemp("experts") / "model"
    test_experts.write(model, "qwen3_moe")
    return model


def test_convert(tmp_path):
    assert_same(tmp_path, "convert", DEMO, "-q", "--q-bits", 3)


@pytest.mark.parametrize("kind", KINDS)
def test_gptq(tmp_path, kind):
    assert_same(tmp_path, "gptq", DEMO, *WALK, kind=kind)


@pytest.mark.parametrize("kind", KINDS)
def test_gptq_of_experts(experts, tmp_path, kind):
    assert_same(
        tmp_path, "gptq", experts, *WALK, "--group-size", 32, kind=kind)


def test_learned_rounding(tmp_path):
    assert_same(
        tmp_path, "gptq", DEMO, *WALK, "--bits", 2, "--learn-steps", 4,
        counts=ALIKE)


def test_awq(tmp_path):
    assert_same(tmp_path, "awq", DEMO, *WALK, "--then", "gptq", counts=ALIKE)


def test_dynamic_quant(tmp_path):
    assert_same(tmp_path, "dynamic-quant", DEMO, *WALK, "--target-bpw", 5)


def test_packed_experts(tmp_path):
    """Wide ones, which gradients go back through in more than one panel."""
    test_memory.write_packs(tmp_path / "model", 4, width=1088)
    assert_same(tmp_path, "dynamic-quant", tmp_path / "model", *WALK,
                "--target-bpw", 4.6, "--low-bits", 3, "--high-bits", 8,
                counts=ALIKE)


def test_dwq(nearest, tmp_path):
    assert_same(
        tmp_path, "dwq", DEMO, "--quantized-model", nearest,
        "--data-path", TEXT, "--max-seq-length", 65, "--num-samples", 16,
        counts=ALIKE)


@pytest.mark.parametrize("kind", KINDS)
def test_quantize(tmp_path, kind):
    assert_same(tmp_path, "quantize", DEMO, "--target-bpw", 2.8, *FEW,
                kind=kind, counts=ALIKE)


def test_sweep(tmp_path):
    assert_same(tmp_path, "sweep", DEMO, "--bpw", "3", "--keep-models", *FEW,
                counts=ALIKE)


def test_a_run_goes_on_with_other_threads(tmp_path):
    model = wide_model(tmp_path / "model", 6)
    flags = [*WALK, "--group-size", 32]
    run(1, "gptq", model, tmp_path / "whole", *flags, **PLAIN)
    out = tmp_path / "out"
    first = tmp_path / ".out.pennyweight/block-00000"
    kill_when(command("gptq", model, out, *flags), first.exists,
              env=os.environ | {"OMP_NUM_THREADS": "3"} | PLAIN)
    assert not out.exists()
    run(2, "gptq", model, out, *flags, **PLAIN)
    report = json.loads(Path(f"{out}.json").read_text())
    assert report["resumed_blocks"] > 0
    assert weights(out) == weights(tmp_path / "whole")


def test_a_recipe_names_its_kernels(tmp_path):
    flags = [*FEW[:-4], "--dwq-samples", 0, "--learn-steps", 0]
    run(1, "quantize", DEMO, tmp_path / "made", "--bits", 4, *flags)
    recipe = tmp_path / "made/recipe.json"
    kind = json.loads(recipe.read_text())["kernels"]
    assert " on " in kind
    again = ["--recipe", recipe, "--data-path", TEXT]
    said = run(2, "quantize", DEMO, tmp_path / "again", *again)
    assert "of another kind" not in said
    assert weights(tmp_path / "again") == weights(tmp_path / "made")
    said = run(2, "quantize", DEMO, tmp_path / "other", *again,
               PENNYWEIGHT_KERNEL="simd")
    assert f"made by kernels of another kind ({kind}; here: simd on " in said
    other = json.loads((tmp_path / "other/recipe.json").read_text())
    assert other["kernels"].startswith("simd on ")
