"""pennyweight gptq --learn-steps: blocks and the model are nearer to the
full-precision ones than GPTQ's, what does not help is dropped, killed runs end
with the same bytes, and every kind of block can be trained."""

import json
import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

mx = pytest.importorskip("mlx.core")
pytest.importorskip("mlx_lm")

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests/support"), str(ROOT / "tests/parity")]
import random_model  # noqa: E402
import test_experts  # noqa: E402
import walks  # noqa: E402
from short_runs import SLOW  # noqa: E402
from walks import (  # noqa: E402, F401
    BIN, DEMO, HELD_OUT, TEXT, leftovers, mpirun, same_files)

SHARED = Path(os.environ.get("PENNYWEIGHT_SHARED", ROOT.parent / "shared"))
LEARN = ["--learn-steps", 40, "--learn-tokens", 2048]
FEW = ["--learn-steps", 10]


def gptq(model, out, *flags, **how):
    return walks.run("gptq", model, out, *flags, **how)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A trained model, its text to fit to and other text to judge by."""
    model = SHARED / "models/tinystories-656k"
    if not model.exists():
        return DEMO, TEXT, HELD_OUT
    lines = (SHARED / "text/tinystories.utf8").read_text().splitlines(True)
    folder = tmp_path_factory.mktemp("text")
    half = len(lines) // 2
    for name, part in (("fit", lines[:half]), ("other", lines[half:])):
        (folder / name).write_text("".join(part)[:200_000])
    return model, folder / "fit", folder / "other"


def kl(out, model, text):
    report = Path(f"{out}.kl.json")
    subprocess.run(
        [BIN, "evaluate", out, "--reference", model, "--data-path", text,
         "--sequence-length", "128", "--num-samples", "128", "--json", report,
         "--quiet"], check=True, timeout=300)
    return json.loads(report.read_text())["kl"]["mean"]


@pytest.mark.parametrize("bits", [2, 3] if SLOW else [2])
def test_lowers_block_errors_and_kl(bits, trained, tmp_path):
    from mlx_lm import generate, load
    model, text, other = trained
    flags = ["--bits", bits, "--num-samples", 128, "--gate-every", 100]
    before = gptq(model, tmp_path / "gptq", *flags, text=text)
    after = gptq(model, tmp_path / "learned", *flags, *LEARN, text=text)
    for old, new in zip(before["blocks"], after["blocks"]):
        errors = new["held_out_error"]
        assert new["kept"] == "learned"
        assert errors["learned"] == min(errors.values())
        assert errors["learned"] == min(new["learned"]["errors"])
        assert errors["learned"] < old["held_out_error"][old["kept"]]
        assert new["learned"]["codes_moved"] > 0
    kls = [kl(tmp_path / name, model, other) for name in ("gptq", "learned")]
    print(bits, before["blocks"][-1]["held_out_error"], errors, kls)
    assert kls[1] < kls[0]
    assert after["bits_per_weight"] == before["bits_per_weight"]
    loaded, tokenizer = load(str(tmp_path / "learned"))
    assert generate(loaded, tokenizer, prompt="The", max_tokens=4)


def test_what_does_not_help_is_dropped_and_said(tmp_path):
    """Codes that jump at every step, at widths where they would all be
    wrong."""
    flags = ["--bits", 8, "--num-samples", 16]
    plain = tmp_path / "plain"
    gptq(DEMO, plain, *flags)
    out = tmp_path / "out"
    report = gptq(
        DEMO, out, *flags, "--learn-steps", 2, "--learn-rate", 1,
        "--learn-grid-rate", 1, "--learn-max-bits", 8)
    for block in report["blocks"]:
        errors = block["held_out_error"]
        assert block["kept"] != "learned"
        assert errors["learned"] > errors[block["kept"]]
        assert any(
            "learned rounding has not lowered" in w for w in block["warnings"])
    for name in ("model.safetensors", "config.json"):
        assert (out / name).read_bytes() == (plain / name).read_bytes()


def test_wider_blocks_are_left_alone(tmp_path):
    report = gptq(
        DEMO, tmp_path / "out", "--bits", 4, "--num-samples", 16, *LEARN)
    assert not any("learned" in block for block in report["blocks"])


def test_nothing_held_out(tmp_path):
    report = gptq(
        DEMO, tmp_path / "out", "--bits", 2, "--num-samples", 6, *FEW)
    for block in report["blocks"]:
        assert block["kept"] == "learned" and "held_out_error" not in block
        assert block["fit_error"]["learned"] < block["fit_error"]["all"]
    plain = gptq(
        DEMO, tmp_path / "plain", "--bits", 2, "--num-samples", 6, "--plain",
        *FEW)
    assert {b["kept"] for b in plain["blocks"]} == {"learned"}


def test_killed_and_resumed(tmp_path):
    model = tmp_path / "model"
    random_model.write(model, num_hidden_layers=6)
    flags = ["--bits", 2, "--num-samples", 24, "--learn-steps", 10]
    begun = time.monotonic()
    straight = tmp_path / "straight"
    gptq(model, straight, *flags)
    seconds = time.monotonic() - begun
    resumed = 0
    points = random.Random(7)
    for i in range(4 if SLOW else 1):
        out = tmp_path / f"out{i}"
        third = tmp_path / f".out{i}.pennyweight/block-00002"
        run = walks.command("gptq", model, out, *flags)
        if SLOW:
            walks.kill_when(run, seconds=points.uniform(0.3, 0.9) * seconds)
        else:
            walks.kill_when(run, third.exists)
        if not out.exists():
            resumed += gptq(model, out, *flags)["resumed_blocks"] > 0
        assert same_files(straight, out), i
        assert not leftovers(tmp_path)
        shutil.rmtree(out)
    assert resumed


@pytest.mark.parametrize("family", ["mixtral", "deepseek_v2"])
def test_mixtures_of_experts(family, tmp_path):
    """Those that no token chooses stay as they are."""
    model = tmp_path / "model"
    test_experts.write(model, family)
    report = gptq(
        model, tmp_path / "out", "--bits", 2, "--group-size", 32,
        "--num-samples", 48, *FEW)
    errors = [block["held_out_error"] for block in report["blocks"]]
    assert all(e["learned"] < e["all"] for e in errors), errors
    assert report["peak_rss"] < report["plan"]["peak"] * 1.1


def test_two_processes(mpirun, tmp_path):
    flags = ["--bits", 2, "--num-samples", 24, "--learn-steps", 10]
    one = gptq(DEMO, tmp_path / "one", *flags)
    two = gptq(DEMO, tmp_path / "two", *flags, launcher=mpirun)
    # Other batches, and with them other blocks after the first; the same in
    # both processes, or their streams would part.
    assert one["blocks"][0]["kept"] == two["blocks"][0]["kept"] == "learned"
    for a, b in zip(one["blocks"], two["blocks"]):
        assert b["learned"]["losses"][-1] == pytest.approx(
            a["learned"]["losses"][-1], rel=0.1)
        assert b["held_out_error"]["learned"] == pytest.approx(
            a["held_out_error"]["learned"], rel=0.1)


def test_wrong_flags(tmp_path):
    errors = gptq(
        DEMO, tmp_path / "out", "--learn-steps", 1, "--learn-tokens", 0,
        code=2)
    assert "--learn-tokens" in errors
