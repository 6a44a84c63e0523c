"""Inputs that ask for too much: templates and tokenizers that multiply text,
long rows, Parquet bombs, cards, recipes, pipes and devices in place of files,
work folders of nobody. 60 of them, or 500 with PENNYWEIGHT_SLOW=1: each ends
within 10 s and 1 GB, in one line and with a documented exit code, and leaves
nothing behind. With PENNYWEIGHT_SANITIZE_BIN set, each fifth runs under ASan
and UBSan."""

import collections
import json
import os
import resource
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

pytest.importorskip("mlx.core")

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests/support"), str(ROOT / "tools")]
import hostile_inputs  # noqa: E402
import random_model  # noqa: E402
import short_runs  # noqa: E402
from short_runs import BIN, SLOW  # noqa: E402
from test_damaged_inputs import CONTROL, listing  # noqa: E402

SANITIZED = os.environ.get("PENNYWEIGHT_SANITIZE_BIN", "")
COUNT = int(os.environ.get("PENNYWEIGHT_FUZZ_COUNT", "500" if SLOW else "60"))
SEED = int(os.environ.get("PENNYWEIGHT_FUZZ_SEED", "1"))
SECONDS = 10  # of the processor; it may be shared, so that more may pass
PATIENCE = 40
BYTES = 10**9
FEW = ["--num-samples", 2, "--sequence-length", 16]


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    """A model, the same quantized, and a recipe for it."""
    folder = tmp_path_factory.mktemp("bases")
    small = {"hidden_size": 64, "intermediate_size": 128, "head_dim": 16,
             "vocab_size": 3072}
    plain, quantized = folder / "plain", folder / "quantized"
    random_model.write(plain, **small)
    made = [["convert", "--model", plain, "--mlx-path", quantized, "-q",
             "--q-group-size", 32],
            ["quantize", plain, "-o", folder / "made", "--bits", 4,
             "--data-path", short_runs.TEXT, "--effort", "fast",
             "--sequence-length", 32, "--gptq-samples", 8]]
    for arguments in made:
        done = short_runs.run([BIN, *arguments, "--quiet"])
        assert done.returncode == 0, done.stderr
    return plain, quantized, folder / "made/recipe.json"


def command(case, folder, out):
    data = folder / "data" / case["data"]
    return {
        "evaluate": ["evaluate", folder, "--data-path", data, *FEW],
        "inspect": ["inspect", folder],
        "convert": ["convert", "--model", folder, "--mlx-path", out, "-q"],
        "dequantize": ["convert", "--model", folder, "--mlx-path", out,
                       "--dequantize"],
        "gptq": ["gptq", "--model", folder, "--mlx-path", out,
                 "--data-path", data, *FEW],
        "recipe": ["quantize", folder, "-o", out, "--recipe",
                   folder / "data/recipe.json", "--data-path",
                   folder / "data/text.txt"],
    }[case["reader"]]


def spare_the_machine():
    """A case that takes far too much is found without taking all there is, and
    does not outlive the test."""
    resource.setrlimit(resource.RLIMIT_AS, (4 * BYTES, 4 * BYTES))
    resource.setrlimit(resource.RLIMIT_CPU, (2 * SECONDS, 3 * SECONDS))


class Run:
    """A run with what it took."""

    def __init__(self, program, arguments, seconds):
        watch = "exitcode=99:detect_leaks=0"
        env = os.environ | {
            "ASAN_OPTIONS": watch, "OMP_NUM_THREADS": "1",
            "UBSAN_OPTIONS": watch + ":halt_on_error=1:print_stacktrace=1"}
        process = subprocess.Popen(
            [program, *map(str, arguments), "--quiet"], env=env,
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE, start_new_session=True,
            preexec_fn=None if program == SANITIZED else spare_the_machine)
        self.in_time = True

        def stop():
            self.in_time = False
            os.killpg(process.pid, signal.SIGKILL)
        timer = threading.Timer(seconds, stop)
        timer.start()
        self.stderr = process.stderr.read().decode(errors="replace")
        _, status, used = os.wait4(process.pid, 0)
        timer.cancel()
        process.stderr.close()
        self.seconds = used.ru_utime + used.ru_stime
        self.returncode = os.waitstatus_to_exitcode(status)
        process.returncode = self.returncode
        self.peak = used.ru_maxrss * 1024


def fault(case, folder, place, sanitized):
    """What is wrong with how the program took a case, or None."""
    before = listing(folder)
    work = folder / "work"
    if work.exists():
        work.rename(place / ".out.pennyweight")
        before = listing(folder)
    done = Run(SANITIZED if sanitized else BIN,
               command(case, folder, place / "out"), PATIENCE)
    case["seconds"], case["peak"] = done.seconds, done.peak
    # ASan's own time and memory are not the point.
    if not done.in_time or (done.seconds > SECONDS and not sanitized):
        return f"took {done.seconds:.1f} s of the processor's time"
    if done.peak > BYTES and not sanitized:
        return f"took {done.peak / 1e9:.2f} GB"
    if listing(folder) != before:
        return f"changed its input: {before} is {listing(folder)}"
    case["taken"] = done.returncode == 0
    if done.returncode != 0:
        wrong = short_runs.fault_of_refusal(done)
        if wrong:
            return wrong
    line = done.stderr.rstrip("\n").split("\n")[-1]
    if CONTROL.search(line) or len(line) > 1500:
        return f"unprintable or endless: {line!r}"
    # What stood in the place of a work folder is not ours to remove.
    left = short_runs.left_in(
        place, *["out"] * case["taken"],
        *[".out.pennyweight"] * (case["kind"] == "work"))
    return f"left {left} behind" if left else None


@pytest.fixture(scope="module")
def cases(bases, tmp_path_factory):
    inputs = tmp_path_factory.mktemp("hostile") / "inputs"
    # In a process of its own: what this one takes would be counted as the
    # runs' that it starts.
    subprocess.run(
        [sys.executable, ROOT / "tools/hostile_inputs.py", inputs, *bases,
         "--seed", str(SEED), "--count", str(COUNT)], check=True)
    return inputs, json.loads((inputs / "manifest.json").read_text())


def test_each_ends_soon_and_says_one_line(cases, tmp_path, capsys):
    inputs, made = cases
    assert len(made) >= COUNT * 0.85

    def one(numbered):
        number, case = numbered
        place = tmp_path / case["name"]
        place.mkdir()
        sanitized = bool(SANITIZED) and number % 5 == 0
        wrong = fault(case, inputs / case["name"], place, sanitized)
        return wrong and (f"{case['name']} {case['reader']} ({case['kind']}: "
                          f"{case['what']}): {wrong}")

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        found = [wrong for wrong in pool.map(one, enumerate(made)) if wrong]
    with capsys.disabled():
        print("\n" + table(made))
    assert not found, f"{len(found)} faults\n" + "\n".join(found)


def table(made):
    rows = ["kind          cases  taken  refused  slowest   most memory"]
    for kind, count in collections.Counter(c["kind"] for c in made).items():
        own = [c for c in made if c["kind"] == kind]
        taken = sum(c.get("taken", False) for c in own)
        rows.append(
            f"{kind:13} {count:5} {taken:6} {count - taken:8} "
            f"{max(c['seconds'] for c in own):7.1f} s "
            f"{max(c['peak'] for c in own) / 1e6:10.0f} MB")
    return "\n".join(rows)


def test_every_kind_is_there(cases):
    _, made = cases
    kinds = {case["kind"] for case in made}
    assert kinds >= {"template", "tokenizer", "rows", "card", "recipe",
                     "special", "work", "quantization"}


def test_whole_inputs_are_taken(bases, tmp_path):
    """What the cases are made from: else a refusal would show nothing."""
    plain, quantized, recipe = bases
    for reader in ("evaluate", "inspect", "convert", "gptq"):
        folder = tmp_path / f"{reader}-model"
        hostile_inputs.Case(folder, plain, None, recipe)
        case = {"reader": reader, "data": "text.txt"}
        done = Run(BIN, command(case, folder, tmp_path / reader), 60)
        assert done.returncode == 0, (reader, done.stderr)
    folder = tmp_path / "recipe-model"
    made = hostile_inputs.Case(folder, plain, None, recipe)
    made.put_data("recipe.json", recipe.read_text())
    done = Run(BIN, command({"reader": "recipe", "data": ""}, folder,
                            tmp_path / "recipe"), 60)
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "dequantize-model"
    hostile_inputs.Case(folder, quantized, None, recipe)
    done = Run(BIN, command({"reader": "dequantize", "data": ""}, folder,
                            tmp_path / "dequantize"), 60)
    assert done.returncode == 0, done.stderr


def test_the_same_seed_gives_the_same_cases(bases, tmp_path):
    first = hostile_inputs.make(tmp_path / "a", *bases, 7, 20)
    assert first == hostile_inputs.make(tmp_path / "b", *bases, 7, 20)
