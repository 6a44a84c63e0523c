#include "model/weights.h"

#include <mlx/ops.h>
#include <mlx/transforms.h>

#include "core/error.h"

namespace pennyweight {

namespace {

std::optional<mx::array>
take_rows(const std::optional<mx::array>& matrix, int first, int count) {
  if (!matrix) {
    return std::nullopt;
  }
  return ops::slice_rows(*matrix, first, count);
}

}  // namespace

mx::array load_as(
    const Model& model,
    const std::string& name,
    mx::Dtype to,
    int64_t part) {
  auto tensor = part < 0 ? model.load(name) : model.load_part(name, part);
  return tensor.dtype() == to ? tensor : mx::astype(tensor, to);
}

mx::array watched(
    const std::shared_ptr<LinearTrace>& trace,
    const mx::array& x,
    const mx::array& y,
    bool turned) {
  if (!trace) {
    return y;
  }
  using Arrays = std::vector<mx::array>;
  const auto same = [](const Arrays& inputs) { return inputs; };
  const auto keep = [trace, x, turned](
                        const Arrays&, const Arrays& dy, const Arrays&) {
    trace->x = turned ? dy[0] : x;
    trace->dy = turned ? x : dy[0];
    return dy;
  };
  return mx::custom_vjp(same, keep)({y})[0];
}

mx::array LinearWeights::operator()(
    const mx::array& x,
    std::optional<mx::Dtype> out_dtype) const {
  auto y = watched(
      trace,
      x,
      dense ? ops::linear(x, *dense, bias, out_dtype)
            : ops::quantized_linear(x, *packed, bias, out_dtype));
  if (range) {
    range->see(place, y);
  }
  return y;
}

mx::array LinearWeights::add_to(const mx::array& residual, const mx::array& x)
    const {
  if (range) {
    return mx::add(residual, (*this)(x, residual.dtype()));
  }
  // The gradient by the sum is also the gradient by the linear's output.
  return watched(
      trace,
      x,
      dense ? ops::linear_add(residual, x, *dense, bias)
            : ops::quantized_linear_add(residual, x, *packed, bias));
}

LinearWeights LinearWeights::rows(int first, int count) const {
  LinearWeights part;
  part.dense = take_rows(dense, first, count);
  part.bias = take_rows(bias, first, count);
  if (packed) {
    part.packed = ops::QuantizedWeight{
        ops::slice_rows(packed->codes, first, count),
        ops::slice_rows(packed->scales, first, count),
        take_rows(packed->biases, first, count),
        packed->group_size,
        packed->bits,
        packed->mode};
  }
  return part;
}

LinearWeights load_linear(
    const Model& model,
    const std::string& path,
    mx::Dtype dtype,
    PackedWeights packed,
    int64_t part) {
  LinearWeights linear;
  if (model.tensors.contains(path + ".bias")) {
    linear.bias = load_as(model, path + ".bias", dtype, part);
  }
  auto spec = model.quantized.find(path);
  if (spec == model.quantized.end()) {
    linear.dense = load_as(model, path + ".weight", dtype, part);
    return linear;
  }
  const auto load = [&](const char* suffix) {
    return part < 0 ? model.load(path + suffix)
                    : model.load_part(path + suffix, part);
  };
  ops::QuantizedWeight weight{
      load(".weight"),
      load(".scales"),
      std::nullopt,
      spec->second.group_size,
      spec->second.bits,
      spec->second.mode};
  if (spec->second.mode == "affine") {
    weight.biases = load(".biases");
  }
  const bool stays =
      model.published_packed || (part >= 0 && spec->second.mode != "affine");
  if (packed == PackedWeights::expand && !stays) {
    linear.dense = ops::dequantize(weight, dtype);
  } else {
    linear.packed = std::move(weight);
  }
  return linear;
}

BlockWeights load_block(
    const Model& model,
    int block,
    mx::Dtype dtype,
    PackedWeights packed) {
  const BlockSpec& spec = model.spec.blocks.at(block);
  BlockWeights weights;
  for (const ModuleSpec& module : list_modules(spec)) {
    weights.linears.emplace(
        module.path,
        load_linear(model, module.stored, dtype, packed, module.part));
  }
  for (const NormSpec& norm : list_norms(spec)) {
    weights.norms.emplace(
        norm.path, load_as(model, norm.path + ".weight", dtype));
    if (norm.bias) {
      weights.norms.emplace(
          norm.path + ".bias", load_as(model, norm.path + ".bias", dtype));
    }
  }
  for (const ParameterSpec& parameter : list_parameters(spec)) {
    weights.parameters.emplace(
        parameter.name, load_as(model, parameter.name, mx::float32));
  }
  return weights;
}

}  // namespace pennyweight
