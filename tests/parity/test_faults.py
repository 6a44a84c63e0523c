"""Kills and failing system calls, at chosen calls of every command that writes:
a run that is killed and run again gives the same bytes, and one that the system
refuses something ends in one line. Nothing but the output stays. In all 24
kills, or 200 with PENNYWEIGHT_SLOW=1."""

import random
import shutil
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests/support")]
import short_runs  # noqa: E402
from short_runs import SLOW, WRITING, contents, left_in  # noqa: E402

METHODS = sorted(WRITING)
KILLS = 25 if SLOW else 3
ERRORS = 20 if SLOW else 2
# They have times in them.
TIMED = {"report.html", "README.md", "sweep.json", "sweep.csv"}
# What may fail and must be told; a folder that can't be removed can't be.
CHANGING = ["open", "write", "pwrite", "fsync", "rename", "mkdir", "ftruncate"]


class Straight:
    """A run without faults: its output, and the calls it made."""

    def __init__(self, name, folder, model):
        self.name = name
        self.model = model
        log = folder.parent / f"{folder.name}.log"
        done = short_runs.run(
            self.command(folder / "out"),
            env=short_runs.faults(folder, log=log))
        assert done.returncode == 0, done.stderr
        assert left_in(folder) == ["out"]
        self.files = contents(folder / "out", *TIMED)
        self.calls = [line.split(" ")[0]
                      for line in log.read_text().splitlines()]

    def command(self, out, *flags):
        return short_runs.command(self.name, out, *flags, model=self.model)

    def assert_same(self, out):
        files = contents(out, *TIMED)
        assert sorted(files) == sorted(self.files)
        different = [k for k in files if files[k] != self.files[k]]
        assert not different


@pytest.fixture(scope="module")
def straight(small_model, tmp_path_factory):
    made = {}

    def get(name):
        if name not in made:
            made[name] = Straight(
                name, tmp_path_factory.mktemp(name), small_model)
        return made[name]
    return get


def go_on(run, folder):
    """The same command again, and what it must come to."""
    # A run whose output was there already is asked to make it anew.
    force = ["--force"] * (folder / "out").exists()
    if force:
        run.assert_same(folder / "out")
    done = short_runs.run(run.command(folder / "out", *force))
    assert done.returncode == 0, done.stderr
    run.assert_same(folder / "out")
    assert left_in(folder) == ["out"]


def points(run, count, seed, names=None):
    """Numbers of calls, spread over the run."""
    rng = random.Random(f"{run.name}-{seed}")
    total = sum(names is None or call in names for call in run.calls)
    assert total > 5
    step = total / count
    return rng, [1 + int(min(total - 1, (i + rng.random()) * step))
                 for i in range(count)]


@pytest.mark.parametrize("name", METHODS)
def test_killed(name, straight, tmp_path):
    run = straight(name)
    rng, numbers = points(run, KILLS, "kills")
    for number in numbers:
        folder = tmp_path / f"{number}"
        folder.mkdir(exist_ok=True)
        how = rng.choice(["kill", "torn"])
        done = short_runs.run(
            run.command(folder / "out"),
            env=short_runs.faults(folder, how, number))
        assert done.returncode == -9, (number, how, done)
        try:
            go_on(run, folder)
        except AssertionError as fault:
            raise AssertionError(
                f"{name}: {how} at call {number} of {len(run.calls)}, "
                f"{run.calls[number - 1]}: {fault}") from fault
        shutil.rmtree(folder)


@pytest.mark.parametrize("name", METHODS if SLOW else ["gptq", "quantize"])
def test_killed_again_and_again(name, straight, tmp_path):
    """Each run gets a little further than the one before."""
    run = straight(name)
    number = max(2, len(run.calls) // (12 if SLOW else 3))
    for kills in range(100):
        done = short_runs.run(
            run.command(tmp_path / "out"),
            env=short_runs.faults(tmp_path, "kill", number * (kills + 1)))
        if (tmp_path / "out").exists():
            break
        assert done.returncode == -9, (number, done)
    go_on(run, tmp_path)


@pytest.mark.parametrize("name", METHODS)
def test_refused(name, straight, tmp_path):
    run = straight(name)
    rng, numbers = points(run, ERRORS, "errors", CHANGING)
    for i, number in enumerate(numbers):
        folder = tmp_path / f"{i}"
        folder.mkdir()
        what = rng.choice(["ENOSPC+", "EIO", "EMFILE+", "EIO+"])
        done = short_runs.run(
            run.command(folder / "out"),
            env=short_runs.faults(folder, what, number, CHANGING))
        told = f"{name}: {what} at call {number}: "
        # What the disk refuses to sync may be nothing to tell.
        if done.returncode != 0:
            wrong = short_runs.fault_of_refusal(done, {5})
            assert wrong is None, told + wrong
            assert not (folder / "out").exists(), told
        work = folder / ".out.pennyweight"
        kept = work.exists() and any(
            p.name.startswith(("block-", "state-")) for p in work.iterdir())
        left = left_in(folder, "out", *[work.name] * kept)
        assert not left, told + f"left {left}: {done.stderr}"
        try:
            go_on(run, folder)
        except AssertionError as fault:
            raise AssertionError(told + str(fault)) from fault
        shutil.rmtree(folder)


@pytest.mark.parametrize("name", METHODS if SLOW else ["convert", "dwq"])
def test_interrupted_and_short_writes(name, straight, tmp_path):
    """A write that ends early is gone on with."""
    run = straight(name)
    rng, numbers = points(run, 4, "short", ["write", "pwrite"])
    for i, number in enumerate(numbers):
        folder = tmp_path / f"{i}"
        folder.mkdir()
        what = rng.choice(["short", "EINTR"])
        done = short_runs.run(
            run.command(folder / "out"), env=short_runs.faults(
                folder, what, number, ["write", "pwrite"]))
        assert done.returncode == 0, (what, number, done.stderr)
        run.assert_same(folder / "out")
        assert left_in(folder) == ["out"]


def test_the_input_can_not_be_read(straight, tmp_path):
    """Errors and short reads of a model's and a text's files."""
    name = "evaluate"
    text = tmp_path / "data/text.txt"
    text.parent.mkdir()
    text.write_bytes(short_runs.TEXT.read_bytes())
    model = tmp_path / "data/model"
    shutil.copytree(short_runs.DEMO, model)
    arguments = [short_runs.BIN, name, model, "--data-path", text, "--quiet",
                 *short_runs.SHORT]
    under = tmp_path / "data"
    whole = short_runs.run(arguments)
    assert whole.returncode == 0, whole.stderr

    def figures(done):
        return done.stdout.splitlines()[:-1]  # without times
    for calls in (["open_read"], ["read", "pread"]):
        for number in range(1, 13 if SLOW else 5):
            for what in ("EIO", "short"):
                done = short_runs.run(arguments, env=short_runs.faults(
                    under, what, number, calls))
                if what == "short" or done.returncode == 0:
                    assert figures(done) == figures(whole), (
                        calls, number, what)
                else:
                    wrong = short_runs.fault_of_refusal(done, {5})
                    assert wrong is None, (calls, number, what, wrong)
