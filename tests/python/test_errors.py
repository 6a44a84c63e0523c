"""Errors of the program are exceptions by code, Ctrl-C is KeyboardInterrupt, and
neither ends the process or leaves anything in it."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from api import DEMO, SHORT, STAGED, TEXT, digests, python  # noqa: E402

import pennyweight  # noqa: E402


def edited(folder, change):
    """A copy of the demo model whose weights were changed."""
    shutil.copytree(DEMO, folder)
    file = folder / "model.safetensors"
    data = bytearray(file.read_bytes())
    file.write_bytes(change(data))
    return folder


def with_nans(data):
    data[-400:] = b"\xff\x7f" * 200
    return data


def of_another_family(folder):
    shutil.copytree(DEMO, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "nope"}))
    return folder


CASES = {
    "invalid_argument": (pennyweight.InvalidArgument, ValueError, lambda tmp:
                         pennyweight.quantize(DEMO, tmp / "o", bits=99)),
    "not_found": (pennyweight.NotFound, FileNotFoundError, lambda tmp:
                  pennyweight.inspect(tmp / "gone")),
    "corrupt": (pennyweight.Corrupt, ValueError, lambda tmp: pennyweight.convert(
        edited(tmp / "cut", lambda data: data[:-9]), tmp / "o")),
    "io": (pennyweight.System, OSError, lambda tmp: pennyweight.dynamic_quant(
        DEMO, tmp / "o", sensitivities_out="/dev/full", **SHORT)),
    "not_supported": (pennyweight.NotSupported, NotImplementedError, lambda tmp:
                      pennyweight.convert(of_another_family(tmp / "x"), tmp / "o")),
    "numeric": (pennyweight.Numeric, ArithmeticError, lambda tmp: pennyweight.convert(
        edited(tmp / "nan", with_nans), tmp / "o", quantize=True)),
    "cancelled": (pennyweight.Cancelled, Exception, lambda tmp: pennyweight.convert(
        DEMO, tmp / "o", progress=lambda event: False)),
}


@pytest.mark.parametrize("code", CASES)
def test_each_code_has_its_exception(tmp_path, code):
    own, pythons, call = CASES[code]
    if code == "io" and not Path("/dev/full").exists():
        pytest.skip("no /dev/full on this system")
    for _ in range(2):
        shutil.rmtree(tmp_path)
        tmp_path.mkdir()
        with pytest.raises(own) as raised:
            call(tmp_path)
        assert isinstance(raised.value, pythons)
        assert isinstance(raised.value, pennyweight.Error)
        assert raised.value.code == code
        text = str(raised.value)
        assert text.startswith("[") and "\n" not in text
        assert not (tmp_path / "o").exists()
    pennyweight.inspect(DEMO)


def test_paths_that_are_no_utf_8(tmp_path):
    name = os.fsdecode(bytes(tmp_path) + b"/m\xff")
    try:
        shutil.copytree(DEMO, name)
    except OSError:
        pytest.skip("no such names on this system")
    pennyweight.convert(name, name + "-out", quantize=True)
    assert Path(name + "-out", "model.safetensors").exists()
    with pytest.raises(pennyweight.NotFound, match="gone"):
        pennyweight.inspect(name + "-gone")


def test_a_codes_name_is_the_programs():
    header = (Path(__file__).parents[2] / "src/core/error.h").read_text()
    names = [line.split(",")[0].strip() for line in
             header.split("enum class ErrorCode {")[1].split("};")[0].splitlines()
             if "," in line]
    assert {*names, "internal"} == {own.code for own in (
        *pennyweight.Error.__subclasses__(), pennyweight.Error)}


def test_what_the_callback_raises_comes_out(tmp_path):
    class Mine(Exception):
        pass

    def callback(event):
        raise Mine(event.stage)

    with pytest.raises(Mine):
        pennyweight.gptq(DEMO, tmp_path / "out", progress=callback, **SHORT)
    assert not (tmp_path / "out").exists()


INTERRUPTED = """
import os, signal, sys, threading, time, warnings
import pennyweight
warnings.simplefilter("ignore")
model, text, out, handler = sys.argv[1:]
heard = []
if handler == "own":
    signal.signal(signal.SIGINT, lambda *_: heard.append(1) or sys.exit("own"))
before = signal.getsignal(signal.SIGINT)
# Long enough: some twenty rounds of learning a block.
options = dict(data=text, sequence_length=32, gptq_samples=4, dwq_samples=0,
               learn_steps=100000, target_bpw=2.9)
print("ready", flush=True)
try:
    pennyweight.quantize(model, out, **options)
except BaseException as error:
    print(type(error).__name__, signal.getsignal(signal.SIGINT) is before, flush=True)
options["learn_steps"] = 1
report = pennyweight.quantize(model, out, force=True, **options)
print(os.path.exists(report.output / "model.safetensors"), len(heard))
"""


@pytest.mark.parametrize("handler, raised, heard", [
    ("python's", "KeyboardInterrupt", 0), ("own", "SystemExit", 1)])
def test_ctrl_c(small_model, tmp_path, handler, raised, heard):
    """Stops the run at once by the process's own handler, which stays; the process
    goes on, and runs the same again."""
    process = python(INTERRUPTED, small_model, TEXT, tmp_path / "out", handler,
                     stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout.readline() == "ready\n"
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not list(tmp_path.rglob("*.safetensors")):
        time.sleep(0.05)
    time.sleep(0.5)
    start = time.monotonic()
    process.send_signal(signal.SIGINT)
    assert process.stdout.readline() == f"{raised} True\n"
    assert time.monotonic() - start < 3
    out, errors = process.communicate(timeout=120)
    assert (process.returncode, out) == (0, f"True {heard}\n"), errors


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_of_the_command(tmp_path, stop):
    """It is the program's own, in Python's process as in a program's."""
    code = ("import sys\nfrom pennyweight.main import main\n"
            "sys.argv[0] = 'pennyweight'\nmain()")
    process = python(
        code, "quantize", DEMO, "-o", tmp_path / "out", "--target-bpw", 2.9,
        "--data-path", TEXT, "--sequence-length", 32, "--gptq-samples", 4,
        "--learn-steps", 100000, "--quiet", stdout=subprocess.PIPE,
        stderr=subprocess.PIPE)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not list(tmp_path.rglob("*.safetensors")):
        time.sleep(0.05)
    process.send_signal(stop)
    out, errors = process.communicate(timeout=20)
    assert process.returncode == 130 and out == ""
    assert errors.splitlines()[-1].endswith("stopped by the user"), errors
    assert "Traceback" not in errors


def test_ctrl_c_leaves_a_run_that_goes_on(small_model, tmp_path):
    straight = tmp_path / "straight" / "out"
    straight.parent.mkdir()
    options = {**STAGED, "target_bpw": 3.2}
    pennyweight.quantize(small_model, straight, **options)

    def stop(event):
        if event.stage == "gptq" and event.unit == "blocks" and event.done == 2:
            os.kill(os.getpid(), signal.SIGINT)

    stopped = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        pennyweight.quantize(small_model, stopped, progress=stop, **options)
    assert not stopped.exists() and (tmp_path / ".out.pennyweight").is_dir()
    report = pennyweight.quantize(small_model, stopped, resume=True, **options)
    assert report.output == stopped
    assert digests(stopped) == digests(straight)


pytestmark = pytest.mark.filterwarnings("ignore::pennyweight.Warning")
