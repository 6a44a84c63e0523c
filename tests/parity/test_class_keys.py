"""What mlx-lm's classes read of config.json, and what becomes of a key that
one of them reads or does not read."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest

mx = pytest.importorskip("mlx.core")
pytest.importorskip("mlx_lm.utils")

ROOT = Path(__file__).resolve().parents[2]
for place in ("tests/support", "tests/parity", "tools"):
    sys.path.insert(0, str(ROOT / place))
import class_keys  # noqa: E402
import walks  # noqa: E402
from structures import chosen  # noqa: E402
from test_families import FAMILIES, INNER, write  # noqa: E402


def inspect(folder, code=0):
    done = subprocess.run(
        [walks.BIN, "inspect", str(folder)], capture_output=True, text=True,
        timeout=60)
    if code is not None:
        assert done.returncode == code, done.stderr
    return done.stdout + done.stderr


def edit(folder, **changes):
    """Changes the keys that the family's class reads, wherever they stand."""
    file = folder / "config.json"
    config = json.loads(file.read_text())
    config.get("text_config", config).update(changes)
    file.write_text(json.dumps(config))


def test_table_is_of_the_pinned_mlx_lm():
    done = subprocess.run(
        [sys.executable, ROOT / "tools/class_keys.py", "--check"],
        capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, (
        done.stdout + "run tools/class_keys.py, and read the new keys")


@pytest.mark.parametrize("family", chosen(FAMILIES))
def test_a_key_that_the_class_does_not_read_passes(tmp_path, family):
    write(tmp_path / "model", family, "bfloat16")
    edit(tmp_path / "model", some_future_key=3, router_aux_loss_coef=0.001,
         cache_implementation="hybrid", another={"of": ["some", "depth"]})
    said = inspect(tmp_path / "model")
    assert "some_future_key" not in said and "router_aux" not in said


def changed(value):
    if isinstance(value, bool):
        return not value
    return value + 2 if isinstance(value, (int, float)) else None


@pytest.mark.parametrize("family", FAMILIES)
def test_each_key_that_the_class_reads_is_read_here(tmp_path, family):
    """With another value each is taken, or is refused for its value or for
    the tensors that it would take: never as a key that is not known."""
    write(tmp_path / "model", family, "bfloat16")
    name = dict(class_keys.registered())[INNER.get(family, family)]
    name = {"qwen2_vl": "qwen2"}.get(family, name)  # all of it is text_config
    if family.startswith("qwen3_5"):
        name = "qwen3_5.TextModelArgs"
    before = (tmp_path / "model/config.json").read_text()
    tried = 0
    for field in dataclasses.fields(class_keys.args_class(name)):
        default = class_keys.default(field)
        value = changed(json.loads(default)) if default else 8
        if value is None or field.name == "model_type":
            continue
        edit(tmp_path / "model", **{field.name: value})
        assert "is not known here" not in inspect(
            tmp_path / "model", code=None), field.name
        (tmp_path / "model/config.json").write_text(before)
        tried += 1
    assert tried > 5


def test_keys_of_the_loader_are_refused(tmp_path):
    write(tmp_path / "model", "llama", "bfloat16")
    edit(tmp_path / "model", quantize_activations=True)
    assert '"quantize_activations"' in inspect(tmp_path / "model", code=6)
    edit(tmp_path / "model", quantize_activations=False, model_file="own.py")
    assert '"model_file"' in inspect(tmp_path / "model", code=6)


@pytest.mark.parametrize(
    "family", ["muse_glimmer", "olmo3", "qwen2_vl", "qwen3_5_moe"])
def test_nothing_is_said_of_what_is_used(tmp_path, family):
    """Windows where layers have them by default, and what a class leaves to
    the one of its language model."""
    write(tmp_path / "model", family, "bfloat16")
    assert "is not used" not in inspect(tmp_path / "model")
