#include <mlx/ops.h>

#include "ops/check.h"
#include "ops/primitive.h"

// Sums and differences in float32, of which statistics and gradients are made.

namespace pennyweight::ops {

namespace {

void check_gram(const mx::array& sum, const Arrays& parts, const mx::array& b) {
  const char* where = "gram_add";
  require_floating(b, where, "b");
  int rows = 0;
  for (const auto& a : parts) {
    require_floating(a, where, "a");
    require(
        a.ndim() >= 1 && b.ndim() == a.ndim() &&
            std::equal(
                a.shape().begin(), a.shape().end() - 1, b.shape().begin()),
        where,
        "a " + describe(a) + " and b " + describe(b) + " do not fit");
    rows += a.shape(-1);
  }
  require(
      !parts.empty() && sum.dtype() == mx::float32 &&
          sum.shape() == mx::Shape{rows, b.shape(-1)},
      where,
      "the products with b " + describe(b) + " have " + std::to_string(rows) +
          " rows and do not fit the sum " + describe(sum));
}

void check_float32_pair(
    const mx::array& a,
    const mx::array& b,
    const char* where,
    const std::string& names) {
  require(
      a.shape() == b.shape() && a.dtype() == mx::float32 &&
          b.dtype() == mx::float32,
      where,
      names + " are " + describe(a) + " and " + describe(b) +
          "; they have to be float32 of one shape");
}

mx::array flat(const mx::array& x) {
  return as_float32(mx::reshape(x, {-1, x.shape(-1)}));
}

}  // namespace

mx::array gram_add(
    const mx::array& sum,
    const std::vector<mx::array>& parts,
    const mx::array& b) {
  check_gram(sum, parts, b);
  Arrays inputs{sum, b};
  inputs.insert(inputs.end(), parts.begin(), parts.end());
  return make({
      .name = "gram_add",
      .shape = sum.shape(),
      .dtype = mx::float32,
      .inputs = std::move(inputs),
      .fallback =
          [](const Arrays& in) {
            Arrays products;
            for (size_t i = 2; i < in.size(); ++i) {
              const auto turned = mx::transpose(flat(in[i]));
              products.push_back(mx::matmul(turned, flat(in[1])));
            }
            return in[0] + mx::concatenate(products, 0);
          },
      .cpu = [](CpuWork& work) -> Task {
        kernels::GramArgs args{
            .rows = work.rows(1),
            .n = work.columns(1),
            .b = work.matrix(1),
            .parts = {},
            .out = {}};
        for (size_t i = 2; i < work.count(); ++i) {
          // The kernel knows a part that is b itself by its address.
          args.parts.push_back(
              {work.columns(i), work.are_one(i, 1) ? args.b : work.matrix(i)});
        }
        args.out = work.result_from(0);
        return [args] { kernels::gram(args); };
      },
  });
}

mx::array accumulate(const mx::array& sum, const mx::array& x) {
  check_float32_pair(sum, x, "accumulate", "the sum and x");
  return make({
      .name = "accumulate",
      .shape = sum.shape(),
      .dtype = mx::float32,
      .inputs = {sum, x},
      .fallback = [](const Arrays& in) { return in[0] + in[1]; },
      .cpu = [](CpuWork& work) -> Task {
        const kernels::AccumulateArgs args{
            .count = work.out_size(),
            .x = work.data<float>(1),
            .sum = static_cast<float*>(work.result_from(0).data)};
        return [args] { kernels::accumulate(args); };
      },
  });
}

mx::array magnitudes_add(const mx::array& sum, const mx::array& x) {
  require_floating(x, "magnitudes_add", "x");
  require(
      x.ndim() >= 1 && sum.dtype() == mx::float32 &&
          sum.shape() == mx::Shape{x.shape(-1)},
      "magnitudes_add",
      "x " + describe(x) + " and the sum " + describe(sum) + " do not fit");
  return make({
      .name = "magnitudes_add",
      .shape = sum.shape(),
      .dtype = mx::float32,
      .inputs = {sum, x},
      .fallback =
          [](const Arrays& in) {
            return in[0] + mx::sum(mx::abs(flat(in[1])), 0);
          },
      .cpu = [](CpuWork& work) -> Task {
        const kernels::AddMagnitudesArgs args{
            .rows = work.rows(1),
            .columns = work.columns(1),
            .x = work.matrix(1),
            .out = static_cast<float*>(work.result_from(0).data)};
        return [args] { kernels::add_magnitudes(args); };
      },
  });
}

mx::array difference(const mx::array& a, const mx::array& b, mx::Dtype dtype) {
  require_floating(dtype, "difference");
  check_float32_pair(a, b, "difference", "a and b");
  return make({
      .name = "difference",
      .shape = a.shape(),
      .dtype = dtype,
      .inputs = {a, b},
      .fallback =
          [dtype](const Arrays& in) {
            return mx::astype(in[0] - in[1], dtype);
          },
      .cpu = [](CpuWork& work) -> Task {
        const kernels::SubtractArgs args{
            .count = work.out_size(),
            .a = work.data<float>(0),
            .b = work.data<float>(1),
            .out_type = work.out_type(),
            .out = work.result().data};
        return [args] { kernels::subtract(args); };
      },
  });
}

}  // namespace pennyweight::ops
