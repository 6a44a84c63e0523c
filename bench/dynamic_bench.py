"""Times the pass of `pennyweight dynamic-quant` beside mlx-lm's, in one run.

    .venv/bin/python bench/dynamic_bench.py MODEL TEXTS [--samples 51] \\
        [--openblas libopenblas.so.0]

Both measure sensitivities on the same number of sequences of 512 tokens of the
text files in the folder TEXTS, from 4 to 5 bits in groups of 64. mlx-lm runs
in float32 (its matmul in bfloat16 is slower yet) with an OpenBLAS put before
MLX's reference BLAS, where one is given. Of both, the pass alone, from loaded
model and text to the sensitivities.
"""

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from gptq_bench import compare, parse, print_figures, run_peer, sequences


def peer(model_path, texts, samples):
    """Runs in a process of its own; prints seconds and peak memory."""
    import mlx.core as mx
    from mlx_lm.quant.dynamic_quant import estimate_sensitivities
    from mlx_lm.utils import load
    model, tokenizer = load(model_path)
    model.set_dtype(mx.float32)
    data = sequences(tokenizer, texts, samples)
    mx.eval(data, model.parameters())
    start = time.perf_counter()
    estimate_sensitivities(model, data, 4, 64, 5, 64)
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"seconds": seconds, "peak_rss": peak}))


def ours(args):
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        subprocess.run(
            [Path(args.binary).resolve(), "dynamic-quant", "--model",
             Path(args.model).resolve(), "--mlx-path", "out", "--data-path",
             Path(args.texts).resolve(), "--num-samples", str(args.samples),
             "--target-bpw", "4.75", "--quiet", "--report", report],
            check=True, stdout=subprocess.DEVNULL, cwd=folder)
        figures = json.loads(report.read_text())
        return {"seconds": figures["pass_seconds"],
                "peak_rss": figures["peak_rss"]}


def main():
    parser = parse(__doc__)
    parser.set_defaults(samples=51)
    args = parser.parse_args()
    if args.peer:
        return peer(args.model, args.texts, args.samples)
    rows, theirs = compare(
        {"dynamic-quant": lambda: ours(args)},
        lambda: run_peer(args, os.path.abspath(__file__)))
    name = "mlx_lm.dynamic_quant" + (", OpenBLAS" if args.openblas else "")
    print_figures("pass s", name, theirs, rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
