"""The config.json of published models, scaled down: accepted as they are,
computed as mlx-lm computes them, and quantized into what stock mlx-lm loads.
Printed as a table by

    .venv/bin/python tests/parity/test_published_configs.py
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest

mx = pytest.importorskip("mlx.core")
mlx_lm_utils = pytest.importorskip("mlx_lm.utils")

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/support"))
sys.path.insert(0, str(Path(__file__).parent))
import published  # noqa: E402
import walks  # noqa: E402
from short_runs import SLOW  # noqa: E402
from structures import chosen  # noqa: E402
from test_model_parity import (  # noqa: E402, F401
    distance, make_tokens, probe, run_probe, their_logits)

TEXT = ["--data-path", str(walks.TEXT), "--sequence-length", "32"]
METHODS = {
    "gptq": lambda model, out: [
        "gptq", "--model", model, "--mlx-path", out, "--bits", "4",
        "--group-size", "32", "--fallback-group-size", "32",
        "--num-samples", "4", *TEXT],
    "quantize": lambda model, out: [
        "quantize", model, "-o", out, "--target-bpw", "6", "--effort", "fast",
        "--gptq-samples", "8", *TEXT],
}


# The first published one of each family that is chosen, or all.
OF_FAMILY = {}
for entry in published.PUBLISHED:
    OF_FAMILY.setdefault(entry["config"]["model_type"], entry)
TAKEN = published.PUBLISHED if SLOW else [
    OF_FAMILY[family] for family in chosen(OF_FAMILY)]


def label(entry):
    return f"{entry['config']['model_type']}-{entry['name'].split('/')[-1]}"


def run(*arguments):
    done = subprocess.run(
        [walks.BIN, *map(str, arguments), "--quiet"], capture_output=True,
        text=True, timeout=300)
    assert done.returncode == 0, done.stderr


def load(folder):
    model, config = mlx_lm_utils.load_model(folder)
    model.set_dtype(mx.float32)
    return model, config


def check(probe, folder, config):  # noqa: F811
    """Distances of our logits, and of the unquantized output's, to mlx-lm's;
    raises where a command or mlx-lm refuses."""
    model, small = published.write(folder / "model", config)
    model.set_dtype(mx.float32)
    text = small | small.get("text_config", {})
    tokens = make_tokens(text | {"vocab_size": 3072}, 1, 24)
    theirs = their_logits(model, tokens)
    ours, _ = run_probe(probe, folder / "model", tokens, dtype="float32")
    run("convert", "--model", folder / "model", "--mlx-path", folder / "plain")
    plain, _ = load(folder / "plain")
    same = bool(np.array_equal(their_logits(plain, tokens), theirs))
    for name, arguments in METHODS.items():
        run(*arguments(folder / "model", folder / name))
        quantized, written = load(folder / name)
        assert written["quantization"], name
        assert np.isfinite(their_logits(quantized, tokens)).all(), name
    return distance(ours, theirs), same


@pytest.mark.parametrize("entry", TAKEN, ids=label)
def test_published_config(probe, tmp_path, entry):  # noqa: F811
    error, same = check(probe, tmp_path, entry["config"])
    assert error < 1e-4
    assert same


# Families of which no public copy of a config.json was found.
UNPUBLISHED = {
    "afmoe", "apertus", "deepseek", "dots1", "ernie4_5", "ernie4_5_moe",
    "exaone4", "exaone_moe", "falcon_h1", "glm", "gpt_neox", "gptj", "granitemoe",
    "helium", "internlm3", "laguna", "lfm2_moe", "lille-130m", "mamba2", "mellum", "mistral4",
    "muse_glimmer", "nanbeige", "nemotron", "olmo3", "openelm",
    "solar_open", "starcoder2", "telechat3", "youtu_llm"}


def test_there_are_enough():
    models = {(e["name"], json.dumps(e["config"])) for e in published.PUBLISHED}
    assert len(models) >= 60
    assert all(e["source"].startswith("https://") for e in published.PUBLISHED)
    source = (ROOT / "src/model/families/families.def").read_text()
    families = {line.split('"')[1] for line in source.splitlines()
                if '("' in line}
    found = {e["config"]["model_type"] for e in published.PUBLISHED}
    found |= {mlx_lm_utils.MODEL_REMAPPING.get(t, t) for t in found}
    assert families - found == UNPUBLISHED


def main():
    build = os.environ.get("PENNYWEIGHT_BUILD_DIR", ROOT / "build/release")
    program = Path(build) / "tests/probe_model"
    failed = 0
    print(f"{'published config':64} {'logits':>8} {'convert':>8} gptq quantize")
    with tempfile.TemporaryDirectory() as name:
        for i, entry in enumerate(published.PUBLISHED):
            try:
                error, same = check(
                    program, Path(name) / str(i), entry["config"])
                good = error < 1e-4 and same
                print(f"{label(entry):64} {error:8.1e} "
                      f"{'same' if same else 'OTHER':>8}   ok       ok")
            except Exception as problem:  # noqa: BLE001
                good = False
                lines = str(problem).strip().splitlines() or ["?"]
                print(f"{label(entry):64} {lines[0][:100]}")
            failed += not good
    print(f"{len(published.PUBLISHED)} configs, {failed} fall short")
    return failed


if __name__ == "__main__":
    sys.exit(1 if main() else 0)
