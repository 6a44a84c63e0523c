"""Models whose experts their publisher packed (gpt_oss, mxfp4) go through every
command that quantizes: the packs stay bit for bit, the rest is chosen, and what
can't be touched is said."""

import json
import subprocess
import sys
from pathlib import Path

import mlx.core as mx
import mlx_lm
import numpy as np
import pytest
from mlx_lm import utils as mlx_lm_utils

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests/support"), str(ROOT / "tests/parity")]
import hub_client  # noqa: E402
import random_model  # noqa: E402
import test_costs  # noqa: E402
import test_memory  # noqa: E402
import test_pins  # noqa: E402
import walks  # noqa: E402
from hub_server import Hub  # noqa: E402
from short_runs import BIN, TEXT, contents  # noqa: E402
from test_model_parity import (  # noqa: E402, F401
    distance, make_tokens, probe, run_probe, their_logits)
from test_pins import run  # noqa: E402

STAGED = [*test_pins.FEW, "--gptq-samples", 6, "--dwq-samples", 4]
WHOLE = ["--target-bpw", 4.2, "--pin", "q_proj=3", "--learn-steps", 2, *STAGED]
PACKS = 2 * 3  # of two layers
TIMED = ("report.html", "README.md")
PROBED = ("logits.bin", "tokens.bin")  # beside a model that was looked at


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("published") / "model"
    test_pins.write_published(folder)
    return folder


@pytest.fixture(scope="module")
def made(model, tmp_path_factory):
    """By all stages: what has three bits is learned."""
    out = tmp_path_factory.mktemp("made") / "out"
    return out, run("quantize", model, out, *WHOLE)


def check_packs(model, out):
    """As they were published, under mlx-lm's names, and called so."""
    before, after = random_model.load(model), random_model.load(out)
    said = json.loads((out / "config.json").read_text())["quantization"]
    assert said["mode"] == "affine"
    for layer in range(2):
        path = f"model.layers.{layer}.mlp.experts"
        for name, source, rows in [
                ("gate_proj", "gate_up_proj", slice(0, None, 2)),
                ("up_proj", "gate_up_proj", slice(1, None, 2)),
                ("down_proj", "down_proj", slice(None))]:
            blocks = before[f"{path}.{source}_blocks"][:, rows]
            words = blocks.reshape(*blocks.shape[:2], -1).view(mx.uint32)
            ours = after[f"{path}.{name}.weight"]
            assert mx.array_equal(ours, words).item(), name
            scales = before[f"{path}.{source}_scales"][:, rows]
            assert mx.array_equal(after[f"{path}.{name}.scales"], scales).item()
            assert said[f"{path}.{name}"] == {
                "bits": 4, "group_size": 32, "mode": "mxfp4"}


def check_is_said(out, report):
    """In --json, in the notes and in the card."""
    assert report["published_packed"]["modules"] == PACKS
    assert report["published_packed"]["widths"] == ["4:32:mxfp4"]
    words = f"{PACKS} modules are published packed (mxfp4, 4.25 bits a weight)"
    assert sum(words in note for note in report["notes"]) == 1
    assert words in (out / "README.md").read_text()


def check_loads(probe, out):  # noqa: F811
    loaded, config = mlx_lm_utils.load_model(out)
    loaded.set_dtype(mx.float32)
    tokens = make_tokens(config, 2, 40)
    ours, _ = run_probe(probe, out, tokens, dtype="float32")
    assert distance(ours, their_logits(loaded, tokens)) < 1e-4


def test_quantize(probe, model, made):  # noqa: F811
    out, report = made
    # In a model so small a step is more than a thousandth.
    assert 4.2 * 0.995 <= report["bits_per_weight"] <= 4.2
    assert report["bytes"] == sum(
        tensor.nbytes for tensor in random_model.load(out).values())
    names = [stage["name"] for stage in report["stages"]]
    assert names == ["nearest", "gptq", "learned", "dwq"]
    check_packs(model, out)
    check_is_said(out, report)
    check_loads(probe, out)
    experts = [own for own in report["page"]["modules"] if own.get("published")]
    assert len(experts) == PACKS
    assert all(own["bits"] == 4 and own["loss"] == 0 for own in experts)


def test_recipe_gives_the_same_bytes(model, made, tmp_path):
    out, _ = made
    run("quantize", model, tmp_path / "again", *test_pins.FEW[:2],
        "--recipe", out / "recipe.json")
    assert contents(tmp_path / "again", *TIMED) == contents(out, *TIMED, *PROBED)
    recipe = json.loads((out / "recipe.json").read_text())
    path = "model.layers.0.mlp.experts.up_proj"
    assert recipe["widths"][path] == "4:32:mxfp4"
    for width, code in [("6:64", 2), ("4:32:mxfp9", 4), ("floats", 2)]:
        recipe["widths"][path] = width
        (tmp_path / "recipe.json").write_text(json.dumps(recipe))
        line = run("quantize", model, tmp_path / "other", *test_pins.FEW[:2],
                   "--recipe", tmp_path / "recipe.json", code=code)
        assert line.count("error:") == 1


def test_killed_and_resumed(model, made, tmp_path):
    out = tmp_path / "out"
    stages = tmp_path / ".out.pennyweight/stages"
    walks.kill_when(
        [BIN, "quantize", model, "-o", out, *map(str, WHOLE)],
        lambda: list(stages.glob(".gptq.*/block-00000")))
    run("quantize", model, out, *WHOLE)
    assert contents(out, *TIMED) == contents(made[0], *TIMED, *PROBED)


def test_sizes(model, tmp_path):
    """The packs count as what they are; below the smallest and above the largest
    one line says what there is, before any work."""
    out = tmp_path / "out"
    size = run("plan", model, out, "--target-bpw", 6, *test_pins.FEW)
    assert 5.99 <= size["bits_per_weight"] <= 6
    for below, above in [(["--target-bpw", 2], ["--target-bpw", 15]),
                         (["--target-size", "300kB"], ["--target-size", "3MB"])]:
        line = run("plan", model, out, *below, *test_pins.FEW, code=2)
        assert f"the {PACKS} published packed modules take 208896" in line
        least = line.split("raise it to ")[1].split()[0]
        line = run("quantize", model, out, *above, *test_pins.FEW, code=2)
        most = line.split("at most ")[1].split()[0]
        met = least if below[1] == 2 else most
        size = run("plan", model, out, below[0], met, *test_pins.FEW)
        found = size["bits_per_weight" if below[1] == 2 else "bytes"]
        assert 0.998 * float(met) <= found <= float(met)
    line = run("sweep", model, out, "--bpw", "1,2", *test_pins.FEW, code=2)
    assert "published packed" in line


def test_many_modules_miss_a_size_by_a_thousandth(tmp_path):
    """Of 24 blocks, whose packs are most of the model."""
    test_memory.write_packs(tmp_path / "model", 8, blocks=24, width=256)
    report = run("sweep", tmp_path / "model", tmp_path / "out", "--bpw",
                 "4.3:4.9:0.2", "--estimate", *test_pins.FEW)
    assert len(report["points"]) == 4
    for point in report["points"]:
        assert 0.999 * point["asked"] <= point["bits_per_weight"]
        assert point["bits_per_weight"] <= point["asked"]


def test_sweep(model, tmp_path):
    report = run("sweep", model, tmp_path / "out", "--bpw", "2,4.5,6,15",
                 "--keep-models", *STAGED)
    low, high = report["points"]
    assert low["kl"] > high["kl"] > 0
    left = [note for note in report["notes"] if "is left out" in note]
    assert "2.000" in left[0] and "15.000" in left[1]
    check_packs(model, tmp_path / "out/4.500-bpw")
    assert report["published_packed"]["modules"] == PACKS


@pytest.mark.parametrize("target", [["--bits", 3], [
    "--target-bpw", 5, "--prefer-active", 2, "--pin", "self_attn.*=6",
    "--at-least", "experts=4", "--keep", "mlp.router",
    "--pin", "experts=4:32:mxfp4"]])
def test_widths_that_are_asked_for(model, tmp_path, target):
    out = tmp_path / "out"
    report = run("quantize", model, out, "--effort", "fast", *target, *STAGED[:6])
    assert len(report["pins"]) == sum("=" in str(word) for word in target) + (
        "--keep" in target)
    check_packs(model, out)
    widths = test_pins.widths_of(out)
    query = widths["model.layers.0.self_attn.q_proj"]
    assert query == test_pins.affine(3 if target[0] == "--bits" else 6)
    router = widths["model.layers.0.mlp.router"]
    assert router == (test_pins.affine(3) if target[0] == "--bits" else None)


@pytest.mark.parametrize("command", [
    "quantize", "plan", "sweep", "dynamic-quant", "gptq", "awq", "dwq"])
@pytest.mark.parametrize("pin", [
    ["--pin", "experts=6"], ["--keep", "experts"], ["--at-least", "experts=5"]])
def test_packs_have_no_other_width(model, tmp_path, command, pin):
    line = run(command, model, tmp_path / "out", *pin, code=2)
    assert "published packed as 4:32:mxfp4, and stays so" in line
    assert line.count("error:") == 1


def test_costs_are_those_of_the_expanded_model(model, tmp_path):
    """Gradients go back through the packs as through what they stand for."""
    dense = tmp_path / "dense"
    run("convert", model, dense, "--dequantize")
    ids = test_costs.tokens(model, TEXT, tmp_path / "ids", 8, 64)
    packed, full = (
        {own["path"]: own["losses"] for own in test_costs.costs(
            folder, ids, "3:64,6:64", length=64)["modules"]}
        for folder in (model, dense))
    assert packed.keys() == full.keys()
    for path, losses in packed.items():
        if ".experts." in path:
            assert losses == [None, None] and min(full[path]) > 0
        else:
            assert losses == pytest.approx(full[path], rel=0.02), path


@pytest.mark.parametrize("then", [[], ["--then", "awq"]], ids=str)
@pytest.mark.parametrize("candidates", [
    [], ["--candidates", "3:64,4:64,6:64,8:64,bf16"]], ids=str)
def test_dynamic_quant(probe, model, tmp_path, then, candidates):  # noqa: F811
    flags = [*test_pins.SAMPLES, "--target-bpw", 5, *candidates]
    out = tmp_path / "out"
    report = run("dynamic-quant", model, out, *flags, *then)
    assert 4.6 < report["bits_per_weight"] <= 5
    check_packs(model, out)
    check_is_said(out, report)
    check_loads(probe, out)
    packs = [own for own in report["modules"] if own.get("published")]
    assert len(packs) == PACKS
    run("dynamic-quant", model, tmp_path / "again", *flags,
        "--sensitivities", out / "sensitivities.json", *then)
    apart = ("README.md", "sensitivities.json")
    assert contents(tmp_path / "again", *apart) == contents(out, *apart, *PROBED)


@pytest.mark.parametrize("command", ["gptq", "awq"])
def test_methods(probe, model, tmp_path, command):  # noqa: F811
    out = tmp_path / "out"
    report = run(command, model, out, *test_pins.SAMPLES)
    check_packs(model, out)
    check_is_said(out, report)
    check_loads(probe, out)
    for i, block in enumerate(report["blocks"]):
        # Scales of this norm would have to go into the packs, too.
        norm = f"model.layers.{i}.post_attention_layernorm"
        assert command == "gptq" or block["unfoldable"] == [norm]


def test_dwq(probe, model, tmp_path):  # noqa: F811
    out = tmp_path / "out"
    report = run("dwq", model, out, "--data-path", TEXT, "--max-seq-length", 33,
                 "--num-samples", 16, "--bits", 3, "--learning-rate", 1e-3)
    check_packs(model, out)
    check_is_said(out, report)
    check_loads(probe, out)
    assert report["best_kl"] < report["start_kl"]
    assert sum("its scales are no floats" in own
               for own in report["untrained"]) == PACKS


def test_evaluate(made, model):
    out, report = made
    done = subprocess.run(
        [BIN, "evaluate", out, "--reference", model, "--json", f"{out}.e.json",
         *map(str, test_pins.SAMPLES)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(Path(f"{out}.e.json").read_text())
    assert 0 < found["kl"]["mean"] < 1
    assert found["published_packed"]["modules"] == PACKS


@pytest.mark.parametrize("writer", ["convert", "mlx_lm"])
def test_mlx_form(model, made, tmp_path, writer):
    """The published model with MLX's names and entry is the same model."""
    source = tmp_path / "source"
    if writer == "convert":
        run("convert", model, source)
    else:
        mlx_lm.convert(str(model), str(source))
    said = json.loads((source / "config.json").read_text())["quantization"]
    assert said["mode"] == "mxfp4"
    out = tmp_path / "out"
    report = run("quantize", source, out, *WHOLE)
    check_is_said(out, report)
    name = "model.safetensors"
    assert (out / name).read_bytes() == (made[0] / name).read_bytes()
    # Of what is packed further, there is a fuller model.
    run("convert", source, tmp_path / "further", "-q")
    for command in ("convert", "quantize", "gptq"):
        line = run(command, tmp_path / "further", tmp_path / "no",
                   *(["-q"] if command == "convert" else []), code=2)
        assert "is quantized already" in line


def test_stream(model, made, tmp_path):
    """File by file from the hub, of which an expert's tensors are in two."""
    folder = tmp_path / "model"
    folder.mkdir()
    tensors = random_model.load(model)
    files = {}
    for i, (name, tensor) in enumerate(sorted(tensors.items())):
        file = f"model-{i * 3 // len(tensors) + 1:05d}-of-00003.safetensors"
        files.setdefault(file, {})[name] = tensor
    for file, own in files.items():
        mx.save_safetensors(str(folder / file), own, {"format": "pt"})
    (folder / "model.safetensors.index.json").write_text(json.dumps(
        {"metadata": {}, "weight_map": {
            name: file for file, own in files.items() for name in own}}))
    hub = Hub({path.name: path.read_bytes() for path in
               [*folder.iterdir(), *model.iterdir()]
               if path.name != "model.safetensors"})
    try:
        out = tmp_path / "out"
        hub_client.succeeds(hub_client.run(
            hub, tmp_path / "home", "quantize", "--model", "org/tiny",
            "--mlx-path", out, "--stream", *WHOLE))
    finally:
        hub.close()
    apart = ("recipe.json", *TIMED)  # which name the model
    assert contents(out, *apart) == contents(made[0], *apart, *PROBED)


def test_infinite_scales_are_damage(model, tmp_path):
    """Nothing expands the packs, and still they are looked at."""
    folder = tmp_path / "model"
    test_pins.write_published(folder)
    file = next(folder.glob("model*.safetensors"))
    tensors = mx.load(str(file))
    name = "model.layers.1.mlp.experts.down_proj_scales"
    scales = np.array(tensors[name])
    scales[3, 5, 0] = 255
    mx.save_safetensors(str(file), tensors | {name: mx.array(scales)},
                        {"format": "pt"})
    line = run("quantize", folder, tmp_path / "out", "--target-bpw", 5,
               *STAGED, code=7)
    assert "experts.down_proj" in line and "damaged" in line
