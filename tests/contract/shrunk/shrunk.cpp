// Rounding to nearest within shrunk ranges: weights beyond a share of their
// row's largest are cut to it, and the share with the least error is taken.

#include <mlx/ops.h>

#include "method/gate.h"
#include "method/method.h"
#include "ops/rounding/quantize.h"

namespace pennyweight {

namespace {

struct ShrunkOptions {
  int shares = 4;

  template <class Self, class Visitor>
  static void visit(Self& self, Visitor&& option) {
    option(
        {.name = "shares", .help = "Shares to try: 100 %, 96 %, 92 %, ..."},
        self.shares);
  }
};

PackedBlock round_rows(const BlockTask& task, float share) {
  PackedBlock packed;
  for (const LinearGroup& group : task.groups()) {
    for (const ModuleSpec& module : group.modules) {
      const auto weight = task.weight(module.path);
      const auto largest = mx::max(mx::abs(weight), -1, true);
      const auto end = mx::multiply(largest, mx::array(share));
      const auto cut = mx::clip(weight, mx::negative(end), end);
      const auto rounded =
          quantize(mx::astype(cut, task.dtype()), task.quant_spec(module));
      packed.insert_or_assign(module.path, rounded);
    }
  }
  return packed;
}

class Shrunk : public BlockMethod {
 public:
  explicit Shrunk(const ShrunkOptions& options) : options_(options) {}

  std::string name() const override {
    return "shrunk";
  }
  MethodNeeds needs() const override {
    return {.restarts = true};  // asks for errors, and never for statistics
  }
  int64_t working_bytes(const BlockSpec& block) const override {
    return (4 + 2) * count_weights(block) * options_.shares;
  }
  BlockFigures run(BlockTask& task) override {
    std::vector<Judged> ways;
    std::vector<PackedBlock> packed;
    for (int i = 0; i < options_.shares; ++i) {
      packed.push_back(round_rows(task, 1 - 0.04f * float(i)));
      ways.push_back(
          {i == 0 ? kRtn : std::to_string(100 - 4 * i) + " %",
           judged_error(task, expand_all(task, packed.back()))});
    }
    const size_t kept = least(ways);
    set_all(task, packed[kept]);
    return {.kept = ways[kept].name, .held_out_error = by_name(ways)};
  }

 private:
  ShrunkOptions options_;
};

}  // namespace

MethodEntry shrunk_method() {
  return block_method<Shrunk, ShrunkOptions>(
      "shrunk", "Shrunk rounding", "Quantize by rounding within shrunk ranges");
}

}  // namespace pennyweight
