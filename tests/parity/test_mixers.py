"""Families whose layers mix tokens by more than attention: what their configs
may not say, in one clear line, and blocks of one part through every method."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("mlx.core")

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/support"))
sys.path.insert(0, str(Path(__file__).parent))
import walks  # noqa: E402
from test_families import (  # noqa: E402, F401
    distance, make_tokens, mlx_lm_utils, mx, probe, run_probe, their_logits,
    write)

REFUSED = [
    ("nemotron_h", {"hybrid_override_pattern": "MX*"}, 4, "others than M"),
    ("nemotron_h", {"hybrid_override_pattern": None}, 4, "layers_block_type"),
    ("nemotron_h", {"n_groups": 3}, 4, "groups do not divide"),
    ("nemotron_h", {"time_step_limit": [0.1]}, 4, "time_step_limit"),
    ("granitemoehybrid", {"layer_types": ["mamba", "conv", "mamba"]}, 6,
     "layer type conv"),
    ("granitemoehybrid", {"layer_types": ["mamba"]}, 4, "must have 3 entries"),
    ("granitemoehybrid", {"rope_theta": 5.0, "rope_parameters": {
        "rope_theta": 7.0, "rope_type": "default"}}, 4, "differ"),
    ("falcon_h1", {"mamba_d_ssm": 90}, 4, "mamba_n_heads * mamba_d_head"),
    ("falcon_h1", {"ssm_multipliers": [1.0]}, 4, "must be 5 numbers"),
    ("lfm2", {"full_attn_idxs": [7]}, 4, "full_attn_idxs"),
    ("lfm2", {"block_dim": 64}, 4, "block_dim"),
]


@pytest.mark.parametrize("family, changes, code, said", REFUSED)
def test_what_is_refused(tmp_path, family, changes, code, said):
    write(tmp_path / "model", family, "bfloat16")
    file = tmp_path / "model/config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    done = subprocess.run(
        [walks.BIN, "inspect", tmp_path / "model"], capture_output=True,
        text=True, timeout=60)
    assert done.returncode == code, done.stderr
    assert said in done.stderr and done.stderr.count("\n") == 1


SHORT = ["--data-path", str(walks.TEXT)]
LEARNED = ["--num-samples", 8, "--sequence-length", 64, "--bits", 3,
           "--group-size", 32, *SHORT]
METHODS = {
    "gptq": [*LEARNED, "--learn-steps", 2, "--fallback-group-size", 32],
    "awq": [*LEARNED, "--n-grid", 3, "--then", "gptq"],
    "dynamic-quant": ["--num-samples", 8, "--sequence-length", 64,
                      "--low-group-size", 32, "--high-group-size", 32,
                      "--target-bpw", 5.6, *SHORT],
    "dwq": ["--num-samples", 12, "--max-seq-length", 65, "--bits", 3,
            "--group-size", 32, *SHORT],
}


@pytest.mark.parametrize("method", METHODS)
def test_blocks_of_one_part_go_through(probe, tmp_path, method):  # noqa: F811
    write(tmp_path / "model", "nemotron_h", "bfloat16")
    out = tmp_path / "out"
    done = subprocess.run(
        [walks.BIN, method, "--model", tmp_path / "model", "-o", out,
         *map(str, METHODS[method]), "--quiet"], capture_output=True,
        text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    model, _, config = mlx_lm_utils.load(str(out), return_config=True)
    model.set_dtype(mx.float32)
    tokens = make_tokens(config, 2, 40)
    ours, _ = run_probe(probe, out, tokens, dtype="float32")
    assert distance(ours, their_logits(model, tokens)) < 1e-4
