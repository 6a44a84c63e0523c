#!/usr/bin/env python3
"""Writes what the classes of the installed mlx-lm read of config.json.

    .venv/bin/python tools/class_keys.py            rewrites the table
    .venv/bin/python tools/class_keys.py --check    fails where it is another

The table, src/model/config/class_keys.inc, has for each class the fields of its
ModelArgs with their types and defaults, the keys that mlx-lm's code for
scaled rotary embeddings asks for, those that its loader asks for, and the
model types that are other names of a class.
"""

import argparse
import ast
import dataclasses
import difflib
import importlib
import importlib.metadata
import json
import re
import sys
import typing
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TABLE = ROOT / "src/model/config/class_keys.inc"
FAMILIES = ROOT / "src/model/families"


def registered():
    """(model type, class) of each family, as families.def has them."""
    return re.findall(r'^\w+\("([\w-]+)", "([\w.-]+)", \w+\)$',
                      (FAMILIES / "families.def").read_text(), re.M)


def classes():
    """Those of families.def, and those that families read inner configs as."""
    names = {name for _, name in registered()}
    for file in FAMILIES.rglob("*.cpp"):
        names |= set(re.findall(r'read_as\("([\w.]+)"', file.read_text()))
    return sorted(names)


def args_class(name):
    """ModelArgs of a module, or the class that "module.Class" names."""
    module, _, inner = name.partition(".")
    module = importlib.import_module(f"mlx_lm.models.{module}")
    return getattr(module, inner or "ModelArgs")


def kind(annotation):
    """Whether the values are integers, numbers, booleans or others."""
    options = set(typing.get_args(annotation)) - {type(None)}
    types = options or {annotation}
    for name, members in {"boolean": {bool}, "integer": {int},
                          "number": {int, float}}.items():
        if types <= members:
            return name
    return "other"


def default(field):
    """The default as JSON; None for a field that must be there."""
    if field.default is not dataclasses.MISSING:
        return json.dumps(field.default)
    if field.default_factory is not dataclasses.MISSING:
        return json.dumps(field.default_factory())
    return None


def quoted(text):
    return "nullptr" if text is None else json.dumps(text)


def class_lines(name):
    fields = sorted(dataclasses.fields(args_class(name)), key=lambda f: f.name)
    types = typing.get_type_hints(args_class(name))
    lines = [f'    {{"{name}",', "     {"]
    for field in fields:
        lines.append(f'         {{"{field.name}", ClassKey::Kind::'
                     f"{kind(types[field.name])}, {quoted(default(field))}}},")
    return lines + ["     }},"]


def asked(function, variable):
    """The strings that a function asks the dict `variable` for."""
    keys = set()
    for node in ast.walk(function):
        value = key = None
        if isinstance(node, ast.Subscript):
            value, key = node.value, node.slice
        elif (isinstance(node, ast.Call) and node.args
              and isinstance(node.func, ast.Attribute)
              and node.func.attr == "get"):
            value, key = node.func.value, node.args[0]
        elif isinstance(node, ast.Compare) and isinstance(node.ops[0], ast.In):
            value, key = node.comparators[0], node.left
        if (isinstance(value, ast.Name) and value.id == variable
                and isinstance(key, ast.Constant)):
            keys.add(key.value)
    return keys


def module_tree(name):
    return ast.parse(Path(importlib.import_module(name).__file__).read_text())


def rope_keys():
    """What a scaled rotary embedding is made of, wherever it is made: keys
    taken from rope_scaling or rope_parameters by name, and lists of strings
    of which each is looked up there."""
    keys = set()
    modules = {name.partition(".")[0] for name in classes()}
    for module in sorted(modules | {"rope_utils"}):
        tree = module_tree(f"mlx_lm.models.{module}")
        keys |= asked(tree, "scaling_config")
        for node in ast.walk(tree):
            text = ast.unparse(node) if isinstance(
                node, (ast.Subscript, ast.Call, ast.DictComp)) else ""
            keys |= set(re.findall(
                r"rope_(?:scaling|parameters)(?:\[|\.get\()'(\w+)'", text))
            if isinstance(node, ast.DictComp) and re.search(
                    r"(scaling_config|rope_scaling)\[key\]", text):
                keys |= set(ast.literal_eval(node.generators[0].iter))
    return keys


def loader_keys():
    for node in ast.walk(module_tree("mlx_lm.utils")):
        if isinstance(node, ast.FunctionDef) and node.name == "load_model":
            return asked(node, "config")
    sys.exit("mlx_lm.utils has no load_model")


def aliases():
    from mlx_lm.utils import MODEL_REMAPPING

    types = {model_type for model_type, _ in registered()}
    return sorted((a, b) for a, b in MODEL_REMAPPING.items()
                  if b in types and a not in types)


def key_list(name, keys):
    body = "".join(f'    "{key}",\n' for key in sorted(keys))
    return f"constexpr const char* {name}[] = {{\n{body}}};\n"


def table():
    version = importlib.metadata.version("mlx_lm")
    lines = [f"// What the classes of mlx-lm {version} read of config.json.",
             "// Made by tools/class_keys.py: change nothing here.",
             "// clang-format off", "",
             "const std::vector<ModelClass> kModelClasses = {"]
    for name in classes():
        lines += class_lines(name)
    lines += ["};", "", "constexpr std::pair<const char*, const char*> "
              "kAliases[] = {"]
    lines += [f'    {{"{a}", "{b}"}},' for a, b in aliases()] + ["};", ""]
    return ("\n".join(lines) + "\n" + key_list("kRopeKeys", rope_keys())
            + "\n" + key_list("kLoaderKeys", loader_keys()))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true")
    if not parser.parse_args().check:
        TABLE.write_text(table())
        return 0
    have = TABLE.read_text().splitlines()
    change = list(difflib.unified_diff(
        have, table().splitlines(), str(TABLE), "mlx-lm", lineterm=""))
    print("\n".join(change))
    return 1 if change else 0


if __name__ == "__main__":
    sys.exit(main())
