"""Rules by which mlx-lm's parameters come from tensors of the hub, and how a
model's parameters look in the hub's form.

A rule has the names of both, `from` and `to`. A '*' stands for a number, the
same in both; a '#' in `from` for the experts that are stacked (`count` of
them), in `to` for the equal parts that rows are cut into (`parts`). Beside it:

    transposed     the last two axes change places, at last
    width_first    [channels, 1, width] becomes [channels, width, 1]
    split          rows are seen as [split, n] first; first, end: of these n
    half           0 or 1: the first or second half of the last axis, first
    row            a vector becomes [n, row]
    add            is added to each value
    where_renamed  only where a tensor of the checkpoint is renamed

Numbers are given as they are or by the key of config.json that has them."""

import re

import mlx.core as mx


class Unsure(Exception):
    """Why a class is not taken."""


def numbers(name):
    return [int(part) for part in name.split(".") if part.isdigit()]


def pattern_of(name, count=None):
    """The name with a '*' for its first `count` numbers, or for all."""
    parts = name.split(".")
    for at, part in enumerate(parts):
        if part.isdigit() and count != 0:
            parts[at] = "*"
            count = None if count is None else count - 1
    return ".".join(parts)


def fill(pattern, values, mark="*"):
    for value in values:
        pattern = pattern.replace(mark, str(value), 1)
    return pattern


def value_of(config, key):
    if not isinstance(key, str):
        return key
    for part in key.split("."):
        config = config[part]
    return config


def expand_prefix(spec, own):
    """The class's rules, and one for each tensor whose beginning mlx-lm adds
    itself."""
    rules = list(spec.get("rules", []))
    prefix = spec.get("adds")
    if not prefix:
        return rules
    made = {rule["to"] for rule in rules}
    for pattern in sorted({pattern_of(name) for name in own}):
        if pattern.startswith(prefix) and pattern not in made:
            rules.append({"from": pattern.removeprefix(prefix), "to": pattern})
    return rules


def matching(rule, own):
    """(parameter, its numbers, its part) of all that a rule makes."""
    text = re.escape(rule["to"]).replace(r"\*", r"(\d+)")
    found = re.compile(text.replace(r"\#", r"(?P<part>\d+)").replace(
        "#", r"(?P<part>\d+)") + "$")
    for name in own:
        match = found.match(name)
        if match:
            part = match.groupdict().get("part")
            rest = list(match.groups())
            if part is not None:
                rest.remove(part)
            yield name, rest, part


def turned_back(rule, value, config):
    if rule.get("transposed"):
        value = value.swapaxes(-1, -2)
    if rule.get("width_first"):
        value = value.moveaxis(1, 2)
    if "row" in rule:
        value = value.reshape(-1)
    return value - rule.get("add", 0)


def hub_layout(rules, own, config):
    """The parameters as the rules say that the hub has them, and the numbers
    of the rules that had something to do."""
    hub, pieces, applied, gone = {}, {}, set(), set()
    for number, rule in enumerate(rules):
        for name, values, part in matching(rule, own):
            source = fill(rule["from"], values)
            value = turned_back(rule, own[name], config)
            gone.add(name)
            applied.add(number)
            if "count" in rule:
                if value.shape[0] != value_of(config, rule["count"]):
                    raise Unsure(f"{rule['count']} is not {name}'s count")
                for e in range(value.shape[0]):
                    hub[fill(source, [e], "#")] = mx.contiguous(value[e])
            elif {"split", "half", "parts"} & rule.keys():
                at = int(part or rule.get("half", number))
                pieces.setdefault(source, (rule, {}))[1][at] = value
            else:
                hub[source] = value
    for source, (rule, parts) in pieces.items():
        axis = 1 if "split" in rule else -1 if "half" in rule else 0
        value = mx.concatenate([parts[at] for at in sorted(parts)], axis=axis)
        hub[source] = value.reshape(-1, value.shape[-1]) if axis == 1 else value
    left = {name: value for name, value in own.items() if name not in gone}
    return {name: mx.contiguous(v) for name, v in (left | hub).items()}, applied
