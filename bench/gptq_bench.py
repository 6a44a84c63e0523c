"""Times `pennyweight gptq` beside mlx-lm's GPTQ, in one run.

    .venv/bin/python bench/gptq_bench.py MODEL TEXTS [--samples 64] \\
        [--openblas libopenblas.so.0]

Both take the same sequences of 512 tokens of the text files in the folder
TEXTS, at 4 bits in groups of 64 and 6 bits for the embedding. mlx-lm runs in
float32 (its matmul in bfloat16 is slower yet) with an OpenBLAS put before
MLX's reference BLAS, where one is given. Of both, the time from loading the
model and the texts to the written output; interpreter and imports are left out
of mlx-lm's.
"""

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def sequences(tokenizer, texts, samples):
    """Of 512 tokens each, drawn from all files of the folder."""
    import mlx.core as mx
    rows = []
    for file in sorted(Path(texts).iterdir()):
        ids = tokenizer.encode(file.read_text())
        rows += [ids[i:i + 512] for i in range(0, len(ids) - 511, 512)]
    mx.random.seed(123)
    order = mx.random.permutation(len(rows))[:samples].tolist()
    return mx.array([rows[i] for i in order])


def print_figures(seconds, peer_name, theirs, rows):
    print(f"machine: {platform.machine()}, {os.cpu_count()} cores")
    print(f"{'':22} {seconds:>8} {'peak MB':>8} {'times faster':>13}")
    for name, row in [*rows.items(), (peer_name, theirs)]:
        print(f"{name:22} {row['seconds']:8.1f} {row['peak_rss'] / 1e6:8.0f} "
              f"{theirs['seconds'] / row['seconds']:13.1f}")


def peer(model_path, texts, samples):
    """Runs in a process of its own; prints seconds and peak memory."""
    import mlx.core as mx
    from mlx_lm.quant.gptq import gptq_quantize
    from mlx_lm.utils import load, save
    start = time.perf_counter()
    model, tokenizer, config = load(model_path, return_config=True)
    model.set_dtype(mx.float32)
    data = sequences(tokenizer, texts, samples)
    mx.eval(data, model.parameters())
    quantized, quantization = gptq_quantize(model, data, 4, 64, 6, 64)
    mx.eval(quantized.parameters())
    quantized.set_dtype(mx.bfloat16)
    config["quantization"] = quantization
    with tempfile.TemporaryDirectory() as folder:
        save(folder, model_path, quantized, tokenizer, config)
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"seconds": seconds, "peak_rss": peak}))


def run_peer(args, script=__file__, model=None):
    env = os.environ | {"LD_PRELOAD": args.openblas or ""}
    done = subprocess.run(
        [sys.executable, script, model or args.model, args.texts,
         "--samples", str(args.samples), "--peer"],
        env=env, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def run_ours(args, *flags, method="gptq", model=None):
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        start = time.perf_counter()
        subprocess.run(
            [args.binary, method, "--model", model or args.model,
             "--mlx-path",
             Path(folder) / "out", "--data-path", args.texts, "--num-samples",
             str(args.samples), "--quiet", "--report", report, *flags],
            check=True, stdout=subprocess.DEVNULL)
        seconds = time.perf_counter() - start
        return {"seconds": seconds,
                "peak_rss": json.loads(report.read_text())["peak_rss"]}


def parse(description):
    parser = argparse.ArgumentParser(description=description.split("\n")[0])
    parser.add_argument("model")
    parser.add_argument("texts")
    parser.add_argument(
        "--binary", default=ROOT / "build/release/src/pennyweight")
    parser.add_argument("--samples", type=int, default=64)
    parser.add_argument("--openblas")
    parser.add_argument("--peer", action="store_true", help=argparse.SUPPRESS)
    return parser


def compare(ours, theirs):
    """Machines drift: each of ours runs before mlx-lm's and after it."""
    runs = {name: [run()] for name, run in ours.items()}
    peer_figures = theirs()
    for name, run in ours.items():
        runs[name].append(run())
    rows = {name: {key: statistics.median(run[key] for run in done)
                   for key in ("seconds", "peak_rss")}
            for name, done in runs.items()}
    return rows, peer_figures


def main():
    args = parse(__doc__).parse_args()
    if args.peer:
        return peer(args.model, args.texts, args.samples)
    rows, theirs = compare(
        {"gptq --plain": lambda: run_ours(args, "--plain"),
         "gptq": lambda: run_ours(args)},
        lambda: run_peer(args))
    name = "mlx_lm.gptq" + (", OpenBLAS" if args.openblas else "")
    print_figures("seconds", name, theirs, rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
