// Prints the estimated costs of rounding, and the measured costs of linears
// that are rounded alone, for the parity tests:
//
//   probe_costs MODEL TOKENS LENGTH CANDIDATES [EVERY BITS]
//
// TOKENS holds int32 sequences of LENGTH one after the other. The table goes
// to standard output as JSON; with EVERY, the KL of each EVERYth of the blocks'
// linears alone by GPTQ at BITS stands in it as "alone", by module.

#include <chrono>
#include <ctime>
#include <fstream>
#include <iostream>
#include <iterator>

#include "core/error.h"
#include "core/json.h"
#include "core/process.h"
#include "method/learned/rounding_loss.h"
#include "method/widths/rounding_costs.h"
#include "rounded_alone.h"

namespace {

using namespace pennyweight;
using Sequences = std::vector<std::vector<int32_t>>;

Sequences read_tokens(const char* path, size_t length) {
  std::ifstream in(path, std::ios::binary);
  Sequences sequences;
  std::vector<int32_t> tokens(length);
  while (in.read(
      reinterpret_cast<char*>(tokens.data()),
      std::streamsize(length * sizeof(int32_t)))) {
    sequences.push_back(tokens);
  }
  return sequences;
}

Json measure_alone(
    const Model& model,
    const Sequences& sequences,
    size_t every,
    int bits) {
  const testing::RoundedAlone alone(model, sequences, 2048);
  Json found = Json::object();
  size_t index = 0;
  for (const auto& module : list_modules(model.spec)) {
    const auto spec = gptq_candidate(bits, module.in);
    if (module.block < 0 || module.expert || !spec || index++ % every != 0) {
      continue;
    }
    found[module.path] =
        alone.kl(module.block, {{module.path, alone.by_gptq(module, *spec)}});
  }
  return found;
}

int run(int count, char** args) {
  const auto model = open_model(args[1]);
  const auto sequences = read_tokens(args[2], std::stoul(args[3]));
  CostSettings settings;
  settings.candidates = parse_candidates(args[4]);
  settings.scratch_folder = fs::temp_directory_path();
  ops::keep_freed_memory();
  const auto start = std::chrono::steady_clock::now();
  const auto seconds = [&] {
    const std::chrono::duration<double> passed =
        std::chrono::steady_clock::now() - start;
    return passed.count();
  };
  std::string before;
  const auto costs =
      measure_costs(model, sequences, settings, [&](const auto& event) {
        if (event.unit + event.message != before) {
          before = event.unit + event.message;
          std::cerr << seconds() << " s, CPU "
                    << double(std::clock()) / CLOCKS_PER_SEC << " s: " << before
                    << " " << event.done << "\n";
        }
        return true;
      });
  auto json = to_json(costs);
  json["seconds"] = seconds();
  json["peak_rss"] = peak_rss();
  if (count > 6) {
    json["alone"] = measure_alone(
        model, sequences, std::stoul(args[5]), std::stoi(args[6]));
  }
  std::cout << json.dump(1) << "\n";
  return 0;
}

}  // namespace

int main(int count, char** args) {
  if (count < 5) {
    std::cerr << "probe_costs MODEL TOKENS LENGTH CANDIDATES [EVERY BITS]\n";
    return 2;
  }
  try {
    return run(count, args);
  } catch (const std::exception& error) {
    std::cerr << error.what() << "\n";
    return 1;
  }
}
