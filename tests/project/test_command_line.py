"""What docs/commands.md says of the command: help, exit codes, JSON, no overwriting."""

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
    assert len(text.splitlines()) <= 40, "a screen"
    everything = run(command, "--help-all").stdout
    assert set(re.findall(r"--[a-z-]+", text)) - {"--help-all"} <= set(
        re.findall(r"--[a-z-]+", everything))
    hidden = re.search(r"^Advanced: --help-all shows (\d+) more", text, re.M)
    assert ("\nAdvanced:\n" in everything) == bool(hidden)
    assert f"Examples:\n  pennyweight {command} " in text
    assert "{false}" not in text
    for flag in ("--json [FILE]", "--quiet"):
        assert flag in text


def test_exit_codes_are_those_of_the_documents():
    table = re.findall(r"^\| (\d+) \| ", (ROOT / "docs/commands.md").read_text(), re.M)
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


# What each command prints on stdout at its end, in a second or so.
PRINTS = {
    "help": ["--help"],
    "version": ["--version"],
    "help of a command": ["gptq", "--help"],
    "inspect": ["inspect", DEMO],
    "evaluate": ["evaluate", DEMO, "--data-path", DEMO / "sample.txt",
                 "--num-samples", 2, "--sequence-length", 64],
    "convert": ["convert", "--model", DEMO, "-q", "--mlx-path", "out"],
    "plan": ["plan", DEMO, "--target-bpw", 4.5],
}


@pytest.mark.parametrize("events", [False, True])
@pytest.mark.parametrize("stream", ["full", "closed", "pipe"])
@pytest.mark.parametrize("what", PRINTS)
def test_an_output_that_is_lost_is_an_error(tmp_path, what, stream, events):
    """A result that stdout does not take is not a success."""
    if events and what in ("help", "version", "help of a command"):
        pytest.skip("no events")
    if stream == "full" and not Path("/dev/full").exists():
        pytest.skip("no /dev/full on this system")
    words = [BIN, *map(str, PRINTS[what]), *["--json"] * events]
    if stream == "pipe":
        reading, writing = os.pipe()
        os.close(reading)
    done = subprocess.run(
        ["sh", "-c", {"full": '"$@" > /dev/full', "closed": '"$@" >&-',
                      "pipe": '"$@"'}[stream], "sh", *words],
        stdout=writing if stream == "pipe" else None, cwd=tmp_path,
        stderr=subprocess.PIPE, text=True, timeout=120)
    if stream == "pipe":
        os.close(writing)
    assert done.returncode == 5, done.stderr
    error = done.stderr.splitlines()[-1]
    assert error.startswith("error: [output] can't write standard output: ")


def test_files_that_are_open_are_not_written_into(tmp_path):
    """With closed streams the next file that is opened would be stdout."""
    done = subprocess.run(
        ["sh", "-c", '"$@" <&- >&- 2>&-', "sh", BIN, "convert", "--model",
         str(DEMO), "-q", "--mlx-path", str(tmp_path / "closed")], timeout=120)
    assert done.returncode == 5
    assert run("convert", "--model", DEMO, "-q", "--mlx-path",
               tmp_path / "open").returncode == 0
    for path in (tmp_path / "open").iterdir():
        assert (tmp_path / "closed" / path.name).read_bytes() == \
            path.read_bytes(), path.name


def test_a_result_file_that_is_there_needs_force(tmp_path):
    report = tmp_path / "report.json"
    report.write_text("mine")
    out = ["--mlx-path", tmp_path / "out"]
    text = ["--data-path", DEMO / "calibration.txt", "--sequence-length", 64,
            "--num-samples", 8]
    commands = [
        ["inspect", DEMO, "--json", report],
        ["convert", "--model", DEMO, "-q", *out, "--json", report],
        ["gptq", "--model", DEMO, *out, *text, "--report", report],
        ["awq", "--model", DEMO, *out, *text, "--report", report],
        ["dwq", "--model", DEMO, *out, "--report", report],
        ["dynamic-quant", "--model", DEMO, *out, *text, "--report", report],
        ["dynamic-quant", "--model", DEMO, *out, *text,
         "--sensitivities-out", report],
        ["quantize", DEMO, "-o", tmp_path / "out", "--bits", 4, "--report",
         report],
    ]
    for command in commands:
        line = one_error(run(*command), 2)
        assert str(report) in line and "--force" in line
        assert report.read_text() == "mine"
    assert [path.name for path in tmp_path.iterdir()] == ["report.json"]
    assert run("inspect", DEMO, "--json", report, "--force").returncode == 0
    assert json.loads(report.read_text())["family"] == "llama"
    line = one_error(run("gptq", "--model", DEMO, *out, *text, "--json",
                         tmp_path / "a", "--report", tmp_path / "a"), 2)
    assert "received 2" in line  # --json and --report are one option


def test_what_is_no_file_is_written_to(tmp_path):
    """Pipes, devices and /dev/stdout; a link's file, and never the link."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = subprocess.Popen(["cat", pipe], stdout=subprocess.PIPE, text=True)
    assert run("inspect", DEMO, "--json", pipe).returncode == 0
    assert json.loads(reader.communicate(timeout=60)[0])["family"] == "llama"
    assert pipe.is_fifo()

    done = run("inspect", DEMO, "--json", "/dev/stdout")
    assert done.returncode == 0
    assert json.loads(done.stdout[done.stdout.index("\n{"):])
    with open(tmp_path / "all", "w") as file:
        subprocess.run([BIN, "inspect", DEMO, "--json", "/dev/stdout"],
                       stdout=file, check=True, timeout=60)
    assert (tmp_path / "all").read_text() == done.stdout

    assert run("inspect", DEMO, "--json", "/dev/null").returncode == 0
    assert Path("/dev/null").is_char_device()
    if Path("/dev/full").exists():
        done = run("inspect", DEMO, "--json", "/dev/full")
        assert done.returncode == 5 and "/dev/full" in done.stderr

    (tmp_path / "real").write_text("old")
    (tmp_path / "link").symlink_to("real")
    one_error(run("inspect", DEMO, "--json", tmp_path / "link"), 2)
    assert run("inspect", DEMO, "--json", tmp_path / "link",
               "--force").returncode == 0
    assert (tmp_path / "link").is_symlink()
    assert json.loads((tmp_path / "real").read_text())


def test_what_a_killed_process_left_of_a_result_goes(tmp_path):
    dead = subprocess.Popen(["true"])
    dead.wait()
    part = tmp_path / f".report.json.part{dead.pid}"
    part.write_text("half")
    assert run("inspect", DEMO, "--json",
               tmp_path / "report.json").returncode == 0
    assert [path.name for path in tmp_path.iterdir()] == ["report.json"]


def test_names_reach_the_terminal_escaped(tmp_path):
    """A folder is called what its maker likes."""
    odd = "a\nerror: fake\x1b[31m\u009b"
    done = run("convert", "--model", DEMO, "-q", "--mlx-path", tmp_path / odd)
    assert done.returncode == 0
    assert f"{tmp_path}/a\\nerror: fake\\x1b[31m\\u009b\n" in done.stdout
    done = run("inspect", tmp_path / odd)
    assert done.returncode == 0 and "a\\nerror: fake\\x1b" in done.stdout
    for stream in (done.stdout, run("inspect", tmp_path / f"{odd}x").stderr):
        assert not any(ord(c) < 32 and c != "\n" or 127 <= ord(c) < 160
                       for c in stream)
        assert "\nerror: fake" not in stream
    bytes_ = os.fsencode(tmp_path) + b"/\xff"
    done = subprocess.run(
        [BIN, "convert", "--model", DEMO, "-q", "--mlx-path", bytes_, "--json",
         tmp_path / "j"], capture_output=True, timeout=60)
    assert done.returncode == 0 and b"/\\xff\n" in done.stdout, done.stderr
    assert json.loads((tmp_path / "j").read_text())


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

    done = run("inspect", DEMO, "--kernels", "--json", report, "--force")
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
