#!/usr/bin/env bash
# Builds libFuzzer targets and runs them one after another.
# Usage: tools/fuzz.sh [seconds] [target...], where a target is a NAME of
# tests/fuzz/NAME_fuzz.cpp; all without one. New inputs go to
# build/fuzz/corpus/NAME; a crash is left in build/fuzz as crash-*.
set -euo pipefail
cd "$(dirname "$0")/.."
seconds=${1:-30}
shift || true
targets=("$@")
[ $# -gt 0 ] || targets=(safetensors_header config chat_template)
python=${PYTHON:-$PWD/.venv/bin/python}
cmake -S . -B build/fuzz -G Ninja -DPENNYWEIGHT_BUILD_FUZZ=ON \
  -DPENNYWEIGHT_BUILD_TESTS=OFF -DPython_EXECUTABLE="$python" \
  -DPENNYWEIGHT_CARGO_TARGET_DIR="$PWD/build/rust" \
  --log-level=WARNING > /dev/null
builds=("${targets[@]/#/build_}")
cmake --build build/fuzz --target "${builds[@]/%/_fuzz}" > /dev/null
cd build/fuzz
for target in "${targets[@]}"; do
  mkdir -p "corpus/$target"
  "tests/fuzz/${target}_fuzz" "corpus/$target" \
    "../../tests/fuzz/corpus/$target" "-dict=../../tests/fuzz/$target.dict" \
    -max_total_time="$seconds" -max_len=4096 -timeout=10 -print_final_stats=1
done
