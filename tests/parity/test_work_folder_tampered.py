"""What happens to a work folder between a kill and the run that goes on with it:
bits flipped, files cut, removed, swapped, replaced by links, folders and pipes,
figures edited, blocks renumbered, another run's folder put in its place. Each
ends in the bytes of a straight run, or in one clear line after which --force
works, and nothing outside the folder is touched."""

import json
import os
import random
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests/support")]
import random_model  # noqa: E402
from walks import BIN, TEXT, kill_when, leftovers, same_files  # noqa: E402

SMALL = {"num_hidden_layers": 6, "hidden_size": 64, "intermediate_size": 128,
         "num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 32}
FLAGS = ["--sequence-length", "32", "--num-samples", "8", "--no-fit-embed"]
DOCUMENTED = {2, 3, 4, 5}


def run(model, out, *flags):
    return subprocess.run(
        [BIN, "gptq", "--model", str(model), "--mlx-path", str(out),
         "--data-path", str(TEXT), *FLAGS, *flags],
        capture_output=True, text=True, timeout=120)


def straight(model, out, *flags):
    done = run(model, out, *flags)
    assert done.returncode == 0, done.stderr
    return out


def leave_unfinished(model, out, *flags):
    """A run that is killed when it has two blocks or some more."""
    work = out.parent / f".{out.name}.pennyweight"
    for _ in range(20):
        kill_when(
            [BIN, "gptq", "--model", str(model), "--mlx-path", str(out),
             "--data-path", str(TEXT), *FLAGS, *flags],
            (work / "block-00001").exists)
        if not out.exists():
            return work
        shutil.rmtree(out)  # it was faster
    raise AssertionError("no run could be killed in time")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A model, its output, and the work folders of a run that was killed and
    of one with other settings."""
    folder = tmp_path_factory.mktemp("made")
    model = folder / "model"
    random_model.write(model, **SMALL)
    out = straight(model, folder / "straight")
    for name, flags in (("own", ()), ("foreign", ("--bits", "3"))):
        leave_unfinished(model, folder / name, *flags)
    return folder, model, out


def files_of(work):
    return sorted(p for p in work.rglob("*") if p.is_file())


def flip_a_bit(work, chance, outside):
    file = chance.choice([f for f in files_of(work) if f.stat().st_size])
    data = bytearray(file.read_bytes())
    data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    file.write_bytes(data)


def cut(work, chance, outside):
    file = chance.choice([f for f in files_of(work) if f.stat().st_size])
    os.truncate(file, chance.randrange(file.stat().st_size))


def remove(work, chance, outside):
    chance.choice(files_of(work)).unlink()


def swap(work, chance, outside):
    one, other = chance.sample(files_of(work), 2)
    data = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(data)


def entry(work, chance):
    return chance.choice(sorted(work.rglob("*")))


def drop(path):
    shutil.rmtree(path) if path.is_dir() else path.unlink()


def put_a_link(work, chance, outside):
    path = entry(work, chance)
    target = outside if path.is_dir() else outside / "report.json"
    drop(path)
    path.symlink_to(target)


def put_a_link_to_nothing(work, chance, outside):
    path = entry(work, chance)
    drop(path)
    path.symlink_to("nowhere")


def put_a_folder(work, chance, outside):
    path = chance.choice(files_of(work))
    path.unlink()
    path.mkdir()
    (path / "x").write_text("x")


def put_a_pipe(work, chance, outside):
    path = entry(work, chance)
    drop(path)
    os.mkfifo(path)


def put_a_file(work, chance, outside):
    path = chance.choice(sorted(p for p in work.iterdir() if p.is_dir()))
    drop(path)
    path.write_text("{}")


def edit_a_figure(work, chance, outside):
    file = chance.choice(sorted(work.rglob("*.json")))
    json_ = json.loads(file.read_text())

    def numbers(node, at=()):
        if isinstance(node, dict):
            for key, value in node.items():
                yield from numbers(value, (*at, key))
        elif isinstance(node, list):
            for key, value in enumerate(node):
                yield from numbers(value, (*at, key))
        elif not isinstance(node, bool):
            yield at
    *path, last = chance.choice(list(numbers(json_)))
    node = json_
    for key in path:
        node = node[key]
    node[last] = chance.choice([value for value in (
        0, -1, 1e300, None, "x", [], {"a": 1}) if value != node[last]])
    file.write_text(json.dumps(json_))


def renumber(work, chance, outside):
    shift = chance.choice(["swap", "gap", "double"])
    first, second = work / "block-00000", work / "block-00001"
    if shift == "swap":
        first.rename(work / "x")
        second.rename(first)
        (work / "x").rename(second)
    elif shift == "gap":
        first.rename(work / "block-00009")
    else:
        shutil.rmtree(second)
        shutil.copytree(first, second)


def put_a_foreign_block(work, chance, outside):
    number = chance.randrange(2)
    shutil.rmtree(work / f"block-0000{number}")
    shutil.copytree(outside.parent / ".foreign.pennyweight/block-00000",
                    work / f"block-0000{number}")


def put_a_foreign_folder(work, chance, outside):
    shutil.rmtree(work)
    shutil.copytree(outside.parent / ".foreign.pennyweight", work)


def put_a_link_in_its_place(work, chance, outside):
    shutil.rmtree(work)
    work.symlink_to(outside)


def put_a_pipe_in_its_place(work, chance, outside):
    shutil.rmtree(work)
    os.mkfifo(work)


def put_a_stray_file(work, chance, outside):
    (work / chance.choice(["block-1", "state-x", ".x.part1", "x"])).write_text(
        "x")


KINDS = [flip_a_bit, flip_a_bit, cut, remove, swap, put_a_link, put_a_link,
         put_a_link_to_nothing, put_a_folder, put_a_pipe, put_a_file,
         edit_a_figure, edit_a_figure, renumber, put_a_foreign_block,
         put_a_foreign_folder, put_a_link_in_its_place,
         put_a_pipe_in_its_place, put_a_stray_file]
TOLD = {put_a_file, edit_a_figure, renumber, put_a_foreign_block}
REFUSED = {put_a_foreign_folder, put_a_link_in_its_place,
           put_a_pipe_in_its_place}


@pytest.mark.parametrize("seed", range(50))
def test_tampered(made, tmp_path, seed):
    folder, model, wanted = made
    chance = random.Random(seed)
    tamper = KINDS[seed % len(KINDS)]
    outside = tmp_path / "precious"
    outside.mkdir()
    (outside / "report.json").write_text('{"checksum": "x"}')
    (outside / "thesis.txt").write_text("years of work")
    shutil.copytree(folder / ".foreign.pennyweight",
                    tmp_path / ".foreign.pennyweight")
    out = tmp_path / "out"
    work = tmp_path / ".out.pennyweight"
    shutil.copytree(folder / ".own.pennyweight", work)
    tamper(work, chance, outside)

    done = run(model, out)
    if done.returncode != 0:
        assert tamper in REFUSED, done.stderr
        assert done.returncode in DOCUMENTED
        errors = [line for line in done.stderr.splitlines()
                  if line.startswith("error: ")]
        assert len(errors) == 1 and str(tmp_path) in errors[0]
        assert "--force" in errors[0]
        assert not out.exists()
        done = run(model, out, "--force")
    else:
        assert tamper not in REFUSED
        told = "made again" in done.stderr or "afresh" in done.stderr
        assert told or tamper not in TOLD, done.stderr
    assert done.returncode == 0, done.stderr
    assert same_files(wanted, out)
    shutil.rmtree(tmp_path / ".foreign.pennyweight")
    assert not leftovers(tmp_path)
    assert sorted(p.name for p in outside.iterdir()) == [
        "report.json", "thesis.txt"]
    assert (outside / "report.json").read_text() == '{"checksum": "x"}'
    assert (outside / "thesis.txt").read_text() == "years of work"


def test_what_is_whole_is_gone_on_with(made, tmp_path):
    """The tamperings begin with work that is taken as it is."""
    folder, model, wanted = made
    shutil.copytree(folder / ".own.pennyweight",
                    tmp_path / ".out.pennyweight")
    done = run(model, tmp_path / "out", "--resume")
    assert done.returncode == 0, done.stderr
    assert re.search(r"going on after [2-6] of 6 blocks", done.stderr)
    assert "made again" not in done.stderr and "afresh" not in done.stderr
    assert same_files(wanted, tmp_path / "out")


def test_weights_that_changed_are_noticed(made, tmp_path):
    """Same size, same tensors, other bytes in the middle of two."""
    folder, _, _ = made
    model = tmp_path / "model"
    shutil.copytree(folder / "model", model)
    leave_unfinished(model, tmp_path / "out")
    weights = model / "model.safetensors"
    data = bytearray(weights.read_bytes())
    header = int.from_bytes(data[:8], "little")
    tensors = json.loads(data[8:8 + header])
    for layer in (0, 4):
        begin, end = tensors[
            f"model.layers.{layer}.mlp.up_proj.weight"]["data_offsets"]
        for at in range(8 + header + begin + 512, 8 + header + end - 512, 2):
            data[at + 1] ^= 0x80
    weights.write_bytes(data)
    done = run(model, tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert "has changed" in done.stderr and "going on" not in done.stderr
    assert same_files(straight(model, tmp_path / "fresh"), tmp_path / "out")


def test_weights_that_change_while_they_are_read(made, tmp_path):
    model, out = tmp_path / "model", tmp_path / "out"
    random_model.write(model, **SMALL | {"num_hidden_layers": 40})
    first = tmp_path / ".out.pennyweight/block-00000"
    process = subprocess.Popen(
        [BIN, "gptq", "--model", str(model), "--mlx-path", str(out),
         "--data-path", str(TEXT), *FLAGS],
        stderr=subprocess.PIPE, text=True)
    while process.poll() is None and not first.exists():
        time.sleep(0.001)
    with open(model / "model.safetensors", "r+b") as file:
        file.seek(-100, os.SEEK_END)
        byte = file.read(1)
        file.seek(-100, os.SEEK_END)
        file.write(bytes([byte[0] ^ 0x80]))
    errors = process.communicate(timeout=120)[1]
    assert process.returncode == 5, errors
    assert "model.safetensors was written to" in errors.splitlines()[-1]
    done = run(model, out)
    assert done.returncode == 0 and "has changed" in done.stderr
    assert same_files(straight(model, tmp_path / "fresh"), out)


def test_a_fingerprint_does_not_depend_on_threads(tmp_path):
    """33 MB in one tensor are hashed in pieces."""
    model = tmp_path / "model"
    random_model.write(model, vocab_size=65536, hidden_size=256, head_dim=32,
                       intermediate_size=256)
    found = set()
    for threads in (1, 2, 5):
        out = tmp_path / f"out{threads}"
        done = subprocess.run(
            [BIN, "gptq", "--model", str(model), "--mlx-path", str(out),
             "--data-path", str(TEXT), *FLAGS, "--report", f"{out}.json"],
            capture_output=True, text=True, timeout=120,
            env=os.environ | {"PENNYWEIGHT_THREADS": str(threads)})
        assert done.returncode == 0, done.stderr
        report = json.loads(Path(f"{out}.json").read_text())
        found.add(report["settings"]["model"])
    assert len(found) == 1 and len(found.pop()) == 32


def test_another_model_is_not_taken_for_a_changed_one(made, tmp_path):
    """The default output's name is shared by all models: the work of one is
    not dropped unasked for another."""
    folder, model, wanted = made
    shutil.copytree(folder / ".own.pennyweight",
                    tmp_path / ".out.pennyweight")
    random_model.write(tmp_path / "other", seed=7, **SMALL)
    done = run(tmp_path / "other", tmp_path / "out")
    assert done.returncode == 2 and "other settings: model (" in done.stderr
    done = run(model, tmp_path / "out", "--resume")
    assert done.returncode == 0 and same_files(wanted, tmp_path / "out")
