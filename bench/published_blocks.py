"""What two blocks of published models take: a random model of their real widths
goes through `gptq --bits 4`, and stock mlx-lm loads the output.

    .venv/bin/python bench/published_blocks.py [--names glm-4.7-flash,...]
        [--samples 16] [--length 512] [--folder FOLDER]

prints a row for each: parameters, seconds a block, peak memory. Each kind of layer
stands in it once, so that some have three blocks, and of the largest there are 64
experts, so that disk and memory of a small machine hold them. The configurations
are those that the parity tests have or, where there is only a sister of another
size, hers with the widths given here.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import mlx.core as mx
from mlx.utils import tree_flatten

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests/parity"))
sys.path.insert(0, str(ROOT / "tests/support"))
from mlx_lm.utils import _get_classes, load_model  # noqa: E402
from published import in_class_spelling  # noqa: E402

PROGRAM = ROOT / "build/release/src/pennyweight"
SIDE_FILES = ["tokenizer.json", "tokenizer_config.json"]
SHARD = 2_000_000_000
DENSE_THEN_EXPERTS = {"first_k_dense_replace": 1, "num_nextn_predict_layers": 0}
FEW_EXPERTS = DENSE_THEN_EXPERTS | {
    "n_routed_experts": 64, "n_group": 1, "topk_group": 1}
# The published configuration, and what makes few blocks of it.
MODELS = {
    "gemma-4-26b-a4b": ("google/gemma-4-26B-A4B", {
        "layer_types": ["sliding_attention", "full_attention"]}),
    "glm-4.7-flash": ("zai-org/GLM-4.7-Flash", DENSE_THEN_EXPERTS),
    "qwen3-vl-8b": ("Qwen/Qwen3-VL-2B-Instruct", {
        "hidden_size": 4096, "intermediate_size": 12288,
        "num_attention_heads": 32, "num_key_value_heads": 8,
        "tie_word_embeddings": False}),
    "qwen3-30b-a3b": ("Qwen/Qwen3-235B-A22B", {
        "hidden_size": 2048, "intermediate_size": 6144,
        "moe_intermediate_size": 768, "num_attention_heads": 32,
        "num_key_value_heads": 4}),
    "gpt-oss-20b": ("openai/gpt-oss-120b", {
        "num_local_experts": 32,
        "layer_types": ["sliding_attention", "full_attention"]}),
    "deepseek-v3.2": ("deepseek-ai/DeepSeek-V3.2", FEW_EXPERTS),
    "minimax-m2": ("MiniMaxAI/MiniMax-M2.5", {
        "num_mtp_modules": 0, "num_local_experts": 64}),
    "nemotron-3-nano": ("nvidia/NVIDIA-Nemotron-3-Nano-30B-A3B-BF16", {
        "hybrid_override_pattern": "ME*", "num_hidden_layers": 3}),
    "lfm2-8b-a1b": ("LiquidAI/LFM2-1.2B", {
        "model_type": "lfm2_moe", "num_dense_layers": 1,
        "intermediate_size": 7168, "moe_intermediate_size": 1792,
        "num_experts": 32, "num_experts_per_tok": 4, "norm_topk_prob": True,
        "use_expert_bias": True, "routed_scaling_factor": 1.0,
        "full_attn_idxs": [1],
        "layer_types": ["conv", "full_attention"]}),
    "kimi-k2.5": ("moonshotai/Kimi-K2.5", FEW_EXPERTS),
}


def config_of(name):
    published, changes = MODELS[name]
    known = [own for file in ("published_configs.json", "published_dense.json")
             for own in json.loads((ROOT / "tests/parity" / file).read_text())]
    config = next(own["config"] for own in known if own["name"] == published)
    text = config.get("text_config", config)
    text |= {"num_hidden_layers": 2} | changes
    config.pop("quantization_config", None)
    return in_class_spelling(config)


def write(folder, config):
    """The class's own tensors, of normal values, some gigabytes at a time."""
    model_class, args_class = _get_classes(config)
    shapes = {name: value.shape for name, value in
              tree_flatten(model_class(args_class.from_dict(config)).parameters())}
    shard, held, number, total = {}, 0, 0, 0
    for name, shape in shapes.items():
        scale = 1.0 if len(shape) < 2 else shape[-1] ** -0.5
        value = (mx.random.normal(shape) * scale).astype(mx.bfloat16)
        mx.eval(value)
        shard[name] = value
        held += value.nbytes
        total += value.size
        if held > SHARD:
            mx.save_safetensors(
                str(folder / f"model-{number:05}.safetensors"), shard, {"format": "mlx"})
            shard, held, number = {}, 0, number + 1
    mx.save_safetensors(
        str(folder / f"model-{number:05}.safetensors"), shard, {"format": "mlx"})
    (folder / "config.json").write_text(json.dumps(config))
    for name in SIDE_FILES:
        shutil.copy(ROOT / "assets/demo" / name, folder / name)
    return total


def measure(name, args, folder):
    config = config_of(name)
    source, out = folder / "model", folder / "out"
    source.mkdir()
    parameters = write(source, config)
    report = folder / "report.json"
    done = subprocess.run(
        [PROGRAM, "gptq", "--model", source, "--mlx-path", out, "--bits", "4",
         "--num-samples", str(args.samples), "--sequence-length", str(args.length),
         "--data-path", ROOT / "assets/demo/calibration.txt", "--plain",
         "--json", report, "--quiet"], capture_output=True, text=True)
    if done.returncode:
        return [name, done.stderr.strip().splitlines()[-1]]
    load_model(out, lazy=True)
    told = json.loads(report.read_text())
    blocks = " + ".join(f"{own['seconds']:.0f} s" for own in told["blocks"])
    return [name, f"{parameters / 1e9:.2f} B", blocks,
            f"{told['peak_rss'] / 1e9:.2f} GB", f"{told['bits_per_weight']:.2f}"]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--names", default=",".join(MODELS))
    parser.add_argument("--samples", type=int, default=16)
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--folder")
    args = parser.parse_args()
    print("| model | parameters | blocks | peak memory | bits a weight |")
    print("| --- | --- | --- | --- | --- |")
    for name in args.names.split(","):
        with tempfile.TemporaryDirectory(dir=args.folder) as folder:
            print("| " + " | ".join(measure(name, args, Path(folder))) + " |",
                  flush=True)


if __name__ == "__main__":
    main()
