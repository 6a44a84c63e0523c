"""Models of classes that are known by their tensors' names only: `convert`
against mlx_lm.convert on the hub's form of a small random model of each."""

import contextlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

mx = pytest.importorskip("mlx.core")
pytest.importorskip("mlx_lm.utils")
from huggingface_hub.errors import StrictDataclassError  # noqa: E402
from mlx.utils import tree_flatten  # noqa: E402
from mlx_lm.convert import convert as mlx_convert  # noqa: E402
from mlx_lm.utils import load_model  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
for place in ("tests/support", "tests/parity", "tools", "python"):
    sys.path.insert(0, str(ROOT / place))
import class_names  # noqa: E402
import hub_client  # noqa: E402
import packed_models  # noqa: E402
import random_model  # noqa: E402
import walks  # noqa: E402
from class_names_rules import expand_prefix, hub_layout, pattern_of  # noqa: E402
from hub_server import Hub  # noqa: E402
from short_runs import SLOW  # noqa: E402
from test_convert_parity import read, same_tensors  # noqa: E402


def table():
    """The table that is compiled in."""
    import re
    text = class_names.TABLE.read_text()
    return {name: json.loads(made) for name, made in re.findall(
        r'\{"([\w.-]+)", R"json\((.*?)\)json"\}', text, re.DOTALL)}


TABLE = table()
TAKEN = [name for name, made in TABLE.items() if "not_taken" not in made]
# Stacks and moved axes, heads' matrices split, names and values changed at once.
FIRST = {"jamba", "kimi_linear", "step3p5"}
NAMES = [name for name in TAKEN if SLOW or name in FIRST]


def config_of(name):
    return {"model_type": name} | json.loads(
        json.dumps(class_names.CLASSES[name]["config"]))


def write(folder, name, dtype="bfloat16", change=None, hub=True,
          before=None, **keys):
    """A random model in the hub's form; `before` is given the parameters and
    `change` the tensors."""
    config = config_of(name) | keys
    mx.random.seed(1)
    model = class_names.build(name, config)
    weights = {
        key: (value + 0.02 * mx.random.normal(value.shape)).astype(
            getattr(mx, dtype))
        for key, value in tree_flatten(model.parameters())}
    if before:
        before(weights)
    if hub:
        rules = expand_prefix(class_names.CLASSES[name], weights)
        weights, _ = hub_layout(rules, weights, config)
    if change:
        change(weights)
    folder.mkdir(parents=True)
    random_model.save(folder, weights)
    (folder / "config.json").write_text(json.dumps(
        config | {"torch_dtype": dtype}))
    for file in random_model.TOKENIZER:
        shutil.copy(ROOT / "assets/demo" / file, folder / file)
    return weights


def convert(model, out, *flags, code=0):
    done = subprocess.run(
        [walks.BIN, "convert", "--model", str(model), "--mlx-path", str(out),
         *map(str, flags)], capture_output=True, text=True, timeout=120)
    assert done.returncode == code, done.stderr
    return done.stderr


def refused(folder, *words, code, flags=("-q",)):
    said = convert(folder, folder.parent / "out", *flags, code=code)
    last = [line for line in said.splitlines() if line.startswith("error: ")]
    assert len(last) == 1, said
    for word in words:
        assert word in last[0], last[0]
    assert not (folder.parent / "out").exists()


def module_specs(folder):
    """What config.json says of each packed module, as mlx-lm reads it: an entry
    of a module's own takes nothing from the common one."""
    quantization = read(folder).get("quantization")
    if not quantization:
        return {}
    common = {key: quantization[key] for key in ("group_size", "bits", "mode")}
    affine = {"group_size": 64, "bits": 4, "mode": "affine"}
    return {path: affine | quantization[path] if path in quantization
            else common for path in (
                name.removesuffix(".scales") for name
                in random_model.load(folder) if name.endswith(".scales"))}


def compare(folder, flags, **arguments):
    ours, theirs = folder.parent / "ours", folder.parent / "theirs"
    said = convert(folder, ours, *flags)
    assert "known by the names of its tensors only" in said
    mlx_convert(str(folder), str(theirs), **arguments)
    same_tensors(random_model.load(ours), random_model.load(theirs))
    assert module_specs(ours) == module_specs(theirs)
    return ours, theirs


@pytest.mark.parametrize("name", NAMES)
def test_convert_is_mlx_lms(tmp_path, name):
    write(tmp_path / "model", name)
    ours, theirs = compare(
        tmp_path / "model", ["-q", "--q-bits", 4, "--q-group-size", 32],
        quantize=True, q_bits=4, q_group_size=32)
    tokens = mx.array([[1, 2, 3, 4, 5]])
    logits = [load_model(folder)[0](tokens) for folder in (ours, theirs)]
    assert mx.array_equal(*logits, equal_nan=True).item()


def test_what_the_class_keeps_is_said_once(tmp_path):
    write(tmp_path / "model", "bailing_moe_v3")
    said = convert(tmp_path / "model", tmp_path / "out", "-q",
                   "--keep", "*.b_proj")
    lines = [line for line in said.splitlines() if "not quantized" in line]
    assert len(lines) == 1 and "lm_head, model.word_embeddings" in lines[0]
    assert "and 5 more" in lines[0]


@pytest.mark.skipif(not SLOW, reason="PENNYWEIGHT_SLOW is not set")
@pytest.mark.parametrize("name", TAKEN)
def test_each_form_is_mlx_lms(tmp_path, name):
    """With each switch turned; but no layers at all are none of ours."""
    made = TABLE[name]
    for number, config in enumerate(class_names.forms(
            name, class_names.CLASSES[name])):
        if (class_names.value_of(config, made["count"]) == 0
                or any(config.get(key) for key in made["not_where"])):
            continue
        folder = tmp_path / str(number)
        # transformers checks configs, too, where it gets the tokenizer.
        with contextlib.suppress(StrictDataclassError):
            write(folder / "model", name, **config)
            compare(folder / "model", ["-q", "--q-group-size", 32],
                    quantize=True, q_group_size=32)
        shutil.rmtree(folder)


def test_the_table_is_of_the_pinned_mlx_lm():
    done = subprocess.run(
        [sys.executable, ROOT / "tools/class_names.py", "--check",
         *([] if SLOW else ["--but-axes"])],
        capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout + "run tools/class_names.py"


def test_the_documents_list_the_classes():
    text = (ROOT / "docs/commands.md").read_text()
    text = text[text.index("- Known by the names"):]
    taken, left = text[:text.index("\n- ")].split("Classes that even")
    assert TAKEN == [name for name in TABLE if f"`{name}`" in taken]
    assert all(f"`{name}`" in left for name in TABLE if name not in TAKEN)
    assert f"{len(TAKEN)} more" in (ROOT / "README.md").read_text()


@pytest.mark.parametrize("name", ["dbrx", "kimi_linear", "step3p5"])
def test_mlx_lms_own_form_gives_the_same(tmp_path, name):
    def even(weights):  # which a norm's 1 is taken from and added to
        for key, value in weights.items():
            if "norm" in key:
                weights[key] = mx.round(value * 4)
    for form in ("hub", "own"):
        write(tmp_path / form / "model", name, hub=form == "hub", before=even)
        convert(tmp_path / form / "model", tmp_path / form / "out", "-q")
    same_tensors(*[random_model.load(tmp_path / form / "out")
                   for form in ("hub", "own")])


@pytest.mark.parametrize("flags, arguments", [
    ([], {}),
    (["--dtype", "float16"], {"dtype": "float16"}),
    (["-q", "--q-mode", "mxfp4"], {"quantize": True, "q_mode": "mxfp4"}),
    (["-q", "--q-group-size", 128], {"quantize": True, "q_group_size": 128}),
    (["-q", "--q-group-size", 32, "--quant-predicate", "mixed_3_6"],
     {"quantize": True, "q_group_size": 32, "quant_predicate": "mixed_3_6"}),
], ids=["plain", "dtype", "mode", "group", "recipe"])
def test_what_convert_is_asked_for(tmp_path, flags, arguments):
    """kimi_linear's stacks, whose scores' corrections keep their type."""
    def change(weights):
        for name in list(weights):
            if name.endswith("A_log"):
                weights[name] = weights[name].astype(mx.float32)
    write(tmp_path / "model", "kimi_linear", change=change)
    compare(tmp_path / "model", flags, **arguments)


def test_there_and_back(tmp_path):
    """What MLX has packed is expanded, or goes through as it is."""
    write(tmp_path / "model", "rwkv7")
    mlx_convert(str(tmp_path / "model"), str(tmp_path / "packed"),
                quantize=True, q_group_size=32)
    for flags, arguments in (([], {}), (["-d"], {"dequantize": True})):
        for out in ("ours", "theirs"):
            shutil.rmtree(tmp_path / out, ignore_errors=True)
        convert(tmp_path / "packed", tmp_path / "ours", *flags)
        mlx_convert(str(tmp_path / "packed"), str(tmp_path / "theirs"),
                    **arguments)
        same_tensors(random_model.load(tmp_path / "ours"),
                     random_model.load(tmp_path / "theirs"))
    refused(tmp_path / "packed", "quantized already", code=2)


def test_fp8_is_read(tmp_path):
    """As published: expanded by the class's own sanitize, and here as ever."""
    weights = {name: np.array(value.astype(mx.float32)) for name, value
               in write(tmp_path / "first", "mimo_v2_flash").items()}
    entry, packer = packed_models.KINDS["fp8"]
    packed, _ = packed_models.pack(
        weights, packer, ignored=("mlp.gate.", "self_attn.o_proj"))
    packed_models.save(
        tmp_path / "model", read(tmp_path / "first"), packed, entry)
    compare(tmp_path / "model", ["-q"], quantize=True)


def test_pins_are_by_path(tmp_path):
    write(tmp_path / "model", "jamba")
    convert(tmp_path / "model", tmp_path / "out", "-q", "--q-group-size", 32,
            "--pin", "*.switch_mlp.up_proj=6:32", "--keep", "*.mamba.*")
    quantization = read(tmp_path / "out")["quantization"]
    wide = {path for path, entry in quantization.items()
            if isinstance(entry, dict) and entry["bits"] == 6}
    assert wide == {f"model.layers.{i}.feed_forward.switch_mlp.up_proj"
                    for i in (1, 3)}
    assert quantization["model.layers.0.mamba.in_proj"] is False
    shutil.rmtree(tmp_path / "out")
    refused(tmp_path / "model", "no experts", code=2,
            flags=("-q", "--pin", "experts=6"))


def test_what_is_seen_is_left_out(tmp_path):
    """A vision tower, and that there was one, as by mlx-lm."""
    seen = {"vision_model.patch.weight": mx.ones((4, 4)),
            "multi_modal_projector.linear.weight": mx.ones((4, 4))}
    write(tmp_path / "model", "llama4", vision_config={"hidden_size": 4},
          change=lambda weights: weights.update(seen))
    for folder in compare(tmp_path / "model", ["-q"], quantize=True):
        assert "vision_config" not in read(folder)


def test_a_rule_that_is_wrong_is_not_taken():
    """By the script: for mlx-lm makes other values of the hub's form then."""
    jamba, step = (class_names.CLASSES[name] for name in ("jamba", "step3p5"))
    turned = [{**rule, "from": rule["from"].replace("gate_proj", "up_proj")
               if "gate_proj" in rule["to"]
               else rule["from"].replace("up_proj", "gate_proj")}
              for rule in jamba["rules"]]
    plain = [rule for rule in step["rules"] if "add" not in rule]
    for name, spec, words in (
            ("jamba", jamba | {"rules": turned}, "other values of"),
            ("step3p5", step | {"rules": plain}, "other values of"),
            ("step3p5", step | {"layers": "head_dim"}, "not counted")):
        with pytest.raises(class_names.Unsure, match=words):
            class_names.entry(name, spec)


def test_a_tensor_is_in_memory_at_a_time(tmp_path, monkeypatch):
    """110 MB, of which a layer's stacks are 50."""
    large = json.loads(json.dumps(class_names.CLASSES["llama4"]))
    large["config"]["text_config"] |= {
        "num_hidden_layers": 4, "hidden_size": 512,
        "intermediate_size": 1024, "num_local_experts": 16}
    monkeypatch.setitem(class_names.CLASSES, "llama4", large)
    write(tmp_path / "model", "llama4")
    convert(tmp_path / "model", tmp_path / "out", "-q",
            "--json", tmp_path / "report.json")
    assert read(tmp_path, "report.json")["peak_rss"] < 60e6


def test_it_is_streamed(tmp_path):
    """From the hub, file by file."""
    tensors = write(tmp_path / "model", "jamba")
    (tmp_path / "model/model.safetensors").unlink()
    random_model.save(tmp_path / "model", tensors, shards=3)
    convert(tmp_path / "model", tmp_path / "whole", "-q")
    hub = Hub({path.name: path.read_bytes()
               for path in (tmp_path / "model").iterdir()})
    try:
        done = hub_client.run(
            hub, tmp_path / "home", "convert", "--model", "org/tiny",
            "--mlx-path", tmp_path / "out", "--stream", "-q")
    finally:
        hub.close()
    assert done.returncode == 0, done.stderr
    same_tensors(random_model.load(tmp_path / "out"),
                 random_model.load(tmp_path / "whole"))


def test_names_of_another_class(tmp_path):
    """falcon_mamba is mlx-lm's mamba, and stays so called."""
    write(tmp_path / "model", "mamba")
    config = read(tmp_path / "model") | {"model_type": "falcon_mamba"}
    (tmp_path / "model/config.json").write_text(json.dumps(config))
    ours, _ = compare(tmp_path / "model", ["-q"], quantize=True)
    assert read(ours)["model_type"] == "falcon_mamba"


def test_what_mlx_lm_drops(tmp_path):
    """Heads for further tokens are carried beside, as elsewhere."""
    extra = {"model.layers.3.mtp_block.weight": mx.ones((4, 4)),
             "model.layers.0.mtp.x.weight": mx.ones((2,))}
    write(tmp_path / "model", "step3p5", change=lambda w: w.update(extra))
    ours, _ = compare(tmp_path / "model", ["-q"], quantize=True)
    assert mx.load(str(ours / "mtp.safetensors")).keys() == extra.keys()

    write(tmp_path / "tied/model", "plamo3",
          change=lambda w: w.update({"lm_head.weight": mx.ones((384, 64))}))
    compare(tmp_path / "tied/model", ["-q"], quantize=True)


def test_inspect_shows_the_modules(tmp_path):
    write(tmp_path / "model", "jamba")
    report = tmp_path / "report.json"
    subprocess.run([walks.BIN, "inspect", tmp_path / "model", "--json", report],
                   check=True, capture_output=True, timeout=60)
    made = json.loads(report.read_text())
    assert made["family"] == "jamba" and made["blocks"] == 4
    assert made["tied"] and made["hidden"] == 64 and made["vocab"] == 384
    rows = {row["path"]: row for row in made["modules"]}
    stack = rows["model.layers.3.feed_forward.switch_mlp.up_proj"]
    assert stack["shape"] == [5, 128, 64]
    assert stack["role"] == "unknown"
    assert sum(row["bytes"] for row in made["modules"]) == made["bytes"]


@pytest.mark.parametrize("command", [
    ["gptq"], ["awq"], ["quantize", "--target-bpw", 4], ["dynamic-quant"],
    ["plan"], ["evaluate"], ["sweep"], ["inspect", "--kernels"]],
    ids=lambda command: command[0])
def test_no_other_command_takes_it(tmp_path, command):
    write(tmp_path / "model", "jamba")
    name, *flags = command
    model = [tmp_path / "model"] if name in ("plan", "evaluate", "inspect",
                                             "sweep") else [
        "--model", tmp_path / "model", "--mlx-path", tmp_path / "out"]
    text = [] if name == "inspect" else ["--data-path", walks.TEXT]
    done = subprocess.run(
        [walks.BIN, name, *map(str, [*model, *flags, *text])],
        capture_output=True, text=True, timeout=60)
    assert done.returncode == (2 if name == "inspect" else 6), done.stderr
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1 and "known by the names" in lines[0], lines
    assert "convert" in lines[0]
    assert not (tmp_path / "out").exists()


def erase(name):
    return lambda weights: weights.pop(name)


def add(name, shape=(4, 4)):
    return lambda weights: weights.update({name: mx.ones(shape)})


E0 = "model.layers.1.feed_forward.experts.0.up_proj.weight"
NORM = "model.layers.2.input_layernorm.weight"
GATE = "model.layers.1.feed_forward.router.weight"


@pytest.mark.parametrize("change, words", [
    (add("model.layers.0.self_attn.other.weight"), ["other", "no module"]),
    (add("model.layers.*.mamba.D"), ["no module"]),
    (add("model.layers.4.input_layernorm.weight"), ["layers.4", "no module"]),
    (add("model.layers.0.mamba.conv1d.weight", (8, 8)), ["conv1d", "form"]),
    (erase(E0), [E0, "missing"]),
    (erase(NORM), [NORM, "missing"]),
    (erase(GATE), [GATE, "missing"]),
    (add(E0.replace(".0.up", ".5.up"), (128, 64)), ["experts.5", "no module"]),
    (add(E0, (8, 8)), ["experts.1", "shape"]),
], ids=["unknown", "pattern", "layer", "dims", "expert", "norm",
        "router", "more", "shape"])
def test_tensors_that_do_not_fit(tmp_path, change, words):
    write(tmp_path / "model", "jamba", change=change)
    refused(tmp_path / "model", *words, code=4)


@pytest.mark.parametrize("name", NAMES)
def test_a_wrong_width_is_refused(tmp_path, name):
    """As mlx-lm refuses it when it loads the model: of three tensors of which
    the table knows an axis, that one is longer by one."""
    model = class_names.build(name, config_of(name))
    own = {key: value.shape for key, value in tree_flatten(model.parameters())}
    known = [(key, axis) for key in sorted(own) for axis, word in enumerate(
        TABLE[name]["axes"].get(pattern_of(key), "").split()) if word != "-"]
    assert len(known) > len(own) / 2
    for key, axis in known[::len(known) // 3][:3]:
        def longer(weights):
            shape = list(weights[key].shape)
            shape[axis] += 1
            weights[key] = mx.ones(shape)
        shutil.rmtree(tmp_path, ignore_errors=True)
        write(tmp_path / "model", name, hub=False, before=longer)
        refused(tmp_path / "model", key, "the config's", "asks for", code=4)
        with pytest.raises(ValueError):
            load_model(tmp_path / "model")


def test_a_stack_of_another_count(tmp_path):
    write(tmp_path / "model", "jamba", hub=False)
    config = read(tmp_path / "model") | {"num_experts": 4}
    (tmp_path / "model/config.json").write_text(json.dumps(config))
    refused(tmp_path / "model", "router", "num_experts asks for 4 in place of 5",
            code=4)


def test_what_is_refused_by_its_config(tmp_path):
    write(tmp_path / "model", "bailing_moe_linear")
    config = read(tmp_path / "model")
    file = tmp_path / "model/config.json"
    file.write_text(json.dumps(config | {"norm_head": True}))
    refused(tmp_path / "model", "norm_head", code=6)
    file.write_text(json.dumps(config | {"num_experts": "many"}))
    refused(tmp_path / "model", "num_experts", code=4)
    file.write_text(json.dumps({
        key: value for key, value in config.items() if key != "rope_theta"}))
    refused(tmp_path / "model", "rope_theta", "can't load", code=4)
    file.write_text(json.dumps(config | {"quantize_activations": True}))
    refused(tmp_path / "model", "quantize_activations", code=6)


def test_a_class_that_is_not_taken(tmp_path):
    write(tmp_path / "model", "jamba")
    config = read(tmp_path / "model") | {"model_type": "baichuan_m1"}
    (tmp_path / "model/config.json").write_text(json.dumps(config))
    refused(tmp_path / "model", "baichuan_m1", "lm_head.weight", code=6)


def test_recipes_want_layers_that_they_find(tmp_path):
    write(tmp_path / "model", "mamba")
    refused(tmp_path / "model", "mamba", code=2,
            flags=("-q", "--quant-predicate", "mixed_3_6"))


if __name__ == "__main__":
    sys.exit(pytest.main([__file__, *sys.argv[1:]]))
