#!/usr/bin/env python3
"""Writes how the tensors of mlx-lm's other classes are named and made.

    .venv/bin/python tools/class_names.py            rewrites the table
    .venv/bin/python tools/class_names.py --check    fails where it is another

The table, src/model/names/class_names.inc, has each class of the installed
mlx-lm that no family in src/model/families is read as. A tiny model of it is
built, in many forms, with a value of its own in each place of each parameter.
mlx-lm's own sanitize then says which parameters come from which tensors of the
hub: a rule of tools/class_names_configs.py is taken only where sanitize makes
of the hub's form exactly those parameters, bit for bit. A class of which that
can't be said is in the table with the reason.
"""

import argparse
import contextlib
import copy
import dataclasses
import difflib
import functools
import importlib
import importlib.metadata
import io
import json
import re
import sys
from pathlib import Path

import mlx.core as mx
from mlx.utils import tree_flatten
from mlx_lm.utils import (
    MODEL_ARCHITECTURE_REMAPPING, MODEL_REMAPPING, quantize_model)

sys.path.insert(0, str(Path(__file__).resolve().parent))
from class_keys import registered  # noqa: E402
from class_names_axes import axes  # noqa: E402
from class_names_configs import CLASSES  # noqa: E402
from class_names_rules import (  # noqa: E402
    Unsure, expand_prefix, fill, hub_layout, numbers, pattern_of, value_of)

ROOT = Path(__file__).resolve().parents[1]
TABLE = ROOT / "src/model/names/class_names.inc"
TIES = ("tie_word_embeddings", "text_config.tie_word_embeddings")

# Tensors that may stand in a checkpoint beside a model's own: how a table says
# so (a name's beginning, or what stands anywhere in it), and names of that
# kind, all of which sanitize must drop.
DROPS = {
    "*rotary": ["model.rotary.x", "x_rotary_y"],
    "*rotary_emb": ["model.layers.0.self_attn.rotary_emb.inv_freq",
                    "model.rotary_emb_x", "x.rotary_emb.y"],
    "*rotary_emb.inv_freq": ["model.layers.0.self_attn.rotary_emb.inv_freq",
                             "x.rotary_emb.inv_freq"],
    "*self_attn.rotary_emb.inv_freq": [
        "model.layers.0.self_attn.rotary_emb.inv_freq"],
    "*vision_tower": ["vision_tower.x.weight", "model.vision_tower.x"],
    "*vision_model": ["vision_model.x.weight", "model.vision_model.x"],
    "*multi_modal_projector": ["multi_modal_projector.x.weight",
                               "model.multi_modal_projector.x"],
    "vision_tower.": ["vision_tower.x.weight"],
    "multi_modal_projector.": ["multi_modal_projector.x.weight"],
    "patch_merge_mlp.": ["patch_merge_mlp.x.weight"],
    "model.vision_tower.": ["model.vision_tower.x.weight"],
    "model.audio_tower.": ["model.audio_tower.x.weight"],
    "model.embed_vision.": ["model.embed_vision.x.weight"],
    "model.embed_audio.": ["model.embed_audio.x.weight"],
    "*.mtp": ["model.mtp.x.weight", "model.layers.0.mtp_x.weight"],
    "model.mtp.": ["model.mtp.x.weight"],
    "mtp.": ["mtp.x.weight"],
    "h.*.attn.bias": ["h.0.attn.bias", "h.1.attn.bias"],
    "model.embed_scale": ["model.embed_scale"],
    "cos": ["cos"], "sin": ["sin"],
}


def others():
    """mlx-lm's classes that are no family's."""
    known = {model_type for model_type, _ in registered()}
    folder = Path(importlib.import_module("mlx_lm.models").__file__).parent
    names = [file.stem for file in folder.glob("*.py") if re.search(
        r"^class Model\(", file.read_text(), re.MULTILINE)]
    return sorted(set(names) - known)


@functools.lru_cache(maxsize=None)
def args_of(name, config):
    module = importlib.import_module(f"mlx_lm.models.{name}")
    return module.ModelArgs.from_dict({"model_type": name} | json.loads(config))


def build(name, config):
    module = importlib.import_module(f"mlx_lm.models.{name}")
    # Some models change what they are given.
    return module.Model(copy.deepcopy(args_of(name, json.dumps(config))))


def shapes_of(model):
    return {name: value.shape for name, value
            in tree_flatten(model.parameters())}


def tagged(model):
    """Parameters of which no two values are equal."""
    made, first = {}, 1
    for name, value in tree_flatten(model.parameters()):
        if not mx.issubdtype(value.dtype, mx.floating):
            raise Unsure(f"{name} is not of a floating type")
        made[name] = mx.arange(first, first + value.size).astype(
            mx.float32).reshape(value.shape)
        first += value.size
    return made


def sanitized(name, config, weights):
    model = build(name, config)
    weights = {key: mx.array(value) for key, value in weights.items()}
    return model.sanitize(weights) if hasattr(model, "sanitize") else weights


def require_same(made, wanted, form):
    """What sanitize makes of a form must be the model's parameters."""
    if made.keys() != wanted.keys():
        odd = sorted(made.keys() ^ wanted.keys())
        raise Unsure(f"mlx-lm does not make all parameters of {form}: {odd[0]}")
    for key, value in wanted.items():
        if not (made[key].shape == value.shape
                and mx.array_equal(made[key], value).item()):
            raise Unsure(f"mlx-lm makes other values of {key} in {form}")


def variants(name, config):
    """The config, and each that has one switch turned, one number 0, 1 or
    null, or one word another, of those that mlx-lm builds."""
    found, forms = [config], set()

    def try_with(path, value):
        changed = copy.deepcopy(config)
        inner = changed
        for key in path[:-1]:
            inner = inner[key]
        inner[path[-1]] = value
        try:
            own = tree_flatten(build(name, changed).parameters())
        except Exception:
            return
        # Numbers that change no shape are of what is computed, not of tensors.
        form = (str(path) if isinstance(value, bool) else "",
                *((key, *array.shape) for key, array in own))
        if form not in forms and all(array.size > 0 for _, array in own):
            forms.add(form)
            found.append(changed)

    def walk(inner, path, fields):
        defaults = {key: getattr(field, "default", None)
                    for key, field in fields.items()}
        for key, value in (defaults | inner).items():
            if isinstance(value, bool):
                try_with([*path, key], not value)
            elif isinstance(value, int) and "num_hidden" not in key:
                for other in {0, 1, None} - {value}:
                    try_with([*path, key], other)
            elif isinstance(value, dict) and key == "text_config":
                walk(value, [*path, key], {})
            elif isinstance(value, str) and key != "model_type":
                try_with([*path, key], "other")
            elif value is None and key.endswith(("_size", "_dim", "_rank")):
                try_with([*path, key], 64)

    module = importlib.import_module(f"mlx_lm.models.{name}")
    walk(config, [], module.ModelArgs.__dataclass_fields__)
    if "text_config" in config:
        args = getattr(module, "TextArgs", getattr(module, "TextConfig", None))
        if args:
            inner = {key: field.default for key, field
                     in args.__dataclass_fields__.items()
                     if isinstance(field.default, bool)}
            for key, value in inner.items():
                now = config["text_config"].get(key, value)
                try_with(["text_config", key], not now)
    return found


def describe(model, names):
    """Of each tensor what it is, as words."""
    leaves = dict(tree_flatten(
        model.leaf_modules(), is_leaf=lambda m: hasattr(m, "parameters")))
    predicate = getattr(model, "quant_predicate", None)
    casts = getattr(model, "cast_predicate", lambda _: True)
    words = {}
    for name, value in names.items():
        path, _, part = name.rpartition(".")
        module = leaves.get(path)
        keeps = "" if casts(name) else " keeps_type"
        if part not in ("weight", "bias") or not hasattr(
                module, "to_quantized"):
            thin = " thin" if value.ndim == 3 and value.shape[-1] == 1 else ""
            words[name] = f"parameter {value.ndim}{keeps}{thin}"
            continue
        if keeps:
            raise Unsure(f"{name} is a matrix that no cast changes")
        if part == "bias":
            words[name] = f"bias {value.ndim}"
            continue
        kind = "embedding" if "Embedding" in type(module).__name__ else "linear"
        words[name] = f"{kind} {value.ndim}" + answer(
            predicate(path, module) if predicate else True, path)
    return words


def answer(said, path):
    if said is True:
        return ""
    if not said:
        return " kept"
    odd = said.keys() - {"group_size", "bits", "mode"}
    if odd or said.get("mode", "affine") != "affine":
        raise Unsure(f"{path} is quantized in a way of its own")
    return f" {said['bits']}:{said.get('group_size', 64)}"


def quantized(name, config):
    """What mlx-lm makes of a model; Unsure where it can't, or can't run it."""
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            model, _ = quantize_model(build(name, config), dict(config), 32, 4)
    except Exception as error:
        raise Unsure("mlx-lm's own quantization of it fails") from error
    try:
        mx.eval(model(mx.array([[1, 2, 3]])))
    except Exception as error:
        raise Unsure("mlx-lm can't run it quantized") from error
    return model


def check_quantizes(name, config, words):
    """mlx-lm makes of each matrix weight, scales and biases, and of nothing
    else."""
    model = quantized(name, config)
    have = {key for key, _ in tree_flatten(model.parameters())}
    wanted = set(words)
    for key, value in tree_flatten(build(name, config).parameters()):
        packed = words[key].split()[0] in ("linear", "embedding")
        if packed and "kept" not in words[key] and value.shape[-1] % 32 == 0:
            path = key.removesuffix(".weight")
            wanted |= {path + ".scales", path + ".biases"}
    if have != wanted:
        raise Unsure(f"{sorted(have ^ wanted)[0]} is there in one form only")


def merge(seen):
    """By patterns what the tensors of all forms are; numbers behind a layer's
    own are part of a pattern only where they matter."""
    loose, strict = {}, {}
    for words in seen:
        for name, word in words.items():
            loose.setdefault(pattern_of(name), set()).add(word)
            strict.setdefault(pattern_of(name, 1), set()).add(word)
    table = {}
    for pattern, word in strict.items():
        if len(loose[pattern_of(pattern)]) == 1:
            table[pattern_of(pattern)] = min(word)
        elif len(word) == 1:
            table[pattern] = min(word)
        else:
            table[pattern] = beside(pattern, word, seen)
    return table


def beside(pattern, words, seen):
    """The word for matrices that some layers leave as they are: by another
    tensor that stands beside them there, and in no other layer."""
    words = sorted(words, key=len)
    if len(words) == 2 and words[1] == words[0] + " kept":
        own = pattern.rpartition(".")[0].rpartition(".")[0]
        there = {pattern_of(name, 1).removeprefix(own + ".")
                 for form in seen for name in form
                 if pattern_of(name, 1).startswith(own + ".")}
        for other in sorted(there):
            if all((fill(own, numbers(name)) + "." + other in form)
                   == word.endswith(" kept")
                   for form in seen for name, word in form.items()
                   if pattern_of(name, 1) == pattern):
                return f"{words[0]} kept_beside:{other}"
    raise Unsure(f"what {pattern} is depends on the layer")


def layers_of(spec, configs, seen):
    """(path of the layers, key of their count)"""
    key = spec.get("layers", "num_hidden_layers")
    key = key if key in configs[0] else "text_config." + key
    paths = {}
    for name in seen[0]:
        if "*" in pattern_of(name):
            path = pattern_of(name).split(".*")[0]
            paths.setdefault(path, []).append(numbers(name)[0])
    count = value_of(configs[0], key)
    fit = [p for p, found in paths.items() if set(found) == set(range(count))]
    if not fit:
        raise Unsure("its layers are not counted by " + key)
    return max(fit, key=lambda path: len(paths[path])), key


def always(seen, table, path, configs, key):
    """Patterns of which no form lacks one."""
    there = set()
    for pattern in table:
        def wanted(config):
            if "*" not in pattern:
                return [pattern]
            return [fill(pattern, [i]) for i in range(value_of(config, key))]
        if pattern.count("*") > 1 or ("*" in pattern and not
                                      pattern.startswith(path + ".*")):
            continue
        if all(name in words for words, config in zip(seen, configs)
               for name in wanted(config)):
            there.add(pattern)
    return there


def companions(seen, path):
    """Patterns of a layer's tensors that the first form has, by number of those
    that a layer has all of or none, in every form. What takes two switches may
    be so by chance."""
    there = {}
    for number, words in enumerate(seen):
        for name in words:
            pattern = pattern_of(name, 1)
            if pattern.startswith(path + ".*"):
                there.setdefault(pattern, set()).add(
                    (number, numbers(name)[0]))
    groups = {}
    for pattern, where in sorted(there.items()):
        groups.setdefault(frozenset(where), []).append(pattern)
    several = [group for where, group in groups.items()
               if len(group) > 1 and any(form == 0 for form, _ in where)]
    return {pattern: number for number, group in enumerate(several)
            for pattern in group}


def needed(name, config, patterns):
    """Of those outside the layers, which mlx-lm can't load without."""
    own = tagged(build(name, config))
    found = set()
    for pattern in patterns:
        if "*" in pattern:
            found.add(pattern)
            continue
        model = build(name, config)
        rest = {k: v for k, v in own.items() if k != pattern}
        try:
            if hasattr(model, "sanitize"):
                rest = model.sanitize(rest)
            model.load_weights(list(rest.items()), strict=True)
        except Exception:
            found.add(pattern)
    return found


def tie_of(name, config):
    """The switch by which the embedding is the head, and the head's names."""
    for key in TIES:
        outer, _, last = key.rpartition(".")
        if outer and outer not in config:
            continue

        def with_tie(value):
            changed = copy.deepcopy(config)
            inner = changed[outer] if outer else changed
            inner.pop(last, None)
            if value is not None:
                inner[last] = value
            return changed

        def names(value):
            try:
                return set(tagged(build(name, with_tie(value))))
            except Exception:
                return None
        tied, untied = names(True), names(False)
        if tied is None or untied is None or tied == untied:
            continue
        head = sorted(untied - tied)
        if tied - untied or any(numbers(h) for h in head):
            raise Unsure(f"{key} changes more than the head")
        own = tagged(build(name, with_tie(True)))
        junk = {h: mx.zeros((384, 64)) for h in head}
        result = sanitized(name, with_tie(True), own | junk)
        quantized(name, with_tie(False))
        try:
            quantized(name, with_tie(True))
            runs = True
        except Unsure:
            runs = False
        return {"key": key, "default": names(None) == tied, "head": head,
                "runs": runs,
                "dropped": not any(h in result for h in head)}
    return None


def drops_of(name, config, path, count):
    own = tagged(build(name, config))

    def drops(names):
        for junk in names:
            try:
                result = sanitized(name, config, own | {junk: mx.ones((2, 2))})
            except Exception:
                return False
            if result.keys() != own.keys():
                return False
        return True
    found = []
    for pattern, junk in DROPS.items():
        if any(old.startswith("*") and old[1:] in pattern for old in found):
            continue
        if drops(junk):
            found.append(pattern)
    beyond = drops([f"{path}.{count}.mlp.x.weight", f"{path}.{count + 1}.x"])
    return found, beyond


def parts_of(rules, applied):
    """Rules that hold by themselves, too: all stacks together, and else all
    that one tensor is made to. None where one rule looks at the others."""
    if any("where_renamed" in rule for rule in rules):
        return []
    groups = {}
    for number in sorted(applied):
        rule = rules[number]
        groups.setdefault(
            "count" if "count" in rule else rule["from"], []).append(rule)
    return groups.values()


def recipes_hold(model, words, path, count):
    """Whether mlx_lm.convert's mixed recipes see the layers as the first number
    in a path has them."""
    layers = getattr(model, "layers", None)
    down = [k for k, _ in model.named_modules() if "down_proj" in k]
    if layers is None or len(layers) != count or not down:
        return False
    for at, part in enumerate(down[0].split(".")):
        if part.isdigit():
            break
    for name in words:
        parts = name.removesuffix(".weight").split(".")
        first = numbers(name)[0] if numbers(name) else 0
        if words[name].startswith("parameter") or len(parts) <= at:
            continue
        if not parts[at].isdigit() or int(parts[at]) != first:
            return False
    return True


def forms(name, spec):
    """The configs that a class is tried with, its own first."""
    base = spec["config"]
    configs = variants(name, base)
    for change in spec.get("variants", []):
        configs.append(base | change if "text_config" not in base else {
            **base, "text_config": base["text_config"] | change})
    return [config for config in configs
            if not any(config.get(key) for key in spec.get("not_where", {}))]


def entry(name, spec, with_axes=True):
    """What the table says of a class."""
    if "not_taken" in spec:
        raise Unsure(spec["not_taken"])
    base = spec["config"]
    configs = forms(name, spec)
    never = dict(spec.get("not_where", {}))
    seen, used, models = [], set(), []
    for config in configs:
        model = build(name, config)
        models.append(model)
        own = tagged(model)
        words = describe(model, own)
        seen.append(words)
        rules = expand_prefix(spec, own)
        require_same(sanitized(name, config, own), own, "its own form")
        hub, applied = hub_layout(rules, own, config)
        require_same(sanitized(name, config, hub), own, "the hub's form")
        used |= applied
        for alone in parts_of(rules, applied) if config is base else []:
            hub, _ = hub_layout(alone, own, config)
            require_same(sanitized(name, config, hub), own,
                         f"{alone[0]['from']} alone")
    check_quantizes(name, base, seen[0])
    table = merge(seen)
    path, key = layers_of(spec, configs, seen)
    there = needed(name, base, always(seen, table, path, configs, key))
    tie = tie_of(name, base)
    head = set(tie["head"]) if tie else set()
    rules = expand_prefix(spec, {k: 0 for words in seen for k in words})
    dropped, beyond = drops_of(name, base, path, value_of(base, key))
    kinds, group = {}, companions(seen, path)
    for pattern, word in sorted(table.items()):
        word += f" with:{group[pattern]}" if pattern in group else ""
        word += (" untied" if pattern in head else
                 " always" if pattern in there else "")
        kinds.setdefault(word, []).append(pattern)
    made = {"layers": path, "count": key, "beyond": beyond,
            "recipes": all(recipes_hold(m, w, path, value_of(c, key))
                           for m, w, c in zip(models, seen, configs)),
            "tensors": kinds, "rules": [r for i, r in enumerate(rules)
                                        if i in used], "dropped": dropped}
    if tie:
        made["tied"] = {k: tie[k] for k in ("key", "default", "dropped")}
        if not tie["runs"]:
            never[tie["key"]] = "mlx-lm can't run it quantized"
    made["not_where"] = never
    made["keys"] = keys_of(name, base)
    if with_axes:
        made["axes"], made["untried"] = axes(build, name, configs, shapes_of)
    return made


def keys_of(name, config):
    """JSON pointers to what mlx-lm can't load a config without."""
    module = importlib.import_module(f"mlx_lm.models.{name}")
    inner = getattr(module, "TextArgs", getattr(module, "TextConfig", None))
    found = []
    for place, args in (("", module.ModelArgs), ("/text_config", inner)):
        if args is None or (place and "text_config" not in config):
            continue
        for field in dataclasses.fields(args):
            changed = copy.deepcopy(config)
            own = changed["text_config"] if place else changed
            if not field.init or own.pop(field.name, None) is None:
                continue
            try:
                build(name, changed)
            except Exception:
                if (field.default is dataclasses.MISSING
                        and field.default_factory is dataclasses.MISSING):
                    found.append(f"{place}/{field.name}")
    return found


def entries(with_axes):
    made = {}
    for name in others():
        try:
            if name not in CLASSES:
                raise Unsure("nobody has looked at it yet")
            made[name] = entry(name, CLASSES[name], with_axes)
        except Unsure as why:
            made[name] = {"not_taken": str(why)}
    return made


def aliases():
    """(type, architecture or empty, class)"""
    names = set(others())
    return sorted([(a, "", b) for a, b in MODEL_REMAPPING.items() if b in names]
                  + [(a, b, c) for (a, b), c
                     in MODEL_ARCHITECTURE_REMAPPING.items() if c in names])


def in_lines(made):
    """JSON with a line for each tensor and rule."""
    text = json.dumps(made, indent=1)
    text = re.sub(r"\"keys\": \[.*?\]", lambda m: re.sub(
        r"\s*\n\s*", " ", m[0]), text, flags=re.DOTALL)
    return re.sub(r"\{\s*(\"from\"[^{}]*?)\s*\}",
                  lambda m: "{" + re.sub(r"\s*\n\s*", " ", m[1]) + "}", text)


def table():
    version = importlib.metadata.version("mlx_lm")
    lines = [f"// How the classes of mlx-lm {version} that are no family's name",
             "// and make their tensors. Made by tools/class_names.py: change",
             "// nothing here.", "// clang-format off", "",
             "constexpr ClassText kClasses[] = {"]
    for name, made in entries(True).items():
        lines.append(f'    {{"{name}", R"json({in_lines(made)})json"}},')
    lines += ["};", "", "constexpr ClassAlias kClassAliases[] = {"]
    lines += [f'    {{"{a}", "{b}", "{c}"}},' for a, b, c in aliases()]
    return "\n".join(lines + ["};", ""])


def check_all_but_axes():
    """Prints the classes whose entry is another, and fails if there are any."""
    known = {name: json.loads(text) for name, text in re.findall(
        r'\{"([\w.-]+)", R"json\((.*?)\)json"\}', TABLE.read_text(), re.DOTALL)}
    for made in known.values():
        made.pop("axes", None)
        made.pop("untried", None)
    now = json.loads(json.dumps(entries(False)))
    wrong = [name for name in sorted(known | now)
             if known.get(name) != now.get(name)]
    print("\n".join(f"{name} has changed" for name in wrong))
    return 1 if wrong else 0


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--but-axes", action="store_true",
                        help="with --check: leave out what takes longest")
    options = parser.parse_args()
    if not options.check:
        TABLE.parent.mkdir(exist_ok=True)
        TABLE.write_text(table())
        return 0
    if options.but_axes:
        return check_all_but_axes()
    change = list(difflib.unified_diff(
        TABLE.read_text().splitlines(), table().splitlines(), str(TABLE),
        "mlx-lm", lineterm=""))
    print("\n".join(change))
    return 1 if change else 0


if __name__ == "__main__":
    sys.exit(main())
