// libFuzzer target of config.json and model.safetensors.index.json: a family's
// spec is read from both, as a checkpoint's without its weights. An input is a
// byte that chooses the family, the config, a byte 0 and the index. See
// tools/fuzz.sh.

#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>

#include "checkpoint/weight_index.h"
#include "core/json.h"
#include "fuzz_require.h"
#include "model/families/family.h"
#include "ops/rounding/round_to_nearest.h"

// Named by format/quant_spec.cpp; a spec rounds nothing, and its kernels need
// more libraries than this target has.
void pennyweight::round_to_nearest(
    const void*,
    mx::Dtype,
    int64_t,
    const QuantSpec&,
    const RoundedWeights&) {
  require(false);
}

namespace {

using namespace pennyweight;
namespace fs = std::filesystem;

// A folder of this process, in memory where the system has such. Never
// destroyed, since it is removed after all that is.
const fs::path& folder() {
  static const auto* made = [] {
    const fs::path shm = "/dev/shm";
    auto* path = new fs::path(
        (fs::exists(shm) ? shm : fs::temp_directory_path()) /
        ("pennyweight-fuzz-" + std::to_string(::getpid())));
    fs::create_directories(*path);
    std::atexit([] { fs::remove_all(folder()); });
    return path;
  }();
  return *made;
}

WeightIndex read_index(std::string_view text) {
  std::ofstream(folder() / kWeightIndex, std::ios::binary) << text;
  auto index = read_weight_index(folder());
  require(!index.fault || index.places.empty());
  for (const auto& file : index.files()) {
    require(file.find('/') == file.npos && file.ends_with(".safetensors"));
    siblings_of(file);
  }
  return index;
}

void read_spec(
    const Family& family,
    const Json& config,
    const WeightIndex& in) {
  FamilyInput input{
      .config = JsonView(config, "config.json"),
      .has_tensor =
          [&](const std::string& name) { return in.places.contains(name); },
      .tensors_under =
          [&](const std::string& prefix) {
            std::vector<std::string> names;
            for (const auto& [name, file] : in.places) {
              if (name.starts_with(prefix)) {
                names.push_back(name);
              }
            }
            return names;
          },
      .shape_of = [](const std::string&) { return mx::Shape{}; }};
  const auto spec = read_as(family.model_class, family.read, input);
  // What is accepted is a model: nothing of it is without size.
  require(!spec.blocks.empty() && spec.hidden > 0 && spec.vocab > 0);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 1) {
    return 0;
  }
  const auto& family = families()[data[0] % families().size()];
  std::string_view text(reinterpret_cast<const char*>(data) + 1, size - 1);
  const auto end = std::min(text.find('\0'), text.size());
  try {
    const auto index = read_index(text.substr(std::min(end + 1, text.size())));
    const auto config = parse_json(text.substr(0, end), "config.json");
    read_spec(family, config, index);
  } catch (const Error& error) {
    require_one_line(error);
    require(
        error.code() == ErrorCode::corrupt ||
        error.code() == ErrorCode::not_supported);
  }
  return 0;
}
