#include "method/awq/method.h"
#include "method/registry.h"

namespace pennyweight {

namespace {

constexpr const char* kName = "awq";

/// What may round after it.
std::vector<std::string> others() {
  std::vector<std::string> names{""};
  for (const auto& entry : methods()) {
    if (entry.name != kName) {
      names.push_back(entry.name);
    }
  }
  return names;
}

/// Flags and defaults are mlx_lm.awq's, and what that lacks.
struct AwqFlags {
  int bits = 4;
  int group_size = 64;
  int embed_bits = 4;
  int embed_group_size = 32;
  AwqOptions awq;
  std::string then;

  template <class Self, class Visitor>
  static void visit(Self& self, Visitor&& option) {
    option(
        {.name = "bits",
         .help = "Bits a weight of the blocks' linears: 2, 3, 4, 5, 6 or 8"},
        self.bits);
    option(
        {.name = "group-size", .help = "Weights a group: 32, 64 or 128"},
        self.group_size);
    option(
        {.name = "embed-bits", .help = "Bits of embedding and head"},
        self.embed_bits);
    option(
        {.name = "embed-group-size", .help = "And their group size"},
        self.embed_group_size);
    AwqOptions::visit(self.awq, option);
    option(
        {.name = "then",
         .help = "Round the scaled model by this method, with its defaults, "
                 "rather than to nearest",
         .choices = others()},
        self.then);
  }
};

class AwqSettings : public MethodSettings {
 public:
  void visit(const OptionSink& option) override {
    visit_options(options_, option);
  }

  void check() const override {
    check_options(options_.awq);
  }

  QuantPlan plan(const Model& model) const override {
    const auto tables = make_quant_spec(
        "affine", options_.embed_bits, options_.embed_group_size);
    return plan_modules(
        model,
        make_quant_spec("affine", options_.bits, options_.group_size),
        tables,
        tables);
  }

  std::string title() const override {
    return std::string("AWQ") +
        (options_.then.empty()
             ? ""
             : ", then " + find_method(options_.then).title + ",") +
        " at " + std::to_string(options_.bits) + " bits";
  }

  std::shared_ptr<BlockMethod> make(
      bool held_out,
      std::shared_ptr<BlockMethod> inner) const override {
    if (!options_.then.empty()) {
      inner = find_method(options_.then).settings()->make(held_out);
    }
    return std::make_shared<AwqMethod>(options_.awq, std::move(inner));
  }

 private:
  AwqFlags options_;
};

}  // namespace

MethodEntry awq_method() {
  return {
      .name = kName,
      .title = "AWQ",
      .summary =
          "Quantize by AWQ: inputs scaled and ranges cut so that rounding "
          "hurts least",
      .examples =
          "  pennyweight awq --model Qwen/Qwen3-0.6B --mlx-path out\n"
          "  pennyweight awq --model folder --mlx-path out --bits 3 "
          "--data-path notes.txt\n"
          "  pennyweight awq --model folder --mlx-path out --then gptq\n"
          "  mpirun -n 2 pennyweight awq --model folder --mlx-path out\n",
      .num_samples = 128,
      .settings = [] { return std::make_unique<AwqSettings>(); }};
}

}  // namespace pennyweight
