"""What `pennyweight plan` says of time and memory, and what runs take.

    .venv/bin/python bench/plan_bench.py TEXTS MODEL... \\
        [--efforts fast] [--target-bpw 4.6] [--time-limit 90s] [--plans 3]

Of each model and effort: so many plans, one after the other, whose spread shows
how far they repeat; then `pennyweight quantize`, calibrated on the text files
in the folder TEXTS. A ratio is of what was measured to what was planned. With
--time-limit the plan's time is the limit. Nothing else should be running.
"""

import argparse
import json
import os
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def plan(args, model, folder):
    file = folder / "plan.json"
    subprocess.run(
        [args.binary, "plan", model, "--target-bpw", str(args.target_bpw),
         "--data-path", args.texts, "--json", file, "--force"],
        check=True, stdout=subprocess.DEVNULL)
    return json.loads(file.read_text())


def quantize(args, model, effort, folder):
    report = folder / "report.json"
    limit = ["--time-limit", args.time_limit] if args.time_limit else []
    start = time.monotonic()
    subprocess.run(
        [args.binary, "quantize", model, "-o", folder / "out", "--force",
         "--target-bpw", str(args.target_bpw), "--effort", effort,
         "--data-path", args.texts, "--quiet", "--report", report, *limit],
        check=True, stdout=subprocess.DEVNULL)
    seconds = time.monotonic() - start
    return seconds, json.loads(report.read_text())


def effort_of(plan, name):
    return next(e for e in plan["efforts"] if e["effort"] == name)


def compare(args, model, effort, plans, folder):
    own = [effort_of(p, effort) for p in plans]
    totals = [e["seconds"]["total"] for e in own]
    planned = statistics.median(totals)
    repeat = (max(totals) - min(totals)) / planned
    seconds, report = quantize(args, model, effort, folder)
    peak, expected = report["peak_rss"], own[0]["memory"]["peak"]
    print(f"| {Path(model).name} | {effort} | {planned:.0f} s "
          f"({own[0]['seconds']['low']:.0f} to {own[0]['seconds']['high']:.0f}) "
          f"| {100 * repeat:.0f} % | {seconds:.0f} s | {seconds / planned:.2f} "
          f"| {expected / 1e9:.2f} GB | {peak / 1e9:.2f} GB "
          f"| {peak / expected:.2f} |", flush=True)
    stages = {s["name"]: s["seconds"] for s in report["stages"]}
    print("    " + ", ".join(
        f"{name} {own[0]['seconds'][name]:.1f} planned, {took:.1f} took"
        for name, took in stages.items()))
    for note in report["notes"]:
        if "--time-limit" in note:
            print(f"    {note}")


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("texts")
    parser.add_argument("models", nargs="+")
    parser.add_argument("--efforts", default="fast")
    parser.add_argument("--target-bpw", type=float, default=4.6)
    parser.add_argument("--time-limit")
    parser.add_argument("--plans", type=int, default=3)
    parser.add_argument(
        "--binary",
        default=os.environ.get(
            "PENNYWEIGHT_BIN", ROOT / "build/release/src/pennyweight"))
    args = parser.parse_args()
    print("| model | effort | plan | plans differ by | took | ratio "
          "| memory planned | peak | ratio |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    for model in args.models:
        with tempfile.TemporaryDirectory() as folder:
            plans = [plan(args, model, Path(folder)) for _ in range(args.plans)]
            for note in plans[0]["notes"]:
                if "machine" in note:
                    print(f"    {note}")
            for effort in args.efforts.split(","):
                compare(args, model, effort, plans, Path(folder))


if __name__ == "__main__":
    main()
