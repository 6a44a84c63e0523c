#!/usr/bin/env bash
# Builds the libFuzzer target of the safetensors header and runs it.
# Usage: tools/fuzz.sh [seconds]. New inputs go to build/fuzz/corpus; a crash
# is left in build/fuzz as crash-*.
set -euo pipefail
cd "$(dirname "$0")/.."
seconds=${1:-30}
python=${PYTHON:-$PWD/.venv/bin/python}
cmake -S . -B build/fuzz -G Ninja -DPENNYWEIGHT_BUILD_FUZZ=ON \
  -DPENNYWEIGHT_BUILD_TESTS=OFF -DPython_EXECUTABLE="$python" \
  --log-level=WARNING > /dev/null
cmake --build build/fuzz --target fuzz_targets > /dev/null
mkdir -p build/fuzz/corpus
cd build/fuzz
exec tests/fuzz/safetensors_header_fuzz corpus \
  ../../tests/fuzz/corpus/safetensors_header \
  -dict=../../tests/fuzz/safetensors_header.dict \
  -max_total_time="$seconds" -max_len=4096 -timeout=10 -print_final_stats=1
