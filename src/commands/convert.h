#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "core/json.h"
#include "core/options.h"
#include "core/progress.h"
#include "eval/float16_check.h"
#include "format/quant_plan.h"

namespace pennyweight {

namespace fs = std::filesystem;

/// Flags and meanings are mlx_lm.convert's.
struct ConvertOptions {
  std::string model;
  std::string mlx_path = "mlx_model";
  std::string assume_family;
  bool quantize = false;
  std::optional<int> q_bits;
  std::optional<int> q_group_size;
  std::string q_mode = "affine";
  std::optional<std::string> quant_predicate;
  std::optional<std::string> dtype;
  bool dequantize = false;
  bool force = false;

  template <class Self, class Visitor>
  static void visit(Self& self, Visitor&& option) {
    option(
        {.name = "model",
         .help = "Model folder, or a hub id such as org/name[@revision]",
         .aliases = {"hf-path"},
         .required = true},
        self.model);
    option(
        {.name = "mlx-path",
         .help = "Folder to write; must not exist unless --force",
         .affects_result = false},
        self.mlx_path);
    option(
        {.name = "assume-family",
         .help = "Read a model of an unknown model_type as this family's"},
        self.assume_family);
    option(
        {.name = "quantize",
         .help = "Quantize the weights, rounding to nearest",
         .short_name = "q"},
        self.quantize);
    option(
        {.name = "q-bits",
         .help = "Bits a weight: 2, 3, 4, 5, 6 or 8 (default 4; mxfp8: 8)"},
        self.q_bits);
    option(
        {.name = "q-group-size",
         .help = "Weights a group: 32, 64 or 128 (default 64; mxfp4 and mxfp8: "
                 "32, nvfp4: 16)"},
        self.q_group_size);
    option(
        {.name = "q-mode",
         .help = "Quantization mode",
         .choices = {"affine", "mxfp4", "mxfp8", "nvfp4"}},
        self.q_mode);
    option(
        {.name = "quant-predicate",
         .help = "Mixed widths: more bits for what matters more",
         .choices = quant_recipes()},
        self.quant_predicate);
    option(
        {.name = "dtype",
         .help = "Type of what is not quantized, and of scales (default: the "
                 "one that config.json names, else the weights' own)",
         .choices = {"float16", "bfloat16", "float32"}},
        self.dtype);
    option(
        {.name = "dequantize",
         .help = "Turn a quantized model back into a plain one",
         .short_name = "d"},
        self.dequantize);
    option(
        {.name = "force",
         .help = "Replace an output folder that exists",
         .affects_result = false},
        self.force);
  }
};

/// What became of one module with a matrix.
struct ConvertedModule {
  std::string path;
  std::optional<QuantSpec> spec;  // absent: a matrix of floats
  std::string reason;  // why it was not quantized, though that was asked for
};

struct ConvertReport {
  std::string output;
  std::string dtype;  // of what is not quantized: float32, bfloat16, float16
  std::string dtype_from;    // see OutputType; empty: the weights' own
  std::string stored_dtype;  // of most weights that were read
  std::vector<ConvertedModule> modules;  // in the order of the forward pass
  int64_t parameters = 0;                // as if not quantized
  int64_t bytes_in = 0;                  // tensor bytes of the model read
  int64_t bytes_out = 0;                 // and of the one written
  /// 8 * bytes_out / parameters: scales, biases and norms counted, as mlx-lm
  /// prints it.
  double bits_per_weight = 0;
  double seconds = 0;
  int64_t peak_rss = 0;  // bytes, of the whole process so far
  Float16Check float16;  // of weights that are cast to float16
  std::vector<std::string> side_files;
  std::vector<std::string> notes;
};

/// Reads the checkpoint in `model_folder` (what options.model stands for) and
/// writes it to options.mlx_path for mlx-lm: quantized, dequantized or only
/// cast. Tensors are read, checked for NaN, turned and written one at a time.
/// The output appears whole or not at all. Errors as open_model's, and
/// invalid_argument for options that contradict each other or the model,
/// numeric for a tensor that is not finite, io for a disk that is full.
ConvertReport convert(
    const fs::path& model_folder,
    const ConvertOptions& options,
    const ProgressFn& progress = {});

Json to_json(const ConvertReport& report);

}  // namespace pennyweight
