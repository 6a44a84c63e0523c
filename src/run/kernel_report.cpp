#include "run/kernel_report.h"

#include <mlx/ops.h>
#include <mlx/random.h>
#include <mlx/transforms.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <set>

#include "core/json.h"
#include "kernels/dispatch.h"
#include "kernels/threads.h"
#include "ops/evaluated.h"
#include "run/time/rate_sampler.h"

namespace pennyweight {

namespace {

// A part of the operations below which nobody notices what serves it.
constexpr double kSmallPart = 0.02;
constexpr int kTriedTokens = 512;
constexpr int64_t kMostColumns = 16384;  // of the head

double total(const std::vector<kernels::ServedProducts>& served) {
  double sum = 0;
  for (const auto& own : served) {
    sum += double(own.operations);
  }
  return std::max(sum, 1.0);
}

std::string percent(double part) {
  return std::to_string(int64_t(std::lround(100 * part))) + " %";
}

/// Those with a part that counts, the largest first.
std::string names_of(const std::vector<kernels::ServedProducts>& served) {
  const double all = total(served);
  std::string text;
  for (const auto& own : served) {
    const double part = double(own.operations) / all;
    if (part >= kSmallPart) {
      text += (text.empty() ? "" : ", ") + own.name;
      text += part < 1 - kSmallPart ? " " + percent(part) : "";
    }
  }
  return text;
}

class Trial {
 public:
  Trial(const Model& model, const ProgressFn& progress)
      : model_(model), sampler_(progress, "kernels") {}

  std::vector<KernelRow> run() {
    std::set<int64_t> widths;
    for (const ModuleSpec& module : list_modules(model_.spec)) {
      if (module.block < 0) {
        continue;
      }
      widths.insert(module.in);
      linear(module.out, module.in);
    }
    for (const int64_t width : widths) {
      sums(width);
    }
    for (const BlockSpec& block : model_.spec.blocks) {
      attention(block.attention);
    }
    head();
    return std::move(rows_);
  }

 private:
  using Make = std::function<mx::array()>;

  mx::array random(mx::Shape shape) const {
    return evaluated(
        mx::astype(mx::random::normal(std::move(shape)), model_.dtype));
  }

  void add(
      const std::string& what,
      const std::string& shape,
      double operations,
      const Make& make) {
    seen_.insert(what + shape);
    const auto before = kernels::products_served();
    auto first = make();
    mx::eval(first);  // oneDNN compiles what it has not met
    const double seconds = sampler_.seconds([&] { mx::eval(make()); });
    rows_.push_back(
        {what,
         shape,
         names_of(kernels::served_since(before)),
         operations / std::max(seconds, 1e-9)});
  }

  bool is_seen(const std::string& what, const std::string& shape) const {
    return seen_.contains(what + shape);
  }

  void linear(int64_t out, int64_t in) {
    const auto shape = std::to_string(out) + " x " + std::to_string(in);
    if (is_seen("linear", shape)) {
      return;
    }
    const auto x = random({kTriedTokens, int(in)});
    const auto w = random({int(out), int(in)});
    const double operations = 2.0 * kTriedTokens * double(out) * double(in);
    add("linear", shape, operations, [&] { return ops::linear(x, w); });
    const auto dy = random({kTriedTokens, int(out)});
    add("gradient by its input", shape, operations, [&] {
      const auto loss = [&](const mx::array& at) { return ops::linear(at, w); };
      return mx::vjp(loss, x, dy).second;
    });
  }

  void sums(int64_t width) {
    const auto x = random({kTriedTokens, int(width)});
    const auto sum =
        evaluated(mx::zeros({int(width), int(width)}, mx::float32));
    add("sum of x x^T",
        std::to_string(width),
        double(kTriedTokens) * double(width) * double(width),
        [&] { return ops::gram_add(sum, {x}, x); });
  }

  void attention(const AttentionSpec& spec) {
    if (spec.heads == 0 || spec.delta || spec.short_conv || spec.scan) {
      return;  // a scan or a convolution, of no products
    }
    int size = spec.head_dim;
    if (spec.latent) {
      size = spec.latent->nope_dim + spec.latent->rope_dim;
    }
    const int kv_heads = spec.latent ? spec.heads : spec.kv_heads;
    const auto shape = std::to_string(spec.heads) + " heads on " +
        std::to_string(kv_heads) + ", " + std::to_string(size) + " wide";
    if (is_seen("attention", shape)) {
      return;
    }
    const auto q = random({1, kTriedTokens, spec.heads, size});
    const auto k = random({1, kTriedTokens, kv_heads, size});
    const auto v = random({1, kTriedTokens, kv_heads, size});
    const ops::AttentionOptions options{
        .scale = spec.scale, .window = spec.window, .cap = spec.cap};
    // Half of the keys are ahead of their query.
    const double operations =
        2.0 * kTriedTokens * kTriedTokens * double(spec.heads) * double(size);
    add("attention", shape, operations, [&] {
      return ops::attention(q, k, v, options);
    });
    add("its gradient", shape, 3.5 * operations, [&] {
      const auto loss = [&](const std::vector<mx::array>& at) {
        return std::vector{ops::attention(at[0], at[1], at[2], options)};
      };
      const auto made = mx::vjp(loss, {q, k, v}, {q}).second;
      return mx::sum(made[0]) + (mx::sum(made[1]) + mx::sum(made[2]));
    });
  }

  void head() {
    const auto count = int(std::min(kMostColumns, model_.spec.vocab));
    const auto in = int(model_.spec.hidden);
    const auto x = random({kTriedTokens, in});
    const auto w = random({count, in});
    const auto targets = mx::zeros({kTriedTokens}, mx::int32);
    const auto state = ops::score_start(kTriedTokens);
    mx::eval({targets, state});
    add("head with its scores",
        std::to_string(count) + " x " + std::to_string(in),
        2.0 * kTriedTokens * count * in,
        [&] {
          return ops::score_linear(state, {x, w}, std::nullopt, targets, 0);
        });
  }

  const Model& model_;
  RateSampler sampler_;
  std::set<std::string> seen_;
  std::vector<KernelRow> rows_;
};

}  // namespace

Json kernels_json(const Served& before) {
  const auto choice = kernels::active_choice();
  const auto served = kernels::served_since(before);
  const double all = total(served);
  Json products = Json::array();
  for (const auto& own : served) {
    products.push_back(
        {{"implementation", own.name},
         {"calls", own.calls},
         {"operations", own.operations},
         {"share", double(own.operations) / all}});
  }
  return {
      {"choice", std::string(kernels::choice_name(choice))},
      {"instructions", std::string(kernels::target_name(choice))},
      {"threads", kernels::thread_count()},
      {"products", products}};
}

std::string describe_kernels() {
  const auto choice = kernels::active_choice();
  const auto names = names_of(kernels::products_served());
  return std::string(kernels::choice_name(choice)) + " on " +
      std::string(kernels::target_name(choice)) +
      (names.empty() ? "" : " (" + names + ")");
}

std::string slow_products(const Served& before) {
  const auto choice = kernels::active_choice();
  if (choice != kernels::Choice::onednn &&
      choice != kernels::Choice::onednn_f32) {
    return {};  // asked for, or all that there is
  }
  const auto served = kernels::served_since(before);
  double own = 0;
  for (const auto& server : served) {
    own += server.name.starts_with("oneDNN") ? 0 : double(server.operations);
  }
  const double part = own / total(served);
  if (part < kSmallPart) {
    return {};
  }
  return percent(part) +
      " of the matrix products ran on pennyweight's own kernels, since oneDNN "
      "has no fast ones of their shape; PENNYWEIGHT_TRACE_PRODUCTS=1 lists "
      "them";
}

std::vector<KernelRow> try_kernels(
    const Model& model,
    const ProgressFn& progress) {
  return Trial(model, progress).run();
}

Json to_json(const std::vector<KernelRow>& rows) {
  Json list = Json::array();
  for (const auto& row : rows) {
    list.push_back(
        {{"what", row.what},
         {"shape", row.shape},
         {"implementation", row.implementation},
         {"operations_per_second", row.operations_per_second}});
  }
  return list;
}

}  // namespace pennyweight
