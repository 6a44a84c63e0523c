#!/usr/bin/env bash
# The figures of docs/performance.md. Usage: bench.sh BIN [MODEL TEXT]
# Without a model, the demo model and its text, which are small: the ratios
# then say little.
set -euo pipefail
cd "$(dirname "$0")/.."
binary=$1
model=${2:-${BENCH_MODEL:-assets/demo}}
text=${3:-${BENCH_TEXT:-assets/demo/sample.txt}}
cmake --preset release -DPython_EXECUTABLE="$PWD/.venv/bin/python" \
  -DPENNYWEIGHT_BUILD_BENCH=ON --log-level=WARNING > /dev/null
cmake --build --preset release > /dev/null
echo "== kernels"
build/release/bench/kernels_bench
echo "== forward pass against oneDNN's matmul on the same shapes"
build/release/bench/forward_bench "$model" "$text"
echo "== evaluate against mlx_lm.perplexity"
.venv/bin/python bench/evaluate_bench.py "$model" "$text" --binary "$binary"
