"""Heads that predict further tokens: carried bit by bit in a file of their own,
which stock mlx-lm does not see, in the layouts of qwen3_next, deepseek_v3 and
glm4_moe."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

mx = pytest.importorskip("mlx.core")
mlx_lm_utils = pytest.importorskip("mlx_lm.utils")

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/support"))
sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(ROOT / "python"))
import hub_client  # noqa: E402
import packed_models  # noqa: E402
import packers  # noqa: E402
import random_model as demo  # noqa: E402
import walks  # noqa: E402
from hub_server import Hub  # noqa: E402
from test_families import METHODS, config_of, write  # noqa: E402

FILE = "mtp.safetensors"
QUANTIZE = ["--target-bpw", 6, "--effort", "fast", "--gptq-samples", 8,
            "--candidates", "4:32,8:32"]
# The head's prefix behind so many layers.
LAYOUTS = {
    "deepseek_v3": "model.layers.{layers}.",
    "glm4_moe": "model.layers.{layers}.",
    "qwen3_next": "mtp.",
}


def heads_of(family):
    """Odd shapes, and each type that a head comes in."""
    prefix = LAYOUTS[family].format(layers=config_of(family)["num_hidden_layers"])
    random = np.random.default_rng(7)
    values = {
        "eh_proj.weight": mx.array(random.standard_normal((24, 56))),
        "enorm.weight": mx.array(random.standard_normal(24)).astype(mx.bfloat16),
        "mlp.experts.0.up_proj.weight":
            mx.array(random.standard_normal((3, 5))).astype(mx.float16),
        "mlp.gate.e_score_correction_bias": mx.ones((3,)),
        "steps": mx.array([3], mx.int64),
        # As they are: not even this is looked at.
        "broken.weight": mx.array([[float("nan"), float("inf")]]),
    }
    return {prefix + name: value for name, value in values.items()}


def bits(tensor):
    return tensor.dtype, tuple(tensor.shape), bytes(memoryview(
        np.array(tensor.view(mx.uint8))))


def same(found, wanted):
    assert sorted(found) == sorted(wanted)
    for name, tensor in wanted.items():
        assert bits(found[name]) == bits(tensor), name


@pytest.fixture(params=LAYOUTS)
def models(request, tmp_path):
    """The same model with its head and without."""
    family = request.param
    write(tmp_path / "plain", family, "bfloat16")
    write(tmp_path / "model", family, "bfloat16")
    file = tmp_path / "model/model.safetensors"
    heads = heads_of(family)
    mx.save_safetensors(str(file), mx.load(str(file)) | heads, {"format": "mlx"})
    for name in ("model", "plain"):
        change(tmp_path / name / "config.json", {"num_nextn_predict_layers": 1})
    return tmp_path, heads


def change(file, values):
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def made(method, source, out, *flags):
    flags = [*(QUANTIZE if method == "quantize" else METHODS[method]), *flags]
    if method == "convert":
        return walks.report_of(method, source, out, *flags)
    return walks.run(method, source, out, *flags)


@pytest.mark.parametrize("method", ["convert", "gptq", "quantize"])
def test_carried_and_nothing_else_changes(models, method):
    folder, heads = models
    report = made(method, folder / "model", folder / "out")
    made(method, folder / "plain", folder / "without")
    same(mx.load(str(folder / "out" / FILE)), heads)
    assert metadata(folder / "out" / FILE) == {"format": "mlx"}
    assert report["mtp"] == {
        "file": FILE, "tensors": len(heads),
        "bytes": sum(value.nbytes for value in heads.values())}
    assert any("predict further tokens" in note for note in report["notes"])
    card = (folder / "out/README.md").read_text()
    assert f"`{FILE}` holds the heads" in card
    # mlx-lm loads both, and they are one model.
    assert not (folder / "without" / FILE).exists()
    same(demo.load(folder / "out"), demo.load(folder / "without"))
    mlx_lm_utils.load_model(folder / "out")
    # They go on to what is made of that.
    walks.convert(folder / "out", folder / "expanded", "--dequantize")
    same(mx.load(str(folder / "expanded" / FILE)), heads)


def test_left_out_where_asked(models):
    folder, _ = models
    report = made("convert", folder / "model", folder / "out", "--drop-mtp")
    assert "mtp" not in report
    assert not (folder / "out" / FILE).exists()
    assert FILE not in (folder / "out/README.md").read_text()


def stored(file):
    """(type, shape, bytes) by name, as they stand in a safetensors file."""
    data = file.read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:start])
    header.pop("__metadata__", None)
    return {name: (own["dtype"], own["shape"],
                   data[start + own["data_offsets"][0]:start + own["data_offsets"][1]])
            for name, own in header.items()}


def metadata(file):
    data = file.read_bytes()
    return json.loads(data[8:8 + int.from_bytes(data[:8], "little")]).get(
        "__metadata__")


def packing_in(file):
    """The entry that says how a file's codes are packed."""
    return json.loads(metadata(file)["quantization_config"])


def write_packed(folder, kind, beside=False):
    """deepseek_v3 with a head in someone's pack, in the model's file or beside
    it. Returns the entry and the head's tensors as they are stored."""
    write(folder, "deepseek_v3", "bfloat16")
    file = folder / "model.safetensors"
    tensors = {name: packers.BF16(np.array(value.astype(mx.float32)))
               for name, value in mx.load(str(file)).items()}
    entry, packer = packed_models.KINDS[kind]
    head = LAYOUTS["deepseek_v3"].format(
        layers=config_of("deepseek_v3")["num_hidden_layers"])
    weight = np.random.default_rng(3).standard_normal((192, 256)).astype(np.float32)
    parts, _ = packer(weight)
    heads = {f"{head}mlp.up_proj{suffix}": part for suffix, part in parts.items()}
    heads[f"{head}enorm.weight"] = packers.BF16(np.ones(24))
    packers.write(file, tensors if beside else tensors | heads)
    if beside:
        packers.write(folder / FILE, heads)
    else:
        packers.write(folder.parent / FILE, heads)
    change(folder / "config.json", {"num_nextn_predict_layers": 1} | (
        {} if "quantization" in entry else {"quantization_config": entry}))
    if "quantization" in entry:
        (folder / "hf_quant_config.json").write_text(json.dumps(entry))
    return entry, stored(folder / FILE if beside else folder.parent / FILE)


PACKS = ["awq", "fp8", "fp8 tensor", "gptq desc_act", "modelopt nvfp4",
         "pack-quantized zeros"]


@pytest.mark.parametrize("kind", PACKS)
def test_a_packed_head_stays_packed_and_says_how(kind, tmp_path):
    """That loses nothing and takes no room, and all parts go with it, scales of
    activations too. The output's config speaks of other weights, so that the
    file itself has to tell how its codes are to be read."""
    entry, heads = write_packed(tmp_path / "model", kind)
    report = made("convert", tmp_path / "model", tmp_path / "out")
    assert stored(tmp_path / "out" / FILE) == heads
    assert packing_in(tmp_path / "out" / FILE) == entry
    assert metadata(tmp_path / "out" / FILE)["format"] == "mlx"
    assert report["mtp"]["packed_by"] == entry.get("quant_method", "NVFP4")
    card = (tmp_path / "out/README.md").read_text()
    assert "`quantization_config` in the file's own metadata" in card
    mlx_lm_utils.load_model(tmp_path / "out")
    # And in what is made of that.
    walks.convert(tmp_path / "out", tmp_path / "again", "--dequantize")
    assert (tmp_path / "again" / FILE).read_bytes() == \
        (tmp_path / "out" / FILE).read_bytes()


def test_a_packed_file_beside_the_model_says_how(tmp_path):
    entry, heads = write_packed(tmp_path / "model", "gptq", beside=True)
    report = made("convert", tmp_path / "model", tmp_path / "out")
    assert stored(tmp_path / "out" / FILE) == heads
    assert packing_in(tmp_path / "out" / FILE) == entry
    assert metadata(tmp_path / "out" / FILE)["format"] == "pt"
    assert report["mtp"]["packed_by"] == "gptq"


def test_fp8_that_no_entry_names(tmp_path):
    _, heads = write_packed(tmp_path / "model", "fp8")
    change(tmp_path / "model/config.json", {"quantization_config": None})
    made("convert", tmp_path / "model", tmp_path / "out")
    assert stored(tmp_path / "out" / FILE) == heads
    assert packing_in(tmp_path / "out" / FILE) == {"quant_method": "fp8"}


def test_a_head_in_mlx_codes_says_how(tmp_path):
    """Whatever becomes of the model that it comes with."""
    write(tmp_path / "model", "deepseek_v3", "bfloat16")
    walks.convert(tmp_path / "model", tmp_path / "mlx", "-q", "--q-bits", 5,
                  "--q-group-size", 32)
    file = tmp_path / "mlx/model.safetensors"
    head = LAYOUTS["deepseek_v3"].format(
        layers=config_of("deepseek_v3")["num_hidden_layers"])
    codes, scales, biases = mx.quantize(
        mx.random.normal((64, 64)), group_size=32, bits=5)
    heads = {f"{head}eh_proj.weight": codes, f"{head}eh_proj.scales": scales,
             f"{head}eh_proj.biases": biases}
    mx.save_safetensors(str(file), mx.load(str(file)) | heads, {"format": "mlx"})
    change(tmp_path / "mlx/config.json", {"num_nextn_predict_layers": 1})
    entry = json.loads((tmp_path / "mlx/config.json").read_text())["quantization"]
    report = walks.report_of(
        "convert", tmp_path / "mlx", tmp_path / "out", "--dequantize")
    same(mx.load(str(tmp_path / "out" / FILE)), heads)
    assert packing_in(tmp_path / "out" / FILE) == entry
    assert report["mtp"]["packed_by"] == "mlx"


def test_a_layer_by_no_number_is_no_head(tmp_path):
    write(tmp_path / "model", "deepseek_v32", "bfloat16")
    file = tmp_path / "model/model.safetensors"
    odd = {"model.layers.x.weight": mx.ones((3,))}
    mx.save_safetensors(str(file), mx.load(str(file)) | odd, {"format": "mlx"})
    done = subprocess.run([walks.BIN, "inspect", tmp_path / "model"],
                          capture_output=True, text=True)
    assert done.returncode == 4 and "model.layers.x.weight" in done.stderr, done


def test_a_broken_file_beside_the_model_is_named(models):
    folder, _ = models
    (folder / "plain" / FILE).write_bytes(b"no tensors")
    done = subprocess.run(
        [walks.BIN, "convert", "--model", folder / "plain", "--mlx-path",
         folder / "out", "-q"], capture_output=True, text=True)
    assert done.returncode == 4 and FILE in done.stderr, done.stderr
    assert not (folder / "out").exists()


@pytest.mark.parametrize("flags", [[], ["--stream"]], ids=["whole", "streamed"])
def test_a_file_beside_a_model_on_the_hub_is_fetched(tmp_path, flags):
    """As our own outputs have it, once they are published."""
    _, heads = write_packed(tmp_path / "model", "fp8", beside=True)
    hub = Hub({path.name: path.read_bytes()
               for path in (tmp_path / "model").iterdir()})
    try:
        done = hub_client.run(
            hub, tmp_path / "home", "convert", "--model", "org/tiny",
            "--mlx-path", tmp_path / "out", "-q", *flags)
    finally:
        hub.close()
    assert done.returncode == 0, done.stderr
    assert stored(tmp_path / "out" / FILE) == heads
