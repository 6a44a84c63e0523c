"""evaluate()'s figures against the same figures from mlx-lm's logits, in
double, on real small models. Needs the program probe_evaluate of the C++ test
build, and the models and text of PENNYWEIGHT_SHARED (or ../shared)."""

import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

mx = pytest.importorskip("mlx.core")
mlx_lm = pytest.importorskip("mlx_lm")
from mlx.utils import tree_flatten  # noqa: E402
from mlx_lm import perplexity, utils  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
LENGTH = 128
SEQUENCES = 8


@pytest.fixture(scope="session")
def shared():
    default = ROOT.parent / "shared"
    folder = Path(os.environ.get("PENNYWEIGHT_SHARED", default))
    if not (folder / "models").is_dir():
        pytest.skip(f"no shared models at {folder}")
    return folder


@pytest.fixture(scope="session")
def probe():
    folder = os.environ.get("PENNYWEIGHT_BUILD_DIR")
    if not folder:
        pytest.skip("PENNYWEIGHT_BUILD_DIR is not set")
    program = Path(folder) / "tests" / "probe_evaluate"
    assert program.exists(), f"{program} is not built"
    return program


def evaluate(probe, model, reference, tokens, dtype="own"):
    ids = Path(model) / "tokens.bin"
    np.asarray(tokens, np.int32).tofile(ids)
    done = subprocess.run(
        [probe, model, reference or "-", ids, str(tokens.shape[1]), dtype],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    pairs = (line.split() for line in done.stdout.splitlines())
    return {name: float(value) for name, value in pairs}


def text_tokens(shared, model):
    text = (shared / "text" / "tinystories.utf8").read_text()[:40000]
    tokenizer = utils.load_tokenizer(model)
    ids = tokenizer.encode(text, add_special_tokens=False)
    assert len(ids) >= SEQUENCES * LENGTH
    ids = np.array(ids[: SEQUENCES * LENGTH])
    return ids.reshape(SEQUENCES, LENGTH)


def copy_model(shared, name, to):
    shutil.copytree(shared / "models" / name, to, copy_function=shutil.copy)
    os.chmod(to, 0o755)
    return to


def quantized(source, to, bits, group, dtype=None):
    """What mlx_lm.convert writes, at these settings."""
    mlx_lm.convert(
        str(source),
        str(to),
        quantize=True,
        q_bits=bits,
        q_group_size=group,
        dtype=dtype,
    )
    return to


def log_softmax(model, tokens):
    loaded, _ = utils.load_model(Path(model))
    loaded.set_dtype(mx.float32)
    logits = np.array(loaded(mx.array(tokens[:, :-1]))).astype(np.float64)
    top = logits.max(-1, keepdims=True)
    return logits - top - np.log(np.exp(logits - top).sum(-1, keepdims=True))


def expected_figures(model, reference, tokens):
    ours = log_softmax(model, tokens)
    theirs = log_softmax(reference, tokens)
    targets = tokens[:, 1:, None]
    nll = -np.take_along_axis(ours, targets, -1).flatten()
    kl = (np.exp(theirs) * (theirs - ours)).sum(-1).flatten()
    count = nll.size
    ppl = np.exp(nll.mean())
    reference_nll = -np.take_along_axis(theirs, targets, -1)
    return {
        "tokens": count,
        "ppl": ppl,
        "ppl_error": ppl * nll.std(ddof=1) / np.sqrt(count),
        "reference_ppl": np.exp(reference_nll.mean()),
        "kl": kl.mean(),
        "kl_error": kl.std(ddof=1) / np.sqrt(count),
        "kl_median": np.median(kl),
        "kl_p99": np.quantile(kl, 0.99),
        "kl_max": kl.max(),
        "top1": (ours.argmax(-1) == theirs.argmax(-1)).mean(),
    }


@pytest.mark.parametrize("name, bits, group", [
    ("tinystories-656k", 4, 64),
    ("tinystories-656k", 2, 32),
    ("stories260k", 3, 64),  # an MLP width that no group divides
])
def test_figures_of_a_quantized_model(
    probe, shared, tmp_path, name, bits, group
):
    reference = copy_model(shared, name, tmp_path / "reference")
    model = quantized(reference, tmp_path / "model", bits, group)
    tokens = text_tokens(shared, reference)
    figures = evaluate(probe, model, reference, tokens, "float32")
    expected = expected_figures(model, reference, tokens)
    # Logits of float32 models differ by some 1e-6 of the largest, 20; a
    # difference of log-likelihoods by 1e-4 at worst.
    for key, value in expected.items():
        assert figures[key] == pytest.approx(value, rel=2e-4, abs=1e-4), key
    loaded, _ = utils.load_model(model)
    assert figures["bpw"] == pytest.approx(
        utils.compute_bits_per_weight(loaded)
    )
    sizes = [value.nbytes for _, value in tree_flatten(loaded.parameters())]
    assert figures["bytes"] == sum(sizes)


def test_perplexity_is_mlx_lms(probe, shared, tmp_path):
    model = copy_model(shared, "tinystories-656k", tmp_path / "model")
    tokens = text_tokens(shared, model)
    loaded, _ = utils.load_model(model)
    ppl, error = perplexity.eval_ppl(loaded, mx.array(tokens))
    figures = evaluate(probe, model, None, tokens, "float32")
    assert figures["ppl"] == pytest.approx(ppl, rel=1e-4)
    assert figures["ppl_error"] == pytest.approx(error, rel=1e-3)


def test_bfloat16_figures_stay_near(probe, shared, tmp_path):
    """bfloat16 matrices add an error of their own to either model's logits:
    the KL of a model to its float32 self, which bounds the bias."""
    reference = copy_model(shared, "tinystories-656k", tmp_path / "reference")
    model = quantized(reference, tmp_path / "model", 4, 64, "bfloat16")
    tokens = text_tokens(shared, reference)
    exact = evaluate(probe, model, reference, tokens, "float32")
    rounded = evaluate(probe, model, reference, tokens, "bfloat16")
    assert rounded["ppl"] == pytest.approx(exact["ppl"], rel=0.01)
    assert rounded["kl"] == pytest.approx(exact["kl"], rel=0.05, abs=1e-3)
    assert rounded["top1"] == pytest.approx(exact["top1"], abs=0.02)
