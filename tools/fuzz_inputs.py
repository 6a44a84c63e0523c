#!/usr/bin/env python3
"""Makes damaged checkpoints out of whole ones, for tests of robustness.

    fuzz_inputs.py OUT BASE... [--seed 1] [--count 200]

Each BASE is a small model folder. OUT gets case000, case001, ... and
manifest.json: for each case its base, what was done to it, and whether the
result may still be valid (a flipped bit of a weight is another weight) or
must be refused. The same seed gives the same cases. Files that a case does
not touch are hard links to the base's.
"""

import argparse
import json
import os
import random
import shutil
import struct
from pathlib import Path

HUGE = [2**31 - 1, 2**31, 2**53, 2**63 - 1, 2**63, 2**64, 10**40]
EXTREME = ([-1, 0, 1.5, -0.0, 1e308, -1e308, "", "x", "\u0000", "../..",
            None, True, [], {}, [[]], [1e308], {"a": {"a": {}}}] + HUGE)
RAW = ["NaN", "Infinity", "-Infinity", "1e999", "0x10", "01", "'x'", "",
       "[" * 2000 + "]" * 2000, '{"a":' * 500 + "1" + "}" * 500]


class Case:
    """One copy of a base that a damage changes."""

    def __init__(self, folder, base, rng):
        self.folder = folder
        self.rng = rng
        shutil.copytree(base, folder, copy_function=os.link)

    def write(self, name, data):
        path = self.folder / name
        if path.exists():
            path.unlink()  # a link to the base's
        path.write_bytes(data.encode() if isinstance(data, str) else data)

    def bytes(self, name):
        return (self.folder / name).read_bytes()

    def json(self, name):
        return json.loads(self.bytes(name))

    def put_json(self, name, value):
        self.write(name, json.dumps(value))

    def weights(self):
        return self.rng.choice(
            sorted(p.name for p in self.folder.glob("*.safetensors")))

    def header(self, name):
        """(header as an object, data behind it) of a safetensors file."""
        data = self.bytes(name)
        length = struct.unpack("<Q", data[:8])[0]
        return json.loads(data[8:8 + length]), data[8 + length:]

    def put_header(self, name, header, data):
        text = header if isinstance(header, str) else json.dumps(header)
        raw = text.encode("utf-8", "surrogatepass")
        self.write(name, struct.pack("<Q", len(raw)) + raw + data)

    def tensor(self, header):
        return self.rng.choice(sorted(k for k in header if k[0] != "_"))


def flip(rng, data, begin, end, count):
    data = bytearray(data)
    for _ in range(count):
        data[rng.randrange(begin, end)] ^= 1 << rng.randrange(8)
    return bytes(data)


# Each damage changes a case and returns (description, may it still be valid).

def weights_truncated(case):
    name = case.weights()
    data = case.bytes(name)
    header = 8 + struct.unpack("<Q", data[:8])[0]
    at = case.rng.choice([
        0, 1, 7, 8, 9, header - 1, header, len(data) - 1,
        case.rng.randrange(header), case.rng.randrange(len(data))])
    case.write(name, data[:at])
    return f"{name} cut to {at} bytes", False


def weights_longer(case):
    name = case.weights()
    extra = case.rng.choice([1, 7, 4096])
    case.write(name, case.bytes(name) + b"\0" * extra)
    return f"{name} with {extra} bytes behind its end", False


def header_bits_flipped(case):
    name = case.weights()
    data = case.bytes(name)
    end = 8 + struct.unpack("<Q", data[:8])[0]
    count = case.rng.choice([1, 2, 16])
    case.write(name, flip(case.rng, data, 0, end, count))
    return f"{name}: {count} bits of the header flipped", True


def data_bits_flipped(case):
    name = case.weights()
    data = case.bytes(name)
    begin = 8 + struct.unpack("<Q", data[:8])[0]
    count = case.rng.choice([1, 100, 5000])
    case.write(name, flip(case.rng, data, begin, len(data), count))
    return f"{name}: {count} bits of the data flipped", True


def header_length(case):
    name = case.weights()
    data = case.bytes(name)
    true = struct.unpack("<Q", data[:8])[0]
    length = case.rng.choice([
        0, 1, true - 1, true + 1, len(data) - 8, len(data) - 7, 100_000_001,
        2**31, 2**32, 2**63, 2**64 - 1, 2**64 - 8])
    case.write(name, struct.pack("<Q", length) + data[8:])
    return f"{name}: header length {length}", False


def header_field(case):
    name = case.weights()
    header, data = case.header(name)
    tensor = case.tensor(header)
    field = case.rng.choice(["dtype", "shape", "data_offsets"])
    values = {
        "dtype": ["F64", "F8_E4M3", "I32", "f32", "C64", "F4", "BOOL"],
        "shape": [[], [-1, 4], [2**31, 2**31, 4], [0], [1] * 100, [2**63],
                  [1.5], ["4"], list(reversed(header[tensor]["shape"])) + [2]],
        "data_offsets": [[0], [0, 2**64], [8, 0], [-8, 0], [0, 1, 2],
                         [2**63, 2**63 + 8], [0, 4], [0.0, 4.0]],
    }
    value = case.rng.choice(values[field] + EXTREME)
    header[tensor][field] = value
    case.put_header(name, header, data)
    return f"{name}: {field} of {tensor} is {str(value)[:60]}", False


def header_structure(case):
    name = case.weights()
    header, data = case.header(name)
    tensor = case.tensor(header)
    other = case.tensor({k: v for k, v in header.items() if k != tensor})
    what = case.rng.choice([
        "missing", "twice", "renamed", "extra", "swapped", "no field",
        "overlap", "deep", "control", "long", "metadata", "surrogate"])
    text = None
    if what == "missing":
        del header[tensor]
    elif what == "twice":
        text = json.dumps(header)[:-1] + f', "{tensor}": ' + json.dumps(
            header[tensor]) + "}"
    elif what == "renamed":
        header[tensor + "x"] = header.pop(tensor)
    elif what == "extra":
        header["model.layers.999.weight"] = {
            "dtype": "F32", "shape": [1],
            "data_offsets": [len(data), len(data) + 4]}
        data += b"\0" * 4
    elif what == "swapped":
        while header[other]["shape"] == header[tensor]["shape"]:
            other = case.tensor(header)
        header[tensor], header[other] = header[other], header[tensor]
    elif what == "no field":
        del header[tensor][case.rng.choice(sorted(header[tensor]))]
    elif what == "overlap":
        header[tensor] = dict(header[other])
    elif what == "deep":
        text = json.dumps(header)[:-1] + ', "x": ' + RAW[-1] + "}"
    elif what == "control":
        header["a\nb\x1b[31m\0"] = header.pop(tensor)
    elif what == "long":
        header["a" * 100_000] = header.pop(tensor)
    elif what == "metadata":
        header["__metadata__"] = {"format": [1, 2]}
    else:
        header["\ud800"] = header.pop(tensor)
    case.put_header(name, text or header, data)
    return f"{name}: header with {what} at {tensor}", False


def weights_not_finite(case):
    name = case.weights()
    header, data = case.header(name)
    floats = sorted(k for k, v in header.items() if k[0] != "_" and
                    v["dtype"] in ("F32", "BF16", "F16"))
    tensor = case.rng.choice(floats)
    dtype = header[tensor]["dtype"]
    value = {"F32": b"\0\0\xc0\x7f", "BF16": b"\x80\xff",
             "F16": b"\0\x7c"}[dtype]
    begin, end = header[tensor]["data_offsets"]
    at = case.rng.randrange(begin, end, len(value))
    data = data[:at] + value + data[at + len(value):]
    case.put_header(name, header, data)
    return f"{name}: {tensor} holds a NaN or infinity", False


def json_damaged(case, name, valid):
    data = case.bytes(name)
    what = case.rng.choice(["cut", "flipped", "text", "empty", "trailing"])
    if what == "cut":
        at = case.rng.randrange(1, max(2, len(data.rstrip()) - 1))
        case.write(name, data[:at])
        return f"{name} cut to {at} bytes", False
    if what == "flipped":
        count = case.rng.choice([1, 4, 64])
        case.write(name, flip(case.rng, data, 0, len(data), count))
        return f"{name}: {count} bits flipped", True
    if what == "text":
        text = case.rng.choice(RAW + ["[]", "3", "null", '"x"', "\ufeff{}"])
        case.write(name, text)
        return f"{name} is {text[:40]!r}", valid
    if what == "empty":
        case.write(name, b"")
        return f"{name} is empty", False
    case.write(name, data + b"}")
    return f"{name} with a brace behind its end", False


def config_text(case):
    return json_damaged(case, "config.json", False)


def config_value(case):
    config = case.json("config.json")
    key = case.rng.choice(sorted(k for k in config if k != "quantization"))
    value = case.rng.choice(EXTREME)
    config[key] = value
    case.put_json("config.json", config)
    return f"config.json: {key} is {str(value)[:60]}", True


def config_raw(case):
    """A value that JSON has not, written as such."""
    config = case.json("config.json")
    key = case.rng.choice(sorted(config))
    raw = case.rng.choice(RAW)
    config[key] = "@@"
    case.write("config.json", json.dumps(config).replace('"@@"', raw))
    # Python reads these, and not every key is used.
    taken = raw in ("NaN", "Infinity", "-Infinity", "1e999")
    return f"config.json: {key} is {raw[:40]!r}", taken


def config_structure(case):
    config = case.json("config.json")
    changes = [
        {"model_type": "unheard_of"}, {"model_type": 7},
        {"hidden_size": config["hidden_size"] * 2},
        {"num_hidden_layers": config["num_hidden_layers"] + 1},
        {"num_hidden_layers": 2**31 - 1}, {"vocab_size": 2**62},
        {"num_key_value_heads": 3}, {"num_attention_heads": 0},
        {"head_dim": 2**40}, {"intermediate_size": 1},
        {"tie_word_embeddings": "yes"}, {"model_file": "evil.py"},
        {"rope_scaling": {"rope_type": "unheard_of"}},
        {"rope_scaling": {"rope_type": "llama3", "factor": -1e308}},
        {"rope_scaling": [1, 2]}, {"rope_theta": -1}, {"rms_norm_eps": "x"},
        {"hidden_act": "relu6"}, {"architectures": ["LlamaForVision"]},
        {"quantization_config": {"quant_method": "gptq", "bits": 4}},
        {"sliding_window": -5, "layer_types": ["x"]},
    ]
    change = case.rng.choice(changes)
    case.put_json("config.json", config | change)
    # mlx-lm's class reads none of these, and the tensors say how they are
    # packed.
    harmless = any(key in change for key in (
        "sliding_window", "quantization_config", "hidden_act",
        "architectures"))
    return f"config.json with {json.dumps(change)[:80]}", harmless


def config_key_missing(case):
    config = case.json("config.json")
    key = case.rng.choice([
        "model_type", "hidden_size", "intermediate_size", "vocab_size",
        "num_hidden_layers", "num_attention_heads", "rms_norm_eps"])
    del config[key]
    case.put_json("config.json", config)
    return f"config.json without {key}", False


def index_text(case):
    # The files decide: an index that can't be read is as good as none.
    what, _ = json_damaged(case, "model.safetensors.index.json", True)
    return what, True


def index_entry(case):
    name = "model.safetensors.index.json"
    index = case.json(name)
    weight_map = index["weight_map"]
    tensor = case.rng.choice(sorted(weight_map))
    value = case.rng.choice([
        "../model-00001-of-00002.safetensors", "/etc/passwd", "", ".", "..",
        "a/../../b.safetensors", "none.safetensors", "config.json",
        "..\\x.safetensors", "x\0.safetensors", "a" * 5000 + ".safetensors",
        7, None, [], {}])
    weight_map[tensor] = value
    case.put_json(name, index)
    outside = isinstance(value, str) and (
        value in ("", ".", "..") or set(value) & set("/\\\0"))
    return f"index: {tensor} in {str(value)[:60]!r}", not outside


def index_structure(case):
    name = "model.safetensors.index.json"
    index = case.json(name)
    tensor = case.rng.choice(sorted(index["weight_map"]))
    what = case.rng.choice(["missing", "extra", "no map", "list", "empty"])
    if what == "missing":
        del index["weight_map"][tensor]
    elif what == "extra":
        index["weight_map"][tensor + ".x"] = index["weight_map"][tensor]
    elif what == "no map":
        del index["weight_map"]
    else:
        index["weight_map"] = [] if what == "list" else {}
    case.put_json(name, index)
    return f"index with {what} at {tensor}", True


def tokenizer_text(case):
    return json_damaged(case, "tokenizer.json", False)


def tokenizer_structure(case):
    tokenizer = case.json("tokenizer.json")
    key = case.rng.choice(["model", "added_tokens", "pre_tokenizer",
                           "decoder", "post_processor"])
    value = case.rng.choice([v for v in EXTREME if v not in (None, [])])
    tokenizer[key] = value
    case.put_json("tokenizer.json", tokenizer)
    # {} and the like may mean "none" to the library that reads it.
    return f"tokenizer.json: {key} is {str(value)[:40]!r}", True


def tokenizer_model(case):
    tokenizer = case.json("tokenizer.json")
    model = tokenizer["model"]
    what = case.rng.choice(["ids", "merges", "vocab", "type"])
    if what == "ids":
        word = case.rng.choice(sorted(model["vocab"]))
        model["vocab"][word] = case.rng.choice([-1, 2**32, 2**64, 1.5, "7"])
    elif what == "merges":
        model["merges"] = case.rng.choice([[["a"]], ["a"], 3, [["\ud7ff", ""]]])
    elif what == "vocab":
        model["vocab"] = case.rng.choice([[], 3, {"a": "b"}])
    else:
        model["type"] = "Unheard"
    case.put_json("tokenizer.json", tokenizer)
    return f"tokenizer.json: {what} of the model", False


def side_file(case):
    name = case.rng.choice(["tokenizer_config.json", "generation_config.json",
                            "special_tokens_map.json"])
    what, valid = json_damaged(case, name, True)
    # Carried as it is; the others are the tokenizer's.
    return what, valid or name == "generation_config.json"


def file_replaced(case):
    name = case.rng.choice(["config.json", "tokenizer.json", case.weights()])
    what = case.rng.choice(["gone", "folder", "loop", "pipe", "noise"])
    path = case.folder / name
    path.unlink()
    if what == "folder":
        path.mkdir()
    elif what == "loop":
        path.symlink_to(path.name)
    elif what == "pipe":
        os.mkfifo(path)
    elif what == "noise":
        path.write_bytes(case.rng.randbytes(5000))
    # A model without a tokenizer is converted, with a warning.
    return f"{name}: {what}", name == "tokenizer.json" and what != "noise"


def quantization_value(case):
    config = case.json("config.json")
    quantization = config["quantization"]
    key = case.rng.choice(["bits", "group_size", "mode"])
    value = case.rng.choice(EXTREME + [7, 48, "mxfp4"])
    quantization[key] = value
    quantization["model.layers.0.mlp.up_proj"] = dict(quantization)
    config["quantization_config"] = quantization
    case.put_json("config.json", config)
    return f"config.json: {key} of the quantization is {str(value)[:40]}", True


def quantization_tensor(case):
    name = case.weights()
    header, data = case.header(name)
    suffix = case.rng.choice([".scales", ".biases"])
    tensor = case.rng.choice(sorted(k for k in header if k.endswith(suffix)))
    what = case.rng.choice(["renamed", "type", "shape"])
    if what == "renamed":
        header[tensor + "x"] = header.pop(tensor)
    elif what == "type":
        header[tensor]["dtype"] = "U16"
    else:
        rows, columns = header[tensor]["shape"]
        header[tensor]["shape"] = [rows // 2, columns * 2]
    case.put_header(name, header, data)
    return f"{name}: {tensor} {what}", False


GENERAL = [
    weights_truncated, weights_longer, header_bits_flipped, data_bits_flipped,
    header_length, header_field, header_field, header_structure,
    header_structure, weights_not_finite, config_text, config_value,
    config_value, config_raw, config_structure, config_key_missing,
    tokenizer_text, tokenizer_structure, tokenizer_model, side_file,
    file_replaced,
]
INDEXED = [index_text, index_entry, index_structure]
QUANTIZED = [quantization_value, quantization_tensor]


def damages_of(base):
    damages = list(GENERAL)
    if (base / "model.safetensors.index.json").exists():
        damages += INDEXED
    if "quantization" in json.loads((base / "config.json").read_text()):
        damages += QUANTIZED
    return damages


def make(out, bases, seed, count):
    out.mkdir(parents=True)
    manifest = []
    for i in range(count):
        rng = random.Random(f"{seed}-{i}")
        base = bases[i % len(bases)]
        damages = damages_of(base)
        damage = damages[i // len(bases) % len(damages)]
        name = f"case{i:03}"
        what, may_be_valid = damage(Case(out / name, base, rng))
        manifest.append({"name": name, "base": base.name,
                         "damage": damage.__name__, "what": what,
                         "may_be_valid": may_be_valid})
    (out / "manifest.json").write_text(json.dumps(manifest, indent=1))
    return manifest


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("base", type=Path, nargs="+")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=200)
    options = parser.parse_args()
    make(options.out, options.base, options.seed, options.count)


if __name__ == "__main__":
    main()
