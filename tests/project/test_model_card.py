"""The README.md of an output: front matter that the hub's parser understands,
with the licence of the source, whatever the source's own card holds."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

yaml = pytest.importorskip("yaml")

ROOT = Path(__file__).resolve().parents[2]
BIN = os.environ.get(
    "PENNYWEIGHT_BIN", str(ROOT / "build/release/src/pennyweight"))

SOURCE = """---
license: other
license_name: the "name": a #1
license_link: https://host.test/LICENSE
language:
- en
- no
tags: [text, "code"]
extra_gated_prompt: >-
  license: none
base_model: someone/else
---
# A model
"""

HOSTILE = """---
license: !!python/object/apply:os.system ["touch evil"]
license_name: &a "x\\n---\\nlibrary_name: evil"
license_link: javascript:alert(1)
language: [en, "fr\\"]
library_name: evil
---
"""


def convert(tmp_path, card, *flags):
    model, out = tmp_path / "model", tmp_path / "out"
    shutil.copytree(ROOT / "assets/demo", model)
    (model / "README.md").unlink(missing_ok=True)
    if card is not None:
        (model / "README.md").write_text(card)
    done = subprocess.run(
        [BIN, "convert", "--model", str(model), "--mlx-path", str(out),
         *flags], text=True, capture_output=True, timeout=120)
    assert done.returncode == 0, done.stderr
    parts = (out / "README.md").read_text().split("---\n")
    assert parts[0] == ""
    return yaml.safe_load(parts[1]), "---\n".join(parts[2:]), done.stderr


PLAIN = {"library_name": "mlx", "pipeline_tag": "text-generation"}


def test_the_source_s_licence_is_carried_over(tmp_path):
    card = SOURCE.replace('the "name": a #1', "'the \"name\": a #1'")
    matter, body, said = convert(tmp_path, card, "-q", "--q-bits", "4")
    assert matter == PLAIN | {
        "license": "other", "license_name": 'the "name": a #1',
        "license_link": "https://host.test/LICENSE", "language": ["en", "no"],
        "tags": ["mlx", "4-bit", "quantized"]}
    assert body.startswith("\n# model for MLX\n")
    assert str(tmp_path) not in body
    assert "README.md" not in said


def test_a_hostile_card_is_not_copied_through(tmp_path):
    matter, body, said = convert(tmp_path, HOSTILE, "-q")
    assert matter == PLAIN | {"tags": ["mlx", "4-bit", "quantized"]}
    assert "evil" not in body
    for key in ("license", "license_name", "license_link", "language"):
        assert f"README.md gives a {key} that can't be read" in said


def test_without_a_card_and_without_quantization(tmp_path):
    matter, _, said = convert(tmp_path, None)
    assert matter == PLAIN | {"tags": ["mlx"]}
    assert "README.md" not in said
