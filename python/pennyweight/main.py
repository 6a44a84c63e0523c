"""The `pennyweight` command: fetches the hub ids that a command line names, and runs
the program's own entry in this process."""

import json
import os
import sys


def main() -> None:
    words = sys.argv[1:]
    streams, code = None, 1
    try:
        if words[:1] == ["upload"]:
            from pennyweight.upload import upload
            sys.exit(upload(words[1:]))
        from pennyweight import _core
        names = None
        if "PENNYWEIGHT_FETCHED" not in os.environ:  # as run/fetched.h has it
            names = _core.hub_names_of_line(words)
        if names:
            from pennyweight.fetch import hand_over
            streams = hand_over(json.loads(names))
        code = _core.main(words)
    except KeyboardInterrupt:
        code = 130
    finally:
        if streams:
            streams.close(finished=code == 0)
    sys.exit(code)
