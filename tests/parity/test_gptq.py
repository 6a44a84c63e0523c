"""pennyweight gptq: against mlx-lm's own, and what it survives."""

import contextlib
import filecmp
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

mx = pytest.importorskip("mlx.core")
pytest.importorskip("mlx_lm")

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/support"))
import random_model  # noqa: E402
import walks  # noqa: E402
from short_runs import SLOW, small_disk  # noqa: E402
from walks import (  # noqa: E402, F401
    DEMO, TEXT, kl, leftovers, mpirun, same_files, wide_model)


def gptq(model, out, *flags, **how):
    return walks.run("gptq", model, out, *flags, **how)


def command(model, out, *flags):
    return walks.command("gptq", model, out, *flags)


@pytest.fixture(scope="module")
def deep(tmp_path_factory):
    """Blocks enough to be stopped between."""
    folder = tmp_path_factory.mktemp("deep") / "model"
    random_model.write(folder, num_hidden_layers=8)
    return folder


@pytest.mark.parametrize("bits", [2, 3, 4, 5, 6, 8])
def test_every_width_loads_generates_and_beats_rounding(bits, tmp_path):
    from mlx_lm import generate, load
    out = tmp_path / "out"
    report = gptq(DEMO, out, "--bits", bits, "--num-samples", 24)
    model, tokenizer = load(str(out))
    assert generate(model, tokenizer, prompt="The", max_tokens=4)
    config = json.loads((out / "config.json").read_text())["quantization"]
    assert (config["bits"], config["group_size"]) == (bits, 64)
    assert config.get("model.embed_tokens", config)["bits"] == 6
    for block in report["blocks"]:
        errors = block["held_out_error"]
        assert errors[block["kept"]] == min(errors.values())
        for figures in block["modules"].values():
            assert figures["loss"] <= figures["loss_rounded"] * (1 + 1e-6)
            assert figures["loss"] < figures["loss_nearest"]
    # The same modules at the same widths, rounded to nearest.
    nearest = tmp_path / "nearest"
    plain = random_model.load(DEMO)
    tensors = random_model.load(out)
    for name in list(tensors):
        if name.endswith(".scales"):
            path = name.removesuffix(".scales")
            width = config.get(path, config)["bits"]
            parts = mx.quantize(plain[path + ".weight"], 64, width)
            for suffix, part in zip(("weight", "scales", "biases"), parts):
                tensors[f"{path}.{suffix}"] = part
    shutil.copytree(out, nearest)
    mx.save_safetensors(
        str(nearest / "model.safetensors"), tensors, {"format": "mlx"})
    if bits < 8:  # there both are within the noise of the embedding
        assert kl(out) < 0.9 * kl(nearest)


def test_plain_agrees_with_mlx_lm(tmp_path):
    """In float32, on the same tokens: sums in another order turn a code in a
    few thousand that lies between two, and what follows it in the row."""
    from mlx_lm.quant.gptq import gptq_quantize
    from mlx_lm.utils import load
    source = tmp_path / "model"
    random_model.write(source, dtype=mx.float32, torch_dtype="float32")
    out = tmp_path / "out"
    gptq(source, out, "--plain", "--bits", 4)
    mx.set_default_device(mx.cpu)
    model, tokenizer = load(str(source))
    ids = tokenizer.encode(TEXT.read_text())
    ids = mx.array(ids[:len(ids) // 128 * 128]).reshape(-1, 128)
    theirs, _ = gptq_quantize(model, ids, 4, 64, 6, 64)
    ours, _ = load(str(out))
    for block, other in zip(ours.layers, theirs.layers):
        for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
            compare(getattr(block.self_attn, name),
                    getattr(other.self_attn, name))
        for name in ("gate_proj", "up_proj", "down_proj"):
            compare(getattr(block.mlp, name), getattr(other.mlp, name))
    mine = ours.model.embed_tokens
    assert mx.array_equal(mine.weight, theirs.model.embed_tokens.weight)


def compare(ours, theirs):
    assert (ours.bits, ours.group_size) == (theirs.bits, theirs.group_size)
    scale = mx.abs(ours.scales - theirs.scales) / mx.abs(theirs.scales)
    assert mx.mean(scale).item() < 5e-3

    def codes(layer):
        shifts = mx.arange(0, 32, 4, dtype=mx.uint32)
        return (layer.weight[..., None] >> shifts) & 15
    same = mx.mean((codes(ours) == codes(theirs)).astype(mx.float32)).item()
    assert same > 0.97, same


def test_killed_at_any_point(deep, tmp_path):
    begun = time.monotonic()
    straight = tmp_path / "straight"
    gptq(deep, straight, "--num-samples", 24)
    seconds = time.monotonic() - begun
    when = random.Random(7)
    resumed = 0
    for i in range(20 if SLOW else 3):
        out = tmp_path / f"out{i}"
        run = command(deep, out, "--num-samples", 24)
        block = tmp_path / f".out{i}.pennyweight/block-0000{2 * i}"
        if SLOW:
            walks.kill_when(run, seconds=when.uniform(0.05, 1) * seconds)
        else:
            walks.kill_when(run, block.exists)
        if not out.exists():
            resumed += gptq(deep, out, "--num-samples", 24)[
                "resumed_blocks"] > 0
        assert same_files(straight, out), i
        assert not leftovers(tmp_path)
        shutil.rmtree(out)
    # Where other programs run, a run takes longer than the one that was timed.
    assert resumed >= (5 if SLOW else 2)


def start_and_wait_for_a_block(deep, out):
    process = subprocess.Popen(
        command(deep, out, "--num-samples", 24), text=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    first = out.parent / f".{out.name}.pennyweight" / "block-00000"
    for _ in range(3000):
        if first.exists():
            return process
        time.sleep(0.01)
    raise AssertionError("no block was finished")


def test_interrupted(deep, tmp_path):
    out = tmp_path / "out"
    process = start_and_wait_for_a_block(deep, out)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors.strip().splitlines()[-1].startswith("error: ")
    assert not out.exists()
    assert gptq(deep, out, "--num-samples", 24, "--resume")[
        "resumed_blocks"] > 0


def test_other_settings_are_refused_by_name(deep, tmp_path):
    out = tmp_path / "out"
    process = start_and_wait_for_a_block(deep, out)
    process.kill()
    process.communicate()
    errors = gptq(deep, out, "--num-samples", 24, "--damp", 0.02, code=2)
    line = errors.strip().splitlines()[-1]
    assert "options.damp (0.01, now 0.02)" in line and "bits" not in line
    report = gptq(deep, out, "--num-samples", 24, "--damp", 0.02, "--force")
    assert report["resumed_blocks"] == 0
    # And a finished output is not overwritten, nor is nothing resumed.
    assert "already exists" in gptq(deep, out, code=2)
    assert "no unfinished run" in gptq(
        deep, tmp_path / "fresh", "--resume", code=3)
    assert not leftovers(tmp_path)


def test_disk_that_fills_up(deep, tmp_path):
    with small_disk(tmp_path / "disk", "size=16m") as disk:
        out = disk / "out"
        process = start_and_wait_for_a_block(deep, out)
        filler = os.open(disk / "filler", os.O_WRONLY | os.O_CREAT)
        with contextlib.suppress(OSError):
            while True:
                os.write(filler, bytes(4096))
        os.close(filler)
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 5, errors
        assert not out.exists()
        line = errors.strip().splitlines()[-1]
        assert line.startswith("error: ") and "No space left" in line
        (disk / "filler").unlink()
        report = gptq(deep, out, "--num-samples", 24)
        assert report["resumed_blocks"] > 0
        straight = tmp_path / "straight"
        gptq(deep, straight, "--num-samples", 24)
        assert same_files(straight, out)


def test_disk_too_small_is_refused_early(deep, tmp_path):
    with small_disk(tmp_path / "disk", "size=1m") as disk:
        errors = gptq(deep, disk / "out", code=5)
        assert errors.strip().splitlines()[-1].startswith("error: [plan]")
        assert not leftovers(disk)


def test_read_only_target(deep, tmp_path):
    with small_disk(tmp_path / "disk", "size=1m,ro") as disk:
        errors = gptq(deep, disk / "out", code=5)
        assert errors.strip().splitlines()[-1].startswith("error: ")
        assert str(disk) in errors


def test_memory_does_not_grow_with_blocks(tmp_path):
    # A block has 1.6 MB: what stays of 12 would be a fifth of the peak.
    peaks = [gptq(wide_model(tmp_path / f"model{blocks}", blocks),
                  tmp_path / f"out{blocks}", "--num-samples", 16)["peak_rss"]
             for blocks in (6, 18)]
    print(f"{peaks[0] / 1e6:.1f} MB, {peaks[1] / 1e6:.1f} MB")
    assert abs(peaks[1] - peaks[0]) < 0.05 * peaks[0]


def test_memory_limit_is_kept(tmp_path):
    """Activations alone would pass it: they go to the scratch file, and the
    output is the same."""
    model = tmp_path / "model"
    random_model.write(model)
    text = tmp_path / "text.txt"
    text.write_text(TEXT.read_text() * 16)
    free = gptq(model, tmp_path / "free", text=text)
    limit = 225e6
    assert free["plan"]["activations_in_memory"] > limit
    report = gptq(
        model, tmp_path / "out", "--memory-limit", "225MB", text=text)
    assert report["plan"]["scratch"] > 0
    assert report["peak_rss"] < limit, report["peak_rss"]
    assert same_files(tmp_path / "free", tmp_path / "out")
    errors = gptq(
        model, tmp_path / "less", "--memory-limit", "50MB", code=2, text=text)
    assert "--memory-limit 50.00 MB is too little" in errors
    assert not leftovers(tmp_path)


def test_two_processes(mpirun, tmp_path):
    one, two = (
        gptq(DEMO, tmp_path / name, "--num-samples", 48, **how)
        for name, how in (("one", {}), ("two", {"launcher": mpirun})))
    assert (one["processes"], two["processes"]) == (1, 2)
    assert one["tokens"] == two["tokens"]
    assert walks.equally_good(tmp_path / "two", tmp_path / "one")
    assert not leftovers(tmp_path)


def test_two_processes_sum_what_one_does(mpirun, tmp_path):
    """The loss of rounding to nearest hardly depends on the order of sums, but
    on all tokens: without those of one process it would be another."""
    found = []
    for launcher in ([], mpirun):
        report = gptq(DEMO, tmp_path / f"out{len(found)}", "--plain",
                      "--num-samples", 48, launcher=launcher)
        found.append([figures["loss_nearest"] for block in report["blocks"]
                      for figures in block["modules"].values()])
    assert found[1] == pytest.approx(found[0], rel=1e-4)


def test_a_process_that_dies(deep, mpirun, tmp_path):
    out = tmp_path / "out"
    process = subprocess.Popen(
        [*mpirun, *command(deep, out, "--num-samples", 24)], text=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    first = tmp_path / ".out.pennyweight" / "block-00000"
    for _ in range(3000):
        if first.exists():
            break
        time.sleep(0.01)
    ranks = subprocess.run(
        ["pgrep", "-P", str(process.pid), "-f", "pennyweight"],
        capture_output=True, text=True).stdout.split()
    assert len(ranks) == 2
    os.kill(int(ranks[1]), signal.SIGKILL)
    process.communicate(timeout=60)
    assert process.returncode != 0 and not out.exists()
    report = gptq(deep, out, "--num-samples", 24, launcher=mpirun)
    assert report["resumed_blocks"] > 0
    assert not leftovers(tmp_path)


def test_no_group_fits(tmp_path):
    model = tmp_path / "model"
    random_model.write(model, intermediate_size=172)
    report = gptq(model, tmp_path / "out", "--num-samples", 16)
    assert [k.split(":")[0] for k in report["kept"]] == [
        "model.layers.0.mlp.down_proj", "model.layers.1.mlp.down_proj"]
    from mlx_lm import load
    load(str(tmp_path / "out"))


def test_too_few_sequences_to_hold_any_out(tmp_path):
    report = gptq(DEMO, tmp_path / "out", "--num-samples", 4)
    assert report["held_out_tokens"] == 0
    assert any("too few" in note for note in report["notes"])
