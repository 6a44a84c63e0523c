#include "checkpoint/other_formats.h"

#include <set>

#include "core/error.h"

namespace pennyweight {

namespace {

struct OtherFormat {
  const char* begins;
  const char* ends;
  const char* advice;  // after "NAME is "
};

// The first that fits is reported: a file of weights says less than those that
// may stand beside it.
constexpr OtherFormat kOthers[] = {
    {"adapter_", "", "of an adapter: merge it into its base model first"},
    {"", ".incomplete", "a download that was not ended: fetch the model again"},
    {"pytorch_model",
     ".bin",
     "PyTorch's: load the model in transformers and save it there, which "
     "writes safetensors"},
    {"", ".gguf", "llama.cpp's: start from the model that it was made of"},
    {"consolidated",
     ".safetensors",
     "of its publisher's own layout: start from the one for transformers"},
    {"consolidated",
     ".pth",
     "of its publisher's own layout: start from the one for transformers"},
    {"weights", ".npz", "of an early MLX: convert the original model again"},
    {"params",
     ".json",
     "of its publisher's own layout: start from the one for transformers"},
};

}  // namespace

std::string about_other_formats(const std::filesystem::path& folder) {
  std::set<std::string> names;
  std::error_code ignored;
  for (const auto& item :
       std::filesystem::directory_iterator(folder, ignored)) {
    names.insert(item.path().filename().string());
  }
  for (const OtherFormat& other : kOthers) {
    for (const auto& name : names) {
      if (name.starts_with(other.begins) && name.ends_with(other.ends)) {
        return one_line(name, 80) + " is " + other.advice;
      }
    }
  }
  return "";
}

}  // namespace pennyweight
