#include "kernels/simd/targets.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/simd/gated_delta_backward.cpp"
#include <hwy/foreach_target.h>
// clang-format keeps the order: the targets come first.
#include <hwy/highway.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/access.h"
#include "kernels/scratch.h"
#include "kernels/simd/export.h"
#include "kernels/simd/simd.h"
#include "kernels/simd/vec_inl.h"
#include "kernels/threads.h"

HWY_BEFORE_NAMESPACE();

namespace pennyweight::kernels::HWY_NAMESPACE {

// With e_t = v_t - g_t S_(t-1) k_t and delta_t = beta_t e_t, a step is
//   S_t = g_t S_(t-1) + delta_t k_t^T,   y_t = S_t q_t.
// Backward, D is the gradient by S_t, to which that of y_t is added first:
//   D += dy_t q_t^T,        ddelta = D k_t,          de = beta_t ddelta
//   dq_t = g_t S_(t-1)^T dy_t + (delta_t . dy_t) k_t
//   dk_t = D^T delta_t - g_t S_(t-1)^T de,           dv_t = de
//   dbeta_t = ddelta . e_t
//   dg_t = <D, S_(t-1)> - de . S_(t-1) k_t
//   D = g_t (D - de k_t^T)
// By the sum rule e_t = v_t, so that de falls out of all but dv_t, to which
// skip dy_t is added; and g_t is exp of what is given, so that dg_t is times
// g_t. A first pass keeps the state before each chunk; the states within a
// chunk are made again from it.
constexpr int64_t kBackwardChunk = 32;

/// Memory of a head: matrices are [value_dim, width], width being key_dim in
/// whole vectors, and 0 behind it.
struct BackwardHead {
  int64_t rows;  // value_dim
  int64_t width;
  float* starts;    // [chunks, rows, width], the state before each
  float* states;    // [kBackwardChunk + 1, rows, width]
  float* gradient;  // D [rows, width]
  float* keys;      // [kBackwardChunk, width]
  float* queries;   // likewise
  float* errors;    // e [kBackwardChunk, rows]
  float* known;     // S_(t-1) k_t [kBackwardChunk, rows]
  float* values;    // [rows]
  float* dy;        // [rows]
  float* dv;        // de [rows]
  float* delta;     // [rows]
};

BackwardHead backward_head(Scratch& scratch, const GatedDeltaArgs& args) {
  BackwardHead head;
  head.rows = args.value_dim;
  head.width = (args.key_dim + lanes() - 1) / lanes() * lanes();
  const int64_t state = head.rows * head.width;
  const int64_t chunks = (args.length + kBackwardChunk - 1) / kBackwardChunk;
  const int64_t sizes[] = {
      chunks * state,
      (kBackwardChunk + 1) * state,
      state,
      kBackwardChunk * head.width,
      kBackwardChunk * head.width,
      kBackwardChunk * head.rows,
      kBackwardChunk * head.rows,
      head.rows,
      head.rows,
      head.rows,
      head.rows};
  float** const parts[] = {
      &head.starts,
      &head.states,
      &head.gradient,
      &head.keys,
      &head.queries,
      &head.errors,
      &head.known,
      &head.values,
      &head.dy,
      &head.dv,
      &head.delta};
  int64_t total = 0;
  for (const int64_t size : sizes) {
    total += size;
  }
  float* p = scratch.get<float>(total);
  for (size_t i = 0; i < std::size(sizes); ++i) {
    *parts[i] = p;
    p += sizes[i];
  }
  std::fill_n(head.keys, 2 * kBackwardChunk * head.width, 0.0f);
  return head;
}

/// One head of one batch, and where its part of the gradients by q and k goes:
/// of token t of the batch's b'th row of tokens to keys + (b * length + t) *
/// stride, [2, key_heads, key_dim].
struct HeadPlace {
  int64_t b, h, key_head;
  float* keys = nullptr;
  int64_t stride = 0;

  int64_t gate(const GatedDeltaArgs& args, int64_t t) const {
    return (b * args.length + t) * args.heads + h;
  }
};

template <ScanRule kRule>
float decay_at(const GatedDeltaArgs& args, int64_t gate) {
  return kRule == ScanRule::delta ? args.g[gate] : std::exp(args.g[gate]);
}

/// `to` = the state after token t, `from` being the one before it.
template <ScanRule kRule, class V>
void step_forward(
    const GatedDeltaArgs& args,
    const HeadPlace& place,
    int64_t t,
    int64_t index,
    const BackwardHead& head,
    const float* from,
    float* to) {
  const Floats d;
  const float* k = head.keys + index * head.width;
  const int64_t gate = place.gate(args, t);
  const float decay = decay_at<kRule>(args, gate);
  const Vec g = hn::Set(d, decay);
  copy_row(head_row<V>(args.v, place.b, t, place.h), head.values, head.rows);
  for (int64_t r = 0; r < head.rows; ++r) {
    const float* s = from + r * head.width;
    float* out = to + r * head.width;
    float known = 0;
    if constexpr (kRule == ScanRule::delta) {
      Vec sum = hn::Zero(d);
      for (int64_t i = 0; i < head.width; i += lanes()) {
        sum = hn::MulAdd(load(s + i), load(k + i), sum);
      }
      known = sum_of(sum);
    }
    const float error = head.values[r] - decay * known;
    const Vec delta = hn::Set(d, args.beta[gate] * error);
    for (int64_t i = 0; i < head.width; i += lanes()) {
      store(hn::MulAdd(delta, load(k + i), hn::Mul(g, load(s + i))), out + i);
    }
    head.known[index * head.rows + r] = known;
    head.errors[index * head.rows + r] = error;
  }
}

template <class T>
void load_keys(
    const GatedDeltaArgs& args,
    const HeadPlace& place,
    int64_t from,
    int64_t count,
    const BackwardHead& head) {
  for (int64_t t = 0; t < count; ++t) {
    copy_row(
        head_row<T>(args.k, place.b, from + t, place.key_head),
        head.keys + t * head.width,
        args.key_dim);
    copy_row(
        head_row<T>(args.q, place.b, from + t, place.key_head),
        head.queries + t * head.width,
        args.key_dim);
  }
}

/// D += dy q^T and dv = beta D k; returns dbeta.
float add_output(
    const BackwardHead& head,
    const float* q,
    const float* k,
    const float* errors,
    float beta) {
  const Floats d;
  float dbeta = 0;
  for (int64_t r = 0; r < head.rows; ++r) {
    float* gradient = head.gradient + r * head.width;
    const Vec dy = hn::Set(d, head.dy[r]);
    Vec sum = hn::Zero(d);
    for (int64_t i = 0; i < head.width; i += lanes()) {
      const Vec own = hn::MulAdd(dy, load(q + i), load(gradient + i));
      store(own, gradient + i);
      sum = hn::MulAdd(own, load(k + i), sum);
    }
    const float ddelta = sum_of(sum);
    dbeta += ddelta * errors[r];
    head.dv[r] = beta * ddelta;
    head.delta[r] = beta * errors[r];
  }
  return dbeta;
}

/// Adds to dq and dk [width], sets D = g (D - de k^T), and returns <D, S> of
/// the D before.
template <ScanRule kRule>
float step_back(
    const BackwardHead& head,
    const float* state,
    const float* k,
    float g,
    float delta_dy,
    float* dq,
    float* dk) {
  const Floats d;
  const Vec factor = hn::Set(d, g);
  Vec dot = hn::Zero(d);
  for (int64_t i = 0; i < head.width; i += lanes()) {
    const Vec key = load(k + i);
    Vec by_q = hn::Zero(d), by_error = hn::Zero(d), by_delta = hn::Zero(d);
    for (int64_t r = 0; r < head.rows; ++r) {
      float* at = head.gradient + r * head.width + i;
      const Vec gradient = load(at);
      const Vec s = load(state + r * head.width + i);
      by_q = hn::MulAdd(s, hn::Set(d, head.dy[r]), by_q);
      by_delta = hn::MulAdd(gradient, hn::Set(d, head.delta[r]), by_delta);
      dot = hn::MulAdd(gradient, s, dot);
      if constexpr (kRule == ScanRule::delta) {
        const Vec error = hn::Set(d, head.dv[r]);
        by_error = hn::MulAdd(s, error, by_error);
        store(hn::Mul(factor, hn::NegMulAdd(error, key, gradient)), at);
      } else {
        store(hn::Mul(factor, gradient), at);
      }
    }
    const Vec own_q = hn::MulAdd(
        factor, by_q, hn::MulAdd(hn::Set(d, delta_dy), key, load(dq + i)));
    store(own_q, dq + i);
    store(
        hn::NegMulAdd(factor, by_error, hn::Add(by_delta, load(dk + i))),
        dk + i);
  }
  return sum_of(dot);
}

/// Where the gradients of a token stand in out; see GatedDeltaBackwardArgs.
struct TokenGradients {
  float *dq, *dk, *dv, *dg, *dbeta;
};

TokenGradients gradients_at(
    const GatedDeltaBackwardArgs& args,
    const HeadPlace& place,
    int64_t t) {
  const GatedDeltaArgs& f = args.forward;
  const int64_t keys = f.key_heads * f.key_dim;
  float* token = args.out +
      (place.b * f.length + t) * (2 * keys + f.heads * (f.value_dim + 2));
  float* values = token + 2 * keys;
  float* gates = values + f.heads * f.value_dim;
  float* own = place.keys + (place.b * f.length + t) * place.stride +
      place.key_head * f.key_dim;
  return {
      own,
      own + keys,
      values + place.h * f.value_dim,
      gates + place.h,
      gates + f.heads + place.h};
}

float plain_dot(const float* a, const float* b, int64_t n) {
  float sum = 0;
  for (int64_t i = 0; i < n; ++i) {
    sum += a[i] * b[i];
  }
  return sum;
}

/// Token `index` of the chunk; `dq` and `dk` [width] are scratch.
template <ScanRule kRule, class V>
void backward_token(
    const GatedDeltaBackwardArgs& args,
    const HeadPlace& place,
    int64_t t,
    int64_t index,
    const BackwardHead& head,
    float* dq,
    float* dk) {
  const GatedDeltaArgs& f = args.forward;
  const int64_t gate = place.gate(f, t);
  const float* k = head.keys + index * head.width;
  const float* errors = head.errors + index * head.rows;
  const float* state = head.states + index * head.rows * head.width;
  copy_row(
      static_cast<const V*>(args.dy) + gate * f.value_dim,
      head.dy,
      f.value_dim);
  const auto by = gradients_at(args, place, t);
  *by.dbeta = add_output(
      head, head.queries + index * head.width, k, errors, f.beta[gate]);
  const float delta_dy = plain_dot(head.delta, head.dy, head.rows);
  std::fill_n(dq, head.width, 0.0f);
  std::fill_n(dk, head.width, 0.0f);
  std::copy_n(by.dq, f.key_dim, dq);
  std::copy_n(by.dk, f.key_dim, dk);
  const float decay = decay_at<kRule>(f, gate);
  const float dot = step_back<kRule>(head, state, k, decay, delta_dy, dq, dk);
  std::copy_n(dq, f.key_dim, by.dq);
  std::copy_n(dk, f.key_dim, by.dk);
  std::copy_n(head.dv, f.value_dim, by.dv);
  if constexpr (kRule == ScanRule::delta) {
    *by.dg =
        dot - plain_dot(head.dv, head.known + index * head.rows, head.rows);
    return;
  }
  *by.dg = decay * dot;
  for (int64_t r = 0; r < f.value_dim; ++r) {
    by.dv[r] += f.skip[place.h] * head.dy[r];
  }
}

template <ScanRule kRule, class T, class V>
void backward_of_head(
    const GatedDeltaBackwardArgs& args,
    const HeadPlace& place) {
  thread_local Scratch scratch;
  thread_local Scratch rows;
  const GatedDeltaArgs& f = args.forward;
  const auto head = backward_head(scratch, f);
  const int64_t state = head.rows * head.width;
  float* dq = rows.get<float>(2 * head.width);
  const int64_t chunks = (f.length + kBackwardChunk - 1) / kBackwardChunk;
  std::fill_n(head.starts, state, 0.0f);
  for (int64_t c = 0; c + 1 < chunks; ++c) {
    const int64_t from = c * kBackwardChunk;
    load_keys<T>(f, place, from, kBackwardChunk, head);
    float* next = head.starts + (c + 1) * state;
    for (int64_t i = 0; i < kBackwardChunk; ++i) {
      const float* before = i == 0 ? head.starts + c * state : next;
      step_forward<kRule, V>(f, place, from + i, i, head, before, next);
    }
  }
  std::fill_n(head.gradient, state, 0.0f);
  for (int64_t c = chunks - 1; c >= 0; --c) {
    const int64_t from = c * kBackwardChunk;
    const int64_t count = std::min(kBackwardChunk, f.length - from);
    load_keys<T>(f, place, from, count, head);
    std::copy_n(head.starts + c * state, state, head.states);
    for (int64_t i = 0; i < count; ++i) {
      float* before = head.states + i * state;
      step_forward<kRule, V>(
          f, place, from + i, i, head, before, before + state);
    }
    for (int64_t i = count - 1; i >= 0; --i) {
      backward_token<kRule, V>(
          args, place, from + i, i, head, dq, dq + head.width);
    }
  }
}

/// Value heads that share a key head add to the same dq and dk, one after the
/// other. Where there are few key heads, each one's value heads are cut into
/// runs, which have sums of their own: how many depends on shapes alone.
int64_t runs_of(const GatedDeltaArgs& f) {
  constexpr int64_t kTasks = 16;
  const int64_t group = f.heads / f.key_heads;
  const int64_t tasks = f.batch * f.key_heads;
  return std::min(group, (kTasks + tasks - 1) / tasks);
}

/// out's dq and dk = the sums over runs of what stands in `runs` [runs, tokens,
/// keys].
void add_runs(
    const GatedDeltaBackwardArgs& args,
    const std::vector<float>& runs,
    int64_t token) {
  const GatedDeltaArgs& f = args.forward;
  const int64_t keys = 2 * f.key_heads * f.key_dim;
  const int64_t tokens = f.batch * f.length;
  parallel_rows(tokens, keys, [&](int64_t t) {
    float* out = args.out + t * token;
    for (int64_t at = t * keys; at < int64_t(runs.size());
         at += tokens * keys) {
      for (int64_t i = 0; i < keys; ++i) {
        out[i] += runs[size_t(at + i)];
      }
    }
  });
}

template <ScanRule kRule, class T, class V>
void backward_of_all(const GatedDeltaBackwardArgs& args) {
  const GatedDeltaArgs& f = args.forward;
  const int64_t group = f.heads / f.key_heads;
  const int64_t keys = 2 * f.key_heads * f.key_dim;
  const int64_t token = keys + f.heads * (f.value_dim + 2);
  const int64_t count = runs_of(f);
  const int64_t tokens = f.batch * f.length;
  std::vector<float> runs;
  if (count > 1) {
    runs.assign(size_t(count * tokens * keys), 0.0f);
  }
  parallel_tasks(f.batch * f.key_heads * count, [&](int64_t task) {
    const int64_t run = task % count;
    const int64_t key_head = task / count % f.key_heads;
    HeadPlace place{task / count / f.key_heads, 0, key_head};
    place.keys = count > 1 ? runs.data() + run * tokens * keys : args.out;
    place.stride = count > 1 ? keys : token;
    for (int64_t i = run * group / count; i < (run + 1) * group / count; ++i) {
      place.h = key_head * group + i;
      backward_of_head<kRule, T, V>(args, place);
    }
  });
  if (count > 1) {
    add_runs(args, runs, token);
  }
}

void gated_delta_backward(const GatedDeltaBackwardArgs& args) {
  const GatedDeltaArgs& f = args.forward;
  const int64_t token =
      2 * f.key_heads * f.key_dim + f.heads * (f.value_dim + 2);
  std::fill_n(args.out, f.batch * f.length * token, 0.0f);
  visit_types(f.type, f.value_type, [&]<class T, class V>(T*, V*) {
    if (f.rule == ScanRule::delta) {
      backward_of_all<ScanRule::delta, T, V>(args);
    } else {
      backward_of_all<ScanRule::sum, T, V>(args);
    }
  });
}

}  // namespace pennyweight::kernels::HWY_NAMESPACE

HWY_AFTER_NAMESPACE();

#if HWY_ONCE

namespace pennyweight::kernels {

SIMD_EXPORT(gated_delta_backward, GatedDeltaBackwardArgs)

}  // namespace pennyweight::kernels

#endif
