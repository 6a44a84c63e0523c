#!/usr/bin/env python3
"""Makes inputs that ask for too much or are what nobody expects, for tests of
limits: each must end soon, in little memory, and in one line.

    hostile_inputs.py OUT PLAIN QUANTIZED RECIPE [--seed 1] [--count 500]

PLAIN and QUANTIZED are small model folders, RECIPE a recipe.json for PLAIN.
OUT gets case000, case001, ... and manifest.json: each case's kind, what is
hostile in it, and the command that reads it. fuzz_inputs.py damages files;
these are whole. The same seed gives the same cases.
"""

import argparse
import json
import os
import random
import shutil
import socket
from pathlib import Path

import fuzz_inputs
import hostile_text


class Case(fuzz_inputs.Case):
    """A model folder, and data/ in it; `reader` names the command."""

    def __init__(self, folder, base, rng, recipe):
        super().__init__(folder, base, rng)
        self.recipe = json.loads(recipe.read_text())
        self.reader = "evaluate"
        self.data = "text.txt"
        (folder / "data").mkdir()
        self.put_data("text.txt", hostile_text.SENTENCE * 100)

    def put_data(self, name, data):
        self.data = name
        self.write(f"data/{name}", data)


ODD_CARDS = [
    "license: !!python/object/apply:os.system ['true']",
    "license: mit\n---\nlicense: evil\x1b[31m", "license: \0",
    "license: 'mit\\nlicense_name: \"x\"'", "license: mit\r\nbase_model: x",
    "license: \u202emit\u2028---", "license: \ud800", "language: {en: [de]}",
    "license: </script><script>alert(1)</script>", "\t\nlicense: mit",
    "license: mit\nlicense: apache-2.0",
    "license_link: javascript:alert(1)\nlicense: other"]


def card(case):
    """Front matter of the model's README.md."""
    rng = case.rng
    many = rng.choice([10, 10_000, 300_000])
    case.reader = "convert"
    before, repeated, behind = rng.choice([
        ("license: ", "x", ""), ("license: |\n", "  x\n", ""),
        ("language:\n", "- en\n", ""), ("language: [", "en, ", "]"),
        ("language: ", "[", ""), ("language: ", "[", "]" * many),
        ("license: ", "{", ""), ("", "? ", ""), ("", "- ", ""),
        ("license: mit # ", "x", ""), ("tags:\n", " - x\n", ""),
        ("", " ", "license: mit"), ("", "key: x\n", ""),
        ("a: &a [x]\n", "b: &a [*a, *a]\n", ""),
    ] + [(text, "", "") for text in ODD_CARDS])
    front = before + repeated * many + behind
    end = rng.choice(["\n---\n", "\n---\n", "", "\n...\n", "\r\n---\r\n"])
    text = rng.choice(["---\n", "---\n", "\ufeff---\n", "--- \n"]) + front + end
    case.write("README.md", text.encode("utf-8", "surrogatepass"))
    return f"card: {front[:70]!r}"


def recipe(case):
    """A recipe.json that asks for something else than a run can have written."""
    rng = case.rng
    case.reader = "recipe"
    if rng.random() < 0.25:
        text = rng.choice(fuzz_inputs.RAW + [
            "[" * 200_000, '{"format": ' * 9999, "{}", "[]", "null",
            '{"widths": {' + '"a": 4,' * 300_000 + '"b": 4}}', "\0" * 9999])
        case.put_data("recipe.json", text)
        return f"recipe: {text[:60]!r}"
    loaded = json.loads(json.dumps(case.recipe))
    place, path = loaded, []
    while isinstance(place, (dict, list)) and place:
        keys = sorted(place) if isinstance(place, dict) else range(len(place))
        path.append((place, rng.choice(list(keys))))
        if rng.random() < 0.3:
            break
        place = place[path[-1][1]]
    holder, key = path[-1]
    what = rng.choice(["value", "value", "value", "missing", "extra"])
    value = rng.choice(fuzz_inputs.EXTREME + [
        [7] * 100_000, "x" * 10**6, 4.0, "4", 16, 33])
    if what == "missing":
        del holder[key]
    elif what == "extra" and isinstance(holder, dict):
        holder["model.layers.99.mlp.up_proj\n"] = value
    else:
        holder[key] = value
    case.put_data("recipe.json", json.dumps(loaded))
    return f"recipe: {what} at {key}: {str(value)[:50]}"


def special(case):
    """Something else than a file where a file is expected."""
    rng = case.rng
    name, case.reader = rng.choice([
        ("config.json", "evaluate"), ("tokenizer.json", "evaluate"),
        ("tokenizer_config.json", "evaluate"), (case.weights(), "convert"),
        (case.weights(), "evaluate"), ("generation_config.json", "convert"),
        ("README.md", "convert"), ("chat_template.jinja", "evaluate"),
        ("special_tokens_map.json", "convert"),
        ("model.safetensors.index.json", "convert"),
        ("data/text.txt", "evaluate"), ("data/rows.jsonl", "evaluate"),
        ("data/rows.parquet", "evaluate"), ("data/recipe.json", "recipe"),
        ("data", "evaluate"), ("extra.json", "convert"),
        ("tokenizer.model", "convert"), ("mine.py", "convert")])
    path = case.folder / name
    what = rng.choice(["pipe", "folder", "socket", "loop", "dangling", "/dev/zero",
                       "/dev/null", "/dev/random", "/dev/tty", "/dev/stdin",
                       "/proc/self/mem", "/proc/version", "/proc/self/environ",
                       "/", "..", "empty"])
    if path.is_dir():
        shutil.rmtree(path)
    elif path.exists():
        path.unlink()
    if what == "pipe":
        os.mkfifo(path)
    elif what == "folder":
        path.mkdir()
    elif what == "empty":
        path.write_bytes(b"")
    elif what == "socket":
        # A socket's path is short: it is named from within its folder.
        here = os.open(".", os.O_RDONLY)
        os.chdir(path.parent)
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(path.name)
        os.fchdir(here)
        os.close(here)
    else:
        path.symlink_to({"loop": path.name, "dangling": "nowhere"}.get(
            what, what))
    if name.startswith("data/"):
        case.data = path.name
    elif name == "data":
        case.data = ""
    return f"{name} is {what}"


def work(case):
    """The work folder of a run that nobody has begun. It stands in the case as
    `work`; who runs the command puts it beside the output."""
    rng = case.rng
    case.reader = "gptq"
    folder = case.folder / "work"
    folder.mkdir()
    junk = [b"", b"{}", b"[]", b"null", b'{"checksum": "0"}', rng.randbytes(3000),
            b"[" * 100_000, json.dumps({"method": "gptq"}).encode()]
    names = ["settings.json", "lock", "block-00000", "block-00001",
             "block-99999999999999999999", "state-0000000001",
             "state-9223372036854775807", "state-99999999999999999999",
             "state-0000000000", "stages", "settings.json.part1", "\n"]
    made = []
    for name in rng.sample(names, rng.choice([1, 2, 3])):
        path = folder / name
        what = rng.choice(["file", "file", "folder", "part", "pipe", "link",
                           "loop"])
        if what == "file":
            path.write_bytes(rng.choice(junk))
        elif what == "pipe":
            os.mkfifo(path)
        elif what == "link":
            path.symlink_to(case.folder.resolve())
        elif what == "loop":
            path.symlink_to(path.name)
        else:
            path.mkdir()
        if what == "part":
            (path / "report.json").write_bytes(rng.choice(junk))
            (path / "model.safetensors").write_bytes(rng.choice(junk))
        made.append(f"{name!r} is a {what}")
    return "work folder: " + ", ".join(made)


def quantization(case):
    """Entries of `quantization` that no model has."""
    rng = case.rng
    case.reader = rng.choice(["dequantize", "evaluate", "inspect"])
    config = case.json("config.json")
    entry = config["quantization"]
    values = fuzz_inputs.EXTREME + [1, 7, 9, 32, 48, 65536, "mxfp4", "nvfp4",
                                    [4], {"bits": 4}]
    keys = ["bits", "group_size", "mode"]
    module = rng.choice(["model.layers.0.mlp.up_proj", "model.embed_tokens",
                         "lm_head", "model.layers.99.x", "\x1b[31m\n", "",
                         "x" * 100_000])
    what = rng.choice(["global", "module", "both", "many", "false", "whole"])
    key, value = rng.choice(keys), rng.choice(values)
    if what in ("global", "both"):
        entry[key] = value
    if what in ("module", "both"):
        entry[module] = {"bits": 4, "group_size": 32} | {key: value}
    if what == "many":
        entry |= {f"model.layers.{i}.mlp.up_proj": {"bits": 4, "group_size": 32}
                  for i in range(100_000)}
    if what == "false":
        entry[module] = rng.choice([False, True, None, 0, "false"])
    if what == "whole":
        config["quantization"] = value
    twin = rng.choice(["same", "other", "absent"])
    if twin != "absent":
        config["quantization_config"] = (
            config["quantization"] if twin == "same" else {"bits": 8})
    case.put_json("config.json", config)
    return f"quantization: {what}, {key} {str(value)[:40]}, {module[:30]!r}"


# How many of 100 cases are of a kind.
KINDS = {hostile_text.template: 26, hostile_text.tokenizer: 16,
         hostile_text.rows: 10, hostile_text.parquet: 12, card: 8, recipe: 8,
         special: 10, work: 5, quantization: 5}


def order_of_kinds(count):
    """Each kind as often as it should be, evenly mixed."""
    places = [((i + 0.5) / share, index, kind)
              for index, (kind, share) in enumerate(KINDS.items())
              for i in range(share)]
    mixed = [kind for _, _, kind in sorted(places, key=lambda x: x[:2])]
    return [mixed[i % len(mixed)] for i in range(count)]


def has_pyarrow():
    try:
        import pyarrow  # noqa: F401
    except ImportError:
        return False
    return True


def make(out, plain, quantized, recipe_file, seed, count):
    out.mkdir(parents=True)
    manifest = []
    for i, kind in enumerate(order_of_kinds(count)):
        if kind is hostile_text.parquet and not has_pyarrow():
            continue
        name = f"case{i:03}"
        base = quantized if kind is quantization else plain
        case = Case(out / name, base, random.Random(f"{seed}-{i}"), recipe_file)
        what = kind(case)
        manifest.append({"name": name, "kind": kind.__name__, "what": what,
                         "reader": case.reader, "data": case.data})
    (out / "manifest.json").write_text(json.dumps(manifest, indent=1))
    return manifest


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("out", "plain", "quantized", "recipe"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=500)
    options = parser.parse_args()
    make(options.out, options.plain, options.quantized, options.recipe,
         options.seed, options.count)


if __name__ == "__main__":
    main()
