#include "checkpoint/checkpoint.h"

#include <set>

#include "checkpoint/other_formats.h"
#include "checkpoint/packed/packed_source.h"
#include "checkpoint/quantization_entries.h"
#include "checkpoint/tensor_files.h"
#include "core/error.h"
#include "core/json.h"

namespace pennyweight {

namespace {

constexpr size_t kMaxConfig = size_t{16} << 20;

}  // namespace

struct Checkpoint::Impl {
  fs::path folder;
  Json config;
  QuantizationEntries entries;
  TensorFiles files;
  std::map<std::string, TensorInfo> tensors;
  std::unique_ptr<PackedSource> packed;

  mx::array load_stored(const std::string& name) const {
    const auto& source = files.sources.at(name);
    return SafetensorsFile::load(files.file_of(source), source.entry);
  }

  LoadStored loader() const {
    return [this](const std::string& name) { return load_stored(name); };
  }

  std::string unread_packs() const {
    // gpt_oss's own packs are read by its family.
    if (packed || entries.method.empty() || entries.method == "mxfp4") {
      return "";
    }
    for (const auto& [name, info] : files.infos) {
      const bool by_mlx = info.dtype == mx::uint32 &&
          files.infos.contains(
              name.substr(0, name.rfind(".weight")) + ".scales");
      const bool matrix_of_codes = info.shape.size() > 1 &&
          mx::issubdtype(info.dtype, mx::integer) &&
          !name.ends_with("position_ids");
      if (!by_mlx &&
          (matrix_of_codes || is_packed_part(name, info.byte_type))) {
        return "quantized by \"" + entries.method + "\" (tensor " +
            one_line(name, 120) + ")";
      }
    }
    return "";
  }

  // Fills `tensors`, with packed matrices in place of their parts.
  void show_packed() {
    packed = PackedSource::find(
        entries,
        {files.infos,
         loader(),
         [this](const std::string& name) { return files.about_missing(name); },
         folder.string()});
    tensors = files.infos;
    if (packed) {
      for (const auto& name : packed->taken()) {
        tensors.erase(name);
      }
      for (const auto& [name, tensor] : packed->tensors()) {
        tensors.insert_or_assign(name, tensor->info());
      }
    }
    for (const auto& [name, info] : tensors) {
      if (info.byte_type != ByteType::plain) {
        if (const auto packs = unread_packs(); !packs.empty()) {
          throw Error(
              ErrorCode::not_supported,
              "checkpoint",
              folder.string() + ": " + packs +
                  ", which is not read: start from the full-precision model");
        }
        throw Error(
            ErrorCode::not_supported,
            "checkpoint",
            info.file.string() + ": tensor \"" + one_line(name, 120) +
                "\" is FP8, and nothing says by which scales; convert it to "
                "BF16 first");
      }
    }
  }
};

Checkpoint::Checkpoint(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Checkpoint::~Checkpoint() = default;
Checkpoint::Checkpoint(Checkpoint&&) noexcept = default;
Checkpoint& Checkpoint::operator=(Checkpoint&&) noexcept = default;

Checkpoint Checkpoint::open(
    const fs::path& folder,
    std::shared_ptr<ShardProvider> provider) {
  try {
    return open_folder(folder, std::move(provider));
  } catch (const fs::filesystem_error& error) {
    throw io_error(
        "checkpoint", "can't read", folder.string(), error.code().value());
  }
}

Checkpoint Checkpoint::open_folder(
    const fs::path& folder,
    std::shared_ptr<ShardProvider> provider) {
  auto impl = std::make_unique<Impl>();
  impl->folder = folder;
  std::error_code ignored;
  if (!fs::is_directory(folder, ignored)) {
    throw Error(
        ErrorCode::not_found,
        "checkpoint",
        "there is no model folder " + folder.string());
  }
  if (!fs::exists(folder / "config.json", ignored)) {
    const auto other = about_other_formats(folder);
    throw Error(
        ErrorCode::not_found,
        "checkpoint",
        folder.string() + " has no config.json; " +
            (other.empty() ? "fetch it from where the model is" : other));
  }
  impl->config = untag_floats(read_json(folder / "config.json", kMaxConfig));
  if (!impl->config.is_object()) {
    throw Error(
        ErrorCode::corrupt,
        "checkpoint",
        (folder / "config.json").string() + " is not a JSON object");
  }
  impl->entries = read_quantization_entries(impl->config, folder);
  try {
    impl->files.open(folder, std::move(provider));
    impl->show_packed();
  } catch (const Error& error) {
    const std::string what = error.what();
    const auto& method = impl->entries.method;
    if (error.code() != ErrorCode::not_supported || method.empty() ||
        what.find("quantized by") != what.npos) {
      throw;
    }
    throw about("checkpoint", "quantized by \"" + method + "\"", error);
  }
  impl->files.note_twice();
  return Checkpoint(std::move(impl));
}

const fs::path& Checkpoint::folder() const {
  return impl_->folder;
}

const Json& Checkpoint::config() const {
  return impl_->config;
}

void Checkpoint::settle_quantization(const Json& entry) {
  impl_->config = without_quantization(std::move(impl_->config));
  if (!entry.is_null()) {
    impl_->config["quantization"] = entry;
  }
}

const QuantizationEntries& Checkpoint::quantization_entries() const {
  return impl_->entries;
}

const std::vector<std::string>& Checkpoint::notes() const {
  return impl_->files.notes;
}

bool Checkpoint::lacks_files() const {
  return impl_->files.lacks_files();
}

std::string Checkpoint::about_missing(const std::string& name) const {
  return impl_->files.about_missing(name);
}

const PackedSource* Checkpoint::packed() const {
  return impl_->packed.get();
}

std::string Checkpoint::unread_packs() const {
  return impl_->unread_packs();
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
        "checkpoint",
        impl_->folder.string() + ": tensor " + one_line(name, 120) +
            " is missing" + about_missing(name));
  }
  return it->second;
}

mx::array Checkpoint::load(const std::string& name) const {
  const auto& all = info(name);
  if (const auto* packed = find_packed(name)) {
    return packed->expand(impl_->loader(), 0, all.shape[0]);
  }
  return impl_->load_stored(name);
}

mx::array Checkpoint::load_rows(const std::string& name, int first, int count)
    const {
  const auto& all = info(name);
  if (all.shape.empty() || first < 0 || count < 0 ||
      first > all.shape[0] - count) {
    throw Error(
        ErrorCode::invalid_argument,
        "checkpoint",
        "tensor " + one_line(name, 120) + " has no such rows");
  }
  if (const auto* packed = find_packed(name)) {
    return packed->expand(impl_->loader(), first, count);
  }
  const auto& source = impl_->files.sources.at(name);
  auto entry = source.entry;
  const uint64_t row =
      all.shape[0] > 0 ? all.bytes / uint64_t(all.shape[0]) : 0;
  entry.begin += uint64_t(first) * row;
  entry.end = entry.begin + uint64_t(count) * row;
  entry.shape[0] = count;
  return SafetensorsFile::load(impl_->files.file_of(source), entry);
}

const PackedTensor* Checkpoint::find_packed(const std::string& name) const {
  return impl_->packed ? impl_->packed->tensor(name) : nullptr;
}

std::vector<std::string> Checkpoint::stored_parts(
    const std::string& name) const {
  const auto* packed = find_packed(name);
  return packed ? packed->parts() : std::vector<std::string>{name};
}

const std::map<std::string, TensorInfo>& Checkpoint::stored_tensors() const {
  return impl_->files.infos;
}

const TensorInfo& Checkpoint::stored_info(const std::string& name) const {
  return impl_->files.infos.at(name);
}

void Checkpoint::read(
    const std::string& name,
    uint64_t begin,
    uint64_t end,
    const std::function<void(const char* data, size_t bytes)>& use) const {
  const auto& source = impl_->files.sources.at(name);
  impl_->files.file_of(source)->read(
      source.entry.begin + begin, source.entry.begin + end, use);
}

bool Checkpoint::is_streamed() const {
  return impl_->files.held != nullptr;
}

int64_t Checkpoint::fetched_bytes() const {
  const auto& held = impl_->files.held;
  return held ? held->fetched_bytes() : 0;
}

void Checkpoint::release(const std::string& file) const {
  if (impl_->files.held) {
    impl_->files.held->release(file);
  }
}

const FileStamp& Checkpoint::stamp(const std::string& name) const {
  return impl_->files.sources.at(name).file->stamp();
}

void Checkpoint::require_unchanged() const {
  std::set<const SafetensorsFile*> files;
  for (const auto& [name, source] : impl_->files.sources) {
    if (files.insert(source.file.get()).second) {
      source.file->require_unchanged();
    }
  }
}

}  // namespace pennyweight
