#!/usr/bin/env bash
# Formatting of our sources, and the order of rooms.
set -euo pipefail
cd "$(dirname "$0")/.."
git ls-files -z '*.h' '*.cpp' | xargs -0 clang-format --dry-run -Werror
.venv/bin/python tools/check_rooms.py
echo "lint: formatting and room order hold"
