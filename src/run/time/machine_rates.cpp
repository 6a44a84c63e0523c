#include "run/time/machine_rates.h"

#include <mlx/ops.h>
#include <mlx/random.h>
#include <mlx/transforms.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <filesystem>

#include "core/error.h"
#include "core/json.h"
#include "kernels/threads.h"
#include "model/finite.h"
#include "ops/evaluated.h"
#include "ops/kl_head.h"
#include "run/time/block_rates.h"
#include "text/text_reader.h"

namespace pennyweight {

namespace {

// What is timed of the text: a batch as runs have them, but of blocks that are
// large a sequence.
constexpr int64_t kMeasuredTokens = 2048;
constexpr int64_t kLargeBlock = 150'000'000;
// And of the head.
constexpr int kHeadTokens = 1024;
constexpr int kHeadRows = 16384;
constexpr int64_t kTimedRows = 4096;
constexpr int64_t kRows = 1024;

/// Two of so many tokens.
std::vector<TokenBatch>
sample_batches(const Model& model, int length, int64_t tokens) {
  std::vector<std::vector<int32_t>> sequences(
      static_cast<size_t>(2 * std::max<int64_t>(1, tokens / length)));
  uint64_t state = 1;
  for (auto& sequence : sequences) {
    for (int i = 0; i < length; ++i) {
      state = state * 6364136223846793005ULL + 1442695040888963407ULL;
      sequence.push_back(static_cast<int32_t>(
          (state >> 33) % static_cast<uint64_t>(model.spec.vocab)));
    }
  }
  return make_token_batches(sequences, model.spec.vocab, tokens);
}

int64_t largest_block(const DecoderSpec& spec) {
  int64_t most = 0;
  for (const BlockSpec& block : spec.blocks) {
    int64_t weights = 0;
    for (const ModuleSpec& module : list_modules(block)) {
      weights += module.out * module.in;
    }
    most = std::max(most, weights);
  }
  return most;
}

/// Of a linear whose inputs no walk has summed; `rows` of it.
WidthSample
bare_sample(const Model& model, const ModuleSpec& module, int64_t rows) {
  const int count = static_cast<int>(std::min(rows, module.out));
  const auto linear = load_linear(
      model, module.stored, model.dtype, PackedWeights::expand, module.part);
  auto weight = evaluated(mx::contiguous(*linear.rows(0, count).dense));
  return {
      weight,
      {1,
       mx::eye(static_cast<int>(module.in)),
       std::nullopt,
       std::nullopt,
       std::nullopt},
      count};
}

/// What no block holds is timed apart: runs take many of its rows at once.
void measure_tables(
    const Model& model,
    const std::map<int64_t, WidthSample>& widths,
    RateSampler& sampler,
    MachineRates& rates) {
  for (const ModuleSpec& module : list_stored_modules(model.spec)) {
    if (module.block < 0 && module.packable &&
        !rates.tables.contains(module.in)) {
      auto sample = bare_sample(model, module, kTimedRows);
      if (const auto it = widths.find(module.in); it != widths.end()) {
        sample.sums.hessian = it->second.sums.hessian;
      }
      rates.tables[module.in] =
          measure_width(sample, model.dtype, sampler, true);
    }
  }
}

/// The head's work on some rows of the vocabulary, as what all would take.
class HeadProbe {
 public:
  HeadProbe(
      const Model& model,
      const EmbeddingAndHead& tables,
      const TokenBatch& batch,
      RateSampler& sampler)
      : model_(model),
        sampler_(sampler),
        cap_(tables.logit_cap),
        head_(tables.head.dense_rows(
            0,
            static_cast<int>(std::min<int64_t>(kHeadRows, model.spec.vocab)))),
        x_(rows_of(model, tables, batch)),
        share_(double(head_.dense->shape(0)) / double(model.spec.vocab)) {}

  HeadRates measure() {
    HeadRates rates;
    rates.load = sampler_.seconds([&] {
      require_finite(model_, load_embedding_and_head(model_, model_.dtype));
    });
    const ops::HeadRows rows{x_, *head_.dense, head_.bias, cap_};
    const auto head = ops::whole_head(rows);
    rates.score = a_token([&] { score(rows); });
    rates.divergence = a_token([&] { ops::kl_loss(head, head); });
    rates.fisher = a_token([&] { ops::fisher_head(head, 1, 0); });
    rates.distil = a_token([&] {
      ops::kl_head(head, head, {}, [](int, int, const mx::array& gradient) {
        mx::eval(gradient);
      });
    });
    const auto few = mx::slice(x_, {0, 0}, {3, x_.shape(1)});
    rates.next =
        a_token([&] { mx::eval(head_(few, mx::float32)); }) * x_.shape(0);
    return rates;
  }

 private:
  static mx::array rows_of(
      const Model& model,
      const EmbeddingAndHead& tables,
      const TokenBatch& batch) {
    auto x = mx::flatten(
        final_norm(
            model.spec, tables, embed(tables, batch.tokens), model.dtype),
        0,
        1);
    const int rows = std::min(kHeadTokens, x.shape(0));
    x = mx::contiguous(mx::slice(x, {0, 0}, {rows, x.shape(1)}));
    mx::eval(x);
    return x;
  }

  void score(const ops::HeadRows& head) const {
    const int rows = x_.shape(0);
    const auto targets = mx::zeros({rows}, mx::int32);
    mx::eval(ops::score_linear(ops::score_start(rows), head, head, targets, 0));
  }

  template <class F>
  double a_token(F&& f) {
    return sampler_.seconds(f) / share_ / x_.shape(0);
  }

  const Model& model_;
  RateSampler& sampler_;
  float cap_;
  LinearWeights head_;
  mx::array x_;
  double share_;
};

/// Seconds a byte, to a temporary file without a name; 0 where the system has
/// no room for one.
double write_rate(RateSampler& sampler) {
  const std::vector<char> bytes(size_t{8} << 20, 'x');
  std::FILE* file = std::tmpfile();
  if (!file) {
    return 0;
  }
  const double seconds = sampler.seconds([&] {
    std::rewind(file);
    std::fwrite(bytes.data(), 1, bytes.size(), file);
    std::fflush(file);
  });
  std::fclose(file);
  return seconds / double(bytes.size());
}

Json to_json(const std::map<int64_t, WidthRates>& rates) {
  Json json = Json::array();
  for (const auto& [in, own] : rates) {
    Json entry{{"inputs", in}};
    for (const auto& rate : kWidthRates) {
      entry[rate.name] = own.*rate.value;
    }
    json.push_back(std::move(entry));
  }
  return json;
}

std::string kind_name(const BlockSpec& block, int length) {
  std::string name;
  for (const ModuleSpec& module : list_modules(block)) {
    name += module.path.substr(block.path.size()) + " " +
        std::to_string(module.out) + "x" + std::to_string(module.in) + ",";
  }
  const int window = block.attention.window;
  return name + (window > 0 && window < length ? std::to_string(window) : "");
}

}  // namespace

BlockKinds block_kinds(const DecoderSpec& spec, int sequence_length) {
  BlockKinds kinds;
  std::map<std::string, size_t> known;
  std::vector<std::vector<size_t>> members;
  for (size_t i = 0; i < spec.blocks.size(); ++i) {
    const auto [it, first] = known.try_emplace(
        kind_name(spec.blocks[i], sequence_length), known.size());
    if (first) {
      members.emplace_back();
    }
    kinds.kind.push_back(it->second);
    members[it->second].push_back(i);
  }
  for (const auto& blocks : members) {
    kinds.sample.push_back(blocks[blocks.size() / 2]);
  }
  return kinds;
}

double at_width(
    int64_t width,
    const std::pair<int64_t, double>& narrow,
    const std::pair<int64_t, double>& wide,
    int power) {
  // a w^power + b w^(power + 1) through both, without parts below zero.
  const auto scaled = [&](const std::pair<int64_t, double>& at) {
    return at.second / std::pow(double(at.first), power);
  };
  const double slope = std::max(
      0.0, (scaled(wide) - scaled(narrow)) / double(wide.first - narrow.first));
  const double base = std::max(0.0, scaled(wide) - slope * double(wide.first));
  return (base + slope * double(width)) * std::pow(double(width), power);
}

Json to_json(const MachineRates& rates) {
  Json kinds = Json::array();
  for (const auto& own : rates.kinds) {
    kinds.push_back(
        {{"load", own.load},
         {"forward_token", own.forward},
         {"costs_token", own.costs},
         {"walk_token", own.walk},
         {"walk_sums", own.walk_sums},
         {"learn_token", own.learn},
         {"distil_token", own.distil},
         {"next", own.next},
         {"next_packed", own.next_packed}});
  }
  return {
      {"widths", to_json(rates.widths)},
      {"embedding_and_head", to_json(rates.tables)},
      {"kinds", kinds},
      {"block_kind", rates.kind},
      {"head",
       {{"load", rates.head.load},
        {"score_token", rates.head.score},
        {"divergence_token", rates.head.divergence},
        {"fisher_token", rates.head.fisher},
        {"distil_token", rates.head.distil},
        {"next", rates.head.next}}},
      {"write_byte", rates.write},
      {"start", rates.start},
      {"spread", rates.spread},
      {"cores", rates.load.cores},
      {"busy_cores_of_others", rates.load.others},
      {"threads", rates.threads},
      {"seconds", rates.seconds}};
}

MachineRates measure_rates(
    const Model& model,
    int sequence_length,
    const ProgressFn& progress) {
  const LoadMeter meter;
  MachineRates rates;
  rates.threads = kernels::thread_count();
  rates.seconds = RateSampler::once([&] {
    RateSampler sampler(progress, "plan");
    const bool large = largest_block(model.spec) > kLargeBlock;
    const auto batches = sample_batches(
        model, sequence_length, large ? sequence_length : kMeasuredTokens);
    const auto tables = load_embedding_and_head(model, model.dtype);
    const auto kinds = block_kinds(model.spec, sequence_length);
    rates.kind = kinds.kind;
    std::map<int64_t, WidthSample> widths;
    for (const size_t block : kinds.sample) {
      rates.kinds.push_back(
          BlockProbe(model, model.spec.blocks[block], batches, tables, sampler)
              .measure(widths));
    }
    for (const ModuleSpec& module : list_modules(model.spec)) {
      if (module.block >= 0 && module.packable && !module.published &&
          !widths.contains(module.in)) {
        widths.emplace(module.in, bare_sample(model, module, kRows));
      }
    }
    for (const auto& [in, sample] : widths) {
      rates.widths[in] = measure_width(sample, model.dtype, sampler);
    }
    measure_tables(model, widths, sampler, rates);
    rates.head = HeadProbe(model, tables, batches.front(), sampler).measure();
    rates.write = write_rate(sampler);
    rates.spread = sampler.spread();
    const auto& folder = model.checkpoint.folder();
    if (std::filesystem::exists(folder / "tokenizer.json")) {
      rates.start = RateSampler::once([&] { TextReader{folder}; });
    }
  });
  rates.load = meter.load();
  return rates;
}

}  // namespace pennyweight
