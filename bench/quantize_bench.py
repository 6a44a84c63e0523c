"""What `pennyweight quantize` reaches at sizes from 4.8 bits a weight down.

    .venv/bin/python bench/quantize_bench.py MODEL TEXTS EVAL_TEXT \\
        [--efforts fast,best] [--limits fast=3m,best=40m] \\
        [--bpw 4.8,4.61,4.1,3.5,2.6] [--keep FOLDER] \\
        [--judge JUDGE.py --judge-python PYTHON]

Calibrates on the text files in the folder TEXTS and measures KL to MODEL on the
first 8,192 tokens of EVAL_TEXT, 512 a sequence, by `pennyweight evaluate`, or
by an independent JUDGE.py (MODEL CANDIDATE... --text FILE --tokens N, a line a
candidate with "KL mean X" in it). Beside each size stands what mlx-lm 0.32.2
reaches there at best on SmolLM2-135M-Instruct. An effort's limit is its
--time-limit. With --keep, models that are in FOLDER already are only measured.
"""

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TOKENS = 8192
LENGTH = 512
# bits a weight at most: mlx-lm's best there, on the judge's text.
PEERS = {4.8: "0.178 dynamic", 4.61: "0.178 AWQ", 4.1: "0.676 dynamic",
         3.5: "1.892 RTN", 2.6: "none works"}


def quantize(args, bpw, effort, out):
    report = Path(f"{out}.json")
    if not report.exists():
        subprocess.run(
            [args.binary, "quantize", args.model, "-o", out, "--target-bpw",
             str(bpw), "--effort", effort, "--data-path", args.texts,
             "--quiet", "--force", "--report", report,
             *(["--time-limit", args.limits[effort]]
               if effort in args.limits else [])],
            check=True, stdout=subprocess.DEVNULL)
    return json.loads(report.read_text())


def head_of_text(args, folder):
    """A file whose tokens are the first TOKENS of the text."""
    from tokenizers import Tokenizer
    tokenizer = Tokenizer.from_file(str(Path(args.model) / "tokenizer.json"))
    text = Path(args.eval_text).read_text()
    ends = tokenizer.encode(text[:TOKENS * 8], add_special_tokens=False)
    head = folder / "head.txt"
    head.write_text(text[:ends.offsets[TOKENS - 1][1]])
    return head


def own_judge(args, outs, folder):
    head = head_of_text(args, folder)
    figures = {}
    for out in outs:
        file = folder / "kl.json"
        subprocess.run(
            [args.binary, "evaluate", out, "--reference", args.model,
             "--data-path", head, "--sequence-length", str(LENGTH),
             "--num-samples", "-1", "--quiet", "--json", file,
             "--force"],
            check=True, stdout=subprocess.DEVNULL)
        figures[out] = json.loads(file.read_text())["kl"]["mean"]
    return figures


def other_judge(args, outs):
    done = subprocess.run(
        [args.judge_python, args.judge, args.model, *outs, "--text",
         args.eval_text, "--tokens", str(TOKENS), "--seq", str(LENGTH)],
        check=True, stdout=subprocess.PIPE, text=True)
    found = re.findall(r"KL mean ([\d.]+)", done.stdout)
    return dict(zip(outs, map(float, found), strict=True))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("texts")
    parser.add_argument("eval_text")
    parser.add_argument("--efforts", default="fast,best")
    parser.add_argument("--bpw", default=",".join(map(str, PEERS)))
    parser.add_argument("--keep")
    parser.add_argument("--judge")
    parser.add_argument("--judge-python", default=sys.executable)
    parser.add_argument(
        "--limits", default="fast=3m,best=40m",
        type=lambda text: dict(one.split("=") for one in text.split(",")))
    parser.add_argument(
        "--binary", default=ROOT / "build/release/src/pennyweight")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(args.keep or temporary)
        folder.mkdir(parents=True, exist_ok=True)
        rows, outs = [], []
        for effort in args.efforts.split(","):
            for bpw in map(float, args.bpw.split(",")):
                out = str(folder / f"{effort}-{bpw}")
                rows.append((bpw, effort, quantize(args, bpw, effort, out)))
                outs.append(out)
        kl = (other_judge(args, outs) if args.judge
              else own_judge(args, outs, Path(temporary)))
        print(f"machine: {platform.machine()}, {os.cpu_count()} cores, "
              f"{rows[0][2]['page']['machine']}")
        print(f"{'bpw at most':>11} {'effort':8} {'bpw':>7} {'KL':>7} "
              f"{'minutes':>7} {'peak MB':>7}  {'kept':24} mlx-lm's best")
        for (bpw, effort, report), out in zip(rows, outs):
            kept = ", ".join(
                s["name"] for s in report["stages"] if s["kept"])
            print(f"{bpw:11} {effort:8} {report['bits_per_weight']:7.4f} "
                  f"{kl[out]:7.4f} {report['seconds'] / 60:7.1f} "
                  f"{report['peak_rss'] / 1e6:7.0f}  {kept:24} "
                  f"{PEERS.get(bpw, '')}")


if __name__ == "__main__":
    main()
