"""Which numbers of config.json are the axes of a class's parameters.

Nothing is read out of the class's code: models of it are built, small ones with
each number of their config changed by itself, and all of them at random. An
axis is said to be a product of keys only where it is that in every model that
has them, so that a checkpoint in which it is another number is one that mlx-lm
can't load."""

import copy
import importlib
import itertools
import random

from class_names_rules import pattern_of

TRIES = 3  # at random, of each form
# What keys of such names say is of what a model computes, and of no shape.
COMPUTED = ("full_attention_idx", "model_type", "partial_rotary_factors", "query_pre_attn_scalar",
            "rope_parameters", "rope_scaling", "routed_scaling_factor",
            "swiglu_limits", "swiglu_limits_shared", "yarn_only_types")
COMPUTED_ENDS = ("_logit_softcapping", "_value_scale", "_token_id")
SIZES = ("_size", "_dim", "_rank", "_heads", "_experts")


def is_count(value):
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def places(config, path=()):
    """(path, value) of all that stands in a config, lists too."""
    items = (config.items() if isinstance(config, dict)
             else enumerate(config) if isinstance(config, list) else ())
    for key, value in items:
        yield (*path, key), value
        yield from places(value, (*path, key))


def changed(config, changes):
    made = copy.deepcopy(config)
    for path, value in changes.items():
        inner = made
        for key in path[:-1]:
            inner = inner[key]
        inner[path[-1]] = value
    return made


def others_of(value):
    """What else a value might be: of a number no multiple alone, since a class
    may round up."""
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, int) and value > 0:
        return [value + 1, value * 2, value * 3]
    if isinstance(value, float):
        return [value * 2, value * 0.5]
    if isinstance(value, list) and len(value) > 1:
        return [value[::-1], *[[one] * len(value) for one in
                               [copy.deepcopy(v) for v in value]]]
    return []


def fields_of(name, config):
    """The names and defaults of all keys that the class reads, by place."""
    module = importlib.import_module(f"mlx_lm.models.{name}")
    inner = getattr(module, "TextArgs", getattr(module, "TextConfig", None))
    for place, args in (((), module.ModelArgs), (("text_config",), inner)):
        if args is not None and (not place or "text_config" in config):
            for key, field in args.__dataclass_fields__.items():
                yield (*place, key), getattr(field, "default", None)


def models(build, name, forms, shapes):
    """(config, shapes by name) of all models that are tried, whether each
    number could be changed, and the keys that the class reads and that no model
    was tried with: any axis may depend on those."""
    found, free, untried = [], True, []

    def try_with(config):
        try:
            own = shapes(build(name, config))
        except Exception:
            return False
        found.append((config, own))
        return True

    def shapes_with(path, value):
        before = len(found)
        try_with(changed(forms[0], {path: value}))
        return [own for _, own in found[before:]]
    chance = random.Random(name)
    for number, form in enumerate(forms):
        # Numbers that the class has by itself are changed, too.
        given = {path: value for path, value in fields_of(name, form)
                 if isinstance(value, (int, float)) and value and
                 value_at(form, path) is None}
        whole = changed(form, given)
        try_with(form)
        if not try_with(whole):
            whole = form
        all_places = [(path, value) for path, value in places(whole)
                      if others_of(value)]
        if number == 0:
            for path, value in all_places:
                worked = [try_with(changed(whole, {path: other}))
                          for other in others_of(value)]
                free = free and any(worked)
        for _ in range(TRIES):
            some = chance.sample(all_places, min(4, len(all_places)))
            try_with(changed(whole, {
                path: chance.choice(others_of(value))
                for path, value in some if not any(
                    path != p and path[:len(p)] == p for p, _ in some)}))
    for path, default in fields_of(name, forms[0]):
        key = path[-1]
        if (isinstance(default, (int, float, str)) or key in COMPUTED
                or key.endswith(COMPUTED_ENDS)
                or any(value_at(form, path) is not None for form in forms)):
            continue
        other = [own for value in (2, 64, 96) for own in shapes_with(path, value)
                 if key.endswith(SIZES)]
        if all(own == found[0][1] for own in other):
            untried.append(".".join(path))
    return found, free, untried


def value_at(config, path):
    for part in path:
        if not isinstance(config, dict) or part not in config:
            return None
        config = config[part]
    return config


def number_at(config, key):
    value = value_at(config, key.split("."))
    return value if is_count(value) else None


def product(config, keys):
    made = 1
    for key in keys:
        value = number_at(config, key)
        if value is None:
            return None
        made *= value
    return made


def axes(build, name, forms, shapes):
    """What is known of each parameter's axes, "2*intermediate_size - hidden_size",
    by its pattern, and the keys with which nothing is known. A factor of 2 or 3
    only where all numbers could be changed, since it may be one of those."""
    found, free, untried = models(build, name, forms, shapes)
    keys = sorted({".".join(path) for config, _ in found
                   for path, value in places(config)
                   if is_count(value) and all(isinstance(p, str) for p in path)})
    products = [(key,) for key in keys] + list(
        itertools.combinations_with_replacement(keys, 2))
    seen = {}
    for config, own in found:
        for tensor, shape in own.items():
            for axis, extent in enumerate(shape):
                seen.setdefault((pattern_of(tensor), axis, len(shape)), {})[
                    id(config), extent] = (config, extent)
    made, dims = {}, {}
    for (pattern, axis, size), samples in sorted(seen.items()):
        words = made.setdefault(pattern, {})
        if dims.setdefault(pattern, size) != size:
            dims[pattern] = 0  # of two forms
            words.clear()
            continue
        for factor, keys_of in itertools.product(
                (1, 2, 3) if free else (1,), products):
            if holds(list(samples.values()), factor, keys_of):
                words[axis] = "*".join(
                    [*([str(factor)] if factor > 1 else []), *keys_of])
                break
    return {pattern: " ".join(words.get(axis, "-")
                              for axis in range(dims[pattern]))
            for pattern, words in made.items() if words}, untried


def holds(samples, factor, keys):
    """Whether an axis is that wherever the keys are there, and more than one
    number."""
    extents = set()
    for config, extent in samples:
        wanted = product(config, keys)
        if wanted is not None:
            if wanted * factor != extent:
                return False
            extents.add(extent)
    return len(extents) > 2
