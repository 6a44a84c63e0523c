"""Times `pennyweight awq` beside mlx-lm's AWQ on a model's first blocks.

    .venv/bin/python bench/awq_bench.py MODEL TEXTS [--samples 8] \\
        [--blocks 4] [--openblas libopenblas.so.0]

mlx-lm takes minutes a block, hence only some blocks; time grows with their
number in both. Both take sequences of 512 tokens of the text files in the
folder TEXTS, at 4 bits in groups of 64, mlx-lm in float32 with an OpenBLAS put
before MLX's reference BLAS, where one is given.
"""

import json
import resource
import shutil
import sys
import tempfile
import time
from pathlib import Path

from gptq_bench import (
    compare, parse, print_figures, run_ours, run_peer, sequences)


def peer(model_path, texts, samples):
    """Runs in a process of its own; prints seconds and peak memory."""
    import mlx.core as mx
    from mlx_lm.quant.awq import AWQ_MODEL_CONFIGS, awq_quantize
    from mlx_lm.utils import load
    start = time.perf_counter()
    model, tokenizer, config = load(model_path, return_config=True)
    model.set_dtype(mx.float32)
    data = sequences(tokenizer, texts, samples)
    awq_quantize(
        model, data, AWQ_MODEL_CONFIGS[config["model_type"]], bits=4,
        group_size=64, embed_bits=4, embed_group_size=32, n_grid=20)
    mx.eval(model.parameters())
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"seconds": seconds, "peak_rss": peak}))


def first_blocks(source, blocks, folder):
    """A model of the first blocks of `source`, which has one file."""
    import mlx.core as mx
    for file in Path(source).iterdir():
        if file.is_file() and file.suffix == ".json":
            shutil.copy(file, folder / file.name)
    config = json.loads((folder / "config.json").read_text())
    config["num_hidden_layers"] = blocks
    (folder / "config.json").write_text(json.dumps(config))

    def kept(name):
        parts = name.split(".")
        return "layers" not in parts or int(
            parts[parts.index("layers") + 1]) < blocks

    tensors = mx.load(str(Path(source) / "model.safetensors"))
    mx.save_safetensors(
        str(folder / "model.safetensors"),
        {name: x for name, x in tensors.items() if kept(name)},
        {"format": "mlx"})


def main():
    parser = parse(__doc__)
    parser.set_defaults(samples=8)
    parser.add_argument("--blocks", type=int, default=4)
    args = parser.parse_args()
    if args.peer:
        return peer(args.model, args.texts, args.samples)
    with tempfile.TemporaryDirectory() as name:
        model = Path(name)
        first_blocks(args.model, args.blocks, model)
        rows, theirs = compare(
            {"awq": lambda: run_ours(args, method="awq", model=model)},
            lambda: run_peer(args, __file__, model))
    name = "mlx_lm.awq" + (", OpenBLAS" if args.openblas else "")
    print(f"{args.blocks} blocks, {args.samples} sequences")
    print_figures("seconds", name, theirs, rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
