"""Quantizes assets/demo at several sizes, to nearest, by GPTQ and by `quantize`,
and prints what each one costs."""

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
    run(program, "evaluate", model, "--data-path", TEXT, "--json", report,
        "--force", *args)
    return json.loads(report.read_text())


def main():
    program = sys.argv[1]
    OUT.mkdir(parents=True, exist_ok=True)
    start = time.time()
    base = evaluate(program, MODEL, OUT / "demo.json")
    rows = [("original (bf16)", base, None)]
    gains = {}
    for bits in (8, 6, 5, 4, 3, 2):
        methods = ["nearest", "gptq"] + ["quantize"] * (bits <= 4)
        for method in methods:
            name = f"demo-{bits}bit" + f"-{method}" * (method != "nearest")
            model = OUT / name
            common = ["--model", MODEL, "--mlx-path", model, "--force"]
            if method == "nearest":
                run(program, "convert", *common, "-q", "--q-bits", bits,
                    "--q-group-size", 64)
            elif method == "gptq":
                run(program, "gptq", *common, "--bits", bits,
                    "--fallback-bits", bits, "--sequence-length", 128,
                    "--data-path", CALIBRATION)
            else:
                run(program, "quantize", MODEL, "-o", model, "--force",
                    "--target-bpw", bits + 0.5, "--effort", "fast",
                    "--sequence-length", 128, "--data-path", CALIBRATION)
            report = evaluate(
                program, model, OUT / f"{name}.json", "--reference", MODEL)
            gains.setdefault(bits, []).append(report["kl"]["mean"])
            rows.append((f"{bits} bits, {method}", report, report["kl"]))

    print("The demo model (assets/demo) in groups of 64, rounded to nearest and "
          "by GPTQ, and\nby `quantize`, which chooses widths and groups, on text "
          "that it was neither\ntrained nor calibrated on:\n")
    print(f"{'':20} {'bits/weight':>11} {'size':>8} {'perplexity':>10} "
          f"{'KL':>9} {'same top-1':>10}")
    for name, report, kl in rows:
        line = (f"{name:20} {report['bits_per_weight']:11.3f} "
                f"{report['bytes'] / 1e6:5.2f} MB {report['perplexity']:10.2f}")
        if kl:
            line += f" {kl['mean']:9.4f} {100 * report['top1']['mean']:9.1f}%"
        print(line)
    better = [100 * kl / gains[4][0] for kl in gains[4][1:]]
    print(f"\nAt 4.5 bits a weight GPTQ leaves {better[0]:.0f} % of the KL "
          f"divergence that rounding to nearest\ndoes, `quantize` {better[1]:.0f} "
          "%, at the same size.")
    folder = OUT.relative_to(ROOT)
    print(f"{time.time() - start:.0f} seconds. The quantized models lie in "
          f"{folder}/; look at\n{folder}/demo-4bit-quantize/report.html, or try "
          "one in mlx-lm:")
    print(f"  mlx_lm.generate --model {folder}/demo-4bit-quantize "
          "--prompt 'Once upon a time'")


if __name__ == "__main__":
    main()
