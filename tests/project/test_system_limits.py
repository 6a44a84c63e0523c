"""Limits that the system sets: address space, descriptors, threads, a full
disk. Whatever it refuses, and to which thread or library, a run ends in one
line with exit code 5, by no signal, and leaves nothing half done behind. With
PENNYWEIGHT_SLOW=1, at many more points."""

import functools
import json
import resource
import shutil
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests/support")]
import short_runs  # noqa: E402
from short_runs import BIN, DEMO, READING, SLOW, WRITING  # noqa: E402

MB = 1 << 20
COMMANDS = sorted(WRITING | READING)
# The loader's own exit code: no line of ours has run yet.
NOT_LOADED = 127


def limited(arguments, kind, value, **how):
    def limit():
        resource.setrlimit(kind, (value, resource.getrlimit(kind)[1]))
    return short_runs.run(arguments, preexec_fn=limit, **how)


def unfinished(folder):
    """What must not stay: all but an output, and the work folder of a run of
    which something is finished."""
    work = folder / ".out.pennyweight"
    kept = work.exists() and any(
        p.name.startswith(("block-", "state-")) for p in work.iterdir())
    return short_runs.left_in(folder, "out", *[work.name] * kept)


def fault_of(done, folder):
    """What is wrong with the end of a run under a limit, or None."""
    if done.returncode == 0:
        wrong = None
    elif done.returncode == NOT_LOADED:
        wrong = None if "shared librar" in done.stderr else done.stderr
    else:
        wrong = short_runs.fault_of_refusal(done, {5})
    left = unfinished(folder)
    return wrong or (f"left {left}" if left else None)


@pytest.fixture
def command(small_model):
    """The shortest run of a command on a small model."""
    return functools.partial(short_runs.command, model=small_model)


def check(tmp_path, command, name, points, run):
    """`run(command, point)` at each point; asserts that all end well, and gives
    the exit codes."""
    faults, codes = [], []
    for i, point in enumerate(points):
        folder = tmp_path / f"{i}"
        folder.mkdir()
        done = run(command(name, folder / "out"), point)
        codes.append(done.returncode)
        wrong = fault_of(done, folder)
        if wrong:
            faults.append(f"{name} at {point}: {wrong}")
    assert not faults, "\n".join(faults)
    print(name, dict(zip(points, codes)))
    return codes


@pytest.fixture(scope="module")
def start():
    """Bytes of address space with which the program just starts, to the half
    megabyte that the tests below take off."""
    half = MB // 2
    low, high = 0, 8192
    while high - low > 1:
        middle = (low + high) // 2
        done = limited([BIN, "--version"], resource.RLIMIT_AS, middle * half)
        if done.returncode == 0:
            high = middle
        else:
            low = middle
    return high * half


def test_too_little_to_start(start):
    """The constructors of libraries may be what fails, or the loader, which has
    a fault of its own where it just runs out of memory: within some kilobytes,
    before any code of ours."""
    codes = [limited([BIN, "--version"], resource.RLIMIT_AS,
                     start - step * MB // 2).returncode
             for step in range(1, 80)]
    begun = codes[:codes.index(NOT_LOADED)]
    assert set(begun[:-1]) == {5} and begun[-1] in (5, -11), codes
    assert set(codes) <= {5, NOT_LOADED, -11} and codes.count(-11) <= 1, codes


STEPS = [0, 1, 3, 6, 10, 15, 20, 26, 32, 40, 50, 60, 75, 90, 110, 130, 150,
         175, 200, 250, 300, 400, 600]


@pytest.mark.parametrize("name", COMMANDS)
def test_address_space(command, name, start, tmp_path):
    # In brief, other points for each command.
    steps = STEPS if SLOW else STEPS[COMMANDS.index(name) % 5::5]

    def run(arguments, step):
        return limited(arguments, resource.RLIMIT_AS, start + step * MB)

    codes = check(tmp_path, command, name, steps, run)
    assert 5 in codes


@pytest.mark.parametrize("name", ["awq", "gptq", "learned"])
def test_parents_that_were_made_go_too(command, name, start, tmp_path):
    done = limited(command(name, tmp_path / "new/deep/out"),
                   resource.RLIMIT_AS, start + 20 * MB)
    assert short_runs.fault_of_refusal(done, {5}) is None
    assert short_runs.left_in(tmp_path) == []


@pytest.mark.parametrize("name", ["convert", "gptq", "sweep"])
def test_parents_that_were_made_stay_with_the_output(command, name, tmp_path):
    done = short_runs.run(command(name, tmp_path / "new/deep/out"))
    assert done.returncode == 0, done.stderr
    assert short_runs.left_in(tmp_path / "new/deep") == ["out"]


@pytest.mark.parametrize("name", COMMANDS)
def test_descriptors(command, name, tmp_path):
    numbers = range(3, 41) if SLOW else [4, 5, 6, 7, 9]

    def run(arguments, number):
        return limited(arguments, resource.RLIMIT_NOFILE, number)

    check(tmp_path, command, name, numbers, run)


@pytest.mark.parametrize("name", ["convert", "evaluate", "gptq", "quantize"])
def test_threads(command, name, tmp_path):
    """The n-th thread is refused, whoever asks for it."""
    def run(arguments, number):
        env = short_runs.faults(tmp_path, "EAGAIN+", number, ["pthread_create"])
        return short_runs.run(arguments, env=env)

    codes = check(tmp_path, command, name, range(1, 9 if SLOW else 4), run)
    assert 5 in codes


@pytest.mark.parametrize("name", ["evaluate", "gptq"])
def test_buffers_of_onednn(name, tmp_path):
    """The n-th buffer that oneDNN asks for in the midst of a product is
    refused."""
    log = tmp_path / "log"
    env = short_runs.faults(tmp_path, calls=["onednn_buffer"], log=log)
    done = short_runs.run(
        short_runs.command(name, tmp_path / "free"), env=env)
    assert done.returncode == 0, done.stderr
    count = len(log.read_text().splitlines()) if log.exists() else 0
    if not count:
        pytest.skip("oneDNN asks for no buffers here")
    shutil.rmtree(tmp_path / "free", ignore_errors=True)

    def run(arguments, number):
        env = short_runs.faults(tmp_path, "ENOMEM", number, ["onednn_buffer"])
        return short_runs.run(arguments, env=env)

    points = {1, 2, count // 100, count // 10, count // 3, count}
    codes = check(
        tmp_path, short_runs.command, name, sorted(points - {0}), run)
    assert 5 in codes


def test_processor_time(tmp_path):
    done = limited(short_runs.command("quantize", tmp_path / "out"),
                   resource.RLIMIT_CPU, 1)
    assert fault_of(done, tmp_path) is None
    assert done.returncode == 0 or "ulimit -t" in done.stderr


def test_a_mapped_file_is_cut_short(tmp_path):
    """While it is read: pages behind its new end are a fault of the bus."""
    model = tmp_path / "model"
    model.mkdir()
    for file in DEMO.iterdir():
        (model / file.name).write_bytes(file.read_bytes())
    weights = model / "model.safetensors"
    arguments = [BIN, "convert", "--model", model, "--mlx-path",
                 tmp_path / "out", "-q", "--quiet"]
    # It is cut when the output's first file is opened, before it is read.
    env = short_runs.faults(tmp_path, "cut", 1, ["open"])
    env["PENNYWEIGHT_FAULT_CUT"] = str(weights)
    done = short_runs.run(arguments, env=env)
    assert done.returncode == 5 and "cut short" in done.stderr, done
    assert short_runs.fault_of_refusal(done, {5}) is None
    assert short_runs.left_in(tmp_path, "model") == []


def test_the_last_line_is_an_event_too(start, tmp_path):
    """Where stdout holds JSON lines."""
    for step in STEPS:
        done = limited(
            [BIN, "evaluate", DEMO, "--data-path", short_runs.TEXT, "--json"],
            resource.RLIMIT_AS, start + step * MB)
        assert done.returncode in (0, 5), done
        if done.returncode == 5:
            event = json.loads(done.stdout.splitlines()[-1])
            assert event["event"] == "error" and event["code"] == "io"
            assert done.stderr == f"error: {event['message']}\n"
