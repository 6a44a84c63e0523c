#include "checkpoint/tensor_files.h"

#include <algorithm>
#include <cstring>

#include "checkpoint/other_formats.h"
#include "core/error.h"
#include "core/text.h"

namespace pennyweight {

namespace {

[[noreturn]] void corrupt(const std::string& what) {
  throw corrupt_error("checkpoint", what);
}

// A name and how many there are beside it: "a (and 3 more)".
std::string first_of(const std::string& name, int64_t count) {
  const auto first = one_line(name, 120);
  return count > 1 ? first + " (and " + std::to_string(count - 1) + " more)"
                   : first;
}

}  // namespace

void TensorFiles::open(
    const fs::path& of,
    std::shared_ptr<ShardProvider> provider) {
  if (provider) {
    held = std::make_unique<HeldFiles>(std::move(provider));
  }
  folder_ = of;
  index_ = read_weight_index(folder_);
  add_files();
  note_index();
}

void TensorFiles::put(const Source& source) {
  const auto& entry = source.entry;
  infos.insert_or_assign(
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

bool TensorFiles::are_equal(const Source& a, const Source& b) const {
  if (a.entry.dtype != b.entry.dtype || a.entry.shape != b.entry.shape ||
      a.entry.byte_type != b.entry.byte_type) {
    return false;
  }
  const auto left = SafetensorsFile::load(file_of(a), a.entry);
  const auto right = SafetensorsFile::load(file_of(b), b.entry);
  return left.nbytes() == 0 ||
      std::memcmp(left.data<char>(), right.data<char>(), left.nbytes()) == 0;
}

void TensorFiles::put_second(const Source& second) {
  const Source first = sources.at(second.entry.name);
  const auto& name = second.entry.name;
  const auto a = first.file->path().filename().string();
  const auto b = second.file->path().filename().string();
  const auto place = index_.place_of(name);
  const bool decided = place == a || place == b;
  if (!decided && !are_equal(first, second)) {
    corrupt(
        (folder_ / a).string() + ": tensor " + one_line(name, 120) +
        " stands in " + b +
        " too, with other contents, and no index says which counts; move the "
        "file away that is not this model's");
  }
  if (place == b) {
    put(second);
  }
  auto& told = twice_[{place == b ? b : a, place == b ? a : b, decided}];
  if (told.count == 0) {
    told.first = name;
  }
  ++told.count;
}

void TensorFiles::add(const std::shared_ptr<SafetensorsFile>& file) {
  for (const auto& entry : file->entries()) {
    const Source source{file, entry};
    if (sources.contains(entry.name)) {
      put_second(source);
    } else {
      put(source);
    }
  }
}

// Whether the index is right about the files added so far: each file that it
// names is there, and holds the tensors that it places there.
bool TensorFiles::index_holds() const {
  return missing_.empty() && !index_.places.empty() &&
      std::ranges::all_of(index_.places, [&](const auto& place) {
           auto it = infos.find(place.first);
           return it != infos.end() &&
               it->second.file.filename() == place.second;
         });
}

void TensorFiles::leave_out(const std::string& file, const std::string& why) {
  left_out_[file] = why;
  notes.push_back("left out, since the index does not name it: " + why);
}

// A file that the index does not name may add tensors, as in mlx-lm. Where
// the index holds, one that repeats some is another model's.
void TensorFiles::add_unnamed(const fs::path& path, bool holds) {
  const auto name = path.filename().string();
  try {
    const auto file = SafetensorsFile::open(path);
    const auto& entries = file->entries();
    const auto known =
        std::ranges::find_if(entries, [&](const SafetensorsEntry& entry) {
          return index_.places.contains(entry.name);
        });
    if (!holds || known == entries.end()) {
      add(file);
      return;
    }
    leave_out(
        name,
        name + " holds " + one_line(known->name, 120) +
            ", which the index places in " + index_.place_of(known->name));
  } catch (const Error& error) {
    if (!holds || error.code() != ErrorCode::corrupt) {
      throw;
    }
    const std::string why = error.what();
    leave_out(name, why.substr(why.find("] ") + 2));
  }
}

// Lists every model*.safetensors, as mlx-lm does.
std::set<std::string> TensorFiles::list_files() const {
  std::set<std::string> names;
  for (const auto& item : fs::directory_iterator(folder_)) {
    auto name = item.path().filename().string();
    if (name.starts_with("model") && name.ends_with(".safetensors")) {
      names.insert(name);
    }
  }
  return names;
}

void TensorFiles::fail_without_weights() const {
  if (missing_.empty()) {
    const auto other = about_other_formats(folder_);
    throw not_found_error(
        "checkpoint",
        folder_.string() + " holds neither model.safetensors nor " +
            kWeightIndex + "; " +
            (other.empty() ? "mlx-lm reads model*.safetensors and no others"
                           : other));
  }
  throw not_found_error(
      "checkpoint",
      folder_.string() +
          " holds no weights: " + some_of({missing_.begin(), missing_.end()}) +
          ", which its index names, must be fetched");
}

void TensorFiles::add_files() {
  auto files = list_files();
  std::set<std::string> named;
  std::error_code ignored;
  for (const auto& name : index_.files()) {
    if (files.contains(name) || fs::exists(folder_ / name, ignored)) {
      named.insert(name);
    } else {
      missing_.insert(name);
    }
  }
  files.insert(named.begin(), named.end());
  if (files.empty()) {
    fail_without_weights();
  }
  for (const auto& name : named) {
    add(SafetensorsFile::open(folder_ / name));
  }
  const bool holds = index_holds();
  for (const auto& name : files) {
    if (!named.contains(name)) {
      add_unnamed(folder_ / name, holds);
    }
  }
  for (const auto& name : files) {
    for (const auto& sibling : siblings_of(name)) {
      if (index_.places.empty() && !files.contains(sibling)) {
        missing_.insert(sibling);
      }
    }
  }
}

// What the index says and the files contradict, in words.
std::vector<std::string> TensorFiles::index_faults() const {
  std::vector<std::string> misplaced;
  std::vector<std::string> unknown;
  for (const auto& [name, info] : infos) {
    const auto place = index_.place_of(name);
    if (place.empty()) {
      unknown.push_back(name);
    } else if (place != info.file.filename() && !missing_.contains(place)) {
      misplaced.push_back(name);
    }
  }
  std::vector<std::string> absent;
  for (const auto& [name, file] : index_.places) {
    if (!infos.contains(name) && !missing_.contains(file)) {
      absent.push_back(name);
    }
  }
  std::vector<std::string> faults;
  if (!missing_.empty()) {
    faults.push_back(
        "names " + some_of({missing_.begin(), missing_.end()}) +
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

std::string TensorFiles::about_missing(const std::string& name) const {
  const auto place = index_.place_of(name);
  if (missing_.contains(place)) {
    return "; the index places it in " + one_line(place, 120) +
        ", which the folder has not: fetch that file";
  }
  std::string text;
  if (!missing_.empty()) {
    text += "; the folder lacks " +
        some_of({missing_.begin(), missing_.end()}) + ": fetch what is missing";
  }
  for (const auto& [file, why] : left_out_) {
    text += "; " + why;
  }
  return text;
}

void TensorFiles::note_index() {
  if (index_.fault) {
    notes.push_back(
        std::string(kWeightIndex) + " " + *index_.fault +
        ": it is ignored, and the files decide which tensors there are");
    return;
  }
  auto faults =
      index_.places.empty() ? std::vector<std::string>{} : index_faults();
  if (index_.odd > 0) {
    faults.push_back(
        "has " + std::to_string(index_.odd) +
        " entries that name no safetensors file");
  }
  if (!faults.empty()) {
    notes.push_back(
        std::string(kWeightIndex) + " " + joined(faults, "; it ") +
        ": in this it is ignored, and the files decide");
  }
}

void TensorFiles::note_twice() {
  for (const auto& [files, told] : twice_) {
    const auto& [taken, other, decided] = files;
    notes.push_back(
        "tensor " + first_of(told.first, told.count) + " stands in " + taken +
        " and in " + other +
        (decided ? ": taken from " + taken + ", as the index says"
                 : " with the same values: taken once"));
  }
}

}  // namespace pennyweight
