"""Progress as a bar in a terminal, a bar of the notebook's in a notebook, by a
function, and not at all."""

import fcntl
import os
import pty
import struct
import sys
import termios
from pathlib import Path

import nbclient
import nbformat
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from api import DEMO, ROOT, SHORT, python  # noqa: E402

import pennyweight  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::pennyweight.Warning")
CALL = """
import sys, warnings
import pennyweight
warnings.simplefilter("ignore")
pennyweight.gptq(sys.argv[1], sys.argv[2], data=sys.argv[1] + "/calibration.txt",
                 sequence_length=64, num_samples=16, progress={progress})
"""


def in_terminal(code, *words):
    """What a terminal of 80 columns was shown."""
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    process = python(code, *words, stdout=follower, stderr=follower,
                     env={"TERM": "xterm"})
    os.close(follower)
    shown = b""
    while True:
        try:
            part = os.read(leader, 4096)
        except OSError:
            break
        if not part:
            break
        shown += part
    os.close(leader)
    assert process.wait(60) == 0, shown.decode()
    return shown.decode()


def test_a_bar_in_a_terminal(tmp_path):
    shown = in_terminal(CALL.format(progress="True"), DEMO, tmp_path / "out")
    lines = shown.replace("\r", "\n").split("\n")
    bars = [line for line in lines if line.startswith("gptq:") and "4/4" in line]
    assert bars and "100%" in bars[-1] and "blocks" in bars[-1], shown
    assert "\r" in shown and "plan: memory up to" in shown
    assert max(len(line) for line in lines if "%|" in line) <= 80


def test_silence(tmp_path):
    assert in_terminal(CALL.format(progress="None"), DEMO, tmp_path / "out") == ""


def test_the_commands_own_bar(tmp_path):
    code = ("from pennyweight.main import main\nimport sys\n"
            "sys.argv[:] = ['pennyweight', 'convert', '-q', '-m', sys.argv[1], '-o', "
            "sys.argv[2]]\nmain()")
    shown = in_terminal(code, DEMO, tmp_path / "out")
    assert "[########################]" in shown and "written to" in shown


def test_a_function(tmp_path):
    events = []
    pennyweight.gptq(DEMO, tmp_path / "out", progress=events.append, **SHORT)
    assert all(isinstance(event, pennyweight.Event) for event in events)
    blocks = [event for event in events if event.unit == "blocks"]
    assert {event.total for event in blocks} == {4}
    assert [event.done for event in blocks] == sorted(event.done for event in blocks)
    assert blocks[-1].done == 4 and blocks[-1].left == 0
    assert any(event.message and not event.unit for event in events)
    assert all(event.done <= event.total or event.total == 0 for event in events)


def test_a_bar_in_a_notebook(tmp_path):
    """A widget, not a bar of characters."""
    source = CALL.format(progress="True").replace(
        "import sys, warnings", f"import sys, warnings\nsys.path.insert(0, "
        f"{str(ROOT / 'python')!r})").replace("sys.argv[1]", repr(str(DEMO))).replace(
        "sys.argv[2]", repr(str(tmp_path / "out")))
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)])
    nbclient.NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
    outputs = notebook.cells[0].outputs
    views = [one for one in outputs if "application/vnd.jupyter.widget-view+json"
             in one.get("data", {})]
    assert len(views) > 2
    assert any("blocks" in one["data"].get("text/plain", "") for one in views)
    assert not any("TqdmWarning" in one.get("text", "") for one in outputs)


def test_ctrl_c_in_a_notebook(tmp_path):
    """A kernel is interrupted by SIGINT, and goes on with the next cell."""
    first = f"""
import os, signal, sys, threading
sys.path.insert(0, {str(ROOT / 'python')!r})
import pennyweight
threading.Timer(1, os.kill, (os.getpid(), signal.SIGINT)).start()
try:
    pennyweight.quantize({str(DEMO)!r}, {str(tmp_path / 'out')!r}, target_bpw=2.9,
        data={str(DEMO / 'calibration.txt')!r}, sequence_length=32, gptq_samples=4,
        dwq_samples=0, learn_steps=100000)
except KeyboardInterrupt:
    print("stopped")
"""
    second = f"print(pennyweight.inspect({str(DEMO)!r}).family)"
    notebook = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell(first), nbformat.v4.new_code_cell(second)])
    nbclient.NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
    texts = ["".join(one.get("text", "") for one in cell.outputs
                     if one.get("name") == "stdout") for cell in notebook.cells]
    assert texts == ["stopped\n", "llama\n"]
