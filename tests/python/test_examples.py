"""The examples do what they say, on the demo model."""

import subprocess
import sys
from pathlib import Path

import nbclient
import nbformat

sys.path.insert(0, str(Path(__file__).parent))
from api import DEMO, ROOT, TEXT, python  # noqa: E402


def run(name, *words):
    code = "import runpy, sys\nsys.argv = sys.argv[1:]\n" \
        "runpy.run_path(sys.argv[0], run_name='__main__')"
    process = python(code, ROOT / "examples" / name, *words, stdout=subprocess.PIPE,
                     stderr=subprocess.PIPE)
    out, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    return out


def test_quantize_and_chat(tmp_path):
    out = run("quantize_and_chat.py", DEMO, tmp_path / "out", "--tokens", 12)
    first, answer = out.split("\n", 1)
    assert "bits a weight" in first and "nats a token" in first
    assert len(answer.split()) > 5  # words, whatever they are worth


def test_sweep_plot(tmp_path):
    out = run("sweep_plot.py", DEMO, tmp_path / "out", "--bpw", "3,4,5", "--data", TEXT,
              "--sequence-length", 64)
    assert out.count("bits a weight") == 3
    assert (tmp_path / "out/frontier.png").read_bytes().startswith(b"\x89PNG")


def test_notebook(tmp_path):
    notebook = nbformat.read(ROOT / "examples/quantize.ipynb", 4)
    cells = notebook.cells
    assert "../assets/demo" in cells[1].source
    cells[1].source = (cells[1].source.replace("../assets/demo", str(DEMO))
                       .replace("demo-45", str(tmp_path / "out")))
    cells.insert(0, nbformat.v4.new_code_cell(
        f"import sys\nsys.path.insert(0, {str(ROOT / 'python')!r})"))
    nbclient.NotebookClient(notebook, timeout=300, kernel_name="python3").execute()
    assert "bits_per_weight=4.4" in str(cells[6].outputs)
    assert "same likeliest token" in str(cells[-1].outputs)
    # It is kept without outputs, which would age.
    kept = nbformat.read(ROOT / "examples/quantize.ipynb", 4)
    assert not any(cell.get("outputs") for cell in kept.cells)
