"""How fast blocks of published models are here, beside oneDNN's own matmul on
their shapes: see bench/shapes_bench.cpp.

    bench/shapes_bench.py [MODEL...] [--tokens 512 4096] [--json FILE]
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(Path(__file__).parent))
import shapes  # noqa: E402

PROGRAM = ROOT / "build/release/bench/shapes_bench"
# Least share of oneDNN's rate: forward with and without AMX and at 4,096.
LEAST = {"forward": (0.6, 0.7, 0.5), "backward": (0.5, 0.5, 0.5),
         "by weights": (0.5, 0.5, 0.5), "sums": (0.5, 0.5, 0.5)}


def measure(name, config, tokens):
    with tempfile.TemporaryDirectory() as work:
        folder = Path(work) / name
        shapes.write(folder, config)
        done = subprocess.run(
            [PROGRAM, folder, *map(str, tokens)], stdout=subprocess.PIPE,
            text=True)
        if done.returncode:
            sys.exit(f"{name}: exit {done.returncode}")
    return [json.loads(line) for line in done.stdout.splitlines()]


def least_for(row, amx):
    for kind, (with_amx, without, long) in LEAST.items():
        if kind in row["what"]:
            return long if row["tokens"] > 2048 else (
                with_amx if amx else without)
    return 0


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("models", nargs="*", default=list(shapes.MODELS))
    parser.add_argument("--tokens", nargs="*", type=int, default=[512, 4096])
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    below, made = [], {}
    for name in options.models:
        machine, *rows = measure(name, shapes.MODELS[name], options.tokens)
        if not made:
            print(", ".join(map(str, machine.values())))
        made[name] = {"machine": machine, "rows": rows}
        amx = "amx" in machine["target"]
        print(f"{name}")
        for row in rows:
            missed = row["share"] < least_for(row, amx)
            below += [(name, row)] if missed else []
            print(f"  {row['what']:<28} {row['tokens'] or '':>5} "
                  f"{row['seconds'] * 1e3:>10.2f} ms {row['gflops']:>7.0f} "
                  f"GF/s   oneDNN {row['peer_gflops']:>6.0f}   "
                  f"{row['share']:>5.0%}{'  *' if missed else ''}"
                  f"   ({row['linears_share']:.0%} by linears alone)",
                  flush=True)
    if options.json:
        options.json.write_text(json.dumps(made, indent=1))
    print(f"{len(below)} below the least share (*)")


if __name__ == "__main__":
    main()
