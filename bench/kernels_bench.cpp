// How fast the ops of a SmolLM2-135M block are on this CPU, each beside what
// the machine gives in the same run: oneDNN's own matmul on the same shape
// and type (plain, 64-byte aligned buffers), or memcpy of as many bytes.
//
//   kernels_bench [tokens a batch = 2048] [sequence length = 512] [repeats]
//
// On a machine that others use, OMP_NUM_THREADS=1 PENNYWEIGHT_BENCH_CPU=1
// counts the processor's time instead of the clock's.

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

#include "kernels/dispatch.h"
#include "measure.h"

namespace {

using namespace pennyweight;
using namespace pennyweight::bench;

constexpr int kHidden = 576, kMlp = 1536, kVocabulary = 49152, kBlocks = 30;
constexpr int kHeads = 9, kKvHeads = 3, kHeadDim = 64;

/// Made by an op of ours, since in a model that is where x comes from: its
/// memory begins at a cache line.
mx::array random(const mx::Shape& shape, mx::Dtype dtype, float scale = 1) {
  auto x = ops::rms_norm(
      mx::random::normal(shape), mx::full({shape.back()}, scale), 0, dtype);
  mx::eval(x);
  return x;
}

// ---- Tables ---------------------------------------------------------------

void print_products(
    const char* title,
    double seconds,
    double flops,
    double own) {
  std::printf(
      "  %-34s %8.3f ms %7.0f GF/s",
      title,
      seconds * 1e3,
      flops / seconds / 1e9);
  if (own > 0) {
    std::printf(
        "   oneDNN %7.0f GF/s   %3.0f %%",
        flops / own / 1e9,
        own / seconds * 100);
  }
  std::printf("\n");
}

void print_bytes(const char* title, double seconds, double bytes) {
  const double copy = copy_rate(bytes);
  std::printf(
      "  %-34s %8.3f ms %7.1f GB/s   memcpy %7.1f GB/s   %3.0f %%\n",
      title,
      seconds * 1e3,
      bytes / seconds / 1e9,
      copy / 1e9,
      bytes / seconds / copy * 100);
}

struct Shape {
  const char* name;
  int out, in;
  bool float_out;
};

const Shape kShapes[] = {
    {"q_proj", kHidden, kHidden, false},
    {"k_proj, v_proj", kKvHeads* kHeadDim, kHidden, false},
    {"o_proj", kHidden, kHidden, true},
    {"gate_proj, up_proj", kMlp, kHidden, false},
    {"down_proj", kHidden, kMlp, true},
};

double flops_of(int tokens, int out, int in) {
  return 2.0 * tokens * out * in;
}

void bench_linears(mx::Dtype dtype) {
  const int tokens = settings.tokens;
  const bool bf16 = dtype == mx::bfloat16;
  std::printf("ops::linear, %s\n", bf16 ? "bfloat16" : "float32");
  for (const Shape& shape : kShapes) {
    const auto x = random({tokens, shape.in}, dtype);
    const auto w = random({shape.out, shape.in}, dtype);
    const auto out = shape.float_out ? mx::float32 : dtype;
    const double seconds =
        eval_seconds([&] { return ops::linear(x, w, std::nullopt, out); });
    print_products(
        (std::string(shape.name) + " " + std::to_string(shape.out) + " x " +
         std::to_string(shape.in))
            .c_str(),
        seconds,
        flops_of(tokens, shape.out, shape.in),
        onednn_seconds(tokens, shape.out, shape.in, bf16, shape.float_out));
  }
}

/// Sums over tokens, as GPTQ's statistics: of x x^T half is computed.
void bench_sums(mx::Dtype dtype) {
  const int tokens = settings.tokens;
  const bool bf16 = dtype == mx::bfloat16;
  std::printf("sums over tokens, %s\n", bf16 ? "bfloat16" : "float32");
  const auto bench = [&](const char* name, int m, int n, bool square) {
    const auto b = random({tokens, n}, dtype);
    const auto a = square ? b : random({tokens, m}, dtype);
    const auto zeros = mx::zeros({m, n}, mx::float32);
    mx::eval(zeros);
    print_products(
        name,
        eval_seconds([&] { return ops::gram_add(zeros, {a}, b); }),
        flops_of(tokens, m, n) * (square ? 0.5 : 1),
        onednn_seconds(m, n, tokens, bf16, true) * (square ? 0.5 : 1));
  };
  bench("x^T x, 576", kHidden, kHidden, true);
  bench("x^T x, 1536", kMlp, kMlp, true);
  bench("x^T y, 1536 x 576", kMlp, kHidden, false);
  bench("x^T y, 1536 x 1536", kMlp, kMlp, false);
}

ops::QuantizedWeight quantized(int out, int in, int group, int bits) {
  auto parts = mx::quantize(random({out, in}, mx::bfloat16), group, bits);
  mx::eval(parts);
  return {parts[0], parts[1], parts[2], group, bits, "affine"};
}

void bench_quantized() {
  const int tokens = settings.tokens;
  std::printf("quantized, bfloat16, groups of 64\n");
  for (int bits : {2, 3, 4, 5, 6, 8}) {
    const auto w = quantized(kMlp, kHidden, 64, bits);
    const double values = double(kMlp) * kHidden;
    const auto name = [bits](const char* op) {
      return std::string(op) + ", " + std::to_string(bits) + " bits";
    };
    print_bytes(
        name("dequantize").c_str(),
        eval_seconds([&] { return ops::dequantize(w, mx::bfloat16); }),
        values * (2 + bits / 8.0));
    const auto x = random({tokens, kHidden}, mx::bfloat16);
    print_products(
        name("quantized_linear").c_str(),
        eval_seconds([&] { return ops::quantized_linear(x, w); }),
        flops_of(tokens, kMlp, kHidden),
        onednn_seconds(tokens, kMlp, kHidden, true, false));
    const auto row = random({1, kHidden}, mx::bfloat16);
    print_bytes(
        name("quantized_linear of 1 row").c_str(),
        eval_seconds([&] { return ops::quantized_linear(row, w); }),
        values * bits / 8.0);
  }
}

void bench_elementwise() {
  const int tokens = settings.tokens;
  const double t = tokens;
  std::printf("elementwise\n");
  const auto x = random({tokens, kHidden}, mx::float32);
  const auto weight = random({kHidden}, mx::bfloat16);
  print_bytes(
      "rms_norm float32 to bfloat16",
      eval_seconds(
          [&] { return ops::rms_norm(x, weight, 1e-5f, mx::bfloat16); }),
      t * kHidden * 6);
  const auto gate = random({tokens, kMlp}, mx::bfloat16);
  const auto up = random({tokens, kMlp}, mx::bfloat16);
  print_bytes(
      "swiglu",
      eval_seconds([&] { return ops::swiglu(gate, up); }),
      t * kMlp * 6);
  const int batch = std::max(1, tokens / settings.length);
  const auto q =
      random({batch, settings.length, kHeads, kHeadDim}, mx::bfloat16);
  const ops::RopeTable table{mx::ones({kHeadDim / 2}), kHeadDim};
  print_bytes(
      "rope of q",
      eval_seconds([&] { return ops::rope(q, table); }),
      double(q.size()) * 4);
  const auto logits = random({256, kVocabulary}, mx::float32);
  print_bytes(
      "softmax 256 x 49152 float32",
      eval_seconds([&] { return ops::softmax(logits); }),
      double(logits.size()) * 8);
}

void bench_scores() {
  const int rows = 1024, columns = 4096;
  std::printf("scores, 1024 rows against 4096 of the vocabulary\n");
  const auto targets = mx::zeros({rows}, mx::int32);
  auto state = mx::contiguous(ops::score_start(rows));
  mx::eval(targets, state);
  const auto x = random({rows, kHidden}, mx::bfloat16);
  const auto head = random({columns, kHidden}, mx::bfloat16, 0.1f);
  const double own = onednn_seconds(rows, columns, kHidden, true, true);
  const double flops = flops_of(rows, columns, kHidden);
  print_products(
      "score_linear",
      eval_seconds([&] {
        return ops::score_linear(state, {x, head}, std::nullopt, targets, 0);
      }),
      flops,
      own);
  print_products(
      "score_linear with a reference",
      eval_seconds([&] {
        return ops::score_linear(
            state, {x, head}, ops::HeadRows{x, head}, targets, 0);
      }),
      2 * flops,
      2 * own);
}

// ---- A block, and a forward pass ------------------------------------------

struct Block {
  mx::array norm, q, k, v, o, gate, up, down;
};

Block random_block(mx::Dtype dtype) {
  const auto weight = [&](int out, int in) {
    return random({out, in}, dtype, 0.05f);
  };
  return {
      random({kHidden}, dtype),
      weight(kHidden, kHidden),
      weight(kKvHeads * kHeadDim, kHidden),
      weight(kKvHeads * kHeadDim, kHidden),
      weight(kHidden, kHidden),
      weight(kMlp, kHidden),
      weight(kMlp, kHidden),
      weight(kHidden, kMlp)};
}

mx::array run_block(const Block& block, mx::array x, mx::Dtype dtype) {
  const int batch = x.shape(0), length = x.shape(1);
  const auto split = [&](const mx::array& y, int heads) {
    return mx::reshape(y, {batch, length, heads, kHeadDim});
  };
  const ops::RopeTable table{mx::full({kHeadDim / 2}, 0.01f), kHeadDim};
  auto input = ops::rms_norm(x, block.norm, 1e-5f, dtype);
  const auto q = ops::rope(split(ops::linear(input, block.q), kHeads), table);
  const auto k = ops::rope(split(ops::linear(input, block.k), kKvHeads), table);
  const auto v = split(ops::linear(input, block.v), kKvHeads);
  const auto mixed = ops::attention(q, k, v, {.scale = 0.125f});
  x = ops::linear_add(x, mx::reshape(mixed, {batch, length, kHidden}), block.o);
  input = ops::rms_norm(x, block.norm, 1e-5f, dtype);
  const auto wide =
      ops::swiglu(ops::linear(input, block.gate), ops::linear(input, block.up));
  return ops::linear_add(x, wide, block.down);
}

double attention_seconds(mx::Dtype dtype, double& flops) {
  const int length = settings.length;
  const int batch = std::max(1, settings.tokens / length);
  const auto q = random({batch, length, kHeads, kHeadDim}, dtype);
  const auto k = random({batch, length, kKvHeads, kHeadDim}, dtype);
  const auto v = random({batch, length, kKvHeads, kHeadDim}, dtype);
  // Two products over the visible half of the scores.
  flops = 2.0 * batch * kHeads * double(length) * length * kHeadDim;
  return eval_seconds(
      [&] { return ops::attention(q, k, v, {.scale = 0.125f}); });
}

void bench_forward(mx::Dtype dtype) {
  const bool bf16 = dtype == mx::bfloat16;
  const int length = settings.length;
  const int batch = std::max(1, settings.tokens / length);
  const int tokens = batch * length;
  std::printf(
      "forward pass of %d x %d tokens, %s\n",
      batch,
      length,
      bf16 ? "bfloat16" : "float32");
  double own = 0, flops = 0;
  for (const Shape& shape : kShapes) {
    const int count = std::strchr(shape.name, ',') ? 2 : 1;
    own += count *
        onednn_seconds(tokens, shape.out, shape.in, bf16, shape.float_out);
    flops += count * flops_of(tokens, shape.out, shape.in);
  }
  double attention_flops = 0;
  const double attention = attention_seconds(dtype, attention_flops);
  const auto block = random_block(dtype);
  const auto x = random({batch, length, kHidden}, mx::float32);
  const double seconds =
      eval_seconds([&] { return run_block(block, x, dtype); });
  print_products("attention", attention, attention_flops, 0);
  print_products("block", seconds, flops, own);
  std::printf(
      "  %-34s %8.0f %% of the block\n",
      "attention's share",
      attention / seconds * 100);

  const auto targets = mx::zeros({tokens}, mx::int32);
  const auto rows = random({tokens, kHidden}, dtype);
  const auto head = random({kVocabulary, kHidden}, dtype, 0.05f);
  auto state = mx::contiguous(ops::score_start(tokens));
  mx::eval(targets, state);
  const double head_seconds = eval_seconds([&] {
    return ops::score_linear(state, {rows, head}, std::nullopt, targets, 0);
  });
  const double head_flops = flops_of(tokens, kVocabulary, kHidden);
  // oneDNN's rate on a tile, as it would not hold all logits either.
  const double head_own =
      onednn_seconds(tokens, 4096, kHidden, bf16, true) * kVocabulary / 4096;
  print_products("head with scores", head_seconds, head_flops, head_own);
  print_products(
      "30 blocks and the head",
      kBlocks * seconds + head_seconds,
      kBlocks * flops + head_flops,
      kBlocks * own + head_own);
}

}  // namespace

int main(int argc, char** argv) {
  setvbuf(stdout, nullptr, _IOLBF, 0);
  int* const values[] = {&settings.tokens, &settings.length, &settings.repeats};
  for (int i = 1; i < argc && i <= 3; ++i) {
    *values[i - 1] = std::max(1, std::atoi(argv[i]));
  }
  mx::set_default_device(mx::Device::cpu);
  ops::keep_freed_memory();
  const auto choice = kernels::active_choice();
  std::printf(
      "%s, %d threads; kernels %s on %s; batches of %d tokens, median of %d\n",
      processor().c_str(),
      kernels::thread_count(),
      std::string(kernels::choice_name(choice)).c_str(),
      std::string(kernels::target_name(choice)).c_str(),
      settings.tokens,
      settings.repeats);
  bench_linears(mx::bfloat16);
  bench_linears(mx::float32);
  bench_sums(mx::bfloat16);
  bench_sums(mx::float32);
  bench_quantized();
  bench_elementwise();
  bench_scores();
  bench_forward(mx::bfloat16);
  bench_forward(mx::float32);
  return 0;
}
