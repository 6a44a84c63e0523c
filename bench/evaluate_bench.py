"""Times `pennyweight evaluate` beside stock mlx_lm.perplexity, in one run.

    .venv/bin/python bench/evaluate_bench.py MODEL TEXT [--repeats 3]

Both score sequences of the same length from TEXT in MODEL's own float type: ours
chosen at random, the peer's from the start. The peer's figure is mlx-lm's own
eval_ppl() on the tokens, batch 8, without loading; ours is the whole process,
loading and tokenizing included. The peer is slow, so it gets fewer sequences;
both are given as tokens a second. The first forward pass of each is thrown away.
"""

import argparse
import contextlib
import io
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SEQUENCE = 512


def machine():
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        text = cpuinfo.read_text()
        flags = text.split("flags")[1].split("\n")[0]
        have = [f for f in ("amx_bf16", "avx512f", "avx2") if f in flags]
        name += f", {os.cpu_count()} cores, {have[0] if have else 'no AVX2'}"
    return name


def peer_rate(model_path, text, sequences, repeats):
    import mlx.core as mx
    from mlx_lm.perplexity import eval_ppl
    from mlx_lm.utils import load

    model, tokenizer = load(str(model_path))
    ids = tokenizer.encode(text[: sequences * SEQUENCE * 8])
    data = mx.array(ids[: sequences * SEQUENCE]).reshape(-1, SEQUENCE)
    rates = []
    for turn in range(repeats + 1):
        batch = data[:1] if turn == 0 else data
        start = time.perf_counter()
        with contextlib.redirect_stdout(io.StringIO()):
            perplexity, _ = eval_ppl(model, batch, batch_size=8)
        seconds = time.perf_counter() - start
        if turn:
            rates.append(batch.shape[0] * (SEQUENCE - 1) / seconds)
    return statistics.median(rates), perplexity


def our_rate(binary, model_path, text_path, sequences, repeats):
    rates = []
    for turn in range(repeats + 1):
        with tempfile.TemporaryDirectory() as folder:
            report = Path(folder) / "report.json"
            start = time.perf_counter()
            subprocess.run(
                [binary, "evaluate", model_path, "--data-path", text_path,
                 "--num-samples", str(sequences), "--sequence-length",
                 str(SEQUENCE), "--json", report, "--quiet"],
                check=True, stdout=subprocess.DEVNULL)
            seconds = time.perf_counter() - start
            result = json.loads(report.read_text())
        if turn:
            rates.append(sequences * (SEQUENCE - 1) / seconds)
    return statistics.median(rates), result["perplexity"]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("text", type=Path)
    parser.add_argument("--binary", default=ROOT / "build/release/src/pennyweight")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--sequences", type=int, default=64)
    parser.add_argument("--peer-sequences", type=int, default=2)
    args = parser.parse_args()

    ours, our_ppl = our_rate(
        args.binary, args.model, args.text, args.sequences, args.repeats)
    peer, peer_ppl = peer_rate(
        args.model, args.text.read_text(), args.peer_sequences, args.repeats)
    print(f"machine: {machine()}")
    print(f"{'':24} {'tokens/s':>10} {'sequences':>10} {'perplexity':>11}")
    print(f"{'pennyweight evaluate':24} {ours:10.0f} {args.sequences:10d} "
          f"{our_ppl:11.3f}")
    print(f"{'mlx_lm.perplexity':24} {peer:10.1f} {args.peer_sequences:10d} "
          f"{peer_ppl:11.3f}")
    print(f"ratio {ours / peer:.1f} (medians of {args.repeats})")


if __name__ == "__main__":
    sys.exit(main())
