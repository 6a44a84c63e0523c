#include "kernels/simd/targets.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/simd/ssd_scan_backward.cpp"
#include <hwy/foreach_target.h>
// clang-format keeps the order: the targets come first.
#include <hwy/highway.h>

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include "kernels/access.h"
#include "kernels/scratch.h"
#include "kernels/simd/export.h"
#include "kernels/simd/product_inl.h"
#include "kernels/simd/simd.h"
#include "kernels/threads.h"

HWY_BEFORE_NAMESPACE();

namespace pennyweight::kernels::HWY_NAMESPACE {

// A chunk of tokens goes back as products of small matrices. Let U = beta V, S
// be the state before the chunk, D the gradient by the state behind it, and
// R_ij = g_j+1 .. g_i what is left at i of what j has put in (R_-1 stands for
// the chunk's beginning). By Y = (R o Q K^T) U + R_.,-1 Q S^T + skip V,
//   W = dY U^T,  G = Q K^T
//   dU = (R o G)^T dY + R_last,. K D^T
//   dQ = (R o W) K + R_.,-1 dY S
//   dK = (R o W)^T Q + R_last,. U D
//   D  = R_last,-1 D + (R_.,-1 dY)^T Q
// A token's rate scales all that has been put in before it and is read at it or
// behind it. Scaling what is put in by token j, and what is read at i, gives
// the sum of q_i.dq_i over the tokens from it on, less that of k_j.dk_j, and
// <D, S behind the chunk> for what is read behind the chunk. What a token puts
// in and reads itself is in both, and is left out of both.
constexpr int64_t kScanChunk = 32;

/// Memory of a head. Rows are in whole vectors, 0 behind their end.
struct ScanHead {
  int64_t keys;        // key_dim in whole vectors
  int64_t values;      // value_dim likewise
  int64_t rows;        // value_dim
  float* starts;       // [chunks, rows, keys], the state before each
  float* by_state;     // D [rows, keys]
  float* by_state_t;   // its transpose [key_dim, values]
  float *k, *q;        // [kScanChunk, keys]
  float *dk, *dq;      // likewise
  float *v, *u;        // [kScanChunk, values]
  float *dy, *du;      // likewise
  float *faded, *fed;  // dY R_.,-1 and U R_last,.
  float* scores;       // R o G [kScanChunk, kScanChunk]
  float* weights;      // R o W likewise
  float g[kScanChunk];
  float beta[kScanChunk];
  float since[kScanChunk];  // R_i,-1
  float left[kScanChunk];   // R_last,j
};

ScanHead scan_head(Scratch& scratch, const GatedDeltaArgs& args) {
  const auto whole = [](int64_t n) {
    return (n + lanes() - 1) / lanes() * lanes();
  };
  ScanHead head;
  head.keys = whole(args.key_dim);
  head.values = whole(args.value_dim);
  head.rows = args.value_dim;
  const int64_t state = head.rows * head.keys;
  const int64_t chunks = (args.length + kScanChunk - 1) / kScanChunk;
  const int64_t by_key = kScanChunk * head.keys;
  const int64_t by_value = kScanChunk * head.values;
  const int64_t square = kScanChunk * kScanChunk;
  const std::pair<float**, int64_t> parts[] = {
      {&head.starts, (chunks + 1) * state},
      {&head.by_state, state},
      {&head.by_state_t, args.key_dim * head.values},
      {&head.k, by_key},
      {&head.q, by_key},
      {&head.dk, by_key},
      {&head.dq, by_key},
      {&head.v, by_value},
      {&head.u, by_value},
      {&head.dy, by_value},
      {&head.du, by_value},
      {&head.faded, by_value},
      {&head.fed, by_value},
      {&head.scores, square},
      {&head.weights, square}};
  int64_t total = 0;
  for (const auto& [part, size] : parts) {
    total += size;
  }
  float* p = scratch.get<float>(total);
  for (const auto& [part, size] : parts) {
    *part = p;
    p += size;
  }
  // What stands behind a row's end is never written again.
  std::fill_n(head.by_state, p - head.by_state, 0.0f);
  std::fill_n(head.starts, state, 0.0f);
  return head;
}

/// One head of one batch, and where its part of the gradients by q and k goes:
/// of token t to keys + (b * length + t) * stride, [2, key_heads, key_dim].
struct ScanPlace {
  int64_t b, h, key_head;
  float* keys;
  int64_t stride;
};

/// The inputs of tokens from .. from + count - 1. Those behind the end put
/// nothing in and leave the state as it is.
template <class T, class V>
void load_chunk(
    const GatedDeltaBackwardArgs& args,
    const ScanPlace& place,
    int64_t from,
    int64_t count,
    ScanHead& head) {
  const GatedDeltaArgs& f = args.forward;
  float since = 1;
  for (int64_t i = 0; i < count; ++i) {
    const int64_t t = from + i;
    const int64_t gate = (place.b * f.length + t) * f.heads + place.h;
    float* v = head.v + i * head.values;
    copy_row(
        head_row<T>(f.k, place.b, t, place.key_head),
        head.k + i * head.keys,
        f.key_dim);
    copy_row(
        head_row<T>(f.q, place.b, t, place.key_head),
        head.q + i * head.keys,
        f.key_dim);
    copy_row(head_row<V>(f.v, place.b, t, place.h), v, f.value_dim);
    copy_row(
        static_cast<const V*>(args.dy) + gate * f.value_dim,
        head.dy + i * head.values,
        f.value_dim);
    head.g[i] = std::exp(f.g[gate]);
    head.beta[i] = f.beta[gate];
    head.since[i] = since *= head.g[i];
    scale_to(head.beta[i], v, head.u + i * head.values, head.values);
  }
  float left = 1;
  for (int64_t i = count - 1; i >= 0; --i) {
    head.left[i] = left;
    left *= head.g[i];
    scale_to(
        head.left[i],
        head.u + i * head.values,
        head.fed + i * head.values,
        head.values);
    scale_to(
        head.since[i],
        head.dy + i * head.values,
        head.faded + i * head.values,
        head.values);
  }
}

/// scores and weights, without the diagonal; weights' diagonal to `own`.
void fill_squares(const ScanHead& head, int64_t count, float* own) {
  std::fill_n(head.scores, count * count, 0.0f);
  std::fill_n(head.weights, count * count, 0.0f);
  for (int64_t i = 0; i < count; ++i) {
    const float* dy = head.dy + i * head.values;
    const float* q = head.q + i * head.keys;
    float ratio = 1;
    for (int64_t j = i; j >= 0; --j) {
      const float w = row_dot(dy, head.u + j * head.values, head.values);
      head.scores[i * count + j] =
          ratio * row_dot(q, head.k + j * head.keys, head.keys);
      if (j == i) {
        own[i] = w;
      } else {
        head.weights[i * count + j] = ratio * w;
      }
      ratio *= head.g[j];
    }
  }
}

/// du, dq and dk of a chunk of `count` tokens, whose states begin at `start`;
/// dq and dk without what a token reads of itself, which is `own` times k and
/// q.
void fill_gradients(
    const ScanHead& head,
    const GatedDeltaArgs& f,
    int64_t count,
    const float* start,
    float* own) {
  const int64_t keys = head.keys, values = head.values;
  fill_squares(head, count, own);
  std::fill_n(head.du, count * values, 0.0f);
  std::fill_n(head.dq, count * keys, 0.0f);
  std::fill_n(head.dk, count * keys, 0.0f);
  add_product(
      count, f.key_dim, values, {head.k, keys, 1}, head.by_state_t, head.du);
  for (int64_t i = 0; i < count; ++i) {
    scale_to(head.left[i], head.du + i * values, head.du + i * values, values);
  }
  add_product(count, count, values, {head.scores, 1, count}, head.dy, head.du);
  add_product(count, count, keys, {head.weights, count, 1}, head.k, head.dq);
  add_product(count, head.rows, keys, {head.faded, values, 1}, start, head.dq);
  add_product(count, count, keys, {head.weights, 1, count}, head.q, head.dk);
  add_product(
      count, head.rows, keys, {head.fed, values, 1}, head.by_state, head.dk);
}

/// Writes a chunk's gradients, and adds those by q and k.
void write_gradients(
    const GatedDeltaBackwardArgs& args,
    const ScanPlace& place,
    const ScanHead& head,
    int64_t from,
    int64_t count,
    float behind,
    const float* own) {
  const GatedDeltaArgs& f = args.forward;
  const int64_t keys = f.key_heads * f.key_dim;
  const int64_t size = 2 * keys + f.heads * (f.value_dim + 2);
  const float skip = f.skip[place.h];
  for (int64_t i = count - 1; i >= 0; --i) {
    const int64_t t = place.b * f.length + from + i;
    float* dq = head.dq + i * head.keys;
    float* dk = head.dk + i * head.keys;
    const float* k = head.k + i * head.keys;
    const float* q = head.q + i * head.keys;
    const float* du = head.du + i * head.values;
    const float* dy = head.dy + i * head.values;
    float* values = args.out + t * size + 2 * keys;
    float* gates = values + f.heads * f.value_dim + place.h;
    // What is read at this token or behind it, of what came before it.
    behind += row_dot(q, dq, head.keys) - row_dot(k, dk, head.keys);
    gates[0] = behind;
    gates[f.heads] = row_dot(head.v + i * head.values, du, head.values);
    add_scaled(own[i], k, dq, head.keys);
    add_scaled(own[i], q, dk, head.keys);
    float* to = place.keys + t * place.stride + place.key_head * f.key_dim;
    for (int64_t n = 0; n < f.key_dim; ++n) {
      to[n] += dq[n];
      to[keys + n] += dk[n];
    }
    for (int64_t r = 0; r < f.value_dim; ++r) {
      values[place.h * f.value_dim + r] = head.beta[i] * du[r] + skip * dy[r];
    }
  }
}

template <class T, class V>
void scan_back(const GatedDeltaBackwardArgs& args, const ScanPlace& place) {
  thread_local Scratch scratch;
  const GatedDeltaArgs& f = args.forward;
  auto head = scan_head(scratch, f);
  const int64_t state = head.rows * head.keys;
  const int64_t chunks = (f.length + kScanChunk - 1) / kScanChunk;
  const auto count_of = [&](int64_t c) {
    return std::min(kScanChunk, f.length - c * kScanChunk);
  };
  for (int64_t c = 0; c < chunks; ++c) {
    const int64_t count = count_of(c);
    load_chunk<T, V>(args, place, c * kScanChunk, count, head);
    float* next = head.starts + (c + 1) * state;
    scale_to(head.since[count - 1], head.starts + c * state, next, state);
    add_product(
        head.rows, count, head.keys, {head.fed, 1, head.values}, head.k, next);
  }
  float own[kScanChunk];
  for (int64_t c = chunks - 1; c >= 0; --c) {
    const int64_t count = count_of(c);
    const float* start = head.starts + c * state;
    load_chunk<T, V>(args, place, c * kScanChunk, count, head);
    fill_gradients(head, f, count, start, own);
    const float behind = row_dot(head.by_state, start + state, state);
    write_gradients(args, place, head, c * kScanChunk, count, behind, own);
    const float kept = head.since[count - 1];
    const int64_t turned = f.key_dim * head.values;
    scale_to(kept, head.by_state, head.by_state, state);
    add_product(
        head.rows,
        count,
        head.keys,
        {head.faded, 1, head.values},
        head.q,
        head.by_state);
    scale_to(kept, head.by_state_t, head.by_state_t, turned);
    add_product(
        f.key_dim,
        count,
        head.values,
        {head.q, 1, head.keys},
        head.faded,
        head.by_state_t);
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

void ssd_scan_backward(const GatedDeltaBackwardArgs& args) {
  const GatedDeltaArgs& f = args.forward;
  const int64_t group = f.heads / f.key_heads;
  const int64_t keys = 2 * f.key_heads * f.key_dim;
  const int64_t size = keys + f.heads * (f.value_dim + 2);
  const int64_t tokens = f.batch * f.length;
  const int64_t runs = runs_of(f);
  std::fill_n(args.out, tokens * size, 0.0f);
  std::vector<float> sums(size_t(runs > 1 ? runs * tokens * keys : 0), 0.0f);
  visit_types(f.type, f.value_type, [&]<class T, class V>(T*, V*) {
    parallel_tasks(f.batch * f.key_heads * runs, [&](int64_t task) {
      const int64_t run = task % runs;
      const int64_t key_head = task / runs % f.key_heads;
      ScanPlace place{task / runs / f.key_heads, 0, key_head, args.out, size};
      if (runs > 1) {
        place.keys = sums.data() + run * tokens * keys;
        place.stride = keys;
      }
      for (int64_t i = run * group / runs; i < (run + 1) * group / runs; ++i) {
        place.h = key_head * group + i;
        scan_back<T, V>(args, place);
      }
    });
  });
  if (runs > 1) {
    parallel_rows(tokens, keys, [&](int64_t t) {
      for (int64_t run = 0; run < runs; ++run) {
        const float* own = sums.data() + (run * tokens + t) * keys;
        for (int64_t i = 0; i < keys; ++i) {
          args.out[t * size + i] += own[i];
        }
      }
    });
  }
}

}  // namespace pennyweight::kernels::HWY_NAMESPACE

HWY_AFTER_NAMESPACE();

#if HWY_ONCE

namespace pennyweight::kernels {

SIMD_EXPORT(ssd_scan_backward, GatedDeltaBackwardArgs)

}  // namespace pennyweight::kernels

#endif
