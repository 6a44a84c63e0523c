// A model's forward pass, as `pennyweight evaluate` runs it (embedding, blocks,
// head and scores, weights paged in), beside oneDNN's own matmul on the same
// shapes and type in the same run.
//
//   forward_bench MODEL TEXT [sequences = 64] [repeats = 5]
//
// The ratio is oneDNN's time for all matrices of the model over ours for the
// whole pass: what norms, rope, attention, softmax and the walk leave of it.

#include <cstdio>
#include <cstdlib>
#include <map>

#include "eval/evaluate.h"
#include "kernels/dispatch.h"
#include "measure.h"
#include "text/load_data.h"
#include "text/text_reader.h"

namespace {

using namespace pennyweight;
using namespace pennyweight::bench;

constexpr int kBatch = 2048;
constexpr int kHeadTile = 4096;

std::vector<std::vector<int32_t>>
load_tokens(const fs::path& model, const char* text, int sequences) {
  LoadDataOptions options;
  options.data_path = text;
  options.num_samples = sequences;
  auto fail = [](const std::string& id) -> fs::path {
    throw Error(
        ErrorCode::not_found, "bench", id + " is no text file or folder");
  };
  TextReader reader(model);
  return load_data(reader, options, {}, fail).sequences;
}

/// oneDNN's seconds for `tokens` rows through every matrix of the model. The
/// head's is timed by a tile, as nobody would hold all logits.
double onednn_total(const Model& model, double tokens, bool bf16) {
  std::map<std::pair<int64_t, int64_t>, double> known;
  double total = 0;
  for (const ModuleSpec& module : list_modules(model.spec)) {
    const bool head = module.kind == ModuleSpec::Kind::head || module.tied;
    if (module.kind == ModuleSpec::Kind::embedding && !head) {
      continue;
    }
    const int64_t out = head ? kHeadTile : module.out;
    auto [it, fresh] = known.emplace(std::pair{out, module.in}, 0.0);
    if (fresh) {
      it->second = onednn_seconds(kBatch, int(out), int(module.in), bf16, head);
    }
    total += it->second * double(module.out) / double(out);
  }
  return total * tokens / kBatch;
}

double matrix_flops(const Model& model, double tokens) {
  double flops = 0;
  for (const ModuleSpec& module : list_modules(model.spec)) {
    if (module.kind != ModuleSpec::Kind::embedding || module.tied) {
      flops += 2 * tokens * double(module.out) * double(module.in);
    }
  }
  return flops;
}

void compare(
    const Model& model,
    const std::vector<ScoredSequence>& sequences,
    mx::Dtype dtype) {
  double tokens = 0;
  for (const auto& sequence : sequences) {
    tokens += double(sequence.tokens.size() - 1);
  }
  const EvalSettings how{.dtype = dtype, .batch_tokens = kBatch};
  const double seconds =
      median_seconds([&] { evaluate(model, nullptr, sequences, how); });
  const bool bf16 = dtype == mx::bfloat16;
  const double own = onednn_total(model, tokens, bf16);
  const double flops = matrix_flops(model, tokens) / 1e9;
  std::printf(
      "  %-9s %6.0f tokens %8.3f s %8.0f tokens/s %6.0f GF/s   oneDNN %6.0f "
      "GF/s   ratio %.0f %%\n",
      bf16 ? "bfloat16" : "float32",
      tokens,
      seconds,
      tokens / seconds,
      flops / seconds,
      flops / own,
      own / seconds * 100);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 3) {
    std::fprintf(stderr, "forward_bench MODEL TEXT [sequences] [repeats]\n");
    return 2;
  }
  settings.repeats = argc > 4 ? std::atoi(argv[4]) : 5;
  mx::set_default_device(mx::Device::cpu);
  ops::keep_freed_memory();
  try {
    const auto model = open_model(argv[1]);
    const auto tokens =
        load_tokens(argv[1], argv[2], argc > 3 ? std::atoi(argv[3]) : 64);
    const std::vector<ScoredSequence> sequences(tokens.begin(), tokens.end());
    std::printf(
        "%s, %d threads; kernels %s on %s; median of %d\n",
        processor().c_str(),
        kernels::thread_count(),
        std::string(kernels::choice_name(kernels::active_choice())).c_str(),
        std::string(kernels::target_name(kernels::active_choice())).c_str(),
        settings.repeats);
    compare(model, sequences, mx::bfloat16);
    compare(model, sequences, mx::float32);
  } catch (const Error& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
  return 0;
}
