"""Functions take hub ids as the command line does: from a hub on loopback, in this
process, which keeps its signals and huggingface_hub's settings."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1] / "support")]
from api import DEMO, python  # noqa: E402
from hub_client import environment  # noqa: E402
from hub_server import Hub  # noqa: E402

NEEDED = ("config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors")


@pytest.fixture
def hub():
    server = Hub({name: (DEMO / name).read_bytes() for name in NEEDED})
    yield server
    server.close()


def start(hub, home, code, *words):
    own = {key: value for key, value in environment(hub, home).items()
           if os.environ.get(key) != value}
    return python("import pennyweight, sys\n" + code, *words, env=own,
                  stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def done(process):
    out, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    return out, errors


def test_a_model_is_fetched(hub, tmp_path):
    code = """
import huggingface_hub, warnings
from huggingface_hub.utils import are_progress_bars_disabled
huggingface_hub.logging.set_verbosity_info()
events = []
report = pennyweight.convert("org/tiny@v1", sys.argv[1], quantize=True,
                             progress=events.append)
print(report.output, len(events) > 3, are_progress_bars_disabled(),
      huggingface_hub.logging.get_verbosity() == huggingface_hub.logging.INFO)
"""
    out, errors = done(start(hub, tmp_path, code, tmp_path / "out"))
    assert out == f"{tmp_path / 'out'} True False True\n"
    assert "%|" not in errors
    assert "# org/tiny@v1 for MLX" in (tmp_path / "out/README.md").read_text()


def test_a_data_set_is_fetched(hub, tmp_path):
    rows = [{"text": "once upon a time there was a dog " * 20}] * 40
    hub.files["train.jsonl"] = "".join(
        json.dumps(row) + "\n" for row in rows).encode()
    code = ('print(pennyweight.evaluate(sys.argv[1], data="org/tiny", '
            "sequence_length=32, num_samples=4).data)")
    assert done(start(hub, tmp_path, code, DEMO))[0] == "data set org/tiny\n"


def test_errors_of_the_hub_are_exceptions(hub, tmp_path):
    code = """
for name in ("org/gone", "org/tiny@gone"):
    try:
        pennyweight.inspect(name)
    except pennyweight.NotFound as error:
        print(error)
"""
    out, _ = done(start(hub, tmp_path, code))
    assert "no such repository" in out and "no such revision" in out
    hub.garbled.add("model.safetensors")
    code = """
try:
    pennyweight.inspect("org/tiny")
except pennyweight.Corrupt as error:
    print(error)
"""
    assert "damaged" in done(start(hub, tmp_path, code))[0]


def test_ctrl_c_while_the_hub_is_silent(hub, tmp_path):
    hub.stall = 1000
    code = """
import os, signal, time
before = signal.getsignal(signal.SIGINT)
try:
    pennyweight.inspect("org/tiny")
except KeyboardInterrupt:
    print("stopped", signal.getsignal(signal.SIGINT) is before, flush=True)
print(pennyweight.inspect(sys.argv[1]).family, flush=True)
os._exit(0)
"""
    process = start(hub, tmp_path, code, DEMO)
    assert hub.stalled.wait(60)
    begun = time.monotonic()
    process.send_signal(signal.SIGINT)
    assert process.stdout.readline() == "stopped True\n"
    assert time.monotonic() - begun < 4
    assert done(process)[0] == "llama\n"
