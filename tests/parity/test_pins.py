"""--pin, --at-least, --keep and --prefer-active: what a user says of widths is
kept to the letter by every command that quantizes, sizes are met around it, and
what can't be kept ends in one line before any work."""

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import mlx.core as mx
import pytest
from mlx_lm import load

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests/support"), str(ROOT / "tests/parity")]
import random_model  # noqa: E402
import test_experts  # noqa: E402
import test_families  # noqa: E402
import test_model_parity  # noqa: E402
from short_runs import BIN, DEMO, TEXT  # noqa: E402

FEW = ["--data-path", TEXT, "--sequence-length", 32]
SAMPLES = [*FEW, "--num-samples", 4]
STAGED = [*FEW, "--gptq-samples", 4, "--dwq-samples", 4, "--learn-steps", 1]


def run(command, model, out, *flags, code=0):
    result = Path(f"{out}.json")
    to = [] if command in ("plan", "inspect") else ["--mlx-path", out]
    begin = time.monotonic()
    done = subprocess.run(
        [str(word) for word in (BIN, command, "--model", model, *to, "--json",
                                result, "--force", *flags)],
        capture_output=True, text=True, timeout=300)
    assert done.returncode == code, done.stderr
    if code:
        assert not Path(out).exists()
        assert time.monotonic() - begin < 60
        return done.stderr
    return json.loads(result.read_text())


def write_published(folder):
    """As the hub has gpt_oss: its experts come packed."""
    folder.mkdir()
    config = test_model_parity.make_config(
        "gpt_oss", test_experts.WIDTHS | test_model_parity.GPT_OSS | {
            "torch_dtype": "bfloat16",
            "quantization_config": {"quant_method": "mxfp4"}})
    test_model_parity.save(
        folder, test_model_parity.random_model(config), config,
        layout=test_experts.pack_experts)
    for name in random_model.TOKENIZER:
        shutil.copy(DEMO / name, folder / name)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Random models of some families, each written once."""
    folder = tmp_path_factory.mktemp("models")

    def of(name):
        path = folder / name
        if name == "demo":
            return DEMO
        if not path.exists():
            if name == "gpt_oss":
                write_published(path)
            elif name in ("tied", "untied", "narrow"):
                random_model.write(
                    path, tie_word_embeddings=name == "tied", num_hidden_layers=3,
                    **({"hidden_size": 96, "head_dim": 24}
                       if name == "narrow" else {}))
            else:
                test_families.write(path, name, "float32")
        return path

    return of


def widths_of(out):
    """Of each module its entry in config.json, and what its tensors have."""
    config = json.loads((out / "config.json").read_text())
    said = config["quantization"]
    assert said == config["quantization_config"]
    tensors = {}
    for file in out.glob("model*.safetensors"):
        tensors |= mx.load(str(file))
    found = {}
    common = {key: said[key] for key in ("bits", "group_size", "mode")}
    for name, tensor in tensors.items():
        module = name.removesuffix(".weight")
        if not name.endswith(".weight") or tensor.ndim < 2:
            continue
        if module + ".scales" not in tensors:
            found[module] = None
            continue
        entry = said.get(module, common)
        assert entry, f"{module} is packed, and config.json says it is not"
        scales = tensors[module + ".scales"]
        columns = scales.shape[-1] * entry["group_size"]
        assert tensor.shape[-1] * 32 == columns * entry["bits"], module
        found[module] = (entry["bits"], entry["group_size"], entry["mode"])
    return found


def affine(bits, group=64):
    return bits, group, "affine"


PINS = ["--pin", "self_attn.*=6", "--pin", "model.layers.1.mlp.up_proj=8:32",
        "--at-least", "model.layers.0.*=5", "--keep", "layers.2.mlp.down_proj",
        "--pin", "lm_head=8:128", "--at-least", "embedding=5"]
COMMANDS = {
    "convert": ["-q"],
    "gptq": SAMPLES,
    "awq": SAMPLES,
    "dwq": ["--data-path", TEXT, "--max-seq-length", 33, "--num-samples", 4,
            "--learning-rate", 1e-4],
    "dynamic-quant": [*SAMPLES, "--target-bpw", 7, "--candidates",
                      "3:64,4:64,5:64,6:64,8:64"],
    "quantize": [*STAGED, "--target-bpw", 7, "--stages", "nearest,gptq"],
}


@pytest.mark.parametrize("command", COMMANDS)
def test_pins_are_kept_by_every_command(models, tmp_path, command):
    out = tmp_path / "out"
    report = run(command, models("untied"), out, *COMMANDS[command], *PINS)
    widths = widths_of(out)
    for name, width in widths.items():
        if "self_attn" in name:
            assert width == affine(6), name
        elif name.startswith("model.layers.0."):
            assert width is None or width[0] >= 5, name
    assert widths["model.layers.1.mlp.up_proj"] == affine(8, 32)
    assert widths["model.layers.2.mlp.down_proj"] is None
    assert widths["lm_head"] == affine(8, 128)
    assert widths["model.embed_tokens"][0] >= 5
    if command in ("convert", "gptq", "awq", "dwq"):  # of one width otherwise
        assert widths["model.layers.1.mlp.gate_proj"] == affine(4)
        assert widths["model.layers.0.mlp.up_proj"] == affine(5)
    said = {(pin["flag"], pin["pattern"]): pin for pin in report["pins"]}
    assert said["pin", "self_attn.*"]["modules"] == 12
    assert said["pin", "self_attn.*"]["width"] == "6:64"
    assert said["keep", "layers.2.mlp.down_proj"]["modules"] == 1
    card = (out / "README.md").read_text()
    assert "--pin self_attn.*=6" in card and "--keep layers.2" in card
    model, tokenizer = load(str(out))
    assert mx.isfinite(model(mx.array([[1, 2, 3]]))).all().item()


@pytest.mark.parametrize("command", ["convert", "gptq"])
def test_pins_of_other_modes(models, tmp_path, command):
    out = tmp_path / "out"
    run(command, models("untied"), out, *COMMANDS[command],
        "--pin", "mlp=4:32:mxfp4", "--pin", "head=8:32:mxfp8",
        "--pin", "v_proj=4:16:nvfp4")
    widths = widths_of(out)
    assert widths["model.layers.1.mlp.up_proj"] == (4, 32, "mxfp4")
    assert widths["lm_head"] == (8, 32, "mxfp8")
    assert widths["model.layers.2.self_attn.v_proj"] == (4, 16, "nvfp4")
    assert widths["model.layers.2.self_attn.q_proj"] == affine(4)
    load(str(out))


@pytest.mark.parametrize("command", ["quantize", "plan"])
def test_pins_around_one_width(models, tmp_path, command):
    report = run(command, models("untied"), tmp_path / "out",
                 *(STAGED if command == "quantize" else FEW[2:]),
                 "--bits", 3, "--pin", "head=6", "--at-least", "v_proj=4",
                 *(["--stages", "nearest"] if command == "quantize" else []))
    assert len(report["pins"]) == 2
    if command == "quantize":
        widths = widths_of(tmp_path / "out")
        assert widths["lm_head"] == affine(6)
        assert widths["model.layers.0.self_attn.v_proj"] == affine(4)
        assert widths["model.layers.0.self_attn.q_proj"] == affine(3)


# Of families, what roles and stacks are pinned by and what they come to.
FAMILIES = {
    "qwen2_moe": {
        "experts=5": ("model.layers.0.mlp.switch_mlp.up_proj", affine(5)),
        "shared_expert=6:32": ("model.layers.0.mlp.shared_expert.down_proj", affine(6, 32)),
        "router=8:32": ("model.layers.0.mlp.gate", affine(8, 32)),
        # By the names that the checkpoint has for a stack's matrices.
        "layers.1.mlp.experts.*.down_proj=8": (
            "model.layers.1.mlp.switch_mlp.down_proj", affine(8))},
    "deepseek_v3": {
        "embed_q=8:32": ("model.layers.0.self_attn.embed_q", affine(8, 32)),
        "mlp=6": ("model.layers.0.mlp.gate_proj", affine(6))},
    "gemma3": {
        "model.layers.0.*=6": (
            "language_model.model.layers.0.self_attn.q_proj", affine(6)),
        "language_model.model.layers.1.mlp.*=8": (
            "language_model.model.layers.1.mlp.up_proj", affine(8)),
        "lm_head=5": ("language_model.lm_head", affine(5))},
}


@pytest.mark.parametrize("family", FAMILIES)
def test_roles_stacks_and_wrappers(models, tmp_path, family):
    out = tmp_path / "out"
    for pin, (module, width) in FAMILIES[family].items():
        run("convert", models(family), out, "-q", "--q-group-size", 32,
            "--pin", pin if ":" in pin else pin + ":64")
        assert widths_of(out)[module] == width, pin
    load(str(out))


def test_published_packed_and_carried(models, tmp_path):
    out = tmp_path / "out"
    report = run("convert", models("gpt_oss"), out, "-q",
                 "--pin", "model.layers.0.*=8")
    assert any("published packed" in note for note in report["notes"])
    assert widths_of(out)["model.layers.0.self_attn.q_proj"] == affine(8)
    # The other modalities are no module, and stay as they are anyway.
    report = run("convert", models("gemma3"), out, "-q", "--keep", "vision_tower.*")
    assert any("as it is anyway" in note for note in report["notes"])


DEMO_BPW = ["--target-bpw", 4]
# (model, command, flags, what the one line has to say)
REFUSED = [
    # What can't be read.
    ("tied", "convert", ["--pin", "self_attn.*"], ["says no width", "self_attn.*=6"]),
    ("tied", "convert", ["--pin", "=4"], ["pattern is empty"]),
    ("tied", "convert", ["--pin", "q_proj="], ["bits ''"]),
    ("tied", "convert", ["--pin", "q_proj=four"], ["'four'"]),
    ("tied", "convert", ["--pin", "q_proj=-4"], ["'-4'"]),
    ("tied", "convert", ["--pin", "q_proj=4:"], ["group size ''"]),
    ("tied", "convert", ["--pin", "q_proj=4:64:affine:8"], ["BITS[:GROUP[:MODE]]"]),
    ("tied", "convert", ["--pin", "q_proj=bf16"], ["--keep"]),
    ("tied", "convert", ["--pin", "[q_proj=4"], ["[ has no ]"]),
    ("tied", "convert", ["--at-least", "q_proj"], ["no number of bits"]),
    ("tied", "convert", ["--at-least", "q_proj=5:64"], ["bits alone"]),
    ("tied", "convert", ["--at-least", "q_proj=9"], ["8 are the most"]),
    ("tied", "convert", ["--keep", "q_proj=4"], ["pattern alone"]),
    ("tied", "convert", ["--keep", ""], ["pattern is empty"]),
    # Widths that there are not.
    ("tied", "convert", ["--pin", "q_proj=7"], ["no 7 bits"]),
    ("tied", "convert", ["--pin", "q_proj=4:48"], ["no groups of 48"]),
    ("tied", "convert", ["--pin", "q_proj=4:64:int4"], ["no mode \"int4\""]),
    ("tied", "convert", ["--pin", "q_proj=6:32:mxfp4"], ["mxfp4 has 4 bits"]),
    ("tied", "convert", ["--q-mode", "mxfp4", "--pin", "q_proj=6"],
     ["mxfp4 has 4 bits", "6:64:affine"]),
    ("tied", "convert", ["--q-mode", "mxfp4", "--at-least", "q_proj=5"],
     ["mxfp4 has 4 bits", "another mode"]),
    ("tied", "awq", [*SAMPLES, "--pin", "q_proj=4:32:mxfp4"], ["affine widths alone"]),
    ("tied", "quantize", [*DEMO_BPW, "--pin", "q_proj=4:32:mxfp4"],
     ["affine widths alone"]),
    ("narrow", "convert", ["--pin", "q_proj=4"],
     ["groups of 64", "rows of 96", "groups of 32"]),
    ("tied", "dynamic-quant", [*SAMPLES, "--target-bpw", 5, "--at-least", "q_proj=6"],
     ["no width of so many bits", "--candidates"]),
    # What matches nothing, or nothing that has a width.
    ("tied", "convert", ["--pin", "self_atn.*=4"],
     ["self_atn.*", "matches no module", "model.embed_tokens"]),
    ("tied", "convert", ["--keep", "layers.7.*"],
     ["layers.7.*", "matches no module", "model.layers.0."]),
    ("tied", "convert", ["--pin", "experts=4"], ["has no experts", "attention, mlp"]),
    ("tied", "convert", ["--pin", "*norm=4"], ["no matrix"]),
    ("tied", "convert", ["--pin", "q_proj.weight=4"],
     ["a tensor", "model.layers.0.self_attn.q_proj"]),
    ("gemma3", "convert", ["--pin", "vision_tower.*=4"], ["no part of the language"]),
    ("deepseek_v3", "convert", ["--pin", "mlp.gate=4"], ["plain parameter"]),
    ("gpt_oss", "convert", ["--pin", "experts=5"], ["published packed as 4:32:mxfp4"]),
    ("qwen2_moe", "convert", ["--pin", "switch_mlp.up_proj.1=4"],
     ["some of the", "as one stack"]),
    ("qwen2_moe", "convert", ["--pin", "experts.0.*=4", "--pin", "experts.1.*=6"],
     ["some of the", "as one stack"]),
    # What contradicts itself.
    ("tied", "convert", ["--pin", "q_proj=4", "--pin", "layers.0.*=6"],
     ["--pin q_proj=4 and --pin layers.0.*=6", "model.layers.0.self_attn.q_proj"]),
    ("tied", "convert", ["--pin", "q_proj=4", "--pin", "q_proj=4:32"], ["two widths"]),
    ("tied", "convert", ["--pin", "embedding=4", "--pin", "lm_head=8"],
     ["two widths", "the head, too"]),
    ("tied", "convert", ["--pin", "head=4", "--keep", "model.embed_tokens"],
     ["contradict", "the head, too"]),
    ("tied", "convert", ["--at-least", "attention=5", "--pin", "k_proj=4"],
     ["--pin k_proj=4 is below --at-least attention=5"]),
    ("tied", "convert", ["--keep", "mlp", "--pin", "up_proj=4"], ["contradict"]),
    ("tied", "convert", ["--keep", "*"], ["nothing to do"]),
    # What the size or the command has no room for.
    ("tied", "quantize", ["--target-bpw", 4, "--pin", "embedding=8"],
     ["pinned modules alone take", "raise it to"]),
    ("tied", "plan", ["--target-size", "200KB", "--keep", "mlp"],
     ["pinned modules alone take", "200000 bytes"]),
    ("tied", "dynamic-quant", [*SAMPLES, "--target-bpw", 4.6, "--pin", "mlp=8"],
     ["pinned modules alone take"]),
    ("tied", "sweep", ["--bpw", "3,4", "--keep", "embedding"],
     ["pinned modules alone take"]),
    ("tied", "quantize", ["--bits", 3, "--target-bpw", 4, "--pin", "q_proj=4"],
     ["give one"]),
    ("tied", "dwq", ["--quantized-model", DEMO, "--pin", "q_proj=4"],
     ["not quantized"]),
    ("tied", "inspect", ["--pin", "nothing=4"], ["matches no module"]),
    ("tied", "quantize", [*DEMO_BPW, "--prefer-active=-1"], ["from 0 on"]),
    ("tied", "dynamic-quant", [*SAMPLES, "--prefer-active", "nan"], ["from 0 on"]),
]


@pytest.mark.parametrize(
    "model, command, flags, words", REFUSED,
    ids=[f"{case[1]} {' '.join(map(str, case[2][-4:]))}" for case in REFUSED])
def test_what_cannot_be_kept_is_refused(models, tmp_path, model, command, flags, words):
    quantizes = ["-q"] if command == "convert" else []
    said = run(command, models(model), tmp_path / "out", *quantizes, *flags, code=2)
    assert len(said.strip().splitlines()) == 1, said
    for word in words:
        assert word in said, said


def test_pins_need_something_to_be_quantized(models, tmp_path):
    said = run("convert", models("tied"), tmp_path / "out", "--pin", "q_proj=4", code=2)
    assert "without -q" in said
    out = tmp_path / "quantized"
    run("convert", models("tied"), out, "-q")
    said = run("dwq", models("tied"), tmp_path / "out", "--quantized-model", out,
               "--pin", "q_proj=4", code=2)
    assert "--quantized-model" in said


def test_sizes_are_met_around_pins(tmp_path):
    """From below, within a thousandth, and every pin is kept."""
    model = tmp_path / "model"
    random_model.write(model, num_hidden_layers=8, hidden_size=256,
                       intermediate_size=768, num_attention_heads=8,
                       num_key_value_heads=4, head_dim=32,
                       tie_word_embeddings=False)
    flags = ["--pin", "self_attn.o_proj=6", "--pin", "lm_head=8:32",
             "--at-least", "layers.0.*=4", "--keep", "layers.7.mlp.down_proj"]
    for target in (["--target-bpw", 4.9], ["--target-bpw", 5.61],
                   ["--target-size", "6.1MB"]):
        report = run("plan", model, tmp_path / "out", *target, *flags)
        asked = float(target[1]) if "bpw" in target[0] else 6.1e6
        got = report["bits_per_weight" if "bpw" in target[0] else "bytes"]
        assert asked * 0.999 <= got <= asked
        assert len(report["pins"]) == 4
    out = tmp_path / "out"
    report = run("dynamic-quant", model, out, *SAMPLES, *flags, "--target-bpw", 5.2,
                 "--candidates", "2:64,3:64,4:64,4:32,5:64,6:64,8:64")
    assert 5.2 * 0.999 <= report["bits_per_weight"] <= 5.2
    widths = widths_of(out)
    assert all(widths[f"model.layers.{i}.self_attn.o_proj"] == affine(6)
               for i in range(8))
    assert widths["lm_head"] == affine(8, 32)
    assert widths["model.layers.7.mlp.down_proj"] is None
    assert min(w[0] for n, w in widths.items() if n.startswith("model.layers.0.")) >= 4


def test_a_recipe_holds_its_pins(models, tmp_path):
    model, out = models("tied"), tmp_path / "out"
    pins = ["--pin", "self_attn.*=6", "--keep", "layers.0.mlp.up_proj"]
    run("quantize", model, out, *STAGED, *pins, "--target-bpw", 7,
        "--stages", "nearest")
    recipe = json.loads((out / "recipe.json").read_text())
    assert recipe["pins"] == {
        "pin": ["self_attn.*=6"], "at-least": [], "keep": ["layers.0.mlp.up_proj"]}
    page = (out / "report.html").read_text()
    assert '"pattern":"self_attn.*"' in page
    again = tmp_path / "again"
    report = run("quantize", model, again, "--recipe", out / "recipe.json")
    assert [pin["pattern"] for pin in report["pins"]] == [
        "self_attn.*", "layers.0.mlp.up_proj"]
    for name in ("config.json", "recipe.json", "model.safetensors"):
        assert (again / name).read_bytes() == (out / name).read_bytes()
    said = run("quantize", model, tmp_path / "not", "--recipe", out / "recipe.json",
               "--pin", "mlp=4", code=2)
    assert "--recipe says what --pin sets" in said
    recipe["widths"]["model.layers.1.self_attn.q_proj"] = "4:64"
    changed = tmp_path / "changed.json"
    changed.write_text(json.dumps(recipe))
    said = run("quantize", model, tmp_path / "not", "--recipe", changed, code=2)
    assert "model.layers.1.self_attn.q_proj" in said and "self_attn.*=6" in said


def test_pins_are_settings_of_a_run(models, tmp_path):
    """An unfinished run of other pins is not gone on with."""
    report = run("gptq", models("tied"), tmp_path / "out", *SAMPLES,
                 "--pin", "q_proj=6", "--at-least", "v_proj=5", "--keep", "k_proj")
    options = report["settings"]["options"]
    assert options["pin"] == ["q_proj=6"]
    assert options["at-least"] == ["v_proj=5"] and options["keep"] == ["k_proj"]
    assert not any("k_proj" in note for note in report["notes"])


def test_inspect_shows_pins(models, tmp_path):
    report = run("inspect", models("qwen2_moe"), tmp_path / "out",
                 "--pin", "experts=5", "--at-least", "v_proj=6", "--keep", "router")
    rows = {row["path"]: row for row in report["modules"]}
    assert rows["model.layers.0.mlp.switch_mlp.up_proj"]["pinned"] == "5:64"
    assert rows["model.layers.0.self_attn.v_proj"]["pinned"] == "at least 6"
    assert rows["model.layers.0.mlp.gate"]["pinned"] == "unquantized"
    roles = {row["role"] for row in report["modules"] if "role" in row}
    assert roles == {"attention", "experts", "shared_expert", "router", "embedding",
                     "head"}


def read_a_token(model, report_widths, config):
    """Bytes of the tensors of an output that a token reads."""
    share = config["num_experts_per_tok"] / config["num_experts"]
    total = 0.0
    for file in model.glob("model*.safetensors"):
        for name, tensor in mx.load(str(file)).items():
            part = share if "switch_mlp" in name else 1
            if name.startswith("model.embed_tokens"):
                part = 1 / tensor.shape[0]
            total += tensor.nbytes * part
    return total


def test_prefer_active(models, tmp_path):
    model = models("qwen3_moe")
    config = json.loads((model / "config.json").read_text())
    flags = [*SAMPLES, "--target-bpw", 5, "--candidates",
             "2:32,3:32,4:32,5:32,6:32,8:32"]
    found = []
    for prefer in ([], ["--prefer-active", 0], ["--prefer-active"],
                   ["--prefer-active", 20]):
        out = tmp_path / f"out{len(found)}"
        report = run("dynamic-quant", model, out, *flags, *prefer)
        assert report["bytes_read"] == pytest.approx(
            read_a_token(out, report, config), rel=1e-9)
        assert report["bits_per_weight"] <= 5
        loss = sum(module["estimated_loss"] for module in report["modules"])
        found.append((report["bytes_read"], loss))
    assert found[0] == found[1]
    reads, losses = zip(*found[1:])
    assert reads[0] >= reads[1] > reads[2]
    assert losses[0] <= losses[1] < losses[2]
    # What is made least, of which each must be the best of the three.
    for strength, own in ((1, 1), (20, 2)):
        cost = [loss + strength * losses[0] * read / reads[0]
                for read, loss in found[1:]]
        assert cost[own] == min(cost)
