"""Damaged checkpoints, and as many ways to read them again, 60 or with
PENNYWEIGHT_SLOW=1 200: each ends in one line and a documented exit code, within
seconds, and leaves nothing behind. With
PENNYWEIGHT_SANITIZE_BIN set to a build with ASan and UBSan, those watch."""

import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

pytest.importorskip("mlx.core")

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests/support"), str(ROOT / "tools")]
import fuzz_inputs  # noqa: E402
import fuzz_rows  # noqa: E402
import random_model  # noqa: E402
from short_runs import SLOW  # noqa: E402

NORMAL = os.environ.get(
    "PENNYWEIGHT_BIN", str(ROOT / "build/release/src/pennyweight"))
SANITIZED = os.environ.get("PENNYWEIGHT_SANITIZE_BIN", "")
BIN = SANITIZED or NORMAL
COUNT = int(os.environ.get("PENNYWEIGHT_FUZZ_COUNT", "200" if SLOW else "90"))
SEED = int(os.environ.get("PENNYWEIGHT_FUZZ_SEED", "1"))
REFUSED = {2, 3, 4, 5, 6, 7}
SECONDS = 60
TEXT = "the cat and the dog " * 100
CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]")


def run(*arguments):
    watch = "exitcode=99:detect_leaks=0"
    env = os.environ | {
        "ASAN_OPTIONS": watch, "OMP_NUM_THREADS": "1",
        "UBSAN_OPTIONS": watch + ":halt_on_error=1:print_stacktrace=1"}
    return subprocess.run(
        [BIN, *map(str, arguments)], text=True, errors="replace", env=env,
        capture_output=True, timeout=SECONDS, stdin=subprocess.DEVNULL)


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    """One file, an index of two shards, and a quantized model."""
    folder = tmp_path_factory.mktemp("bases")
    small = {"hidden_size": 64, "intermediate_size": 128, "head_dim": 16,
             "vocab_size": 3072}
    random_model.write(folder / "single", **small)
    random_model.write(folder / "sharded", shards=2,
                       tie_word_embeddings=False, **small)
    done = run("convert", "--model", folder / "single", "--mlx-path",
               folder / "quantized", "-q", "--q-group-size", 32)
    assert done.returncode == 0, done.stderr
    (folder / "quantized/model.safetensors.index.json").unlink()
    return [folder / name for name in ("single", "sharded", "quantized")]


def listing(folder):
    return sorted((p.name, p.lstat().st_size) for p in folder.iterdir())


def fault(case, folder, out, command):
    """What is wrong with how the program took a case, or None."""
    before = listing(folder)
    try:
        done = run(*command)
    except subprocess.TimeoutExpired:
        return f"took over {SECONDS} s"
    lines = done.stderr.rstrip("\n").split("\n")
    if listing(folder) != before:
        return f"changed its input: {before} is {listing(folder)}"
    if done.returncode == 0:
        if not case["may_be_valid"]:
            return "was accepted"
        return None
    if done.returncode not in REFUSED:
        return f"exit code {done.returncode}: {done.stderr[-2000:]}"
    errors = [line for line in lines if not line.startswith("warning: ")]
    if len(errors) != 1 or not lines[-1].startswith("error: ["):
        return f"not one error line: {done.stderr[-2000:]}"
    if CONTROL.search(errors[0]) or len(errors[0]) > 1500:
        return f"unprintable or endless: {errors[0]!r}"
    left = [p.name for p in out.parent.iterdir()]
    if left:
        return f"left {left} behind"
    return None


def check_all(cases, inputs, tmp_path, commands):
    def one(case):
        faults = []
        for name, make in commands.items():
            place = tmp_path / f"{case['name']}-{name}"
            place.mkdir()
            folder, out = inputs / case["name"], place / "out"
            wrong = fault(case, folder, out, make(case, folder, out))
            if wrong:
                faults.append(
                    f"{case['name']} {name} ({case['damage']}: "
                    f"{case['what']!r}): {wrong}")
        return faults

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        found = [fault for faults in pool.map(one, cases) for fault in faults]
    assert not found, "\n".join(found)


def test_sanitizers_watch():
    if not SANITIZED:
        pytest.skip("PENNYWEIGHT_SANITIZE_BIN is not set")
    program = Path(SANITIZED).read_bytes()
    for symbol in (b"__asan_init", b"__ubsan_handle"):
        assert symbol in program


def convert(case, folder, out):
    turn = "--dequantize" if case["base"] == "quantized" else "-q"
    return ["convert", "--model", folder, "--mlx-path", out, turn, "--quiet"]


def test_convert(tmp_path, bases):
    cases = fuzz_inputs.make(tmp_path / "inputs", bases, SEED, COUNT)
    assert len(cases) == COUNT
    assert len({case["damage"] for case in cases}) >= 20
    check_all(cases, tmp_path / "inputs", tmp_path, {"convert": convert})


def inspect(case, folder, out):
    return ["inspect", folder, "--quiet"]


def evaluate(case, folder, out):
    text = folder.parent / "text.txt"
    return ["evaluate", folder, "--data-path", text, "--num-samples", 2,
            "--sequence-length", 16, "--quiet"]


def test_whole_inputs_are_accepted(tmp_path, bases):
    (bases[0].parent / "text.txt").write_text(TEXT)
    for base in bases:
        for make in (convert, inspect, evaluate):
            command = make({"base": base.name}, base, tmp_path / base.name)
            done = run(*command)
            assert done.returncode == 0, (command, done.stderr)


def test_inspect_and_evaluate(tmp_path, bases):
    """The other readers of a model. Neither looks at every weight or at every
    side file, so that more is valid to them."""
    inputs = tmp_path / "inputs"
    cases = fuzz_inputs.make(inputs, bases, SEED + 1, COUNT // 2)
    (inputs / "text.txt").write_text(TEXT)
    for case in cases:
        case["may_be_valid"] = True
    check_all(cases, inputs, tmp_path,
              {"inspect": inspect, "evaluate": evaluate})


def test_rows(tmp_path, bases):
    """Text to evaluate on, in every form that --data-path takes."""
    inputs = tmp_path / "inputs"
    cases = fuzz_rows.make(inputs, SEED, COUNT // 2)

    def evaluate_on(case, folder, out):
        return ["evaluate", bases[0], "--data-path", folder / case["file"],
                "--num-samples", 2, "--sequence-length", 16, "--quiet"]

    check_all(cases, inputs, tmp_path, {"rows": evaluate_on})


def test_whole_rows_are_accepted(tmp_path, bases):
    for name, data in fuzz_rows.files().items():
        (tmp_path / name).write_bytes(data)
        done = run("evaluate", bases[0], "--data-path", tmp_path / name,
                   "--num-samples", 2, "--sequence-length", 16, "--quiet")
        assert done.returncode == 0, (name, done.stderr)


def test_the_same_seed_gives_the_same_cases(tmp_path, bases):
    first = fuzz_inputs.make(tmp_path / "a", bases, 7, 40)
    second = fuzz_inputs.make(tmp_path / "b", bases, 7, 40)
    assert first == second
    for case in first:
        for path in (tmp_path / "a" / case["name"]).iterdir():
            twin = tmp_path / "b" / case["name"] / path.name
            if path.is_file():
                assert path.read_bytes() == twin.read_bytes()
