#!/usr/bin/env bash
# The figures of docs/performance.md. Usage: bench.sh BIN [MODEL TEXT [TEXTS]]
# Without a model, the demo model and its text, which are small: the ratios
# then say little. TEXTS is a folder of calibration text, for the methods
# beside mlx-lm's, which take minutes.
set -euo pipefail
cd "$(dirname "$0")/.."
binary=$1
model=${2:-${BENCH_MODEL:-assets/demo}}
text=${3:-${BENCH_TEXT:-assets/demo/sample.txt}}
texts=${4:-${BENCH_TEXTS:-}}
cmake --preset release -DPython_EXECUTABLE="$PWD/.venv/bin/python" \
  -DPENNYWEIGHT_BUILD_BENCH=ON --log-level=WARNING > /dev/null
cmake --build --preset release > /dev/null
echo "== kernels"
build/release/bench/kernels_bench
echo "== forward pass against oneDNN's matmul on the same shapes"
build/release/bench/forward_bench "$model" "$text"
echo "== evaluate against mlx_lm.perplexity"
.venv/bin/python bench/evaluate_bench.py "$model" "$text" --binary "$binary"
if [ -n "$texts" ]; then
  echo "== gptq against mlx_lm.gptq"
  openblas=$(ldconfig -p 2> /dev/null |
    awk '/libopenblas.so.0/ {print $NF; exit}')
  .venv/bin/python bench/gptq_bench.py "$model" "$texts" --binary "$binary" \
    --openblas "$openblas"
  echo "== awq against mlx_lm.awq"
  .venv/bin/python bench/awq_bench.py "$model" "$texts" --binary "$binary" \
    --openblas "$openblas"
  echo "== dynamic-quant against mlx_lm.dynamic_quant"
  .venv/bin/python bench/dynamic_bench.py "$model" "$texts" \
    --binary "$binary" --openblas "$openblas"
  echo "== dwq against mlx_lm.dwq"
  .venv/bin/python bench/dwq_bench.py "$model" "$texts" --binary "$binary"
fi
