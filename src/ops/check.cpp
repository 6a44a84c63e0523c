#include "ops/check.h"

#include <mlx/ops.h>
#include <mlx/utils.h>

#include <sstream>

#include "core/error.h"

namespace pennyweight::ops {

namespace {

bool is_floating(mx::Dtype dtype) {
  return dtype == mx::float32 || dtype == mx::bfloat16 || dtype == mx::float16;
}

void require_bias(
    const std::optional<mx::array>& bias,
    int out,
    const char* where) {
  if (bias) {
    require_floating(*bias, where, "bias");
    require(
        bias->ndim() == 1 && bias->shape(0) == out,
        where,
        "the bias " + describe(*bias) +
            " does not have one value for each of " + std::to_string(out) +
            " outputs");
  }
}

}  // namespace

std::string describe(const mx::array& x) {
  std::ostringstream text;
  text << x.dtype() << " " << x.shape();
  return text.str();
}

void require(bool holds, const char* where, const std::string& what) {
  if (!holds) {
    throw Error(ErrorCode::invalid_argument, where, what);
  }
}

void require_floating(mx::Dtype dtype, const char* where) {
  std::ostringstream name;
  name << dtype;
  require(
      is_floating(dtype),
      where,
      "the result cannot be " + name.str() +
          "; ask for float32, bfloat16 or float16");
}

void require_floating(const mx::array& x, const char* where, const char* name) {
  require(
      is_floating(x.dtype()),
      where,
      std::string(name) + " is " + describe(x) +
          "; it has to be float32, bfloat16 or float16");
}

void check_linear(
    const mx::array& x,
    const mx::array& weight,
    const std::optional<mx::array>& bias) {
  const char* where = "linear";
  require_floating(x, where, "x");
  require_floating(weight, where, "weight");
  require(
      x.ndim() >= 1 && weight.ndim() == 2 && x.shape(-1) == weight.shape(1) &&
          weight.shape(1) > 0,
      where,
      "x " + describe(x) + " and the weight " + describe(weight) +
          " do not share an input width");
  require_bias(bias, weight.shape(0), where);
}

void check_gram(
    const mx::array& sum,
    const std::vector<mx::array>& parts,
    const mx::array& b) {
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

void check_quantized(const QuantizedWeight& weight, const char* where) {
  const auto& mode = weight.mode;
  const int bits = weight.bits;
  const int group = weight.group_size;
  const bool affine = mode == "affine";
  const bool known = affine ? (bits >= 2 && bits <= 8 && bits != 7 &&
                               (group == 32 || group == 64 || group == 128))
                            : (mode == "mxfp4" && bits == 4 && group == 32) ||
          (mode == "mxfp8" && bits == 8 && group == 32) ||
          (mode == "nvfp4" && bits == 4 && group == 16);
  require(
      known,
      where,
      "there is no mode " + mode + " of " + std::to_string(bits) +
          " bits in groups of " + std::to_string(group));
  require(
      weight.codes.dtype() == mx::uint32 && weight.codes.ndim() == 2,
      where,
      "the codes are " + describe(weight.codes) +
          "; they have to be uint32 [out, in * bits / 32]");
  const int64_t in = int64_t(weight.codes.shape(1)) * 32 / bits;
  const mx::Shape groups{weight.codes.shape(0), int(in / group)};
  require(
      in % group == 0 && int64_t(weight.codes.shape(1)) * 32 % bits == 0 &&
          weight.scales.shape() == groups,
      where,
      "the scales " + describe(weight.scales) + " do not fit the codes " +
          describe(weight.codes));
  require(
      weight.biases.has_value() == affine,
      where,
      affine ? "an affine weight needs biases"
             : "a weight of mode " + mode + " has no biases");
  if (affine) {
    require_floating(weight.scales, where, "scales");
    require(
        weight.biases->shape() == groups &&
            weight.biases->dtype() == weight.scales.dtype(),
        where,
        "the biases " + describe(*weight.biases) + " differ from the scales " +
            describe(weight.scales));
  } else {
    require(
        weight.scales.dtype() == mx::uint8,
        where,
        "the scales of mode " + mode + " are " + describe(weight.scales) +
            "; they have to be uint8");
  }
}

void check_affine(const QuantizedWeight& weight) {
  if (weight.mode != "affine") {
    throw Error(
        ErrorCode::not_supported,
        "quantized_linear",
        "scales of mode " + weight.mode +
            " are not floats and have no gradient");
  }
}

void check_quantized_linear(
    const mx::array& x,
    const QuantizedWeight& weight,
    const std::optional<mx::array>& bias) {
  const char* where = "quantized_linear";
  check_quantized(weight, where);
  require_floating(x, where, "x");
  require(
      x.ndim() >= 1 &&
          int64_t(x.shape(-1)) * weight.bits ==
              int64_t(weight.codes.shape(1)) * 32,
      where,
      "x " + describe(x) + " and the codes " + describe(weight.codes) +
          " do not share an input width");
  require_bias(bias, weight.codes.shape(0), where);
}

void check_residual(
    const mx::array& residual,
    const mx::array& x,
    int out,
    const char* where) {
  require_floating(residual, where, "residual");
  auto shape = x.shape();
  shape.back() = out;
  require(
      residual.shape() == shape,
      where,
      "the residual " + describe(residual) + " does not have the shape of " +
          std::to_string(out) + " outputs of x " + describe(x));
}

void check_rms_norm(const mx::array& x, const mx::array& weight) {
  const char* where = "rms_norm";
  require_floating(x, where, "x");
  require_floating(weight, where, "weight");
  require(
      x.ndim() >= 1 && weight.ndim() == 1 && weight.shape(0) == x.shape(-1) &&
          x.shape(-1) > 0,
      where,
      "the weight " + describe(weight) + " does not fit x " + describe(x));
}

void check_rope(const mx::array& x, const RopeTable& table, int offset) {
  const char* where = "rope";
  require_floating(x, where, "x");
  require(
      x.ndim() == 4,
      where,
      "x is " + describe(x) +
          "; it has to be [batch, length, heads, head_dim]");
  require(
      table.dims > 0 && table.dims % 2 == 0 && table.dims <= x.shape(3),
      where,
      std::to_string(table.dims) + " rotated dimensions do not fit x " +
          describe(x));
  require(
      table.frequencies.dtype() == mx::float32 &&
          table.frequencies.shape() == mx::Shape{table.dims / 2},
      where,
      "the frequencies are " + describe(table.frequencies) +
          "; they have to be float32 [dims / 2]");
  require(offset >= 0, where, "the offset is negative");
}

void check_attention(
    const mx::array& q,
    const mx::array& k,
    const mx::array& v,
    const AttentionOptions& options) {
  const char* where = "attention";
  require_floating(q, where, "q");
  const auto shapes = "q " + describe(q) + ", k " + describe(k) + ", v " +
      describe(v) + " do not fit together";
  require(
      k.dtype() == q.dtype() && v.dtype() == q.dtype() && q.ndim() == 4 &&
          k.ndim() == 4 && k.shape() == v.shape(),
      where,
      shapes);
  require(
      q.shape(0) == k.shape(0) && q.shape(3) == k.shape(3) && k.shape(2) > 0 &&
          q.shape(2) % k.shape(2) == 0 && q.shape(1) <= k.shape(1),
      where,
      shapes);
  require(options.window >= 0, where, "the window is negative");
  require(options.cap >= 0, where, "the cap is negative");
  require(
      !options.sinks ||
          (options.sinks->dtype() == mx::float32 &&
           options.sinks->shape() == mx::Shape{q.shape(2)}),
      where,
      "the sinks have to be float32, one for each head");
}

void check_swiglu(const mx::array& gate, const mx::array& up) {
  require_floating(gate, "swiglu", "gate");
  require(
      gate.shape() == up.shape() && gate.dtype() == up.dtype(),
      "swiglu",
      "gate " + describe(gate) + " and up " + describe(up) + " differ");
}

void check_rows(const mx::array& x, const char* where) {
  require_floating(x, where, "x");
  require(
      x.ndim() >= 1 && x.shape(-1) > 0,
      where,
      "x " + describe(x) + " has no values along its last axis");
}

void check_score_state(const mx::array& state) {
  require(
      state.dtype() == mx::float32 && state.ndim() == 2 &&
          state.shape(1) == kScoreState,
      "score",
      "the state is " + describe(state) + "; it is made by score_start");
}

namespace {

void check_score_place(
    const mx::array& state,
    const mx::array& targets,
    int first) {
  check_score_state(state);
  require(first >= 0, "score", "the tile's first column is negative");
  require(
      targets.dtype() == mx::int32 &&
          targets.shape() == mx::Shape{state.shape(0)},
      "score",
      "the targets are " + describe(targets) +
          "; they have to be int32, one a row");
}

}  // namespace

void check_score(
    const mx::array& state,
    const mx::array& logits,
    const std::optional<mx::array>& reference,
    const mx::array& targets,
    int first) {
  const char* where = "score";
  check_score_place(state, targets, first);
  require_floating(logits, where, "logits");
  require(
      logits.ndim() == 2 && logits.shape(0) == state.shape(0) &&
          logits.shape(1) > 0,
      where,
      "logits " + describe(logits) + " do not fit the state " +
          describe(state));
  if (reference) {
    require_floating(*reference, where, "reference");
    require(
        reference->shape() == logits.shape(),
        where,
        "the reference " + describe(*reference) + " and the logits " +
            describe(logits) + " differ");
  }
}

void check_score_linear(
    const mx::array& state,
    const HeadRows& head,
    const std::optional<HeadRows>& reference,
    const mx::array& targets,
    int first) {
  const char* where = "score";
  check_score_place(state, targets, first);
  const auto check_side = [&](const HeadRows& side) {
    check_linear(side.x, side.weight, side.bias);
    require(
        side.x.ndim() == 2 && side.x.shape(0) == state.shape(0) &&
            side.weight.shape(0) == head.weight.shape(0),
        where,
        "x " + describe(side.x) + " and the head's rows " +
            describe(side.weight) + " do not fit the state " + describe(state));
  };
  check_side(head);
  if (reference) {
    check_side(*reference);
  }
}

}  // namespace pennyweight::ops
