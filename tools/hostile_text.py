"""Hostile templates, tokenizers, rows and Parquet files, for tests of limits.

Each kind is a function of a fuzz_inputs.Case: it makes the case's folder a
model folder with something hostile in it, and returns what it did. Rows stand
in the folder's data/. tools/hostile_inputs.py makes whole sets of them.
"""

import io
import json

SENTENCE = "the cat and the dog sat on the mat and looked at the sea. "
MANY = 10**9


def grown(rng, start, step, use):
    """A template that makes a value larger and larger, then uses it."""
    times = rng.choice([20, 40, 60, 200])
    return (f"{{% set n = namespace(v={start}) %}}"
            f"{{% for i in range({times}) %}}{{% set n.v = {step} %}}"
            f"{{% endfor %}}{use}")


USES = ["{{ n.v }}", "{{ n.v | length }}", "{{ n.v == n.v }}",
        "{{ n.v | tojson }}", "{{ n.v | sort }}", "{{ n.v | unique | list }}",
        "{{ n.v | pprint }}", "{{ {n.v: 1} }}", "{{ n.v in [n.v] }}",
        "{{ n.v | string | length }}", "{{ n.v | join('x') }}",
        "{{ n.v < n.v }}", "{{ n.v | list | last }}", "{{ n.v | upper }}",
        "{{ n.v | replace('a', 'b') }}", "{{ n.v ~ n.v }}", "{{ n.v * 9 }}",
        "{{ n.v | sum }}", "{{ n.v[::-1] }}", "{{ n.v | max }}",
        "{% for x in n.v %}{{ x }}{% endfor %}", "{{ n.v | batch(2) | list }}",
        "{{ n.v | groupby(0) }}", "{{ n.v | reverse }}", "{{ n.v | dictsort }}",
        "{{ n.v.split('a') | length }}", "{{ n.v.count('a') }}",
        "{{ n.v | trim }}", "{{ n.v | urlencode }}", "{{ n.v | escape }}"]


def doubled_lists(rng):
    step = rng.choice(["[n.v, n.v]", "n.v + n.v", "[n.v] * 9",
                       "[n.v, [n.v], {'k': n.v}]"])
    return grown(rng, "['a']", step, rng.choice(USES))


def doubled_strings(rng):
    step = rng.choice(["n.v + n.v", "n.v ~ n.v", "n.v * 3",
                       "n.v | replace('a', n.v)", "[n.v, n.v] | join",
                       "n.v.join([n.v, n.v, n.v])", "n.v.replace('a', 'aa')",
                       "'%s%s' % (n.v, n.v)", "'{0}{0}'.format(n.v)",
                       "n.v | tojson | tojson", "n.v | indent(9)"])
    return grown(rng, "'aa\\na'", step, rng.choice(USES))


def deep_values(rng):
    times = rng.choice([500, 5000, 100_000])
    step = rng.choice(["[n.v]", "{'k': n.v}", "namespace(v=n.v)",
                       "dict(k=n.v)", "[n.v] + []"])
    return (f"{{% set n = namespace(v=1) %}}{{% for i in range({times}) %}}"
            f"{{% set n.v = {step} %}}{{% endfor %}}{rng.choice(USES)}")


def widths(rng):
    wide = rng.choice([10**7, MANY, 2**31, 2**63, 2**64, -MANY])
    return rng.choice([
        "{{ '%NUMd' % 1 }}", "{{ '{:NUM}'.format('x') }}",
        "{{ '%.NUMf' % 1.5 }}", "{{ '{:.NUMf}'.format(1.5) }}",
        "{{ 'x'.center(NUM) }}", "{{ 'x'.ljust(NUM) }}", "{{ 'x'.zfill(NUM) }}",
        "{{ 'x' | center(NUM) }}", "{{ 'x\ny' | indent(NUM) }}",
        "{{ 'x' * NUM }}", "{{ [0] * NUM }}", "{{ 'x\t'.expandtabs(NUM) }}",
        "{{ lipsum(NUM) }}", "{{ 'x' | format(NUM) }}", "{{ 2 ** NUM }}",
        "{{ 1.5 | round(NUM) }}", "{{ 'a b' | wordwrap(NUM) }}",
        "{{ 'x' | truncate(NUM) }}", "{{ [1][NUM] }}", "{{ 'x'[-NUM:NUM] }}",
        "{{ [1] | batch(NUM, 'x') | list }}",
        "{{ [1, 2] | slice(NUM) | list }}",
        "{{ {'a': 1} | tojson(indent=NUM) }}",
        "{{ strftime_now('%NUMY') }}"]).replace("NUM", str(wide))


def ranges(rng):
    size = rng.choice([10**5, 10**7, MANY, 10**12, 2**63])
    inner = f"range({size})"
    return rng.choice([
        "{{ R | list | length }}", "{{ R | sum }}", "{{ R | sort }}",
        "{{ R | join }}", "{{ R | reverse | list }}", "{{ R | tojson }}",
        "{{ R }}", "{{ R | map('string') | join }}", "{{ -1 in R }}",
        "{{ R == R }}", "{{ R | select('odd') | list | length }}",
        "{{ R | unique | list }}", "{{ R | min }}", "{{ R | random }}",
        "{% for a in R %}{% for b in R %}{% endfor %}{% endfor %}",
        "{% for a in R %}{{ a }}{% endfor %}",
        "{% for a in R recursive %}{{ loop(R) }}{% endfor %}",
        "{{ R | batch(3) | list | length }}", "{{ R | map('abs') | max }}",
        "{{ R | groupby(0) }}", "{{ dict(a=R) | tojson }}",
    ]).replace("R", inner)


def recursion(rng):
    return rng.choice([
        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
        "{% macro m() %}{{ m() }}{{ m() }}{% endmacro %}{{ m() }}",
        "{% macro a(x) %}{{ b(x ~ x) }}{% endmacro %}"
        "{% macro b(x) %}{{ a(x ~ x) }}{% endmacro %}{{ a('xx') }}",
        "{% macro m(x) %}{{ m([x, x]) }}{% endmacro %}{{ m(1) }}",
        "{% macro m() %}{{ caller() }}{% endmacro %}"
        + "{% call m() %}" * 300 + "x" + "{% endcall %}" * 300,
        "{% for x in [[1]] recursive %}{{ loop([x, x]) }}{% endfor %}",
        "{% set n = namespace() %}{% set n.n = n %}{{ n }}",
        "{% set n = namespace() %}{% set n.n = [n] %}{{ n | tojson }}",
        "{% set n = namespace() %}{% set n.n = [n] %}{{ n == n.n }}",
        "{% include 'x' %}", "{% include '../../../etc/passwd' %}",
        "{% extends 'chat_template.jinja' %}", "{% import 'x' as y %}",
        "{% from '/etc/passwd' import x %}", "{% include ['a', 'b'] %}",
        "{% block a %}{{ self.a() }}{% endblock %}",
        "{{ raise_exception('x' * 100000) }}",
        "{{ raise_exception('\\n\\u001b[31m') }}"])


# before, what is repeated, between, what is repeated, behind
DEEP_SYNTAX = [
    ("{{ ", "(", "1", ")", " }}"), ("{{ ", "[", "", "]", " }}"),
    ("{{ ", "not ", "1", "", " }}"), ("{{ ", "-", "1", "", " }}"),
    ("{{ ", "1 + ", "1", "", " }}"), ("{{ x", ".a", "", "", " }}"),
    ("{{ x", "[0]", "", "", " }}"), ("{{ 'x'", " | upper", "", "", " }}"),
    ("{{ ", "a(", "", ")", " }}"), ("{{ ", "1 if 1 else ", "1", "", " }}"),
    ("", "{% if 1 %}", "", "{% endif %}", ""),
    ("{% if 0 %}", "{% elif 0 %}", "", "", "{% endif %}"),
    ("", "{% for a in [1] %}", "", "{% endfor %}", ""),
    ("", "{% set a = 1 %}", "", "", ""), ("{{ '", "\\", "n", "", "' }}"),
    ("", "{", "", "", ""), ("", "{{ ", "", "", ""), ("", "{# ", "", "", ""),
    ("", "{% raw %}", "", "", ""), ("", "x" * 100, "", "", ""),
    ("{{ 1", "0", "", "", " }}"), ("{{ {", "'a': {", "", "}", "} }}"),
    ("{{ ", "'a' in ", "'a'", "", " }}"), ("{{ x is ", "not ", "y", "", " }}")]


def syntax(rng):
    deep = rng.choice([200, 5000, 200_000])
    before, left, between, right, behind = rng.choice(DEEP_SYNTAX)
    return before + left * deep + between + right * deep + behind


TEMPLATES = [doubled_lists, doubled_strings, deep_values, widths, ranges,
             recursion, syntax]


def put_template(case, source):
    name = "tokenizer_config.json"
    config = case.json(name)
    if case.rng.random() < 0.5:
        config["chat_template"] = source
    else:
        config.pop("chat_template", None)
        case.write("chat_template.jinja", source)
    case.put_json(name, config)


def chats(count=24):
    def say(role):
        return {"role": role, "content": SENTENCE}
    return [{"messages": [say("user"), say("assistant")]}
            for _ in range(count)]


def lines(values):
    return "\n".join(map(json.dumps, values))


def template(case):
    make = case.rng.choice(TEMPLATES)
    source = make(case.rng)
    put_template(case, source)
    case.put_data("chat.jsonl", lines(chats()))
    return f"{make.__name__}: {source[:100]!r}"


REGEXES = ["(a+)+$", "(a|a)*b", "(?:a|aa)+b", "(\\w*)*\\d", "(.*)(.*)(.*)x",
           "(?=(a+))\\1{9}b", "((a{1,99}){1,99}){1,99}", "a{1,4294967295}",
           "[" * 5000, "(" * 5000 + ")" * 5000, "(?:" + "a|" * 50_000 + "b)",
           "\\p{L}" * 20_000, "(?<=a.*)b", "", "^", "(?!)", "\\", "(?R)",
           "(?:(?:(?:[^x]*)*)*)*x"]


def normalizer(rng):
    def double(pattern, count):
        return {"type": "Replace", "pattern": {"String": pattern},
                "content": pattern * count}
    many = rng.choice([
        lambda: {"type": "Sequence", "normalizers": [double("e", 2)] * 60},
        lambda: {"type": "Sequence", "normalizers": [double("e", 999)] * 4},
        lambda: double("e", 10**7),
        lambda: {"type": "Prepend", "prepend": "x" * 10**7},
        lambda: {"type": "Replace", "pattern": {"String": ""},
                 "content": "xx"},
        lambda: {"type": "Replace", "pattern": {"Regex": rng.choice(REGEXES)},
                 "content": "x" * 1000},
        lambda: {"type": "Sequence", "normalizers": [
            {"type": "Prepend", "prepend": "x"}] * 100_000},
        lambda: {"type": "Precompiled",
                 "precompiled_charsmap": "AAAA" * 1000}])
    return many()


def pre_tokenizer(rng):
    split = {"type": "Split", "pattern": {"Regex": rng.choice(REGEXES)},
             "behavior": rng.choice(["Isolated", "Removed", "Contiguous"]),
             "invert": rng.random() < 0.5}
    return rng.choice([
        split, split, split, {"type": "Sequence", "pretokenizers": [split] * 99},
        {"type": "Metaspace", "replacement": "xx", "prepend_scheme": "always"},
        {"type": "FixedLength", "length": 0}, {"type": "CharDelimiterSplit",
                                               "delimiter": "e"}])


def post_processor(rng):
    piece = {"SpecialToken": {"id": "[X]", "type_id": 0}}
    text = {"Sequence": {"id": "A", "type_id": 0}}
    count = rng.choice([1, 100_000])
    return rng.choice([
        {"type": "TemplateProcessing", "single": [text, piece] * count,
         "pair": [text], "special_tokens": {
             "[X]": {"id": "[X]", "ids": [7] * 1000, "tokens": ["x"] * 1000}}},
        {"type": "TemplateProcessing", "single": [text], "pair": [],
         "special_tokens": {}},
        {"type": "Sequence", "processors": [
            {"type": "ByteLevel", "add_prefix_space": True,
             "trim_offsets": True, "use_regex": True}] * 50_000},
        {"type": "BertProcessing", "sep": ["x", 2**32 - 1], "cls": ["y", 0]}])


def nested(key, kind, depth):
    text = '{"type":"Sequence","' + key + '":['
    return text * depth + '{"type":"' + kind + '"}' + "]}" * depth


def tokenizer(case):
    rng, name = case.rng, "tokenizer.json"
    loaded = case.json(name)
    what = rng.choice(["normalizer", "pre_tokenizer", "post_processor",
                       "decoder", "ids", "added", "padding", "truncation",
                       "deep", "model"])
    if what == "normalizer":
        loaded["normalizer"] = normalizer(rng)
    elif what == "pre_tokenizer":
        loaded["pre_tokenizer"] = pre_tokenizer(rng)
    elif what == "post_processor":
        loaded["post_processor"] = post_processor(rng)
    elif what == "decoder":
        loaded["decoder"] = rng.choice([
            {"type": "Replace", "pattern": {"String": "e"},
             "content": "e" * 10**7},
            {"type": "Sequence", "decoders": [{"type": "Fuse"}] * 50_000},
            {"type": "Strip", "content": "e", "start": MANY, "stop": MANY}])
    elif what == "ids":
        vocab = loaded["model"]["vocab"]
        for word in rng.sample(sorted(vocab), 3):
            vocab[word] = rng.choice([MANY, 2**31, 2**32 - 1, 2**32, 0])
    elif what == "added":
        count = rng.choice([1, 1000, 20_000])
        long = "the " * (200_000 // count)
        loaded["added_tokens"] += [
            {"id": 3072 + i if rng.random() < 0.9 else MANY,
             "content": rng.choice(["e", "", long, f"<{i}>"]),
             "single_word": False, "lstrip": True, "rstrip": True,
             "normalized": True, "special": rng.random() < 0.5}
            for i in range(count)]
    elif what == "padding":
        loaded["padding"] = {
            "strategy": {"Fixed": MANY}, "direction": "Right",
            "pad_to_multiple_of": rng.choice([None, 2**40]), "pad_id": 0,
            "pad_type_id": 0, "pad_token": "<pad>"}
    elif what == "truncation":
        loaded["truncation"] = {
            "direction": "Right", "max_length": rng.choice([0, 1, 2**60]),
            "strategy": "LongestFirst", "stride": rng.choice([0, 1, 2**60])}
    elif what == "model":
        loaded["model"] |= rng.choice([
            {"type": "Unigram", "unk_id": 2**40, "vocab": [["e", -1e308]] * 9},
            {"dropout": 2.0}, {"unk_token": "nowhere"}, {"fuse_unk": 7},
            {"continuing_subword_prefix": "x" * 10**6},
            {"end_of_word_suffix": "x" * 10**6}, {"vocab": {}, "merges": []},
            {"type": "WordLevel"}, {"type": "WordPiece",
                                    "max_input_chars_per_word": 2**60}])
    else:
        key, inner = rng.choice([("normalizers", "NFC"), ("decoders", "Fuse"),
                                 ("pretokenizers", "Whitespace")])
        field = {"normalizers": "normalizer", "decoders": "decoder",
                 "pretokenizers": "pre_tokenizer"}[key]
        loaded[field] = "HERE"
        text = json.dumps(loaded).replace('"HERE"', nested(
            key, inner, rng.choice([100, 126, 10_000, 300_000])))
        case.write(name, text)
        case.put_data("text.txt", SENTENCE * 100)
        return f"{name}: {field} nested deeply"
    case.put_json(name, loaded)
    case.put_data("text.txt", SENTENCE * 100 + "a" * 3000)
    return f"{name}: hostile {what}: {json.dumps(loaded.get(what))[:80]}"


def rows(case):
    """Long rows, deep rows, wide rows."""
    rng = case.rng
    size = rng.choice([2, 8, 24]) << 20
    deep = rng.choice([500, 100_000, 2_000_000])
    name, make = rng.choice([
        (".txt", lambda: "a" * size),
        (".txt", lambda: SENTENCE * (size // 58)),
        (".txt", lambda: "\0" * size), (".txt", lambda: "\n" * size),
        (".txt", lambda: "\u0301" * (size // 2)),
        (".txt", lambda: "\U0001f600" * (size // 4)),
        (".jsonl", lambda: json.dumps({"text": "ab " * (size // 3)})),
        (".jsonl", lambda: json.dumps({"text": "\\\"" * (size // 4)})),
        (".jsonl", lambda: '{"text": ' + "[" * deep + "]" * deep + "}"),
        (".jsonl", lambda: '{"text": "x", "y": ' + '{"a":' * deep + "1"
         + "}" * deep + "}"),
        (".json", lambda: "[" * deep),
        (".json", lambda: "[" * deep + "]" * deep),
        (".jsonl", lambda: json.dumps({f"c{i}": i for i in range(300_000)})),
        (".jsonl", lambda: '{"text": "x"}\n' * 500_000),
        (".jsonl", lambda: "{}\n" * 1_000_000),
        (".jsonl", lambda: "\n" * size),
        (".json", lambda: "[" + "1," * (size // 2) + "1]"),
        (".json", lambda: "[" + "{}," * 500_000 + "{}]"),
        (".jsonl", lambda: json.dumps({"messages": [
            {"role": "user", "content": "x"}] * 100_000})),
        (".jsonl", lambda: lines([{"messages": [
            {"role": "user", "content": [{"type": "text", "text": SENTENCE}]
             * 20_000}]}] * 4)),
        (".jsonl", lambda: '{"text": "' + "\\u0041" * (size // 6) + '"}'),
        (".jsonl", lambda: '{"text": 1' + "0" * size + "}"),
    ])
    name, text = f"rows{name}", make()
    case.put_data(name, text)
    return f"{name} of {len(text)} characters: {text[:40]!r}"


def parquet_bytes(table, **how):
    from pyarrow import parquet
    out = io.BytesIO()
    parquet.write_table(table, out, **how)
    return out.getvalue()


def bomb(rng):
    """Small files whose pages expand a thousandfold and more."""
    import pyarrow as pa
    codec = rng.choice(["zstd", "gzip", "snappy", "brotli", "lz4"])
    what = rng.choice(["dictionary", "zeros", "nulls", "nested", "columns"])
    if what == "dictionary":
        indices = pa.array([0] * rng.choice([10**4, 10**6]), pa.int32())
        words = pa.array(["the cat " * rng.choice([10**3, 10**5])])
        table = pa.table(
            {"text": pa.DictionaryArray.from_arrays(indices, words)})
        return what, parquet_bytes(table, compression=codec)
    if what == "zeros":
        text = rng.choice(["\0", "a", "the cat "]) * rng.choice([10**6, 10**8])
        table = pa.table({"text": [text]})
        return what, parquet_bytes(table, compression=codec,
                                   use_dictionary=False)
    if what == "nulls":
        table = pa.table({"text": pa.nulls(10**7, pa.string())})
        return what, parquet_bytes(table, compression=codec)
    if what == "nested":
        value = "x"
        for _ in range(rng.choice([20, 60])):
            value = [value]
        return what, parquet_bytes(pa.table({"text": [value]}))
    return what, parquet_bytes(pa.table(
        {f"c{i}": [1] for i in range(4000)} | {"text": [SENTENCE]}))


def parquet(case):
    import pyarrow as pa
    rng = case.rng
    if rng.random() < 0.4:
        what, data = bomb(rng)
        case.put_data("rows.parquet", data)
        return f"Parquet bomb of {what}, {len(data)} bytes"
    values = [{"text": SENTENCE * 4}] * 40 if rng.random() < 0.5 else chats()
    data = parquet_bytes(
        pa.Table.from_pylist(values),
        compression=rng.choice(["none", "zstd", "gzip", "snappy", "brotli"]),
        use_dictionary=rng.random() < 0.5)
    footer = int.from_bytes(data[-8:-4], "little")
    what = rng.choice(["footer", "pages", "length", "both", "cut"])
    begin, end = {"footer": (len(data) - 8 - footer, len(data) - 8),
                  "pages": (4, len(data) - 8 - footer),
                  "both": (4, len(data) - 8)}.get(what, (0, 4))
    changed = bytearray(data)
    if what == "length":
        changed[-8:-4] = rng.choice(
            [0, 1, footer + 1, 2**31, 2**32 - 1]).to_bytes(4, "little")
    elif what == "cut":
        at = rng.randrange(len(data))
        changed[at:at + rng.choice([1, 100])] = b""
    else:
        for _ in range(rng.choice([1, 2, 8, 40])):
            at = rng.randrange(begin, end)
            changed[at] = rng.choice([0, 255, 127, 128, rng.randrange(256)])
    case.put_data("rows.parquet", bytes(changed))
    return f"Parquet with damaged {what}"
