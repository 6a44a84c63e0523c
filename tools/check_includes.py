"""Compiles each source by itself, without making objects: one that forgets to
include what it uses fails here, and need not in a build that joins sources.

    cmake --preset dev && .venv/bin/python tools/check_includes.py build/dev
"""

import json
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def compile_alone(entry):
    """What the compiler says of one source; nothing where all is well."""
    command = re.sub(r" -o \S+ -c ", " -fsyntax-only ", entry["command"])
    done = subprocess.run(
        command, shell=True, cwd=entry["directory"], capture_output=True,
        text=True)
    return done.stderr if done.returncode else ""


def main():
    commands = json.loads(
        (Path(sys.argv[1]) / "compile_commands.json").read_text())
    ours = [entry for entry in commands
            if Path(entry["file"]).relative_to(ROOT).parts[0] not in (
                "build", ".venv")]
    if any("Unity" in entry["file"] for entry in commands):
        sys.exit(f"{sys.argv[1]} joins sources; configure it by the dev preset")
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        failed = [text for text in pool.map(compile_alone, ours) if text]
    print("".join(failed), end="")
    print(f"includes: {len(ours) - len(failed)} of {len(ours)} sources compile"
          " by themselves")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
