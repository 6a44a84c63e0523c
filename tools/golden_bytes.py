"""Whether every method still makes the bytes of assets/demo that it made.

    tools/golden_bytes.py check [NAME...]    # compares with tests/golden/bytes.json
    tools/golden_bytes.py record [NAME...]   # writes them there

The runs use the SIMD kernels of AVX2 on one thread, so that any x86 machine
makes the same bytes. A change that is to change them records them anew and says
why.
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DEMO = ROOT / "assets/demo"
TEXT = DEMO / "calibration.txt"
GOLDEN = ROOT / "tests/golden/bytes.json"
PROGRAM = os.environ.get(
    "PENNYWEIGHT_BIN", str(ROOT / "build/release/src/pennyweight"))
KERNELS = {"PENNYWEIGHT_KERNEL": "simd", "PENNYWEIGHT_SIMD": "avx2",
           "PENNYWEIGHT_THREADS": "1"}
# What tells of the run rather than of the model: times, versions, kernels.
ABOUT_THE_RUN = {"README.md", "report.html", "recipe.json"}

WALK = ["--data-path", TEXT, "--sequence-length", "96", "--num-samples", "16"]
SMALL = ["--data-path", TEXT, "--sequence-length", "96",
         "--gptq-samples", "16", "--dwq-samples", "16", "--learn-steps", "4"]
RUNS = {
    "convert": ["convert", "-q", "--q-bits", "4"],
    "convert-mxfp4": ["convert", "-q", "--q-mode", "mxfp4"],
    "convert-mixed": ["convert", "-q", "--quant-predicate", "mixed_3_6"],
    "gptq": ["gptq", *WALK],
    "gptq-plain": ["gptq", *WALK, "--plain"],
    "gptq-learned": ["gptq", *WALK, "--bits", "2", "--learn-steps", "4"],
    "awq": ["awq", *WALK],
    "awq-gptq": ["awq", *WALK, "--bits", "3", "--then", "gptq"],
    "dynamic-quant": ["dynamic-quant", *WALK, "--target-bpw", "5"],
    "dwq": ["dwq", "--data-path", TEXT, "--max-seq-length", "65",
            "--num-samples", "16"],
    "quantize-4.5": ["quantize", "--target-bpw", "4.5", *SMALL],
    "quantize-2.8": ["quantize", "--target-bpw", "2.8", *SMALL,
                     "--effort", "best"],
}


def is_copy(file):
    source = DEMO / file.name
    return source.exists() and source.read_bytes() == file.read_bytes()


def sums_of(folder):
    return {
        str(file.relative_to(folder)):
            hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(folder.rglob("*"))
        if file.is_file() and file.name not in ABOUT_THE_RUN
        and not is_copy(file)}


def run(name, work, *more):
    """The SHA-256 of what a run writes, file by file; `more` flags."""
    command, *flags = RUNS[name]
    out = work / name
    where = ([DEMO, "-o", out] if command == "quantize"
             else ["--model", DEMO, "--mlx-path", out])
    if command == "dwq":
        where += ["--quantized-model", work / "convert"]
        if not (work / "convert").exists():
            run("convert", work)
    done = subprocess.run(
        [PROGRAM, command, *map(str, where), *map(str, flags),
         *map(str, more), "--quiet"],
        capture_output=True, text=True, env=os.environ | KERNELS)
    if done.returncode:
        sys.exit(f"{name}: exit {done.returncode}: {done.stderr.strip()}")
    return sums_of(out)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("what", choices=["check", "record"])
    parser.add_argument("names", nargs="*", metavar="NAME")
    options = parser.parse_args()
    known = json.loads(GOLDEN.read_text()) if GOLDEN.exists() else {}
    changed = []
    with tempfile.TemporaryDirectory() as work:
        for name in options.names or RUNS:
            made = run(name, Path(work))
            if made != known.get(name):
                before = known.get(name, {})
                changed += [f"{name}/{file}" for file in sorted(
                    made.keys() | before.keys())
                    if made.get(file) != before.get(file)]
            known[name] = made
    if options.what == "record":
        GOLDEN.write_text(json.dumps(known, indent=1, sort_keys=True) + "\n")
    for file in changed:
        print(f"other bytes: {file}")
    return 1 if changed and options.what == "check" else 0


if __name__ == "__main__":
    sys.exit(main())
