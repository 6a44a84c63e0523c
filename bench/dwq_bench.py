"""Tokens a second of `pennyweight dwq` beside mlx-lm's dwq, in one run.

    .venv/bin/python bench/dwq_bench.py MODEL TEXTS [--batch-size 4] \\
        [--max-seq-length 129] [--steps 3]

Both round MODEL to 4 bits in groups of 64 and train on the same number of
sequences a step of the text files in the folder TEXTS, the full model beside
(no --target-dir). mlx-lm is stock, in the model's own type; of its steps the
first is left out. Ours include what the full model takes, as mlx-lm's do. The
sequences are short, since mlx-lm takes minutes a step on a CPU.
"""

import argparse
import copy
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


def peer(args):
    """Runs in a process of its own; prints seconds a step and tokens."""
    import mlx.optimizers as optimizers
    from mlx_lm.quant.dwq import dwq_quantize
    from mlx_lm.utils import load, quantize_model

    times = []

    class TimedAdam(optimizers.Adam):
        def apply_gradients(self, gradients, parameters):
            times.append(time.perf_counter())
            return super().apply_gradients(gradients, parameters)

    model, tokenizer, config = load(args.model, return_config=True)
    rows = []
    for file in sorted(Path(args.texts).iterdir()):
        ids = tokenizer.encode(file.read_text())
        length = args.max_seq_length
        rows += [(ids[i:i + length], 0)
                 for i in range(0, len(ids) - length + 1, length)]
    batch = args.batch_size
    rows = rows[:batch * (args.steps + 1)]
    student = copy.deepcopy(model)
    quantize_model(student, config, group_size=64, bits=4)
    dwq_quantize(
        student, lambda tokens, idx, split: model(tokens),
        TimedAdam(learning_rate=1e-6, bias_correction=True), rows[batch:],
        rows[:batch], batch_size=batch, max_seq_length=args.max_seq_length,
        seed=123)
    seconds = [b - a for a, b in zip(times, times[1:])]
    print(json.dumps({
        "seconds": statistics.median(seconds),
        "peak_rss": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}))


def ours(args, length, steps):
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        subprocess.run(
            [args.binary, "dwq", "--model", args.model, "--mlx-path",
             f"{folder}/out", "--data-path", args.texts, "--num-samples",
             str(args.batch_size * steps), "--batch-size",
             str(args.batch_size), "--max-seq-length", str(length),
             "--learning-rate", "1e-6", "--report", report, "--quiet"],
            check=True, stdout=subprocess.DEVNULL)
        return json.loads(report.read_text())


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("texts")
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--max-seq-length", type=int, default=129)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument(
        "--binary", default=ROOT / "build/release/src/pennyweight")
    parser.add_argument("--peer", action="store_true")
    args = parser.parse_args()
    if args.peer:
        return peer(args)
    tokens = args.batch_size * (args.max_seq_length - 1)
    mine = ours(args, args.max_seq_length, 10)
    long = ours(args, 513, 10)
    done = subprocess.run(
        [sys.executable, __file__, args.model, args.texts, "--batch-size",
         str(args.batch_size), "--max-seq-length", str(args.max_seq_length),
         "--steps", str(args.steps), "--peer"],
        check=True, stdout=subprocess.PIPE, text=True)
    theirs = json.loads(done.stdout.splitlines()[-1])
    rate = tokens / theirs["seconds"]
    print(f"machine: {platform.machine()}, {os.cpu_count()} cores")
    print(f"{'':34} {'tokens/s':>9} {'peak MB':>8}")
    for name, speed, peak in [
            (f"mlx-lm, sequences of {args.max_seq_length}", rate,
             theirs["peak_rss"]),
            (f"pennyweight, of {args.max_seq_length}",
             mine["tokens_per_second"], mine["peak_rss"]),
            ("pennyweight, of 513", long["tokens_per_second"],
             long["peak_rss"])]:
        print(f"{name:34} {speed:9.1f} {peak / 1e6:8.0f}")
    print(f"at {args.max_seq_length}: {mine['tokens_per_second'] / rate:.0f} "
          "times mlx-lm's")


if __name__ == "__main__":
    main()
