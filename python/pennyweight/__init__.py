"""The `pennyweight` command, as pip installs it: it fetches what of the hub a
command line names and starts the program, which knows folders alone."""

import json
import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent


def find_program():
    """PENNYWEIGHT_BIN, what was installed, or a clone's own build."""
    named = os.environ.get("PENNYWEIGHT_BIN")
    places = [Path(named)] if named else [
        HERE / "bin/pennyweight", HERE.parents[1] / "build/release/src/pennyweight"]
    for place in places:
        if os.access(place, os.X_OK):
            return str(place)
    print(f"error: [launcher] {places[-1]} is no program; build it, or name one "
          "by PENNYWEIGHT_BIN", file=sys.stderr)
    sys.exit(3)


def ask_names(program, words):
    """What src/cli/fetched.h says; nothing where the program will refuse the
    command line or only print help."""
    asked = subprocess.run([program, "--hub-names", *words], text=True,
                           capture_output=True, stdin=subprocess.DEVNULL)
    if asked.returncode or not asked.stdout.startswith("{"):
        return {}
    return json.loads(asked.stdout)


def main():
    words = sys.argv[1:]
    try:
        if words[:1] == ["upload"]:
            from pennyweight.upload import upload
            sys.exit(upload(words[1:]))
        program = find_program()
        command = [program, *words]
        names = ask_names(program, words)
        if names:
            from pennyweight.fetch import hand_over
            hand_over(names, command)
        os.execv(program, command)
    except KeyboardInterrupt:
        sys.exit(130)
