"""Quantizes assets/demo at several widths and prints what each one costs."""

import json
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MODEL = ROOT / "assets/demo"
TEXT = MODEL / "sample.txt"
OUT = ROOT / "out/quickstart"


def run(program, *args):
    done = subprocess.run(
        [program, *map(str, args)], capture_output=True, text=True
    )
    if done.returncode != 0:
        sys.exit(done.stderr.strip() or f"{program} failed")


def evaluate(program, model, report, *args):
    run(program, "evaluate", model, "--data-path", TEXT, "--json", report, *args)
    return json.loads(report.read_text())


def main():
    program = sys.argv[1]
    OUT.mkdir(parents=True, exist_ok=True)
    start = time.time()
    base = evaluate(program, MODEL, OUT / "demo.json")
    rows = [("original (bf16)", base, None)]
    for bits in (8, 6, 5, 4, 3, 2):
        model = OUT / f"demo-{bits}bit"
        run(program, "convert", "--model", MODEL, "--mlx-path", model,
            "-q", "--q-bits", bits, "--q-group-size", 64, "--force")
        report = evaluate(program, model, OUT / f"demo-{bits}bit.json",
                          "--reference", MODEL)
        rows.append((f"{bits} bits, group 64", report, report["kl"]))

    print("The demo model (assets/demo), rounded to nearest, on text it was "
          "not trained on:\n")
    print(f"{'':20} {'bits/weight':>11} {'size':>8} {'perplexity':>10} "
          f"{'KL':>9} {'same top-1':>10}")
    for name, report, kl in rows:
        line = (f"{name:20} {report['bits_per_weight']:11.3f} "
                f"{report['bytes'] / 1e6:5.2f} MB {report['perplexity']:10.2f}")
        if kl:
            line += f" {kl['mean']:9.4f} {100 * report['top1']['mean']:9.1f}%"
        print(line)
    print(f"\n{time.time() - start:.0f} seconds. The quantized models lie in "
          f"{OUT.relative_to(ROOT)}/; try one in mlx-lm:")
    print(f"  mlx_lm.generate --model {OUT.relative_to(ROOT)}/demo-4bit "
          "--prompt 'Once upon a time'")


if __name__ == "__main__":
    main()
