"""Models of which blocks share keys and values and read what tokens bring to
each of them: stopped runs, several processes; and texts that an indexer would
cut."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

mx = pytest.importorskip("mlx.core")
pytest.importorskip("mlx_lm")

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/support"))
sys.path.insert(0, str(Path(__file__).parent))
import test_families  # noqa: E402
import walks  # noqa: E402
from walks import mpirun  # noqa: E402, F401

FLAGS = ["--num-samples", 12, "--group-size", 32, "--fallback-group-size", 32]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shared") / "model"
    test_families.write(folder, "gemma4_text", "bfloat16")
    return folder


def test_killed_where_keys_are_shared(model, tmp_path):
    """Blocks that are done are run again, with what stands beside the stream."""
    out = tmp_path / "out"
    flags = FLAGS[:4]
    walks.run("awq", model, tmp_path / "straight", *flags)
    fourth = tmp_path / ".out.pennyweight/block-00003"
    ended = walks.kill_when(
        walks.command("awq", model, out, *flags, "--quiet"), fourth.exists)
    assert ended == -signal.SIGKILL
    report = walks.run("awq", model, out, *flags, "--resume")
    assert report["resumed_blocks"] > 3
    assert walks.same_files(out, tmp_path / "straight")


def test_two_processes_find_what_one_does(model, tmp_path, mpirun):  # noqa: F811
    both = walks.run("gptq", model, tmp_path / "out", *FLAGS, launcher=mpirun)
    alone = walks.run("gptq", model, tmp_path / "alone", *FLAGS)
    assert both["bits_per_weight"] == alone["bits_per_weight"]


def test_pipelines_are_refused(model, tmp_path, mpirun):  # noqa: F811
    done = subprocess.run(
        [*mpirun, walks.BIN, "dwq", "--model", model, "--mlx-path",
         tmp_path / "out", "--data-path", walks.TEXT, "--pipeline", "--quiet"],
        capture_output=True, text=True, timeout=120)
    assert done.returncode != 0
    assert "embed_tokens_per_layer" in done.stderr


def test_longer_texts_than_the_indexer_lets_through_are_refused(tmp_path):
    model = tmp_path / "model"
    test_families.write(model, "deepseek_v32", "bfloat16")
    file = model / "config.json"
    file.write_text(file.read_text().replace(
        '"index_topk": 2048', '"index_topk": 100'))
    error = walks.run("gptq", model, tmp_path / "out", *FLAGS, code=6)
    assert "a text of 128 tokens" in error and "index_topk" in error
