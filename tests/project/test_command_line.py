"""What README.md says of the command: help, exit codes, JSON, no overwriting."""

import json
import os
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BIN = os.environ.get(
    "PENNYWEIGHT_BIN", str(ROOT / "build/release/src/pennyweight"))
DEMO = ROOT / "assets/demo"
COMMANDS = [
    "awq", "convert", "dwq", "dynamic-quant", "evaluate", "gptq", "inspect",
    "plan", "quantize", "sweep", "upload"]


def run(*arguments, **environment):
    return subprocess.run(
        [BIN, *map(str, arguments)], text=True, capture_output=True,
        timeout=120, stdin=subprocess.DEVNULL, env=os.environ | environment)


def one_error(done, code):
    assert done.returncode == code, (done.returncode, done.stderr)
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: ["), done.stderr
    return lines[0]


def test_help_names_every_command():
    done = run("--help")
    assert done.returncode == 0
    for command in COMMANDS:
        assert re.search(rf"^  {command} ", done.stdout, re.M)


@pytest.mark.parametrize("command", COMMANDS)
def test_help(command):
    text = run(command, "--help").stdout
    assert f"Examples:\n  pennyweight {command} " in text
    assert "{false}" not in text
    for flag in ("--json [FILE]", "--quiet"):
        assert flag in text


def test_exit_codes_are_those_of_the_readme():
    table = re.findall(r"^\| (\d+) \| ", (ROOT / "README.md").read_text(), re.M)
    said = run("--help").stdout.split("Exit codes:")[1]
    assert re.findall(r"(?:^|, ?|\n)\s*(\d+) ", said) == table


def test_wrong_usage():
    assert "--help" in one_error(run(), 2)
    assert "quantise" in one_error(run("quantise", "--model", DEMO), 2)
    assert "--verison" in one_error(run("--verison"), 2)
    assert "--model" in one_error(run("convert"), 2)
    assert "--q-bit" in one_error(run("convert", "--model", DEMO, "--q-bit"), 2)
    one_error(run("inspect", DEMO / "no such folder"), 3)


def test_json_lines(tmp_path):
    done = run("convert", "--model", DEMO, "--mlx-path", tmp_path / "out",
               "-q", "--json")
    assert done.returncode == 0 and done.stderr == ""
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert {event["event"] for event in events[:-1]} == {"progress"}
    assert all(event["done"] <= event["total"] for event in events[:-1])
    assert events[-1]["event"] == "result"
    assert events[-1]["result"]["bits_per_weight"] < 5


def test_json_file(tmp_path):
    report = tmp_path / "report.json"
    done = run("inspect", DEMO, "--json", report)
    assert done.returncode == 0 and "model.embed_tokens" in done.stdout
    assert json.loads(report.read_text())["family"] == "llama"


def test_kernels_are_named(tmp_path):
    """Which implementation served how much of a run, and what each shape of a
    model runs on."""
    report = tmp_path / "report.json"
    text = DEMO / "sample.txt"
    done = run("evaluate", DEMO, "--data-path", text, "--num-samples", 2,
               "--sequence-length", 64, "--quiet", "--json", report,
               PENNYWEIGHT_TRACE_PRODUCTS="1")
    assert done.returncode == 0, done.stderr
    kernels = json.loads(report.read_text())["kernels"]
    assert kernels["threads"] > 0 and kernels["instructions"]
    served = kernels["products"]
    assert served and abs(sum(p["share"] for p in served) - 1) < 1e-9
    # The table of the trace names the same implementations.
    lines = done.stderr.splitlines()
    head = next(i for i, line in enumerate(lines)
                if line.startswith("implementation"))
    for product in served:
        assert any(line.startswith(product["implementation"])
                   for line in lines[head + 1:])

    done = run("inspect", DEMO, "--kernels", "--json", report)
    assert done.returncode == 0, done.stderr
    shapes = json.loads(report.read_text())["shapes"]
    assert {"linear", "sum of x x^T", "attention", "its gradient",
            "head with its scores"} <= {row["what"] for row in shapes}
    assert all(row["implementation"] and row["operations_per_second"] > 0
               for row in shapes)


def test_no_overwriting(tmp_path):
    out = tmp_path / "out"
    command = ["convert", "--model", DEMO, "--mlx-path", out, "-q"]
    assert run(*command).returncode == 0
    before = (out / "model.safetensors").read_bytes()
    for other in (command, ["gptq", *command[1:-1], "--data-path",
                            DEMO / "calibration.txt", "--quiet"]):
        assert "--force" in one_error(run(*other), 2)
    assert (out / "model.safetensors").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_text_from_the_model_itself(tmp_path):
    """The same seed gives the same text, hence the same figures."""
    reports = []
    for name in ("a.json", "b.json"):
        done = run("evaluate", DEMO, "--data-path", "self", "--num-samples", 2,
                   "--sequence-length", 64, "--quiet", "--json",
                   tmp_path / name)
        assert done.returncode == 0, done.stderr
        assert "sampled from the model" in done.stdout
        reports.append(json.loads((tmp_path / name).read_text()))
    assert reports[0]["perplexity"] == reports[1]["perplexity"]
