"""What every method of the registry keeps: the same bytes twice, and after a
kill; an output that stock mlx-lm loads; no more loss than rounding to nearest;
a stage of quantize. The example of docs/adding-a-method.md is one of them, in a
program that has one more line in its registry."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/support"))
import random_model  # noqa: E402
import walks  # noqa: E402
from walks import BIN, DEMO, HELD_OUT, TEXT, built_program, same_files  # noqa: E402

LINE = re.compile(r"^PENNYWEIGHT_METHOD\((\w+)\)", re.M)
METHODS = LINE.findall((ROOT / "src/method/methods.def").read_text())
EXAMPLE = "shrunk"
ROUNDS = ["--bits", 3, "--group-size", 64]
DATA = ["--data-path", TEXT, "--sequence-length", 128]


@pytest.fixture(params=[*METHODS, EXAMPLE])
def method(request):
    """Its name, and the program that has it."""
    program = built_program("example_program") if (
        request.param == EXAMPLE) else BIN
    return request.param, program


def command(method, model, out, *flags):
    name, program = method
    return [program, name, *map(str, [
        "--model", model, "-o", out, *DATA, *ROUNDS, "--quiet", *flags])]


def run(*command):
    done = subprocess.run(
        [*map(str, command)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def rtn_kl(tmp_path_factory):
    out = tmp_path_factory.mktemp("rtn") / "out"
    run(BIN, "convert", "--model", DEMO, "-o", out, "-q", "--q-bits", 3)
    return walks.kl(out)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """What a method makes of the demo model, once for all tests."""
    outputs = {}

    def get(method):
        name, _ = method
        if name not in outputs:
            outputs[name] = tmp_path_factory.mktemp(name) / "out"
            run(*command(method, DEMO, outputs[name]))
        return outputs[name]
    return get


def test_twice_the_same_and_no_worse_than_rtn(method, made, tmp_path, rtn_kl):
    again = tmp_path / "out"  # the card has its name
    run(*command(method, DEMO, again))
    assert same_files(made(method), again)
    assert walks.kl(again) <= rtn_kl


def test_killed_and_resumed(method, tmp_path):
    model = tmp_path / "model"
    random_model.write(model, num_hidden_layers=6)
    run(*command(method, model, tmp_path / "straight"))
    out = tmp_path / "out"
    second = tmp_path / ".out.pennyweight/block-00001"
    ended = walks.kill_when(command(method, model, out), second.exists)
    assert ended == -signal.SIGKILL
    report = tmp_path / "report.json"
    run(*command(method, model, out, "--resume", "--json", report))
    assert json.loads(report.read_text())["resumed_blocks"] > 0
    assert same_files(out, tmp_path / "straight")
    assert walks.leftovers(tmp_path) == []


def test_stock_mlx_lm_loads_it(method, made):
    mx = pytest.importorskip("mlx.core")
    load = pytest.importorskip("mlx_lm").load
    model, tokenizer = load(str(made(method)))
    logits = model(mx.array([tokenizer.encode("of the")]))
    assert bool(mx.isfinite(logits).all())


def test_as_a_stage_of_quantize(method, tmp_path):
    name, program = method
    out, report = tmp_path / "out", tmp_path / "report.json"
    flags = ["--target-bpw", 3.5, "--effort", "fast", "--gptq-samples", 16,
             "--quiet", *DATA]
    run(program, "quantize", DEMO, "-o", out, "--stages", f"nearest,{name}",
        "--json", report, *flags)
    stages = json.loads(report.read_text())["stages"]
    assert [stage["name"] for stage in stages] == ["nearest", name]
    assert stages[1]["kl"] < stages[0]["kl"] and stages[1]["kept"]
    recipe = json.loads((out / "recipe.json").read_text())
    assert recipe["stages"] == [name]
    card = (out / "README.md").read_text()
    page = (out / "report.html").read_text()
    title = json.loads(
        re.search(r'id="data">(.*?)</script>', page, re.S).group(1)
    )["stages"][1]["title"]
    assert title in card
    run(program, "quantize", DEMO, "-o", tmp_path / "again", "--recipe",
        out / "recipe.json", "--quiet")
    for file in out.glob("*.safetensors"):
        assert (tmp_path / "again" / file.name).read_bytes() == (
            file.read_bytes())


def test_a_killed_stage_is_gone_on_with(tmp_path):
    program = built_program("example_program")
    model = walks.wide_model(tmp_path / "model", 6)
    flags = ["--bits", 3, "--stages", EXAMPLE, "--gptq-samples", 8,
             "--effort", "fast", "--quiet", *DATA]

    def quantize(out):
        return [program, "quantize", *map(str, [model, "-o", out, *flags])]

    run(*quantize(tmp_path / "straight"))
    block = f".out.pennyweight/stages/.{EXAMPLE}.pennyweight/block-00001"
    walks.kill_when(quantize(tmp_path / "out"), (tmp_path / block).exists)
    run(*quantize(tmp_path / "out"))
    name = "model.safetensors"
    assert (tmp_path / "out" / name).read_bytes() == (
        tmp_path / "straight" / name).read_bytes()


def test_the_example_is_the_documents():
    text = (ROOT / "docs/adding-a-method.md").read_text()
    code = re.search(r"```cpp\n(// Rounding to nearest.*?)```", text, re.S)
    source = (ROOT / "tests/contract/shrunk/shrunk.cpp").read_text()
    assert code.group(1) == source
    assert len(source.splitlines()) < 80


def test_an_unknown_stage_is_named(tmp_path):
    done = subprocess.run(
        [BIN, "quantize", DEMO, "-o", tmp_path / "out", "--stages",
         "nearest,nothing"], capture_output=True, text=True)
    assert done.returncode == 2 and "'nothing'" in done.stderr
    assert os.listdir(tmp_path) == []
