#pragma once

#include <mlx/allocator.h>
#include <mlx/backend/cpu/encoder.h>
#include <mlx/ops.h>
#include <mlx/primitives.h>

#include <functional>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace pennyweight {

namespace mx = mlx::core;

/// An MLX primitive made of a function on row-contiguous CPU arrays whose
/// outputs are allocated. It must not throw: it runs on MLX's thread.
class CpuFunction : public mx::Primitive {
 public:
  using Body = std::function<
      void(const std::vector<mx::array>& in, std::vector<mx::array>& out)>;

  CpuFunction(mx::Stream stream, std::string name, Body body)
      : mx::Primitive(stream), name_(std::move(name)), body_(std::move(body)) {}

  void eval_cpu(
      const std::vector<mx::array>& inputs,
      std::vector<mx::array>& outputs) override {
    std::vector<mx::array> in;
    std::vector<mx::array> out;
    for (const auto& input : inputs) {
      in.push_back(mx::array::unsafe_weak_copy(input));
    }
    for (auto& output : outputs) {
      output.set_data(mx::allocator::malloc(output.nbytes()));
      out.push_back(mx::array::unsafe_weak_copy(output));
    }
    auto& encoder = mx::cpu::get_command_encoder(stream());
    encoder.dispatch([in = std::move(in),
                      out = std::move(out),
                      body = body_]() mutable { body(in, out); });
  }

  void eval_gpu(const std::vector<mx::array>&, std::vector<mx::array>&)
      override {
    throw std::runtime_error(name_ + " runs on the CPU only");
  }

  const char* name() const override {
    return name_.c_str();
  }

 private:
  std::string name_;
  Body body_;
};

/// Arrays of `shapes` and `dtypes` that `body` fills from `inputs`, lazily.
inline std::vector<mx::array> cpu_arrays(
    std::string name,
    const std::vector<mx::array>& inputs,
    std::vector<mx::Shape> shapes,
    const std::vector<mx::Dtype>& dtypes,
    CpuFunction::Body body) {
  auto stream = mx::default_stream(mx::Device::cpu);
  std::vector<mx::array> dense;
  for (const auto& input : inputs) {
    dense.push_back(mx::contiguous(input, false, stream));
  }
  return mx::array::make_arrays(
      std::move(shapes),
      dtypes,
      std::make_shared<CpuFunction>(stream, std::move(name), std::move(body)),
      dense);
}

}  // namespace pennyweight
