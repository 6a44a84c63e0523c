"""Folders as they are published and kept: wrong indexes, stale quantization
entries, odd side files, damaged weights. Stock mlx-lm says what loads; each
situation was reported in public, at the address beside it."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

mx = pytest.importorskip("mlx.core")
utils = pytest.importorskip("mlx_lm.utils")

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/support"))
import random_model  # noqa: E402

BIN = os.environ.get(
    "PENNYWEIGHT_BIN", str(ROOT / "build/release/src/pennyweight"))
INDEX = "model.safetensors.index.json"
TEXT = "the cat and the dog sat on the mat. " * 60
LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"
NOT_FOUND, CORRUPT, IO, NOT_SUPPORTED, NUMERIC = 3, 4, 5, 6, 7
SMALL = {"hidden_size": 64, "intermediate_size": 128, "head_dim": 16}


def run(*arguments):
    return subprocess.run([BIN, *map(str, arguments)], text=True,
                          capture_output=True, timeout=300)


def make(folder, **changes):
    return random_model.write(folder, **(SMALL | changes))


def convert(folder, out, *more):
    done = run("convert", "--model", folder, "--mlx-path", out, "-q", *more)
    assert done.returncode == 0, done.stderr
    return done.stderr


def logits(folder):
    model, _ = utils.load_model(Path(folder))
    return model(mx.array([list(range(5, 60))])).astype(mx.float32)


def config(folder):
    return json.loads((Path(folder) / "config.json").read_text())


def put_config(folder, **changes):
    (folder / "config.json").write_text(
        json.dumps(config(folder) | changes))


def weights(folder):
    return {p.name: p.read_bytes() for p in Path(folder).glob("*.safetensors")}


def fails(done, code, *parts):
    assert done.returncode == code, done.stderr
    error = done.stderr.strip().splitlines()[-1]
    assert error.startswith("error: ["), done.stderr
    for part in parts:
        assert part in error, (part, error)


# https://github.com/Blaizzy/nativ/pull/370 (an index of other shards),
# https://github.com/Blaizzy/mlx-vlm/pull/1827 (partly stale),
# https://github.com/huggingface/huggingface_hub/pull/4740 (swapped places),
# https://github.com/microsoft/OmniParser/issues/34 (a pointer)
STALE = {
    "other shards": lambda names: json.dumps({"weight_map": {
        name: f"model-{i % 9 + 1:05}-of-00013.safetensors"
        for i, name in enumerate(names)}}),
    "partly stale": lambda names: json.dumps({"weight_map": {
        name: f"model-{i % 3 + 1:05}-of-00002.safetensors"
        for i, name in enumerate(names)}}),
    "swapped": lambda names: json.dumps({"weight_map": {
        name: f"model-{2 - i % 2:05}-of-00002.safetensors"
        for i, name in enumerate(names)}}),
    "incomplete": lambda names: json.dumps({"weight_map": {
        names[0]: "model-00001-of-00002.safetensors"}}),
    "no JSON": lambda names: '{"weight_map": {',
    "pointer": lambda names: LFS,
    "empty": lambda names: "",
}


@pytest.mark.parametrize("kind", STALE)
def test_an_index_that_is_wrong_stops_nothing(tmp_path, kind):
    tensors = make(tmp_path / "m", shards=2)
    convert(tmp_path / "m", tmp_path / "right")
    (tmp_path / "m" / INDEX).write_text(STALE[kind](sorted(tensors)))
    logits(tmp_path / "m")
    said = convert(tmp_path / "m", tmp_path / "out")
    assert said.count(INDEX) == 1, said
    assert weights(tmp_path / "out") == weights(tmp_path / "right")
    done = run("inspect", tmp_path / "m")
    assert done.returncode == 0 and INDEX in done.stdout + done.stderr


# https://github.com/sgl-project/sglang/pull/32279
@pytest.mark.parametrize("indexed", [True, False])
def test_a_shard_that_is_missing_is_named(tmp_path, indexed):
    make(tmp_path / "m", shards=3)
    gone = "model-00002-of-00003.safetensors"
    (tmp_path / "m" / gone).unlink()
    if not indexed:
        (tmp_path / "m" / INDEX).unlink()
    fails(run("inspect", tmp_path / "m"), NOT_FOUND, gone, "fetch")


# https://github.com/Blaizzy/mlx-vlm/pull/1464
def test_a_stray_model_beside_the_indexed_shards_is_left_out(tmp_path):
    make(tmp_path / "m", shards=2)
    convert(tmp_path / "m", tmp_path / "right")
    shutil.copy(tmp_path / "right/model.safetensors",
                tmp_path / "m/model.safetensors")
    said = convert(tmp_path / "m", tmp_path / "out")
    assert "model.safetensors holds" in said
    assert weights(tmp_path / "out") == weights(tmp_path / "right")


def test_a_shard_that_the_index_does_not_know_is_read(tmp_path):
    """mlx-lm loads every model*.safetensors."""
    tensors = make(tmp_path / "m", shards=2)
    convert(tmp_path / "m", tmp_path / "right")
    index = json.loads((tmp_path / "m" / INDEX).read_text())
    index["weight_map"] = {n: f for n, f in index["weight_map"].items()
                           if "00001-of" in f}
    (tmp_path / "m" / INDEX).write_text(json.dumps(index))
    assert len(index["weight_map"]) < len(tensors)
    convert(tmp_path / "m", tmp_path / "out")
    assert weights(tmp_path / "out") == weights(tmp_path / "right")


# https://github.com/sgl-project/sglang/pull/23841 (fp8),
# https://github.com/alibaba/Pai-Megatron-Patch/issues/644 (nested, null)
ENTRIES = {
    "fp8": {"quantization_config": {"quant_method": "fp8",
                                    "weight_block_size": [128, 128]}},
    "gptq": {"quantization_config": {"quant_method": "gptq", "bits": 4,
                                     "group_size": 128}},
    "awq": {"quantization_config": {"quant_method": "awq", "bits": 4}},
    "compressed": {"quantization_config": {
        "quant_method": "compressed-tensors", "format": "float-quantized"}},
    "modelopt": {"quantization_config": {"quant_algo": "NVFP4"}},
    "torchao": {"quantization_config": {
        "quant_method": "torchao", "quant_type": "int4_weight_only"}},
    "null": {"quantization_config": None, "quantization": None},
    "mlx": {"quantization": {"group_size": 64, "bits": 4, "mode": "affine"}},
}


@pytest.mark.parametrize("kind", ENTRIES)
def test_an_entry_over_plain_weights_goes(tmp_path, kind):
    make(tmp_path / "m")
    convert(tmp_path / "m", tmp_path / "right")
    put_config(tmp_path / "m", **ENTRIES[kind])
    said = convert(tmp_path / "m", tmp_path / "out")
    assert ("quantized weights" in said) == (kind != "null"), said
    assert config(tmp_path / "out") == config(tmp_path / "right")
    assert weights(tmp_path / "out") == weights(tmp_path / "right")
    done = run("convert", "--model", tmp_path / "m", "--mlx-path",
               tmp_path / "plain")
    assert done.returncode == 0, done.stderr
    assert not {key for key in config(tmp_path / "plain")
                if "quantization" in key or "compression" in key}
    logits(tmp_path / "plain")


def test_modelopts_file_over_plain_weights_stays_behind(tmp_path):
    make(tmp_path / "m")
    (tmp_path / "m/hf_quant_config.json").write_text(
        '{"quantization": {"quant_algo": "FP8"}}')
    said = convert(tmp_path / "m", tmp_path / "out")
    assert "hf_quant_config.json: FP8" in said
    assert not (tmp_path / "out/hf_quant_config.json").exists()
    logits(tmp_path / "out")


# https://github.com/ml-explore/mlx-lm/issues/1865
def test_weights_in_another_quantizers_form_are_refused(tmp_path):
    name = "model.layers.0.mlp.up_proj"
    tensors = make(tmp_path / "m")
    del tensors[f"{name}.weight"]
    tensors[f"{name}.qweight"] = mx.zeros((8, 128), mx.int32)
    random_model.save(tmp_path / "m", tensors)
    fails(run("inspect", tmp_path / "m"), NOT_SUPPORTED, "gptq",
          f"{name}.qweight")
    data = b"\0" * 16
    header = json.dumps({"x.weight": {
        "dtype": "F8_E4M3", "shape": [16], "data_offsets": [0, 16]}}).encode()
    (tmp_path / "m/model.safetensors").write_bytes(
        len(header).to_bytes(8, "little") + header + data)
    fails(run("inspect", tmp_path / "m"), NOT_SUPPORTED, "FP8", "x.weight")
    put_config(tmp_path / "m", quantization_config={"quant_method": "fp8"})
    fails(run("inspect", tmp_path / "m"), CORRUPT, '"fp8"', "x.weight ",
          "x.weight_scale_inv is missing")
    put_config(tmp_path / "m", quantization_config={"quant_method": "hqq"})
    fails(run("inspect", tmp_path / "m"), NOT_SUPPORTED, '"hqq"', "x.weight")


def test_packed_weights_without_an_entry_are_read(tmp_path):
    make(tmp_path / "m")
    convert(tmp_path / "m", tmp_path / "q", "--q-group-size", 32,
            "--quant-predicate", "mixed_3_6")
    right = logits(tmp_path / "q")
    stripped = config(tmp_path / "q")
    del stripped["quantization"], stripped["quantization_config"]
    (tmp_path / "q/config.json").write_text(json.dumps(stripped))
    done = run("convert", "--model", tmp_path / "q", "--mlx-path",
               tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert "stock mlx-lm can't load" in done.stderr
    assert mx.array_equal(logits(tmp_path / "out"), right)


# https://github.com/ai-dynamo/dynamo/pull/3043 (a bare Infinity),
# https://github.com/Portkey-AI/models/pull/581 (repeated keys),
# https://github.com/kemomi/daimai/issues/20 (a byte-order mark)
def test_a_config_is_read_as_python_reads_it(tmp_path):
    make(tmp_path / "m")
    convert(tmp_path / "m", tmp_path / "right")
    path = tmp_path / "m/config.json"
    text = json.dumps(config(tmp_path / "m") | {
        "initializer_range": float("inf"), "transformers_version": "NaN"})
    assert "Infinity" in text
    path.write_text(text[:-1] + ', "rope_theta": 10.0, "rope_theta": 10000.0}')
    convert(tmp_path / "m", tmp_path / "out")
    assert weights(tmp_path / "out") == weights(tmp_path / "right")
    wanted = utils.load_config(tmp_path / "m")
    ours = utils.load_config(tmp_path / "out")
    for key in ("initializer_range", "rope_theta", "transformers_version"):
        assert ours[key] == wanted[key]
    # mlx-lm writes what is not finite with a tag; that is read, too.
    assert config(tmp_path / "out")["initializer_range"] == {
        "__float__": "Infinity"}
    path.write_bytes(b"\xef\xbb\xbf" + (tmp_path / "out/config.json")
                     .read_text().replace('"quantization', '"x_').encode())
    done = run("inspect", tmp_path / "m")
    assert "JSON" not in done.stderr


# https://github.com/haotian-liu/LLaVA/issues/1252,
# https://github.com/huggingface/huggingface_hub/pull/4550
def test_side_files_are_told_of_before_the_work(tmp_path):
    make(tmp_path / "m")
    (tmp_path / "m/generation_config.json").write_text('{"a": 1,\n}')
    (tmp_path / "m/all_results.json").write_text('{"eval_loss": NaN}')
    (tmp_path / "m/notes.json").symlink_to("nowhere")
    (tmp_path / "m/modeling_x.py").write_text("raise SystemExit('run')\n")
    templates = tmp_path / "m/additional_chat_templates"
    templates.mkdir()
    (templates / "tool_use.jinja").write_text("T")
    (tmp_path / "t.txt").write_text(TEXT)
    done = run("gptq", "--model", tmp_path / "m", "--mlx-path",
               tmp_path / "out", "--data-path", tmp_path / "t.txt",
               "--sequence-length", 32, "--num-samples", 8)
    assert done.returncode == 0, done.stderr
    first_block = done.stderr.find("blocks")
    for name in ("generation_config.json", "notes.json"):
        assert 0 <= done.stderr.find(name) < first_block, done.stderr
    for name in ("generation_config.json", "all_results.json",
                 "modeling_x.py", "additional_chat_templates/tool_use.jinja"):
        assert ((tmp_path / "out" / name).read_bytes()
                == (tmp_path / "m" / name).read_bytes())
    assert not (tmp_path / "out/notes.json").exists()


def test_quantize_carries_folders(tmp_path):
    """Its stages are folders that are copied as a whole."""
    make(tmp_path / "m")
    templates = tmp_path / "m/additional_chat_templates"
    templates.mkdir()
    (templates / "tool_use.jinja").write_text("T")
    (tmp_path / "t.txt").write_text(TEXT * 20)
    done = run("quantize", tmp_path / "m", "-o", tmp_path / "out",
               "--target-bpw", 5, "--effort", "fast", "--data-path",
               tmp_path / "t.txt", "--sequence-length", 32)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out/additional_chat_templates/tool_use.jinja").exists()


COMMANDS = {
    "convert": lambda m, o, t: ["convert", "--model", m, "--mlx-path", o],
    "gptq": lambda m, o, t: ["gptq", "--model", m, "--mlx-path", o,
                             "--data-path", t],
    "awq": lambda m, o, t: ["awq", "--model", m, "--mlx-path", o,
                            "--data-path", t],
    "dynamic-quant": lambda m, o, t: [
        "dynamic-quant", "--model", m, "--mlx-path", o, "--data-path", t],
    "dwq": lambda m, o, t: ["dwq", "--model", m, "--mlx-path", o,
                            "--data-path", t],
    "quantize": lambda m, o, t: ["quantize", m, "-o", o, "--data-path", t,
                                 "--target-bpw", 5],
    "evaluate": lambda m, o, t: ["evaluate", m, "--data-path", t],
}


# https://github.com/turboderp/exllama/issues/242 (tokenizer files as
# pointers), https://github.com/huggingface/tokenizers/issues/1506
@pytest.mark.parametrize("command", COMMANDS)
def test_what_can_be_refused_is_refused_before_the_work(tmp_path, command):
    make(tmp_path / "m")
    text = tmp_path / "t.txt"
    text.write_text(TEXT * 20)

    def refused(code, *parts, out=tmp_path / "out", data=text):
        arguments = COMMANDS[command](tmp_path / "m", out, data)
        done = run(*arguments)
        fails(done, code, *parts)
        assert "block" not in done.stderr and "bytes" not in done.stderr
        left = {p.name for p in tmp_path.iterdir()}
        assert left <= {"m", "t.txt", "file", "there"}, left

    if command != "convert":
        refused(NOT_FOUND, "none.txt", data=tmp_path / "none.txt")
    if command != "evaluate":
        (tmp_path / "file").write_text("")
        refused(IO, "file", out=tmp_path / "file/out")
        (tmp_path / "there").mkdir()
        refused(2, "there", out=tmp_path / "there")
    (tmp_path / "m/tokenizer.json").write_text(LFS)
    refused(CORRUPT, "tokenizer.json", "git lfs pull")
    (tmp_path / "m/tokenizer.json").unlink()
    if command != "evaluate":
        (tmp_path / "m/tokenizer.model").write_text(LFS)
        refused(CORRUPT, "tokenizer.model", "git lfs pull")


# https://github.com/ggml-org/llama.cpp/pull/6884
@pytest.mark.parametrize("name", [
    "model.norm.weight", "model.layers.1.input_layernorm.weight",
    "model.embed_tokens.weight", "model.layers.1.mlp.up_proj.weight"])
def test_a_tensor_that_is_not_finite_is_called_that(tmp_path, name):
    tensors = make(tmp_path / "m")
    flat = tensors[name].flatten()
    flat[:3] = float("nan")
    tensors[name] = flat.reshape(tensors[name].shape)
    random_model.save(tmp_path / "m", tensors)
    text = tmp_path / "t.txt"
    text.write_text(TEXT * 20)
    for command in ("convert", "gptq", "evaluate"):
        done = run(*COMMANDS[command](tmp_path / "m", tmp_path / "o", text),
                   "--sequence-length" if command != "convert" else "-q",
                   *([32] if command != "convert" else []))
        fails(done, NUMERIC, name, "holds 3 NaN values", "damaged")


@pytest.mark.parametrize("name, code, words", [
    ("", 2, "--mlx-path is empty"), ("x" * 300, IO, "File name too long")])
def test_outputs_that_no_name_can_be(tmp_path, name, code, words):
    """They were said to be the model itself."""
    make(tmp_path / "model")
    out = tmp_path / name if name else ""
    done = run("convert", "--model", tmp_path / "model", "--mlx-path", out)
    fails(done, code, words)


def test_every_warning_is_in_the_result(tmp_path):
    """Of side files, too, which are no matter of the model."""
    make(tmp_path / "model")
    (tmp_path / "model/README.md").write_text("---\nlicense: [\n---\n")
    (tmp_path / "model/all_results.json").write_text('{"loss": NaN}')
    done = run("convert", "--model", tmp_path / "model", "--mlx-path",
               tmp_path / "out", "--json", tmp_path / "result.json")
    assert done.returncode == 0, done.stderr
    said = [line.removeprefix("warning: ") for line in done.stderr.splitlines()
            if line.startswith("warning: ")]
    assert len(said) >= 1
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["warnings"] == said


@pytest.mark.parametrize("name, words", [
    ("pytorch_model.bin", "save it there"),
    ("pytorch_model-00001-of-00002.bin", "save it there"),
    ("adapter_model.safetensors", "merge it into its base model"),
    ("model.Q4_K_M.gguf", "start from the model that it was made of"),
    ("consolidated.safetensors", "start from the one for transformers"),
    ("model.safetensors.incomplete", "fetch the model again"),
    ("weights.safetensors", "mlx-lm reads model*.safetensors")])
def test_folders_that_are_no_models(tmp_path, name, words):
    """The line names what stands there, and what to do."""
    folder = tmp_path / "model"
    make(folder)
    (folder / "model.safetensors").rename(folder / name)
    fails(run("inspect", folder), NOT_FOUND, words)
    (folder / "config.json").unlink()
    fails(run("inspect", folder), NOT_FOUND, "has no config.json",
          words if name != "weights.safetensors" else "fetch it")
