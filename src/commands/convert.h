#pragma once

#include <optional>
#include <string>

#include "format/quant_plan.h"
#include "run/options.h"
#include "run/pins/options.h"
#include "run/session.h"

namespace pennyweight {

/// Flags and meanings are mlx_lm.convert's.
struct ConvertOptions : SourceOptions, OutputOptions {
  bool quantize = false;
  std::optional<int> q_bits;
  std::optional<int> q_group_size;
  std::string q_mode = "affine";
  std::optional<std::string> quant_predicate;
  std::optional<std::string> dtype;
  bool dequantize = false;
  PinOptions pins;

  template <class Self, class Visitor>
  static void visit(Self& self, Visitor&& option) {
    SourceOptions::visit(self, option);
    OutputOptions::visit(self, option);
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
    PinOptions::visit(self.pins, option);
  }
};

/// Reads the checkpoint in `model_folder` (what options.model stands for) and
/// writes it to options.mlx_path for mlx-lm: quantized, dequantized or only
/// cast. Tensors are read, checked for NaN, turned and written one at a time.
/// The output appears whole or not at all. Errors as open_model's, and
/// invalid_argument for options that contradict each other or the model,
/// numeric for a tensor that is not finite, io for a disk that is full.
void convert(
    Session& session,
    const fs::path& model_folder,
    const ConvertOptions& options);

}  // namespace pennyweight
