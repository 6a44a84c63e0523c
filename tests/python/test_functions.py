"""Every function does what the command of its name does, in this process, as often
as one likes."""

import inspect
import json
import os
import shutil
import subprocess
import sys
import threading
import warnings
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from api import DEMO, ROOT, SHORT, STAGED, TEXT, digests, program, python  # noqa: E402

import pennyweight  # noqa: E402
from pennyweight import commands  # noqa: E402

SHORT_FLAGS = ["--data-path", TEXT, "--sequence-length", 64, "--num-samples", 8]
STAGED_FLAGS = ["--data-path", TEXT, "--sequence-length", 32, "--gptq-samples", 4,
                "--dwq-samples", 4, "--learn-steps", 1]
# Function -> its keywords, and the program's flags for the same. Between them
# they have each kind of option: numbers, words, switches that are on and off.
WRITING = {
    "convert": ({"quantize": True, "q_bits": 3}, ["-q", "--q-bits", 3]),
    "gptq": ({**SHORT, "bits": 3, "damp": 0.02, "act_order": False},
             [*SHORT_FLAGS, "--bits", 3, "--damp", 0.02, "--no-act-order"]),
    "awq": ({**SHORT, "then": "gptq"}, [*SHORT_FLAGS, "--then", "gptq"]),
    "dynamic_quant": ({**SHORT, "target_bpw": 4.75},
                      [*SHORT_FLAGS, "--target-bpw", 4.75]),
    "dwq": ({"data": str(TEXT), "max_seq_length": 33, "num_samples": 8,
             "learning_rate": 1e-4},
            ["--data-path", TEXT, "--max-seq-length", 33, "--num-samples", 8,
             "--learning-rate", 1e-4]),
    "quantize": ({**STAGED, "target_bpw": 3.2, "effort": "fast"},
                 [*STAGED_FLAGS, "--target-bpw", 3.2, "--effort", "fast"]),
    "sweep": ({**STAGED, "bpw": "3,5", "keep_models": True},
              [*STAGED_FLAGS, "--bpw", "3,5", "--keep-models"]),
}
FIGURES = {
    "convert": lambda own: own.quantized_modules == 22 and own.dtype == "bfloat16",
    "gptq": lambda own: own.tokens > 0 and len(own.blocks) == 3,
    "awq": lambda own: own.held_out_tokens > 0 and own.blocks[0].held_out_error,
    "dynamic_quant": lambda own: own.sensitivities.is_file() and own.tokens > 0,
    "dwq": lambda own: 0 < own.best_kl <= own.start_kl and own.learning_rate == 1e-4,
    "quantize": lambda own: own.kl > 0 and own.stages[0].kept and own.top1 < 1,
    "sweep": lambda own: own.points[0].kl > own.points[1].kl,
}


def test_no_command_is_without_a_test():
    assert set(commands.__all__) == {*WRITING, "plan", "evaluate", "inspect"}


@pytest.mark.filterwarnings("ignore::pennyweight.Warning")
@pytest.mark.parametrize("name", WRITING)
def test_writes_the_programs_bytes_again_and_again(small_model, tmp_path, name):
    keywords, flags = WRITING[name]
    function = getattr(pennyweight, name)
    target = tmp_path / "model"  # the recipe and the card have its name
    program(name.replace("_", "-"), "--model", small_model, "-o", target, *flags)
    wanted = digests(target)
    assert "model.safetensors" in {name.split("/")[-1] for name in wanted}
    for _ in range(2):
        report = function(small_model, target, force=True, **keywords)
        assert digests(target) == wanted
        assert report.output == target and report.seconds > 0
        assert report.json["kernels"]["products"] or name == "convert"
        assert FIGURES[name](report), report
    if name != "sweep":
        assert 3 < report.bits_per_weight < 6 and report.bytes < report.parameters


def test_reading_functions():
    inspected = pennyweight.inspect(DEMO)
    assert (inspected.family, inspected.blocks, inspected.tied) == ("llama", 4, True)
    assert inspected.modules[0].shape == (3072, 256) and inspected.output is None
    alone = pennyweight.evaluate(DEMO, **SHORT)
    assert alone.kl is None and alone.perplexity.mean > 1
    both = pennyweight.evaluate(str(DEMO), reference=DEMO, **SHORT)
    assert both.kl.mean.mean == 0 and both.top1.mean == 1
    assert both.reference_perplexity == both.perplexity == alone.perplexity
    said = program("evaluate", DEMO, *SHORT_FLAGS, "--json").splitlines()[-1]
    assert json.loads(said)["result"]["perplexity"] == alone.perplexity.mean
    plan = pennyweight.plan(DEMO, target_bpw=4.5, gptq_samples=4, dwq_samples=4)
    assert [own.effort for own in plan.efforts] == ["fast", "balanced", "best"]
    assert all(own.low <= own.seconds <= own.high for own in plan.efforts)
    assert plan.bits_per_weight <= 4.5


def test_text_in_memory_is_what_a_file_of_it_is(tmp_path):
    texts = TEXT.read_text().split("\n\n")[:200]
    chats = [[{"role": "user", "content": text[:100]},
              {"role": "assistant", "content": text[100:]}] for text in texts
             if len(text) > 200]
    rows = [{"prompt": text[:50], "completion": text[50:]} for text in texts
            if len(text) > 200]
    for data, lines in ((texts, [{"text": text} for text in texts]),
                        (chats, [{"messages": chat} for chat in chats]),
                        (rows, rows)):
        file = tmp_path / "rows.jsonl"
        file.write_text("".join(json.dumps(line) + "\n" for line in lines))
        options = {**SHORT, "data": data}
        own = pennyweight.evaluate(DEMO, **options)
        assert own.perplexity == pennyweight.evaluate(
            DEMO, **SHORT | {"data": file}).perplexity
        assert own.data.startswith("data set in-memory/")
        assert own.data == pennyweight.evaluate(DEMO, **options).data


def test_text_in_memory_that_is_none():
    for data, why in (([], "no rows"), ([3], "of type int"), ([b"x"], "of type bytes"),
                      ([{"role": "user", "content": "x"}], "is a message"),
                      ([{"text": {1, 2}}], "as JSON")):
        with pytest.raises(pennyweight.InvalidArgument, match=why):
            pennyweight.gptq(DEMO, "never", data=data)


@pytest.mark.parametrize("keywords, why", [
    ({"bits": True}, "bits takes an int, not True"),
    ({"bits": "4"}, "bits takes an int, not '4'"),
    ({"damp": "x"}, "damp takes a float"),
    ({"plain": 1}, "plain takes a bool"),
    ({"mode": "int4"}, "mode is one of affine"),
    ({"seed": -1}, "seed takes an int"),
])
def test_options_of_another_type_are_refused(keywords, why):
    with pytest.raises(pennyweight.InvalidArgument, match=why):
        pennyweight.gptq(DEMO, "never", **keywords)
    with pytest.raises(TypeError):
        pennyweight.gptq(DEMO, "never", no_such_option=1)


def test_warnings_are_pythons_and_the_reports(tmp_path):
    # A key that mlx-lm does not read is warned of on every machine.
    model = tmp_path / "model"
    shutil.copytree(DEMO, model)
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(
        json.dumps(config | {"attention_multiplier": 2}))
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        report = pennyweight.gptq(model, tmp_path / "out", **SHORT)
    said = [one for one in heard if one.category is pennyweight.Warning]
    assert said and {one.filename for one in said} == {__file__}
    assert any("attention_multiplier" in note for note in report.notes)
    for note in report.notes:
        assert any(str(one.message).endswith(note) for one in said), note
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(pennyweight.Warning):
            pennyweight.gptq(model, tmp_path / "out", force=True, **SHORT)


def test_one_run_at_a_time():
    def nested(event):
        pennyweight.inspect(DEMO)

    with pytest.raises(pennyweight.NotSupported, match="another command is running"):
        pennyweight.evaluate(DEMO, progress=nested, **SHORT)
    pennyweight.inspect(DEMO)


@pytest.mark.filterwarnings("ignore::pennyweight.Warning")
def test_other_threads_run_meanwhile(tmp_path):
    """The GIL is let go: this thread counts while a run goes on in another."""
    done = threading.Event()

    def work():
        pennyweight.quantize(DEMO, tmp_path / "out", target_bpw=3.2, **STAGED)
        done.set()

    worker = threading.Thread(target=work)
    worker.start()
    counted = 0
    while not done.wait(0.005) and worker.is_alive():
        counted += 1
    worker.join()
    assert done.is_set() and counted > 20


def test_mlx_in_the_same_process_is_left_as_it_was(tmp_path):
    """One library for both, whichever comes first, and its cache's limit back."""
    code = """
import sys
if sys.argv[1] == "before":
    import mlx.core as mx
import pennyweight
import mlx.core as mx
mx.set_cache_limit(12345678)
pennyweight.convert(sys.argv[2], sys.argv[3], quantize=True)
assert mx.set_cache_limit(1) == 12345678
w, s, b = mx.quantize(mx.ones((64, 64)))
assert mx.allclose(mx.dequantize(w, s, b), mx.ones((64, 64)))
print(sum("libmlx.so" in line and "r-xp" in line for line in open("/proc/self/maps"))
      if sys.platform == "linux" else 1)
"""
    for order in ("before", "after"):
        process = python(code, order, DEMO, tmp_path / order, stdout=subprocess.PIPE)
        assert process.communicate(timeout=60)[0] == "1\n", order
        assert process.returncode == 0


def test_the_first_of_several_processes_speaks(tmp_path):
    if not shutil.which("mpirun"):
        pytest.skip("no mpirun on this system")
    code = ("import sys, pennyweight\n"
            "report = pennyweight.gptq(sys.argv[1], sys.argv[2], data=sys.argv[3],\n"
            "    sequence_length=64, num_samples=16, progress=lambda event: print(\n"
            "        'end') if event.unit == 'blocks' and event.done == 4 else None)\n"
            "print(report.json['processes'], len(report.blocks))")
    done = subprocess.run(
        ["mpirun", "--allow-run-as-root", "--oversubscribe", "-n", "2",
         sys.executable, "-W", "ignore", "-c", code, DEMO, tmp_path / "out", TEXT],
        text=True, capture_output=True, timeout=120,
        env=os.environ | {"PYTHONPATH": str(ROOT / "python")})
    assert done.returncode == 0, done.stderr
    assert sorted(done.stdout.split("\n")) == ["", "2 0", "2 4", "end"]


def test_the_command_runs_in_pythons_process(tmp_path):
    """By its own entry, with its exit codes; no other process is started."""
    words = ["convert", "--model", DEMO, "-q", "-o", tmp_path / "own", "--quiet"]
    code = ("import os, sys\nfrom pennyweight.main import main\n"
            "sys.argv[:] = ['pennyweight', *sys.argv[1:]]\n"
            "for name in ('fork', 'posix_spawn', 'execv'):\n"
            "    setattr(os, name, None)\nmain()")
    process = python(code, *words, stdout=subprocess.PIPE)
    assert "bits a weight" in process.communicate(timeout=60)[0]
    assert process.returncode == 0
    program(*words[:-2], tmp_path / "program")
    assert digests(tmp_path / "own") == digests(tmp_path / "program")
    for words, wanted in ((["--help"], 0), (["inspect", "gone"], 3), (["nonsense"], 2)):
        process = python(code, *words, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        _, errors = process.communicate(timeout=60)
        assert process.returncode == wanted, errors


def test_every_keyword_is_told_of():
    for name in commands.__all__:
        function = getattr(pennyweight, name)
        for keyword in inspect.signature(function).parameters:
            assert f"\n        {keyword}: " in function.__doc__, (name, keyword)


def test_what_is_written_from_the_options_is_up_to_date():
    done = subprocess.run([sys.executable, ROOT / "tools/python_api.py", "--check"],
                          text=True, capture_output=True)
    assert done.returncode == 0, done.stderr


def test_types():
    """pyright's strict mode, over the package, its stub and the examples."""
    done = subprocess.run([sys.executable, "-m", "pyright"], cwd=ROOT, text=True,
                          capture_output=True)
    assert done.returncode == 0, done.stdout
    assert "0 errors" in done.stdout
