#include "kernels/rows.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "kernels/access.h"
#include "kernels/scratch.h"
#include "kernels/threads.h"

namespace pennyweight::kernels {

namespace {

template <class T>
const T* row_of(const ConstMatrix& x, int64_t row) {
  return static_cast<const T*>(x.data) + row * x.stride;
}

/// sums [columns] (+)= weight * x.
template <class T>
void add_row(
    const T* x,
    int64_t columns,
    float weight,
    bool first,
    float* sums) {
  if (first) {
    for (int64_t c = 0; c < columns; ++c) {
      sums[c] = weight * to_float(x[c]);
    }
  } else {
    for (int64_t c = 0; c < columns; ++c) {
      sums[c] += weight * to_float(x[c]);
    }
  }
}

template <class T>
void mix_row(const MixRowsArgs& args, int64_t i, float* sums) {
  for (int64_t j = 0; j < args.count; ++j) {
    const int64_t at = i * args.count + j;
    add_row(
        row_of<T>(args.x, args.index[at] / args.divisor),
        args.columns,
        args.weights ? args.weights[at] : 1.0f,
        j == 0,
        sums);
  }
}

/// Eight sums side by side, so that an addition need not wait for the one
/// before.
template <class T, class U>
float dot(const T* x, const U* y, int64_t columns) {
  std::array<float, 8> sums{};
  int64_t c = 0;
  for (; c + 8 <= columns; c += 8) {
    for (int64_t lane = 0; lane < 8; ++lane) {
      sums[size_t(lane)] += to_float(x[c + lane]) * to_float(y[c + lane]);
    }
  }
  for (; c < columns; ++c) {
    sums[0] += to_float(x[c]) * to_float(y[c]);
  }
  float sum = 0;
  for (float part : sums) {
    sum += part;
  }
  return sum;
}

/// Whether nothing is summed and no type changes.
bool only_copies(const MixRowsArgs& args) {
  return args.count == 1 && !args.weights && args.x.type == args.out.type;
}

}  // namespace

void mix_rows(const MixRowsArgs& args) {
  const size_t bytes = size_t(args.columns) * size_of(args.out.type);
  const auto out_row = [&](int64_t i) {
    return advance(args.out.data, args.out.type, i * args.out.stride);
  };
  parallel_rows(args.rows, args.columns * args.count, [&](int64_t i) {
    thread_local Scratch scratch;
    if (only_copies(args)) {
      const int64_t from = args.index[i] / args.divisor;
      std::memcpy(out_row(i), from_row(args.x, from).data, bytes);
      return;
    }
    const bool direct = args.out.type == DType::f32;
    float* sums = direct ? static_cast<float*>(out_row(i))
                         : scratch.get<float>(args.columns);
    visit_type(args.x.type, [&]<class T>(T*) { mix_row<T>(args, i, sums); });
    for (int64_t c = 0; !direct && c < args.columns; ++c) {
      store_at(args.out, i, c, sums[c]);
    }
  });
}

void dot_rows(const DotRowsArgs& args) {
  visit_types(args.y.type, args.x.type, [&]<class Y, class X>(Y*, X*) {
    parallel_rows(args.rows, args.columns * args.count, [&](int64_t i) {
      for (int64_t at = i * args.count; at < (i + 1) * args.count; ++at) {
        const X* x = row_of<X>(args.x, args.index[at]);
        args.out[at] = dot(x, row_of<Y>(args.y, i), args.columns);
      }
    });
  });
}

}  // namespace pennyweight::kernels
