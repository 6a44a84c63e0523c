"""Quantizes assets/demo at several widths, to nearest and by GPTQ at the same
size, and prints what each one costs."""

import json
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MODEL = ROOT / "assets/demo"
TEXT = MODEL / "sample.txt"
CALIBRATION = MODEL / "calibration.txt"
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
    gains = {}
    for bits in (8, 6, 5, 4, 3, 2):
        for method in ("nearest", "gptq"):
            name = f"demo-{bits}bit" + ("-gptq" if method == "gptq" else "")
            model = OUT / name
            common = ["--model", MODEL, "--mlx-path", model, "--force"]
            if method == "nearest":
                run(program, "convert", *common, "-q", "--q-bits", bits,
                    "--q-group-size", 64)
            else:
                run(program, "gptq", *common, "--bits", bits,
                    "--fallback-bits", bits, "--sequence-length", 128,
                    "--data-path", CALIBRATION)
            report = evaluate(
                program, model, OUT / f"{name}.json", "--reference", MODEL)
            gains.setdefault(bits, []).append(report["kl"]["mean"])
            rows.append((f"{bits} bits, {method}", report, report["kl"]))

    print("The demo model (assets/demo) in groups of 64, rounded to nearest and "
          "by GPTQ,\non text that it was neither trained nor calibrated on:\n")
    print(f"{'':20} {'bits/weight':>11} {'size':>8} {'perplexity':>10} "
          f"{'KL':>9} {'same top-1':>10}")
    for name, report, kl in rows:
        line = (f"{name:20} {report['bits_per_weight']:11.3f} "
                f"{report['bytes'] / 1e6:5.2f} MB {report['perplexity']:10.2f}")
        if kl:
            line += f" {kl['mean']:9.4f} {100 * report['top1']['mean']:9.1f}%"
        print(line)
    nearest, fitted = gains[4]
    print(f"\nAt 4 bits GPTQ leaves {100 * fitted / nearest:.0f} % of the KL "
          "divergence that rounding to nearest does, at the same size.")
    print(f"{time.time() - start:.0f} seconds. The quantized models lie in "
          f"{OUT.relative_to(ROOT)}/; try one in mlx-lm:")
    print(f"  mlx_lm.generate --model {OUT.relative_to(ROOT)}/demo-4bit-gptq "
          "--prompt 'Once upon a time'")


if __name__ == "__main__":
    main()
