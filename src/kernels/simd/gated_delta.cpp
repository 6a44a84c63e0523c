#include "kernels/simd/targets.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/simd/gated_delta.cpp"
#include <hwy/foreach_target.h>
// clang-format keeps the order: the targets come first.
#include <hwy/highway.h>

#include <algorithm>
#include <cmath>

#include "kernels/access.h"
#include "kernels/scratch.h"
#include "kernels/simd/export.h"
#include "kernels/simd/simd.h"
#include "kernels/simd/vec_inl.h"
#include "kernels/threads.h"

HWY_BEFORE_NAMESPACE();

namespace pennyweight::kernels::HWY_NAMESPACE {

// The state S [value_dim, key_dim] of a head advances kChunk tokens a pass.
// With S as the chunk finds it, D_j = g_0 .. g_j and R_ij = g_i+1 .. g_j,
//   delta_j = beta_j (v_j - D_j S k_j - sum over i < j of R_ij delta_i k_i.k_j)
//   y_j     = D_j S q_j + sum over i <= j of R_ij delta_i k_i.q_j
// and by the sum rule delta_j = beta_j v_j, to which y_j adds skip v_j; so that
// S is read once for all S k and S q of a chunk, and written once. S is
// stored in strips, [key_dim, kWide * lanes], each of which stays in the
// nearest cache for a block of tokens.
constexpr int kChunk = 4;
constexpr int kWide = HWY_TARGET == HWY_AVX2 ? 1 : 2;  // 16 or 32 registers
constexpr int64_t kBlockTokens = 32;                   // whole chunks

/// What a chunk needs beside keys, queries and values.
struct ChunkFactors {
  float beta[kChunk];
  float decay[kChunk];          // D_j
  float left[kChunk];           // R_j,last
  float keys[kChunk][kChunk];   // R_ij k_i.k_j, i < j; of the delta rule
  float reads[kChunk][kChunk];  // R_ij k_i.q_j, i <= j
};

/// Memory of one head: its state, and a block of tokens as float32.
struct DeltaHead {
  int64_t key_dim;
  int64_t columns;  // value_dim in whole strips
  float* state;     // [columns / strip, key_dim, strip]
  float* keys;      // [kBlockTokens, key_dim]
  float* queries;   // likewise
  float* values;    // [kBlockTokens, columns], 0 behind value_dim
  float* results;   // likewise
  float skip;
  ChunkFactors chunks[kBlockTokens / kChunk];
};

int64_t delta_strip() {
  return kWide * lanes();
}

float dot(const float* a, const float* b, int64_t n) {
  Vec sum = hn::Zero(Floats());
  for_vectors(
      n,
      [&](int64_t i)
          HWY_ATTR { sum = hn::MulAdd(load(a + i), load(b + i), sum); },
      [&](int64_t i, int64_t rest) HWY_ATTR {
        sum = hn::MulAdd(load_some(a + i, rest), load_some(b + i, rest), sum);
      });
  return sum_of(sum);
}

/// Fills decay, left, keys and reads by g [kChunk], which is 1 for tokens
/// behind the end.
template <ScanRule kRule>
void fill_factors(
    const DeltaHead& head,
    int64_t first,
    const float* g,
    ChunkFactors& out) {
  const int64_t n = head.key_dim;
  float decay = 1;
  for (int j = 0; j < kChunk; ++j) {
    decay *= g[j];
    out.decay[j] = decay;
    [[maybe_unused]] const float* k = head.keys + (first + j) * n;
    const float* q = head.queries + (first + j) * n;
    float ratio = 1;
    for (int i = j; i >= 0; --i) {
      const float* from = head.keys + (first + i) * n;
      if constexpr (kRule == ScanRule::delta) {
        out.keys[i][j] = i < j ? ratio * dot(from, k, n) : 0.0f;
      }
      out.reads[i][j] = ratio * dot(from, q, n);
      if (j == kChunk - 1) {
        out.left[i] = ratio;
      }
      ratio *= g[i];
    }
  }
}

/// S q_j and, by the delta rule, S k_j of a strip, for the tokens of a chunk.
template <ScanRule kRule>
HWY_INLINE void read_state(
    const float* state,
    const float* keys,
    const float* queries,
    int64_t n,
    Vec (&known)[kChunk][kWide],
    Vec (&read)[kChunk][kWide]) {
  const Floats d;
  const int64_t step = lanes();
  // Unrolled, or the accumulators would not live in registers.
  HWY_UNROLL(4)
  for (int j = 0; j < kChunk; ++j) {
    HWY_UNROLL(2)
    for (int w = 0; w < kWide; ++w) {
      known[j][w] = read[j][w] = hn::Zero(d);
    }
  }
  for (int64_t i = 0; i < n; ++i, state += kWide * step) {
    Vec s[kWide];
    HWY_UNROLL(2)
    for (int w = 0; w < kWide; ++w) {
      s[w] = load(state + w * step);
    }
    HWY_UNROLL(4)
    for (int j = 0; j < kChunk; ++j) {
      if constexpr (kRule == ScanRule::delta) {
        const Vec k = hn::Set(d, keys[j * n + i]);
        HWY_UNROLL(2)
        for (int w = 0; w < kWide; ++w) {
          known[j][w] = hn::MulAdd(k, s[w], known[j][w]);
        }
      }
      const Vec q = hn::Set(d, queries[j * n + i]);
      HWY_UNROLL(2)
      for (int w = 0; w < kWide; ++w) {
        read[j][w] = hn::MulAdd(q, s[w], read[j][w]);
      }
    }
  }
}

/// S = decay S + sum of delta_j k_j^T.
HWY_INLINE void write_state(
    float* state,
    const float* keys,
    int64_t n,
    float decay,
    const Vec (&delta)[kChunk][kWide]) {
  const Floats d;
  const int64_t step = lanes();
  const Vec factor = hn::Set(d, decay);
  for (int64_t i = 0; i < n; ++i, state += kWide * step) {
    Vec s[kWide];
    HWY_UNROLL(2)
    for (int w = 0; w < kWide; ++w) {
      s[w] = hn::Mul(load(state + w * step), factor);
    }
    HWY_UNROLL(4)
    for (int j = 0; j < kChunk; ++j) {
      const Vec k = hn::Set(d, keys[j * n + i]);
      HWY_UNROLL(2)
      for (int w = 0; w < kWide; ++w) {
        s[w] = hn::MulAdd(k, delta[j][w], s[w]);
      }
    }
    HWY_UNROLL(2)
    for (int w = 0; w < kWide; ++w) {
      store(s[w], state + w * step);
    }
  }
}

/// Advances one strip, which begins at `column`, by one chunk, which begins at
/// token `first` of the block.
template <ScanRule kRule>
void advance_strip(
    const DeltaHead& head,
    const ChunkFactors& factors,
    int64_t first,
    int64_t column) {
  const Floats d;
  const int64_t step = lanes();
  const int64_t n = head.key_dim;
  const float* keys = head.keys + first * n;
  float* state = head.state + column * n;
  Vec known[kChunk][kWide], read[kChunk][kWide], delta[kChunk][kWide];
  read_state<kRule>(state, keys, head.queries + first * n, n, known, read);
  const Vec skip = hn::Set(d, head.skip);
  HWY_UNROLL(4)
  for (int j = 0; j < kChunk; ++j) {
    const Vec decay = hn::Set(d, factors.decay[j]);
    const Vec beta = hn::Set(d, factors.beta[j]);
    HWY_UNROLL(2)
    for (int w = 0; w < kWide; ++w) {
      const int64_t at = (first + j) * head.columns + column + w * step;
      Vec y = hn::Mul(decay, read[j][w]);
      for (int i = 0; i < j; ++i) {
        y = hn::MulAdd(hn::Set(d, factors.reads[i][j]), delta[i][w], y);
      }
      Vec error = load(head.values + at);
      if constexpr (kRule == ScanRule::delta) {
        Vec expected = hn::Mul(decay, known[j][w]);
        for (int i = 0; i < j; ++i) {
          const Vec key = hn::Set(d, factors.keys[i][j]);
          expected = hn::MulAdd(key, delta[i][w], expected);
        }
        error = hn::Sub(error, expected);
      } else {
        y = hn::MulAdd(skip, error, y);
      }
      delta[j][w] = hn::Mul(beta, error);
      y = hn::MulAdd(hn::Set(d, factors.reads[j][j]), delta[j][w], y);
      store(y, head.results + at);
    }
  }
  HWY_UNROLL(4)
  for (int j = 0; j < kChunk; ++j) {
    HWY_UNROLL(2)
    for (int w = 0; w < kWide; ++w) {
      delta[j][w] = hn::Mul(delta[j][w], hn::Set(d, factors.left[j]));
    }
  }
  write_state(state, keys, n, factors.decay[kChunk - 1], delta);
}

/// Loads the tokens from .. from + count - 1. Those that are missing from the
/// last chunk are set to what changes neither state nor results.
template <ScanRule kRule, class T, class V>
void load_block(
    const GatedDeltaArgs& args,
    int64_t b,
    int64_t h,
    int64_t from,
    int64_t count,
    DeltaHead& head) {
  const int64_t n = args.key_dim;
  const int64_t key_head = h / (args.heads / args.key_heads);
  for (int64_t t = 0; t < count; ++t) {
    copy_row(head_row<T>(args.k, b, from + t, key_head), head.keys + t * n, n);
    copy_row(
        head_row<T>(args.q, b, from + t, key_head), head.queries + t * n, n);
    copy_row(
        head_row<V>(args.v, b, from + t, h),
        head.values + t * head.columns,
        args.value_dim);
  }
  for (int64_t first = 0; first < count; first += kChunk) {
    auto& chunk = head.chunks[first / kChunk];
    float g[kChunk];
    for (int64_t j = 0; j < kChunk; ++j) {
      const int64_t t = first + j;
      const bool inside = t < count;
      const int64_t at = (b * args.length + from + t) * args.heads + h;
      g[j] = !inside                 ? 1.0f
          : kRule == ScanRule::delta ? args.g[at]
                                     : std::exp(args.g[at]);
      chunk.beta[j] = inside ? args.beta[at] : 0.0f;
      if (!inside) {
        std::fill_n(head.keys + t * n, n, 0.0f);
        std::fill_n(head.queries + t * n, n, 0.0f);
        std::fill_n(head.values + t * head.columns, head.columns, 0.0f);
      }
    }
    fill_factors<kRule>(head, first, g, chunk);
  }
}

DeltaHead head_in(Scratch& scratch, const GatedDeltaArgs& args) {
  const int64_t strip = delta_strip();
  const int64_t columns = (args.value_dim + strip - 1) / strip * strip;
  const int64_t state = columns * args.key_dim;
  const int64_t keys = kBlockTokens * args.key_dim;
  const int64_t values = kBlockTokens * columns;
  float* p = scratch.get<float>(state + 2 * keys + 2 * values);
  std::fill_n(p, state + 2 * keys + 2 * values, 0.0f);
  DeltaHead head;
  head.key_dim = args.key_dim;
  head.columns = columns;
  head.state = p;
  head.values = head.state + state;
  head.results = head.values + values;
  head.keys = head.results + values;
  head.queries = head.keys + keys;
  return head;
}

template <ScanRule kRule, class T, class V>
void run_head(const GatedDeltaArgs& args, int64_t b, int64_t h) {
  thread_local Scratch scratch;
  DeltaHead head = head_in(scratch, args);
  head.skip = args.skip ? args.skip[h] : 0.0f;
  const int64_t strip = delta_strip();
  for (int64_t from = 0; from < args.length; from += kBlockTokens) {
    const int64_t count = std::min(kBlockTokens, args.length - from);
    load_block<kRule, T, V>(args, b, h, from, count, head);
    for (int64_t column = 0; column < head.columns; column += strip) {
      for (int64_t first = 0; first < count; first += kChunk) {
        advance_strip<kRule>(head, head.chunks[first / kChunk], first, column);
      }
    }
    for (int64_t t = 0; t < count; ++t) {
      const int64_t row = (b * args.length + from + t) * args.heads + h;
      copy_row(
          head.results + t * head.columns,
          static_cast<V*>(args.out) + row * args.value_dim,
          args.value_dim);
    }
  }
}

void gated_delta(const GatedDeltaArgs& args) {
  visit_types(args.type, args.value_type, [&]<class T, class V>(T*, V*) {
    const auto run = args.rule == ScanRule::delta
        ? run_head<ScanRule::delta, T, V>
        : run_head<ScanRule::sum, T, V>;
    parallel_tasks(args.batch * args.heads, [&](int64_t task) {
      run(args, task / args.heads, task % args.heads);
    });
  });
}

}  // namespace pennyweight::kernels::HWY_NAMESPACE

HWY_AFTER_NAMESPACE();

#if HWY_ONCE

namespace pennyweight::kernels {

SIMD_EXPORT(gated_delta, GatedDeltaArgs)

}  // namespace pennyweight::kernels

#endif
