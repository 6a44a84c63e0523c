"""The `pennyweight` command, as pip installs it."""

import os
import sys
from pathlib import Path


def main():
    program = Path(__file__).parent / "bin" / "pennyweight"
    os.execv(program, [str(program), *sys.argv[1:]])
