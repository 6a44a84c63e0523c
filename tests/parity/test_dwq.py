"""pennyweight dwq: the loss and its gradient are mlx-lm's, targets are read
either way, nothing is worse than the start, killed runs end with the same
bytes, memory does not grow with the blocks, and bad input ends in one line."""

import json
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten
from mlx_lm import load
from mlx_lm.quant.dwq import compute_dwq_targets
from mlx_lm.tuner.losses import kl_div_loss
from mlx_lm.tuner.trainer import iterate_batches
from mlx_lm.utils import load_model

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests/support"), str(ROOT / "tests/parity")]
import random_model  # noqa: E402
import test_families  # noqa: E402
import walks  # noqa: E402
from short_runs import SLOW  # noqa: E402
from structures import chosen  # noqa: E402
from walks import (  # noqa: E402, F401
    BIN, DEMO, TEXT, convert, kl, leftovers, mpirun, same_files, tokens_of)

SHAPE = {"hidden_size": 128, "intermediate_size": 256,
         "num_hidden_layers": 3, "num_attention_heads": 4,
         "num_key_value_heads": 2, "head_dim": 32}
LENGTH = 65
SEED = 7


def command(model, out, *flags, data=TEXT):
    seed = [] if "--seed" in flags else ["--seed", str(SEED)]
    return [BIN, "dwq", "--model", str(model), "--mlx-path", str(out),
            "--data-path", str(data), "--max-seq-length", str(LENGTH),
            *seed, *map(str, flags)]


def run(model, out, *flags, code=0, data=TEXT, launcher=()):
    report = Path(f"{out}.json")
    report.unlink(missing_ok=True)
    done = subprocess.run(
        [*launcher, *command(model, out, *flags, data=data),
         "--report", report],
        capture_output=True, text=True, timeout=600)
    assert done.returncode == code, done.stderr
    return json.loads(report.read_text()) if code == 0 else done.stderr


def rows_of(train, valid, tokenizer):
    """What both train on: mlx-lm's own choice among the text's sequences."""
    tokens = np.array(tokens_of(tokenizer, TEXT.read_text()))
    rows = tokens[: len(tokens) // LENGTH * LENGTH].reshape(-1, LENGTH)
    np.random.seed(SEED)
    order = np.random.permutation(len(rows))

    def items(indices):
        return [(rows[i].tolist(), 0) for i in indices]
    return items(order[:train]), items(order[train:train + valid])


def first_step(student, teacher, data, columns=None):
    """mlx-lm's loss on its first batch, and its gradient's norm."""
    batch, lengths = next(iterate_batches(data, 4, LENGTH, seed=SEED))
    batch = batch[:, :-1]
    targets = teacher(batch)
    if columns:
        ids = mx.argpartition(targets, kth=-columns, axis=-1)[..., -columns:]
        targets = mx.take_along_axis(targets, ids, axis=-1)

    def unfreeze(_, m):
        if hasattr(m, "bits") and m.mode == "affine" and m.bits < 8:
            m.unfreeze(keys=["scales", "biases"], recurse=False)
    student.freeze()
    student.apply_to_modules(unfreeze)

    def loss_fn(params):
        student.update(params)
        logits = student(batch)
        if columns:
            logits = mx.take_along_axis(logits, ids, axis=-1)
        losses = kl_div_loss(0.5 * logits, 0.5 * targets)
        mask = mx.arange(1, 1 + targets.shape[1]) < lengths[:, 1:]
        return (mask * losses).sum() / mask.sum()
    loss, gradients = mx.value_and_grad(loss_fn)(
        student.trainable_parameters())
    norm = sum((g.astype(mx.float32) ** 2).sum().item()
               for _, g in tree_flatten(gradients)) ** 0.5
    return loss.item(), norm


@pytest.fixture(scope="module", params=[True, False])
def float_pair(tmp_path_factory, request):
    """A float32 model, tied or not, and itself at 3 bits."""
    folder = tmp_path_factory.mktemp("pair")
    random_model.write(folder / "model", dtype=mx.float32,
                       tie_word_embeddings=request.param, **SHAPE)
    convert(folder / "model", folder / "student", "-q", "--q-bits", 3,
            "--dtype", "float32")
    return folder / "model", folder / "student"


def test_first_step_is_mlx_lms(float_pair, tmp_path):
    model, student = float_pair
    report = run(model, tmp_path / "out", "--quantized-model", student,
                 "--num-samples", 16, "--learning-rate", 1e-5)
    teacher, tokenizer = load(str(model))
    train, _ = rows_of(16, 32, tokenizer)
    loss, norm = first_step(load(str(student))[0], teacher, train)
    point = report["curve"][0]
    assert len(report["curve"]) == 4 and point["tokens"] == 4 * (LENGTH - 1)
    # Sums of float32 products in another order.
    assert point["loss"] == pytest.approx(loss, rel=1e-4)
    assert point["gradient_norm"] == pytest.approx(norm, rel=1e-3)


# mlx-lm has no layout such as gemma3's; gemma's embedding, scaled and tied, is
# so sure of the token that it was given that nothing diverges.
@pytest.mark.parametrize("family", chosen(sorted(
    set(test_families.FAMILIES) - {"gemma", "gemma3"})))
def test_first_step_of_families(family, tmp_path):
    model, student = tmp_path / "model", tmp_path / "student"
    test_families.write(model, family, "float32")
    convert(model, student, "-q", "--q-bits", 4, "--q-group-size", 32,
            "--dtype", "float32")
    report = run(model, tmp_path / "out", "--quantized-model", student,
                 "--num-samples", 16, "--learning-rate", 1e-4)
    teacher, tokenizer = load(str(model))
    train, _ = rows_of(16, 32, tokenizer)
    loss, norm = first_step(load(str(student))[0], teacher, train)
    point = report["curve"][0]
    # A divergence of 1e-5 is a sum of logarithms, of 1e-7 each, that cancel.
    assert point["loss"] == pytest.approx(loss, rel=1e-3, abs=3e-7)
    assert point["gradient_norm"] == pytest.approx(norm, rel=1e-4)
    assert report["best_kl"] < report["start_kl"]
    load_model(tmp_path / "out")


def their_targets(model, folder):
    teacher, tokenizer = load(model)
    train, valid = rows_of(16, 32, tokenizer)
    compute_dwq_targets(teacher, Path(folder), train, valid, 4, LENGTH, SEED)


def spread(targets):
    """The logits where they belong, NaN for those that are not kept."""
    shape = (*targets["logits"].shape[:-1], 3072)
    dense = np.full(shape, np.nan, np.float32)
    np.put_along_axis(dense, np.array(targets["indices"]).astype(np.int64),
                      np.array(targets["logits"]), axis=-1)
    return dense


def test_targets_are_read_either_way(float_pair, tmp_path):
    model, student = float_pair
    # In a process of its own: mx.distributed.init() would spoil mpirun.
    subprocess.run(
        [sys.executable, __file__, model, tmp_path / "theirs"], check=True)
    teacher, tokenizer = load(str(model))
    train, _ = rows_of(16, 32, tokenizer)
    flags = ["--quantized-model", student, "--num-samples", 16,
             "--learning-rate", 1e-5]
    text = run(model, tmp_path / "none", *flags, "--targets-only",
               "--target-dir", tmp_path / "ours")
    assert not (tmp_path / "none").exists() and text["output"] == ""
    files = sorted(p.relative_to(tmp_path / "ours")
                   for p in (tmp_path / "ours").rglob("*.safetensors"))
    assert files == sorted(p.relative_to(tmp_path / "theirs") for p in (
        tmp_path / "theirs").rglob("*.safetensors"))
    for name in files:
        ours = mx.load(str(tmp_path / "ours" / name))
        theirs = mx.load(str(tmp_path / "theirs" / name))
        assert all(ours[key].dtype == theirs[key].dtype for key in theirs)
        a, b = spread(ours), spread(theirs)
        assert a.shape == b.shape
        # Of the last that are kept, near ties may fall either way.
        assert np.mean(np.isnan(a) != np.isnan(b)) < 1e-3
        both = ~np.isnan(a) & ~np.isnan(b)
        assert np.abs(a - b)[both].max() < 1e-4
    loss, norm = first_step(
        load(str(student))[0], teacher, train, columns=1024)
    for name in ("ours", "theirs"):
        report = run(model, tmp_path / f"out_{name}", *flags, "--target-dir",
                     tmp_path / name)
        point = report["curve"][0]
        assert point["loss"] == pytest.approx(loss, rel=1e-3)
        assert point["gradient_norm"] == pytest.approx(norm, rel=1e-3)
        assert report["targets"] == str(tmp_path / name)


@pytest.fixture(scope="module")
def students(tmp_path_factory):
    folder = tmp_path_factory.mktemp("students")
    for bits in (3, 8):
        convert(DEMO, folder / f"q{bits}", "-q", "--q-bits", bits)
    return folder


@pytest.fixture(scope="module")
def trained(students):
    out = students / "trained"
    report = run(DEMO, out, "--quantized-model", students / "q3",
                 "--num-samples", 96)
    return out, report


def test_it_is_better_by_a_quarter(students, trained):
    out, report = trained
    assert report["best_kl"] < report["start_kl"]
    assert len(report["trial"]) >= 3 and report["best_step"] > 0
    assert kl(out) < 0.75 * kl(students / "q3")
    load_model(out)


def test_only_scales_and_biases_change(students, trained):
    out, report = trained
    before = mx.load(str(students / "q3/model.safetensors"))
    after = mx.load(str(out / "model.safetensors"))
    assert set(before) == set(after)
    count = 0
    for name, tensor in after.items():
        assert tensor.dtype == before[name].dtype
        if name.endswith((".scales", ".biases")):
            assert not mx.array_equal(tensor, before[name]), name
            count += tensor.size
        else:
            assert mx.array_equal(tensor, before[name]), name
    assert count == report["trained_parameters"]
    assert json.loads((out / "config.json").read_text()) == json.loads(
        (students / "q3/config.json").read_text())


def test_log_can_be_plotted(trained):
    out, report = trained
    log = np.genfromtxt(out / "dwq_log.csv", delimiter=",", names=True)
    steps = [point["step"] for point in report["curve"]]
    assert log["step"].tolist() == [0, *steps]
    held_out = log["held_out_kl"][~np.isnan(log["held_out_kl"])]
    assert held_out[0] == pytest.approx(report["start_kl"], rel=1e-4)
    assert held_out.min() == pytest.approx(report["best_kl"], rel=1e-4)


def test_rounds_the_full_model_itself(tmp_path, students):
    report = run(DEMO, tmp_path / "out", "--bits", 3, "--num-samples", 16,
                 "--learning-rate", 1e-4)
    # It began with what convert makes.
    other = run(DEMO, tmp_path / "other", "--quantized-model",
                students / "q3", "--num-samples", 16, "--learning-rate", 1e-4)
    assert report["start_kl"] == other["start_kl"]
    assert (tmp_path / "out/model.safetensors").read_bytes() == (
        tmp_path / "other/model.safetensors").read_bytes()


@pytest.mark.parametrize("method", ["awq", "gptq"] if SLOW else ["gptq"])
def test_other_methods_may_come_before(method, tmp_path):
    student = tmp_path / "student"
    subprocess.run(
        [BIN, method, "--model", DEMO, "--mlx-path", student, "--bits", "3",
         "--data-path", TEXT, "--sequence-length", "64", "--num-samples",
         "32"], check=True, capture_output=True, timeout=300)
    run(DEMO, tmp_path / "out", "--quantized-model", student,
        "--num-samples", 48)
    assert kl(tmp_path / "out") < kl(student)


def tensors_equal(one, other):
    a, b = (mx.load(str(p / "model.safetensors")) for p in (one, other))
    return set(a) == set(b) and all(mx.array_equal(a[n], b[n]) for n in a)


def test_never_worse_than_the_start(students, tmp_path):
    report = run(DEMO, tmp_path / "out", "--quantized-model", students / "q3",
                 "--num-samples", 16, "--learning-rate", 0.1)
    assert report["best_step"] == 0
    assert any("better on held-out text than the start" in note
               for note in report["notes"])
    assert tensors_equal(students / "q3", tmp_path / "out")


def test_divergence_ends_with_the_best(students, tmp_path):
    report = run(DEMO, tmp_path / "out", "--quantized-model", students / "q3",
                 "--num-samples", 16, "--learning-rate", 1e30)
    assert any("training diverged" in note for note in report["notes"])
    assert tensors_equal(students / "q3", tmp_path / "out")


def test_a_student_with_nan(students, tmp_path):
    shutil.copytree(students / "q3", tmp_path / "nan")
    file = tmp_path / "nan/model.safetensors"
    tensors = mx.load(str(file))
    name = "model.layers.0.mlp.down_proj.scales"
    tensors[name] = tensors[name] * mx.nan
    mx.save_safetensors(str(file), tensors)
    errors = run(DEMO, tmp_path / "out", "--quantized-model",
                 tmp_path / "nan", code=7)
    assert name in errors and errors.count("error:") == 1
    assert not leftovers(tmp_path)


def test_nothing_to_train(students, tmp_path):
    report = run(DEMO, tmp_path / "out", "--quantized-model", students / "q8",
                 "--num-samples", 16)
    assert any("the start is kept" in note for note in report["notes"])
    assert report["trained_modules"] == 0
    assert tensors_equal(students / "q8", tmp_path / "out")
    run(DEMO, tmp_path / "eight", "--bits", 8, "--num-samples", 16)
    assert tensors_equal(students / "q8", tmp_path / "eight")
    assert not leftovers(tmp_path)


@pytest.fixture(scope="module")
def small(small_model, tmp_path_factory):
    """A model that trains soon, and itself at 3 bits."""
    student = tmp_path_factory.mktemp("student") / "q3"
    convert(small_model, student, "-q", "--q-bits", 3)
    return small_model, student


def test_killed_at_any_point(small, tmp_path):
    model, student = small
    flags = ["--quantized-model", student, "--num-samples", 80,
             "--batch-size", 2, "--learning-rate", 1e-4]
    straight = tmp_path / "straight"
    begun = time.monotonic()
    run(model, straight, *flags)
    seconds = time.monotonic() - begun
    when = random.Random(3)
    resumed = 0
    kills = 10 if SLOW else 1
    for i in range(kills):
        out = tmp_path / f"out{i}"
        again = command(model, out, *flags)
        work = tmp_path / f".out{i}.pennyweight"
        if SLOW:
            walks.kill_when(again, seconds=when.uniform(0.1, 1) * seconds)
        else:
            walks.kill_when(again, lambda: list(work.glob("state-*")))
        if not out.exists():
            resumed += run(model, out, *flags)["resumed_steps"] > 0
        assert same_files(straight, out), i
        assert not leftovers(tmp_path)
        shutil.rmtree(out)
    assert resumed >= max(1, kills // 4)


@pytest.mark.parametrize("flags", [[], ["--pipeline"]])
def test_two_processes(flags, students, mpirun, tmp_path):  # noqa: F811
    common = ["--quantized-model", students / "q3", "--num-samples", 24,
              "--learning-rate", 1e-4]
    one = run(DEMO, tmp_path / "one", *common)
    two = run(DEMO, tmp_path / "two", *common, *flags, launcher=mpirun)
    assert (one["processes"], two["processes"]) == (1, 2)
    for a, b in zip(one["curve"], two["curve"], strict=True):
        assert a["tokens"] == b["tokens"]
        assert b["loss"] == pytest.approx(a["loss"], rel=0.01)
    assert two["best_kl"] == pytest.approx(one["best_kl"], rel=0.01)
    assert not leftovers(tmp_path)
    load_model(tmp_path / "two")


def test_memory_is_the_students_own(tmp_path):
    peaks, sizes, parameters = [], [], []
    for blocks in (8, 24):
        model = tmp_path / f"m{blocks}"
        random_model.write(model, **(SHAPE | {
            "hidden_size": 256, "intermediate_size": 768, "head_dim": 64,
            "num_hidden_layers": blocks, "vocab_size": 3072}))
        report = run(model, tmp_path / f"o{blocks}", "--num-samples", 16,
                     "--batch-size", 16, "--learning-rate", 1e-5)
        peaks.append(report["peak_rss"])
        sizes.append(report["bytes"])
        parameters.append(report["trained_parameters"])
    # Masters, two moments, the gradients; what is written, twice.
    state = 4 * 4 + 2 * 2
    # The inputs of blocks are in memory up to a limit that these are below.
    kept = 16 * 16 * (LENGTH - 1) * 256 * 4
    growth = (sizes[1] - sizes[0]) + state * (parameters[1] - parameters[0])
    assert peaks[1] <= 1.1 * peaks[0] + growth + kept, (peaks, growth)


def test_chat_rows_that_differ_in_length(students, tmp_path):
    words = TEXT.read_text().split()
    rows = tmp_path / "rows.jsonl"
    with rows.open("w") as file:
        for i in range(40):
            text = " ".join(words[50 * i:50 * i + 3 + i])
            file.write(json.dumps({"messages": [
                {"role": "user", "content": "go on"},
                {"role": "assistant", "content": text}]}) + "\n")
    report = run(DEMO, tmp_path / "out", "--quantized-model", students / "q3",
                 "--num-samples", 32, "--learning-rate", 1e-4, data=rows)
    tokens = [p["tokens"] for p in report["curve"]]
    assert len({b - a for a, b in zip(tokens, tokens[1:])}) > 1
    assert any("of the 64 asked for" in note for note in report["notes"])


@pytest.mark.parametrize("flags, code, words", [
    (["--learning-rate", 0], 2, "--learning-rate has to be above 0"),
    (["--batch-size", 0], 2, "--batch-size has to be at least 1"),
    (["--num-samples", 0], 2, "--num-samples has to be at least 1"),
    (["--bits", 7], 2, "7"),
    (["--seed", 2**32], 2, "--seed has to be below"),
    (["--targets-only"], 2, "--targets-only writes --target-dir"),
    (["--quantized-model", DEMO], 2, "is not quantized"),
    (["--quantized-model", "no/such/folder"], 3, "no/such/folder"),
    (["--resume"], 3, "there is no unfinished run"),
])
def test_refusals(flags, code, words, tmp_path):
    errors = run(DEMO, tmp_path / "out", *flags, code=code)
    assert words in errors and errors.count("error:") == 1
    assert not (tmp_path / "out").exists() and not leftovers(tmp_path)


def test_another_vocabulary(tmp_path):
    random_model.write(tmp_path / "m", vocab_size=3136, **SHAPE)
    convert(tmp_path / "m", tmp_path / "q", "-q")
    errors = run(DEMO, tmp_path / "out", "--quantized-model", tmp_path / "q",
                 code=2)
    assert "has a vocabulary of 3136" in errors
    errors = run(tmp_path / "q", tmp_path / "out", code=2)
    assert "--model is the full-precision model" in errors


def damage_short(file):
    file.write_bytes(file.read_bytes()[:-100])


def rewrite(file, change):
    tensors = {k: mx.array(np.array(v.astype(mx.float32) if k == "logits"
                                    else v)) for k, v in
               mx.load(str(file)).items()}
    change(tensors)
    mx.save_safetensors(str(file), tensors)


@pytest.mark.parametrize("damage, words", [
    (damage_short, "0000000001.safetensors"),
    (lambda f: rewrite(f, lambda t: t.pop("indices")),
     "has no logits and indices"),
    (lambda f: rewrite(f, lambda t: t.update(indices=t["indices"] + 3000)),
     "names logits outside the vocabulary"),
    (lambda f: rewrite(f, lambda t: t.update(logits=t["logits"][:2])),
     "is of another batch"),
    (lambda f: rewrite(f, lambda t: t.update(tokens=t["tokens"] + 1)),
     "is of other text"),
    (lambda f: rewrite(f, lambda t: t.update(logits=t["logits"] * mx.nan)),
     "holds logits that are not finite"),
])
def test_damaged_targets(damage, words, students, tmp_path):
    flags = ["--quantized-model", students / "q3", "--num-samples", 8,
             "--target-dir", tmp_path / "targets", "--learning-rate", 1e-5]
    run(DEMO, tmp_path / "out", *flags, "--targets-only")
    damage(tmp_path / "targets/train/0000000001.safetensors")
    errors = run(DEMO, tmp_path / "out", *flags, code=4)
    assert words in errors and errors.count("error:") == 1
    assert not (tmp_path / "out").exists() and not leftovers(tmp_path)


def test_a_damaged_state_is_made_again(small, tmp_path):
    model, student = small
    flags = ["--quantized-model", student, "--num-samples", 80,
             "--batch-size", 2]
    out = tmp_path / "out"
    work = tmp_path / ".out.pennyweight"
    walks.kill_when(
        command(model, out, *flags), lambda: list(work.glob("state-*")))
    file = next(work.glob("state-*")) / "model.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    errors = run(model, out, *flags, "--learning-rate", 1e-4, code=2)
    assert "has other settings" in errors
    report = run(model, out, *flags)
    assert report["resumed_steps"] == 0
    assert any("is damaged" in note for note in report["notes"])
    run(model, tmp_path / "straight", *flags)
    assert ((tmp_path / "straight/model.safetensors").read_bytes()
            == (out / "model.safetensors").read_bytes())
    assert not leftovers(tmp_path)


if __name__ == "__main__":
    their_targets(sys.argv[1], sys.argv[2])
