// Prints the figures of evaluate() for the parity tests:
//
//   probe_evaluate MODEL REFERENCE|- TOKENS LENGTH DTYPE
//
// TOKENS holds int32 sequences of LENGTH one after the other; the figures go
// to standard output, one `name value` a line.

#include <cstdio>
#include <fstream>
#include <iostream>
#include <iterator>
#include <optional>

#include "core/error.h"
#include "eval/evaluate.h"

namespace {

using namespace pennyweight;

std::vector<int32_t> read_tokens(const char* path) {
  std::ifstream in(path, std::ios::binary);
  std::vector<char> bytes(
      (std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>());
  std::vector<int32_t> tokens(bytes.size() / sizeof(int32_t));
  std::copy(
      bytes.begin(),
      bytes.begin() +
          static_cast<std::ptrdiff_t>(tokens.size() * sizeof(int32_t)),
      reinterpret_cast<char*>(tokens.data()));
  return tokens;
}

void print(const char* name, double value) {
  std::printf("%s %.9g\n", name, value);
}

int run(char** args) {
  auto model = open_model(args[1]);
  std::optional<Model> reference;
  if (args[2] != std::string("-")) {
    reference.emplace(open_model(args[2]));
  }
  auto tokens = read_tokens(args[3]);
  auto length = static_cast<size_t>(std::stoul(args[4]));
  std::vector<ScoredSequence> sequences;
  for (size_t i = 0; i + length <= tokens.size(); i += length) {
    sequences.push_back({std::span(tokens).subspan(i, length)});
  }
  EvalSettings settings;
  if (args[5] == std::string("float32")) {
    settings.dtype = mx::float32;
  } else if (args[5] == std::string("bfloat16")) {
    settings.dtype = mx::bfloat16;
  }
  auto result =
      evaluate(model, reference ? &*reference : nullptr, sequences, settings);
  auto size = model_size(model);
  print("tokens", static_cast<double>(result.tokens));
  print("bytes", static_cast<double>(size.bytes));
  print("bpw", size.bits_per_weight);
  print("ppl", result.perplexity.value);
  print("ppl_error", result.perplexity.standard_error);
  if (result.reference) {
    print("reference_ppl", result.reference->perplexity.value);
    print("kl", result.reference->kl.mean.value);
    print("kl_error", result.reference->kl.mean.standard_error);
    print("kl_median", result.reference->kl.median);
    print("kl_p99", result.reference->kl.p99);
    print("kl_max", result.reference->kl.max);
    print("top1", result.reference->top1.value);
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 6) {
    std::cerr << "probe_evaluate MODEL REFERENCE|- TOKENS LENGTH DTYPE\n";
    return 2;
  }
  try {
    return run(argv);
  } catch (const std::exception& error) {
    std::cerr << error.what() << "\n";
    return 1;
  }
}
