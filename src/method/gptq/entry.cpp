#include <optional>

#include "method/gptq/method.h"
#include "method/learned/method.h"
#include "method/method.h"

namespace pennyweight {

namespace {

/// Flags and defaults are mlx_lm.gptq's, and what that lacks.
struct GptqFlags {
  std::optional<int> bits;
  std::optional<int> group_size;
  int fallback_bits = 6;
  int fallback_group_size = 64;
  std::optional<int> embed_bits;
  std::string mode = "affine";
  GptqOptions gptq;
  LearnedOptions learned;

  GptqFlags() {
    learned.steps = 0;
  }

  template <class Self, class Visitor>
  static void visit(Self& self, Visitor&& option) {
    option(
        {.name = "bits",
         .help = "Bits a weight of the blocks' linears: 2, 3, 4, 5, 6 or 8 "
                 "(default 4; mxfp8: 8)"},
        self.bits);
    option(
        {.name = "group-size",
         .help = "Weights a group: 32, 64 or 128 (default 64; mxfp4 and mxfp8: "
                 "32, nvfp4: 16)"},
        self.group_size);
    option(
        {.name = "fallback-bits",
         .help = "Bits of what GPTQ is not done for: embedding and head"},
        self.fallback_bits);
    option(
        {.name = "fallback-group-size",
         .help = "And their group size",
         .advanced = true},
        self.fallback_group_size);
    option(
        {.name = "embed-bits",
         .help = "Bits of the embedding (default: --fallback-bits)"},
        self.embed_bits);
    option(
        {.name = "mode",
         .help = "Quantization mode of the blocks' linears",
         .choices = {"affine", "mxfp4", "mxfp8", "nvfp4"}},
        self.mode);
    GptqOptions::visit(self.gptq, option);
    LearnedOptions::visit(self.learned, option);
  }
};

class GptqSettings : public MethodSettings {
 public:
  void visit(const OptionSink& option) override {
    visit_options(options_, option);
  }

  void check() const override {
    check_options(options_.gptq);
    check_options(options_.learned);
    linears();
  }

  QuantPlan plan(const Model& model) const override {
    const auto fallback = make_quant_spec(
        "affine", options_.fallback_bits, options_.fallback_group_size);
    const auto embedding = make_quant_spec(
        "affine",
        options_.embed_bits.value_or(options_.fallback_bits),
        options_.fallback_group_size);
    return plan_modules(model, linears(), embedding, fallback);
  }

  bool knows_all_modes() const override {
    return true;
  }
  bool holds_text_out() const override {
    return !options_.gptq.plain;
  }
  // The paper's and mlx-lm's GPTQ stops at the blocks.
  bool fits_embedding() const override {
    return !options_.gptq.plain;
  }

  std::string title() const override {
    return std::string(options_.gptq.plain ? "Plain GPTQ" : "GPTQ") + " at " +
        std::to_string(linears().bits) + " bits" +
        (options_.learned.steps > 0 ? ", then learned rounding," : "");
  }

  std::shared_ptr<BlockMethod> make(bool held_out, std::shared_ptr<BlockMethod>)
      const override {
    GptqOptions options = options_.gptq;
    if (!held_out) {
      options.shift = 0;
    }
    std::shared_ptr<BlockMethod> method = std::make_shared<GptqMethod>(options);
    if (options_.learned.steps > 0) {
      method = std::make_shared<LearnedMethod>(method, options_.learned);
    }
    return method;
  }

 private:
  QuantSpec linears() const {
    return make_quant_spec(options_.mode, options_.bits, options_.group_size);
  }

  GptqFlags options_;
};

}  // namespace

MethodEntry gptq_method() {
  return {
      .name = "gptq",
      .title = "GPTQ",
      .summary =
          "Quantize by GPTQ: codes, scales and biases fitted to calibration "
          "text",
      .examples =
          "  pennyweight gptq --model Qwen/Qwen3-0.6B --mlx-path out "
          "--num-samples 128\n"
          "  pennyweight gptq --model folder --mlx-path out --bits 3 "
          "--data-path notes.txt\n"
          "  pennyweight gptq --model folder --mlx-path out --plain\n"
          "  mpirun -n 2 pennyweight gptq --model folder --mlx-path out\n",
      .settings = [] { return std::make_unique<GptqSettings>(); }};
}

}  // namespace pennyweight
