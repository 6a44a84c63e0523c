#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "core/json.h"
#include "format/quant_spec.h"
#include "run/kernel_report.h"

namespace pennyweight {

namespace fs = std::filesystem;

/// One module of the table: a matrix with its bias, or a norm.
struct InspectRow {
  std::string path;
  std::string kind;  // embedding, linear, head, norm
  std::vector<int64_t> shape;
  std::string type;  // bfloat16, float16, float32, or the quantization mode
  std::optional<QuantSpec> quantized;
  double bits_per_weight = 0;  // with scales and biases
  int64_t parameters = 0;
  int64_t bytes = 0;
  double share = 0;  // of the model's bytes, 0 to 1
};

struct InspectReport {
  std::string folder;
  std::string family;
  int64_t blocks = 0;
  int64_t hidden = 0;
  int64_t vocab = 0;
  bool tied = false;
  std::string type;  // the float type of most weights
  int64_t parameters = 0;
  int64_t bytes = 0;
  double bits_per_weight = 0;
  std::vector<InspectRow> rows;  // in the order of the forward pass
  std::vector<std::string> notes;
  std::vector<KernelRow> kernels;  // where they were tried
};

/// What a checkpoint holds; Errors as open_model's. With `kernels` what its
/// shapes run on here, see try_kernels.
InspectReport inspect(
    const fs::path& folder,
    const std::string& assumed_family = "",
    bool kernels = false);

Json to_json(const InspectReport& report);

}  // namespace pennyweight
