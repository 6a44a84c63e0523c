#!/usr/bin/env python3
"""Makes damaged files of training rows, for tests of robustness.

    fuzz_rows.py OUT [--seed 1] [--count 80]

OUT gets a folder case000, case001, ... each with one file of rows (.json,
.jsonl, .parquet, .txt), and the same seed gives the same cases. Any of them
may still be valid: a flipped bit of a text is another text.
"""

import argparse
import io
import json
import random
from pathlib import Path

import fuzz_inputs

SENTENCE = "the cat and the dog sat on the mat and looked at the sea. "
HOSTILE = fuzz_inputs.RAW + [
    '{"text": 7}', '{"text": null}', '{"text": "\\ud800"}', '{"text": "x"',
    '{"text": "\\u0000"}', '{"messages": {}}', '{"messages": []}',
    '{"messages": [{"role": "user"}]}', '{"messages": [7]}',
    '{"messages": [{"role": "user", "content": [{"type": "image"}]}]}',
    '{"messages": [{"role": "\\u001b[31m\\n", "content": "x"}]}',
    '{"prompt": "x"}', '{"prompt": [], "completion": {}}', '{"other": "x"}',
    '{"instruction": 1, "output": "x"}', '"x"', "null", "3", "\ufeff{}"]


def rows():
    return [{"text": SENTENCE * (i % 4 + 1)} for i in range(24)]


def chats():
    say = lambda role: {"role": role, "content": SENTENCE}
    return [{"messages": [say("user"), say("assistant")]} for _ in range(24)]


def lines(values):
    return "\n".join(map(json.dumps, values)).encode()


def parquet(values):
    import pyarrow
    from pyarrow import parquet

    out = io.BytesIO()
    parquet.write_table(pyarrow.Table.from_pylist(values), out)
    return out.getvalue()


def files():
    whole = {"rows.json": json.dumps(rows()).encode(),
             "rows.jsonl": lines(rows()), "chat.jsonl": lines(chats()),
             "rows.txt": (SENTENCE * 60).encode()}
    try:
        whole |= {"rows.parquet": parquet(rows()),
                  "chat.parquet": parquet(chats())}
    except ImportError:
        pass
    return whole


def damaged(rng, name, data):
    """(what was done, the damaged bytes)."""
    what = rng.choice(["cut", "flipped", "hostile", "noise"])
    if what == "cut":
        at = rng.choice([0, 1, 8, len(data) - 1, rng.randrange(len(data))])
        return f"{name} cut to {at} bytes", data[:at]
    if what == "flipped":
        count = rng.choice([1, 4, 64, 1000])
        # The schema and the places of a Parquet file stand at its end.
        begin = rng.choice([0, max(0, len(data) - 800)])
        return (f"{name}: {count} bits flipped",
                fuzz_inputs.flip(rng, data, begin, len(data), count))
    if what == "noise":
        return f"{name} is noise", rng.randbytes(5000)
    row = rng.choice(HOSTILE)
    if name.endswith(".json"):
        text = rng.choice([row, "[" + row + "]"])
        return f"{name} is {text[:60]!r}", text.encode()
    if name.endswith(".jsonl"):
        return f"{name} with {row[:60]!r}", data + b"\n" + row.encode()
    return f"{name} with {row[:60]!r}", data[:300] + row.encode() + data[300:]


def make(out, seed, count):
    whole = sorted(files().items())
    cases = []
    for i in range(count):
        rng = random.Random(f"{seed}-{i}")
        name, data = whole[i % len(whole)]
        what, data = damaged(rng, name, data)
        case = f"case{i:03}"
        (out / case).mkdir(parents=True)
        (out / case / name).write_bytes(data)
        cases.append({"name": case, "file": name, "damage": "rows",
                      "what": what, "may_be_valid": True})
    return cases


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=80)
    options = parser.parse_args()
    make(options.out, options.seed, options.count)


if __name__ == "__main__":
    main()
