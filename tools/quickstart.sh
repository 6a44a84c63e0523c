#!/usr/bin/env bash
# Quantizes the demo model at several widths, evaluates each against the
# original on text it never saw, and prints one table. Usage: quickstart.sh BIN
set -euo pipefail
cd "$(dirname "$0")/.."
.venv/bin/python tools/quickstart.py "$1"
