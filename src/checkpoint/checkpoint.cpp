#include "checkpoint/checkpoint.h"

#include <set>
#include <unordered_map>

#include "checkpoint/safetensors.h"
#include "core/atomic_file.h"
#include "core/error.h"

namespace pennyweight {

namespace {

constexpr const char* kWhere = "checkpoint";
constexpr const char* kIndex = "model.safetensors.index.json";
constexpr size_t kMaxIndex = size_t{256} << 20;
constexpr size_t kMaxConfig = size_t{16} << 20;

[[noreturn]] void corrupt(const std::string& what) {
  throw Error(ErrorCode::corrupt, kWhere, what);
}

// A shard's name is untrusted: a plain file name, so that nothing outside the
// folder is read. (The file itself may be a link, as in the hub's cache.)
void check_shard_name(const std::string& name, const std::string& index) {
  bool plain = !name.empty() && name != "." && name != ".." &&
      name.find_first_of("/\\") == std::string::npos &&
      name.find('\0') == std::string::npos;
  if (!plain) {
    corrupt(
        index + ": the shard \"" + one_line(name, 120) +
        "\" points outside the folder");
  }
  if (!name.ends_with(".safetensors")) {
    corrupt(
        index + ": the shard \"" + one_line(name, 120) +
        "\" is not a safetensors file");
  }
}

// Tensor name -> shard, from the index.
std::map<std::string, std::string> read_weight_map(const fs::path& path) {
  auto name = path.string();
  auto json = parse_sorted_json(read_file(path, kMaxIndex), name);
  if (!json.is_object() || !json.contains("weight_map") ||
      !json["weight_map"].is_object() || json["weight_map"].empty()) {
    corrupt(name + ": \"weight_map\" is missing or empty");
  }
  std::map<std::string, std::string> weight_map;
  for (const auto& [tensor, shard] : json["weight_map"].items()) {
    if (!shard.is_string()) {
      corrupt(
          name + ": the shard of " + one_line(tensor, 120) + " is not a name");
    }
    check_shard_name(shard.get_ref<const std::string&>(), name);
    weight_map.emplace(tensor, shard.get<std::string>());
  }
  return weight_map;
}

// A count of what is not finite, by the exponent bits: all ones.
template <class Word>
int64_t count_non_finite(const mx::array& tensor, Word exponent) {
  const Word* data = tensor.data<Word>();
  int64_t count = 0;
  for (size_t i = 0; i < tensor.size(); ++i) {
    count += (data[i] & exponent) == exponent;
  }
  return count;
}

}  // namespace

struct Checkpoint::Impl {
  struct Source {
    std::shared_ptr<SafetensorsFile> file;
    SafetensorsEntry entry;
  };

  fs::path folder;
  Json config;
  std::map<std::string, TensorInfo> tensors;
  std::unordered_map<std::string, Source> sources;

  void add(const fs::path& path) {
    auto file = SafetensorsFile::open(path);
    for (const auto& entry : file->entries()) {
      TensorInfo info{
          entry.name, entry.dtype, entry.shape, entry.end - entry.begin, path};
      if (auto [it, fresh] = tensors.emplace(entry.name, info); !fresh) {
        corrupt(
            path.string() + ": tensor " + one_line(entry.name, 120) +
            " stands in " + it->second.file.filename().string() + " too");
      }
      sources.emplace(entry.name, Source{file, entry});
    }
  }

  // As mlx-lm: every model*.safetensors.
  void add_unindexed() {
    std::set<fs::path> shards;
    for (const auto& item : fs::directory_iterator(folder)) {
      auto name = item.path().filename().string();
      if (name.starts_with("model") && name.ends_with(".safetensors")) {
        shards.insert(item.path());
      }
    }
    if (shards.empty()) {
      throw Error(
          ErrorCode::not_found,
          kWhere,
          folder.string() + " holds neither model.safetensors nor " + kIndex +
              "; other weight formats are not read");
    }
    for (const auto& shard : shards) {
      add(shard);
    }
  }

  void add_indexed(const fs::path& index) {
    auto weight_map = read_weight_map(index);
    std::set<std::string> shards;
    for (const auto& [name, shard] : weight_map) {
      shards.insert(shard);
    }
    for (const auto& shard : shards) {
      if (!fs::exists(folder / shard)) {
        throw Error(
            ErrorCode::not_found,
            kWhere,
            "the shard " + (folder / shard).string() +
                " is missing; fetch the model again");
      }
      add(folder / shard);
    }
    for (const auto& [name, shard] : weight_map) {
      auto it = tensors.find(name);
      if (it == tensors.end() || it->second.file.filename() != shard) {
        corrupt(
            (folder / shard).string() + ": tensor " + one_line(name, 120) +
            " is missing, though the index places it there");
      }
    }
    for (const auto& [name, info] : tensors) {
      if (!weight_map.contains(name)) {
        corrupt(
            info.file.string() + ": tensor " + one_line(name, 120) +
            " is not in the index");
      }
    }
  }
};

Checkpoint::Checkpoint(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Checkpoint::~Checkpoint() = default;
Checkpoint::Checkpoint(Checkpoint&&) noexcept = default;
Checkpoint& Checkpoint::operator=(Checkpoint&&) noexcept = default;

Checkpoint Checkpoint::open(const fs::path& folder) {
  try {
    return open_folder(folder);
  } catch (const fs::filesystem_error& error) {
    throw io_error(kWhere, "can't read", folder.string(), error.code().value());
  }
}

Checkpoint Checkpoint::open_folder(const fs::path& folder) {
  auto impl = std::make_unique<Impl>();
  impl->folder = folder;
  std::error_code ignored;
  if (!fs::is_directory(folder, ignored)) {
    throw Error(
        ErrorCode::not_found,
        kWhere,
        "there is no model folder " + folder.string());
  }
  impl->config = read_json(folder / "config.json", kMaxConfig);
  if (!impl->config.is_object()) {
    corrupt((folder / "config.json").string() + " is not a JSON object");
  }
  if (fs::exists(folder / kIndex)) {
    impl->add_indexed(folder / kIndex);
  } else {
    impl->add_unindexed();
  }
  return Checkpoint(std::move(impl));
}

const fs::path& Checkpoint::folder() const {
  return impl_->folder;
}

const Json& Checkpoint::config() const {
  return impl_->config;
}

const std::map<std::string, TensorInfo>& Checkpoint::tensors() const {
  return impl_->tensors;
}

bool Checkpoint::contains(const std::string& name) const {
  return impl_->tensors.contains(name);
}

const TensorInfo& Checkpoint::info(const std::string& name) const {
  auto it = impl_->tensors.find(name);
  if (it == impl_->tensors.end()) {
    throw Error(
        ErrorCode::not_found,
        kWhere,
        impl_->folder.string() + ": tensor " + one_line(name, 120) +
            " is missing");
  }
  return it->second;
}

mx::array Checkpoint::load(const std::string& name) const {
  info(name);
  const auto& source = impl_->sources.at(name);
  return SafetensorsFile::load(source.file, source.entry);
}

void require_finite(const mx::array& tensor, const std::string& name) {
  if (!tensor.is_available() || !tensor.flags().row_contiguous) {
    throw Error(
        ErrorCode::invalid_argument,
        kWhere,
        "tensor " + one_line(name, 120) + " must be evaluated and contiguous");
  }
  int64_t count = 0;
  if (tensor.dtype() == mx::bfloat16) {
    count = count_non_finite<uint16_t>(tensor, 0x7f80);
  } else if (tensor.dtype() == mx::float16) {
    count = count_non_finite<uint16_t>(tensor, 0x7c00);
  } else if (tensor.dtype() == mx::float32) {
    count = count_non_finite<uint32_t>(tensor, 0x7f800000);
  }
  if (count > 0) {
    throw Error(
        ErrorCode::numeric,
        kWhere,
        "tensor " + one_line(name, 120) + " holds " + std::to_string(count) +
            " NaN or infinite values; the checkpoint is damaged");
  }
}

}  // namespace pennyweight
