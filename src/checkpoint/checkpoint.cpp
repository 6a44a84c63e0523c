#include "checkpoint/checkpoint.h"

#include <algorithm>
#include <cstring>
#include <set>
#include <tuple>
#include <unordered_map>

#include "checkpoint/packed/packed_source.h"
#include "checkpoint/quantization_entries.h"
#include "checkpoint/safetensors.h"
#include "checkpoint/weight_index.h"
#include "core/error.h"
#include "core/json.h"

namespace pennyweight {

namespace {

constexpr size_t kMaxConfig = size_t{16} << 20;

[[noreturn]] void corrupt(const std::string& what) {
  throw Error(ErrorCode::corrupt, "checkpoint", what);
}

// "a (and 3 more)".
std::string first_of(const std::string& name, int64_t count) {
  const auto first = one_line(name, 120);
  return count > 1 ? first + " (and " + std::to_string(count - 1) + " more)"
                   : first;
}

}  // namespace

struct Checkpoint::Impl {
  struct Source {
    std::shared_ptr<SafetensorsFile> file;
    SafetensorsEntry entry;
  };
  // Tensors that stand in two files, told together.
  struct Twice {
    std::string first;
    int64_t count = 0;
  };

  fs::path folder;
  Json config;
  std::map<std::string, TensorInfo> tensors;
  std::unordered_map<std::string, Source> sources;
  std::map<std::string, TensorInfo> packed_parts;  // in place of `tensors`
  std::unique_ptr<PackedSource> packed;
  WeightIndex index;
  std::vector<std::string> notes;
  std::map<std::string, std::string> left_out;  // file -> why
  std::set<std::string> missing;                // files
  // By the file taken, the other, and whether the index decided.
  std::map<std::tuple<std::string, std::string, bool>, Twice> twice;

  void put(const Source& source) {
    const auto& entry = source.entry;
    tensors.insert_or_assign(
        entry.name,
        TensorInfo{
            entry.name,
            entry.dtype,
            entry.shape,
            entry.end - entry.begin,
            source.file->path(),
            entry.byte_type});
    sources.insert_or_assign(entry.name, source);
  }

  static bool are_equal(const Source& a, const Source& b) {
    if (a.entry.dtype != b.entry.dtype || a.entry.shape != b.entry.shape) {
      return false;
    }
    const auto left = SafetensorsFile::load(a.file, a.entry);
    const auto right = SafetensorsFile::load(b.file, b.entry);
    return left.nbytes() == 0 ||
        std::memcmp(left.data<char>(), right.data<char>(), left.nbytes()) == 0;
  }

  void put_second(const Source& second) {
    const Source first = sources.at(second.entry.name);
    const auto& name = second.entry.name;
    const auto a = first.file->path().filename().string();
    const auto b = second.file->path().filename().string();
    const auto place = index.place_of(name);
    const bool decided = place == a || place == b;
    if (!decided && !are_equal(first, second)) {
      corrupt(
          (folder / a).string() + ": tensor " + one_line(name, 120) +
          " stands in " + b +
          " too, with other contents, and no index says which counts; move the "
          "file away that is not this model's");
    }
    if (place == b) {
      put(second);
    }
    auto& told = twice[{place == b ? b : a, place == b ? a : b, decided}];
    told.first = told.count++ == 0 ? name : told.first;
  }

  void add(const std::shared_ptr<SafetensorsFile>& file) {
    for (const auto& entry : file->entries()) {
      const Source source{file, entry};
      if (sources.contains(entry.name)) {
        put_second(source);
      } else {
        put(source);
      }
    }
  }

  // Whether the files that the index names are there and hold what it places
  // in them, as far as they have been added.
  bool index_holds() const {
    return missing.empty() && !index.places.empty() &&
        std::ranges::all_of(index.places, [&](const auto& place) {
             auto it = tensors.find(place.first);
             return it != tensors.end() &&
                 it->second.file.filename() == place.second;
           });
  }

  void leave_out(const std::string& file, const std::string& why) {
    left_out[file] = why;
    notes.push_back("left out, since the index does not name it: " + why);
  }

  // A file that the index does not name may add tensors, as in mlx-lm. Where
  // the index holds, one that repeats some is another model's.
  void add_unnamed(const fs::path& path, bool holds) {
    const auto name = path.filename().string();
    try {
      const auto file = SafetensorsFile::open(path);
      const auto& entries = file->entries();
      const auto known =
          std::ranges::find_if(entries, [&](const SafetensorsEntry& entry) {
            return index.places.contains(entry.name);
          });
      if (!holds || known == entries.end()) {
        add(file);
        return;
      }
      leave_out(
          name,
          name + " holds " + one_line(known->name, 120) +
              ", which the index places in " + index.place_of(known->name));
    } catch (const Error& error) {
      if (!holds || error.code() != ErrorCode::corrupt) {
        throw;
      }
      const std::string why = error.what();
      leave_out(name, why.substr(why.find("] ") + 2));
    }
  }

  // As mlx-lm: every model*.safetensors.
  std::set<std::string> list_files() const {
    std::set<std::string> names;
    for (const auto& item : fs::directory_iterator(folder)) {
      auto name = item.path().filename().string();
      if (name.starts_with("model") && name.ends_with(".safetensors")) {
        names.insert(name);
      }
    }
    return names;
  }

  [[noreturn]] void fail_without_weights() const {
    if (missing.empty()) {
      throw Error(
          ErrorCode::not_found,
          "checkpoint",
          folder.string() + " holds neither model.safetensors nor " +
              kWeightIndex + "; other weight formats are not read");
    }
    throw Error(
        ErrorCode::not_found,
        "checkpoint",
        folder.string() +
            " holds no weights: " + some_of({missing.begin(), missing.end()}) +
            ", which its index names, must be fetched");
  }

  void add_files() {
    auto files = list_files();
    std::set<std::string> named;
    std::error_code ignored;
    for (const auto& name : index.files()) {
      (files.contains(name) || fs::exists(folder / name, ignored) ? named
                                                                  : missing)
          .insert(name);
    }
    files.insert(named.begin(), named.end());
    if (files.empty()) {
      fail_without_weights();
    }
    for (const auto& name : named) {
      add(SafetensorsFile::open(folder / name));
    }
    const bool holds = index_holds();
    for (const auto& name : files) {
      if (!named.contains(name)) {
        add_unnamed(folder / name, holds);
      }
    }
    for (const auto& name : files) {
      for (const auto& sibling : siblings_of(name)) {
        if (index.places.empty() && !files.contains(sibling)) {
          missing.insert(sibling);
        }
      }
    }
  }

  // In words, what the index says that the files do not.
  std::vector<std::string> index_faults() const {
    std::vector<std::string> misplaced;
    std::vector<std::string> unknown;
    for (const auto& [name, info] : tensors) {
      const auto place = index.place_of(name);
      if (place.empty()) {
        unknown.push_back(name);
      } else if (place != info.file.filename() && !missing.contains(place)) {
        misplaced.push_back(name);
      }
    }
    std::vector<std::string> absent;
    for (const auto& [name, file] : index.places) {
      if (!tensors.contains(name) && !missing.contains(file)) {
        absent.push_back(name);
      }
    }
    std::vector<std::string> faults;
    if (!missing.empty()) {
      faults.push_back(
          "names " + some_of({missing.begin(), missing.end()}) +
          ", which the folder has not");
    }
    if (!misplaced.empty()) {
      faults.push_back(
          "places " + some_of(misplaced, 1) + " in files that have it not");
    }
    if (!unknown.empty()) {
      faults.push_back("does not list " + some_of(unknown, 1));
    }
    if (!absent.empty()) {
      faults.push_back("lists " + some_of(absent, 1) + ", which no file holds");
    }
    return faults;
  }

  std::string about_missing(const std::string& name) const {
    const auto place = index.place_of(name);
    if (missing.contains(place)) {
      return "; the index places it in " + one_line(place, 120) +
          ", which the folder has not: fetch that file";
    }
    std::string text;
    if (!missing.empty()) {
      text += "; the folder lacks " +
          some_of({missing.begin(), missing.end()}) + ": fetch what is missing";
    }
    for (const auto& [file, why] : left_out) {
      text += "; " + why;
    }
    return text;
  }

  mx::array load_stored(const std::string& name) const {
    const auto& source = sources.at(name);
    return SafetensorsFile::load(source.file, source.entry);
  }

  LoadStored loader() const {
    return [this](const std::string& name) { return load_stored(name); };
  }

  // Shows packed matrices in place of what they are stored as.
  void show_packed(const QuantizationEntries& entries) {
    packed = PackedSource::find(
        entries,
        {tensors,
         loader(),
         [this](const std::string& name) { return about_missing(name); },
         folder.string()});
    if (packed) {
      for (const auto& name : packed->taken()) {
        packed_parts.insert(tensors.extract(name));
      }
      for (const auto& [name, tensor] : packed->tensors()) {
        tensors.insert_or_assign(name, tensor->info());
      }
    }
    for (const auto& [name, info] : tensors) {
      if (info.byte_type != ByteType::plain) {
        throw Error(
            ErrorCode::not_supported,
            "checkpoint",
            info.file.string() + ": tensor \"" + one_line(name, 120) +
                "\" is FP8, and nothing says by which scales; convert it to "
                "BF16 first");
      }
    }
  }

  const TensorInfo& stored_info(const std::string& name) const {
    const auto it = packed_parts.find(name);
    return it != packed_parts.end() ? it->second : tensors.at(name);
  }

  void note_index() {
    if (index.fault) {
      notes.push_back(
          std::string(kWeightIndex) + " " + *index.fault +
          ": it is ignored, and the files decide which tensors there are");
      return;
    }
    auto faults =
        index.places.empty() ? std::vector<std::string>{} : index_faults();
    if (index.odd > 0) {
      faults.push_back(
          "has " + std::to_string(index.odd) +
          " entries that name no safetensors file");
    }
    std::string text;
    for (const auto& fault : faults) {
      text += (text.empty() ? "" : "; it ") + fault;
    }
    if (!text.empty()) {
      notes.push_back(
          std::string(kWeightIndex) + " " + text +
          ": in this it is ignored, and the files decide");
    }
  }

  void note_twice() {
    for (const auto& [files, told] : twice) {
      const auto& [taken, other, decided] = files;
      notes.push_back(
          "tensor " + first_of(told.first, told.count) + " stands in " + taken +
          " and in " + other +
          (decided ? ": taken from " + taken + ", as the index says"
                   : " with the same values: taken once"));
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
    throw io_error(
        "checkpoint", "can't read", folder.string(), error.code().value());
  }
}

Checkpoint Checkpoint::open_folder(const fs::path& folder) {
  auto impl = std::make_unique<Impl>();
  impl->folder = folder;
  std::error_code ignored;
  if (!fs::is_directory(folder, ignored)) {
    throw Error(
        ErrorCode::not_found,
        "checkpoint",
        "there is no model folder " + folder.string());
  }
  impl->config = untag_floats(read_json(folder / "config.json", kMaxConfig));
  if (!impl->config.is_object()) {
    corrupt((folder / "config.json").string() + " is not a JSON object");
  }
  impl->index = read_weight_index(folder);
  const auto entries = read_quantization_entries(impl->config, folder);
  try {
    impl->add_files();
    impl->note_index();
    impl->show_packed(entries);
  } catch (const Error& error) {
    const std::string what = error.what();
    if (error.code() != ErrorCode::not_supported || entries.method.empty() ||
        what.find("quantized by") != what.npos) {
      throw;
    }
    throw about("checkpoint", "quantized by \"" + entries.method + "\"", error);
  }
  impl->note_twice();
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

const std::vector<std::string>& Checkpoint::notes() const {
  return impl_->notes;
}

bool Checkpoint::lacks_files() const {
  return !impl_->missing.empty() || !impl_->left_out.empty();
}

std::string Checkpoint::about_missing(const std::string& name) const {
  return impl_->about_missing(name);
}

const PackedSource* Checkpoint::packed() const {
  return impl_->packed.get();
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
  const auto& source = impl_->sources.at(name);
  auto entry = source.entry;
  const uint64_t row =
      all.shape[0] > 0 ? all.bytes / uint64_t(all.shape[0]) : 0;
  entry.begin += uint64_t(first) * row;
  entry.end = entry.begin + uint64_t(count) * row;
  entry.shape[0] = count;
  return SafetensorsFile::load(source.file, entry);
}

const PackedTensor* Checkpoint::find_packed(const std::string& name) const {
  return impl_->packed ? impl_->packed->tensor(name) : nullptr;
}

std::vector<std::string> Checkpoint::stored_parts(
    const std::string& name) const {
  const auto* packed = find_packed(name);
  return packed ? packed->parts() : std::vector<std::string>{name};
}

const TensorInfo& Checkpoint::stored_info(const std::string& name) const {
  return impl_->stored_info(name);
}

void Checkpoint::read(
    const std::string& name,
    uint64_t begin,
    uint64_t end,
    const std::function<void(const char* data, size_t bytes)>& use) const {
  const auto& source = impl_->sources.at(name);
  source.file->read(source.entry.begin + begin, source.entry.begin + end, use);
}

const FileStamp& Checkpoint::stamp(const std::string& name) const {
  return impl_->sources.at(name).file->stamp();
}

void Checkpoint::require_unchanged() const {
  std::set<const SafetensorsFile*> files;
  for (const auto& [name, source] : impl_->sources) {
    if (files.insert(source.file.get()).second) {
      source.file->require_unchanged();
    }
  }
}

}  // namespace pennyweight
