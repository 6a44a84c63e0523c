"""--stream: a hub's model goes through file by file, of which the disk holds two at
most; the bytes are those of a run that has them all, also after a kill, a cut and
another start; what goes wrong on the way ends in one line."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import mlx.core as mx
import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests/support"), str(ROOT / "python")]
import random_model  # noqa: E402
from hub_client import BIN, command, environment, fails, run, succeeds  # noqa: E402
from hub_server import Hub  # noqa: E402
from short_runs import SLOW  # noqa: E402

TEXT = ROOT / "assets/demo/calibration.txt"
CONVERT = ["-q"]
QUANTIZE = ["--data-path", TEXT, "--sequence-length", 32, "--gptq-samples", 4,
            "--learn-steps", 0, "--effort", "fast"]
SAME = ["model.safetensors", "model.safetensors.index.json", "config.json",
        "tokenizer.json"]


slow = pytest.mark.skipif(not SLOW, reason="PENNYWEIGHT_SLOW is not set")


def write(folder, places):
    """A model of twelve blocks, whose names are not in the order of their files:
    the tensor at i of n stands in file `places(i, n)` of five."""
    tensors = random_model.write(
        folder, num_hidden_layers=12, hidden_size=256, intermediate_size=512,
        num_attention_heads=4, num_key_value_heads=4, head_dim=64)
    (folder / "model.safetensors").unlink()
    files = {}
    for i, (name, tensor) in enumerate(tensors.items()):
        file = f"model-{places(i, len(tensors)) + 1:05d}-of-00005.safetensors"
        files.setdefault(file, {})[name] = tensor
    for file, own in files.items():
        mx.save_safetensors(str(folder / file), own, metadata={"format": "pt"})
    (folder / "model.safetensors.index.json").write_text(json.dumps(
        {"metadata": {}, "weight_map": {
            name: file for file, own in files.items() for name in own}}))
    return folder


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """As the hub has models: block after block."""
    return write(tmp_path_factory.mktemp("source") / "model",
                 lambda i, n: i * 5 // n)


@pytest.fixture(scope="module")
def plain(source, tmp_path_factory):
    """What comes of a folder that has all."""
    made = {}

    def of(name, flags):
        key = (name, *map(str, flags))
        if key not in made:
            made[key] = tmp_path_factory.mktemp("plain") / name
            subprocess.run(
                [BIN, name, "--model", source, "--mlx-path", made[key], *key[1:]],
                check=True, capture_output=True, timeout=300)
        return made[key]

    return of


@pytest.fixture
def hub(source):
    server = Hub({path.name: path.read_bytes() for path in source.iterdir()})
    yield server
    server.close()


def shards_of(hub):
    return sorted(name for name in hub.files if name.endswith(".safetensors"))


def words(name, out, flags):
    return [name, "--model", "org/tiny", "--mlx-path", out, "--stream", *flags]


def stream(hub, tmp_path, name="convert", flags=CONVERT, **extra):
    return run(hub, tmp_path / "home", *words(name, tmp_path / "out", flags), **extra)


def root(tmp_path):
    return tmp_path / "home/hub/.pennyweight-stream"


def assert_same(out, other):
    for name in SAME:
        assert (out / name).read_bytes() == (other / name).read_bytes(), name


class Disk:
    """Watches how much of a disk is taken: by whole files, and by all else that
    is not the output."""

    def __init__(self, folder):
        self.folder, self.stop = folder, threading.Event()
        self.whole = self.other = 0
        self.thread = threading.Thread(target=self.watch)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.stop.set()
        self.thread.join()

    def watch(self):
        while not self.stop.is_set():
            whole = other = 0
            for folder, _, names in os.walk(self.folder):
                for name in names:
                    try:
                        taken = os.stat(os.path.join(folder, name)).st_blocks * 512
                    except OSError:
                        continue
                    if "/arriving" in folder:
                        whole += taken
                    else:
                        other += taken
            self.whole, self.other = max(self.whole, whole), max(self.other, other)
            time.sleep(0.002)


def test_a_folder_that_can_hold_no_socket_is_named(hub, tmp_path):
    """A socket's path has 107 bytes at most."""
    temporary = tmp_path / ("t" * 100)
    temporary.mkdir()
    done = stream(hub, tmp_path, TMPDIR=str(temporary))
    assert fails(done, 5, "socket", "TMPDIR")
    assert not list(temporary.iterdir())


def test_two_files_are_on_the_disk_at_most_and_each_comes_once(
        hub, plain, tmp_path):
    hub.pause = 0.005
    with Disk(tmp_path / "home") as disk:
        succeeds(stream(hub, tmp_path))
    sizes = sorted(len(hub.files[name]) for name in shards_of(hub))
    assert sizes[-1] < disk.whole <= 2 * sizes[-1] + (128 << 10)
    # Headers, tokenizer and the like.
    small = sum(len(data) for name, data in hub.files.items()
                if not name.endswith(".safetensors"))
    assert disk.other < small + 0.1 * sum(sizes)
    assert_same(tmp_path / "out", plain("convert", CONVERT))
    for name in shards_of(hub):
        whole = [r for r in hub.downloads(name) if r.range is None and r.store]
        assert len(whole) == 1, name
    assert not root(tmp_path).exists()


def test_each_file_comes_once_whatever_is_in_it(tmp_path):
    folder = write(tmp_path / "model", lambda i, n: i * 7 % 5)
    server = Hub({path.name: path.read_bytes() for path in folder.iterdir()})
    try:
        succeeds(stream(server, tmp_path))
        for name in shards_of(server):
            assert len([r for r in server.downloads(name)
                        if r.range is None and r.store]) == 1, name
    finally:
        server.close()
    out = tmp_path / "plain"
    subprocess.run([BIN, "convert", "--model", folder, "--mlx-path", out, "-q"],
                   check=True, capture_output=True, timeout=300)
    assert_same(tmp_path / "out", out)


def test_a_function_streams_too(hub, plain, tmp_path):
    code = ("import sys, pennyweight\n"
            "report = pennyweight.convert('org/tiny', sys.argv[1], quantize=True,\n"
            "                             stream=True)\n"
            "print(report.json['fetched_bytes'])")
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "out"], text=True, timeout=120,
        env=environment(hub, tmp_path / "home"), capture_output=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) == sum(len(hub.files[name]) for name in shards_of(hub))
    assert_same(tmp_path / "out", plain("convert", CONVERT))
    assert not root(tmp_path).exists()


def start(hub, tmp_path, name="convert", flags=CONVERT):
    return subprocess.Popen(
        command(*words(name, tmp_path / "out", flags), "--quiet"), text=True,
        env=environment(hub, tmp_path / "home"), stderr=subprocess.PIPE)


def wait_for_whole(tmp_path, name):
    end = time.monotonic() + 60
    while not list(root(tmp_path).glob(f"*/arriving/{name}")):
        assert time.monotonic() < end
        time.sleep(0.002)


@pytest.mark.parametrize("stop", [signal.SIGKILL, signal.SIGINT])
def test_stopped_and_started_again(hub, plain, tmp_path, stop):
    hub.pause = 0.01
    process = start(hub, tmp_path)
    wait_for_whole(tmp_path, shards_of(hub)[1])
    process.send_signal(stop)
    _, said = process.communicate(timeout=20)
    assert process.returncode == (-9 if stop == signal.SIGKILL else 130)
    if stop == signal.SIGINT:
        assert said.count("error: ") == 1 and "stopped by the user" in said
        assert not list(root(tmp_path).glob("*/arriving/*.safetensors"))
    assert not (tmp_path / "out").exists()
    hub.pause = 0
    succeeds(stream(hub, tmp_path))
    assert_same(tmp_path / "out", plain("convert", CONVERT))
    assert not root(tmp_path).exists()
    assert not list(tmp_path.glob(".out*"))


def test_cut_connections_are_taken_up(hub, plain, tmp_path):
    for name in shards_of(hub):
        hub.cuts[name] = [100_000, 700_000]  # of the header, of the whole
    succeeds(stream(hub, tmp_path))
    assert_same(tmp_path / "out", plain("convert", CONVERT))


def close_doors(hub):
    hub.dead = True
    for server in (hub.hub, hub.store):
        server.shutdown()
        server.socket.close()


def refuse_us(hub):
    hub.gated = True


@pytest.mark.parametrize("harm", [close_doors, refuse_us])
def test_a_server_that_dies_is_one_line(hub, tmp_path, harm):
    hub.pause = 0.01
    process = start(hub, tmp_path)
    wait_for_whole(tmp_path, shards_of(hub)[1])
    harm(hub)
    _, said = process.communicate(timeout=110)
    assert process.returncode == 5, said
    assert said.count("error: ") == 1 and len(said.strip().splitlines()) == 1
    assert "org/tiny" in said and ("run again" in said or "HF_TOKEN" in said)
    assert not (tmp_path / "out").exists()
    assert not list(root(tmp_path).glob("*/arriving/*.safetensors"))


def refuse_ranges(hub):
    hub.sends_parts = False


def garble(hub):
    hub.garbled.add(shards_of(hub)[2])


def break_header(hub):
    name = shards_of(hub)[1]
    hub.files[name] = hub.files[name][:8] + b"[]" + hub.files[name][10:]


def no_header(hub):
    hub.files[shards_of(hub)[1]] = b"<html>" * 1000


def lose_a_file(hub):
    del hub.files[shards_of(hub)[3]]


@pytest.mark.parametrize("harm, code, text", [
    (refuse_ranges, 5, "run without it"),
    (garble, 4, ""),
    (break_header, 4, "header"),
    (no_header, 4, "no safetensors file"),
    (lose_a_file, 3, "model-00004-of-00005.safetensors"),
])
def test_what_the_hub_gets_wrong_is_one_line(hub, tmp_path, harm, code, text):
    harm(hub)
    assert fails(stream(hub, tmp_path), code, text)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("alone", [False, True])
def test_a_stub_that_a_power_cut_has_left(source, tmp_path, alone):
    """Of its size and without some of its bytes: small tensors are read from it,
    and would be zeros."""
    if alone:
        source = tmp_path / "model"
        random_model.write(source, num_hidden_layers=2)
        tensors = mx.load(str(source / "model.safetensors"))
        norms = {n: t for n, t in tensors.items() if "norm" in n}
        rest = {n: t for n, t in tensors.items() if "norm" not in n}
        (source / "model.safetensors").unlink()
        for i, part in enumerate([rest, norms]):
            mx.save_safetensors(
                str(source / f"model-0000{i + 1}-of-00002.safetensors"), part)
    hub = Hub({path.name: path.read_bytes() for path in source.iterdir()})
    try:
        hub.pause = 0.02
        process = start(hub, tmp_path)
        wait_for_whole(tmp_path, shards_of(hub)[0])
        process.kill()
        process.wait()
        hub.pause = 0
        name = shards_of(hub)[-1 if alone else 1]
        stub, = root(tmp_path).glob(f"*/model/{name}")
        data = bytearray(stub.read_bytes())
        at = 8 + int.from_bytes(data[:8], "little")
        if not alone:
            header = json.loads(data[8:at])
            at += min(entry["data_offsets"][0] for key, entry in header.items()
                      if key.endswith("norm.weight"))
        data[at:at + 64] = bytes(64)
        stub.write_bytes(data)
        assert fails(stream(hub, tmp_path), 4, name, "run again")
        succeeds(stream(hub, tmp_path))
    finally:
        hub.close()


def test_what_makes_no_sense_is_refused(hub, source, tmp_path):
    out = tmp_path / "out"
    assert fails(run(hub, tmp_path, "convert", "--model", source, "--mlx-path", out,
                     "-q", "--stream"), 2, "here already")
    assert fails(stream(hub, tmp_path, HF_HUB_OFFLINE="1"), 3, "--stream fetches")
    assert fails(run(hub, tmp_path, "convert", "--model", "org/none", "--mlx-path",
                     out, "-q", "--stream"), 3, "org/none")


def test_two_runs_of_one_model_are_refused(hub, tmp_path):
    hub.pause = 0.02
    process = start(hub, tmp_path)
    wait_for_whole(tmp_path, shards_of(hub)[0])
    assert fails(run(hub, tmp_path / "home", *words(
        "convert", tmp_path / "other", CONVERT)), 5, "wait for it")
    process.kill()
    process.wait()


@pytest.mark.parametrize("target", [
    ["--bits", 4], pytest.param(["--target-bpw", 5], marks=slow)], ids=lambda t: t[0])
def test_quantize_goes_through_again_and_again(hub, plain, tmp_path, target):
    """Stopped on the way, too; and the same bytes as with all files."""
    flags = [*QUANTIZE, *target]
    process = start(hub, tmp_path, "quantize", flags)
    end = time.monotonic() + 120
    while not list(tmp_path.glob(".out.pennyweight/stages/*gptq*")):
        assert process.poll() is None and time.monotonic() < end
        time.sleep(0.02)
    process.kill()
    process.wait()
    with Disk(tmp_path / "home") as disk:
        done = succeeds(stream(hub, tmp_path, "quantize",
                               [*flags, "--json", tmp_path / "report.json"]))
    assert "going on with an unfinished run" in done.stderr
    sizes = [len(hub.files[name]) for name in shards_of(hub)]
    assert disk.whole <= 2 * max(sizes) + (128 << 10)
    assert_same(tmp_path / "out", plain("quantize", flags))
    report = json.loads((tmp_path / "report.json").read_text())
    # As often as docs/commands.md says, and no more.
    walks = report["fetched_bytes"] / sum(sizes)
    assert 1 < walks < (6 if target[0] == "--bits" else 12), walks
    assert not root(tmp_path).exists()
