"""Builds core, format and kernels for 64-bit ARM under Linux, with Debian's
cross compiler and its arm64 packages, and runs their tests in qemu: so NEON's
lanes are tested where no such processor is at hand.

    .venv/bin/python tools/check_aarch64.py
"""

import json
import os
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from check_macos import ROOT, run, sources_of

TREE = ROOT / "build/aarch64"
ROOMS = ["core", "format", "kernels"]
QEMU = "qemu-aarch64"
# Parts that a program's tests are run in, for cores to end together.
SHARDS = {"kernels": 6}
# What would take minutes in qemu and tests no lanes: the same bytes on any
# number of threads, large products, and OpenBLAS on many shapes.
LEFT_OUT = "-*AnyThreads*:*LargerThanItsPanels*:*Shapes.*/blas"


def run_part(part):
    """The program's output, with its exit status behind."""
    room, shard, shards = part
    environment = {**os.environ, "GTEST_TOTAL_SHARDS": str(shards),
                   "GTEST_SHARD_INDEX": str(shard), "GTEST_FILTER": LEFT_OUT}
    done = subprocess.run([QEMU, str(TREE / f"tests/test_{room}")],
                          env=environment, text=True, capture_output=True)
    return done.stdout + done.stderr, done.returncode


def passed_tests(output):
    return sum(int(count) for count
               in re.findall(r"^\[  PASSED  \] (\d+) tests?\.$", output, re.M))


def main():
    if not shutil.which(QEMU) or not shutil.which("aarch64-linux-gnu-g++"):
        print("check-aarch64: skipped, since it needs Debian's cross compiler "
              "and arm64 packages")
        return
    run(["cmake", "--preset", "aarch64"], cwd=ROOT)
    run(["cmake", "--build", "--preset", "aarch64", "--target",
         *(f"test_{room}" for room in ROOMS)], cwd=ROOT)
    commands = json.loads((TREE / "compile_commands.json").read_text())
    sources = [source for entry in commands
               for source in sources_of(entry["file"])]
    parts = [(room, shard, SHARDS.get(room, 1)) for room in ROOMS
             for shard in range(SHARDS.get(room, 1))]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        results = list(pool.map(run_part, parts))
    failed = [output for output, status in results if status]
    if failed:
        sys.exit("\n".join(failed) + "\ncheck-aarch64: tests failed")
    passed = sum(passed_tests(output) for output, _ in results)
    neon = sum(output.count("simd_NEON (") for output, _ in results)
    if not neon:
        sys.exit("check-aarch64: no test ran on NEON")
    print(f"check-aarch64: {len(sources)} sources compile for aarch64 Linux; "
          f"{passed} tests pass in {QEMU}, {neon} of them on NEON")


if __name__ == "__main__":
    main()
