#include "checkpoint/held_files.h"

#include <algorithm>

#include "core/error.h"

namespace pennyweight {

namespace {

bool same_entries(const SafetensorsFile& one, const SafetensorsFile& other) {
  return std::ranges::equal(
      one.entries(), other.entries(), [](const auto& a, const auto& b) {
        return a.name == b.name && a.dtype == b.dtype && a.shape == b.shape &&
            a.begin == b.begin && a.end == b.end;
      });
}

}  // namespace

std::shared_ptr<SafetensorsFile> HeldFiles::at(
    const std::shared_ptr<SafetensorsFile>& stub,
    const SafetensorsEntry& entry) {
  if (entry.end - entry.begin <= kAlwaysThere) {
    return stub;
  }
  const auto name = stub->path().filename().string();
  const std::scoped_lock lock(mutex_);
  const auto it = std::ranges::find(held_, name, &Held::name);
  if (it != held_.end()) {
    held_.splice(held_.end(), held_, it);
    return held_.back().file;
  }
  if (held_.size() == kHeldFiles) {
    const auto oldest = held_.front().name;
    held_.pop_front();
    provider_->release(oldest);
  }
  auto file = SafetensorsFile::open(provider_->fetch(name));
  if (!same_entries(*file, *stub)) {
    throw corrupt_error(
        "checkpoint",
        name + " is not the file whose header was read; run again");
  }
  fetched_bytes_ += file->stamp().bytes;
  held_.push_back({name, file});
  return file;
}

void HeldFiles::release(const std::string& file) {
  const std::scoped_lock lock(mutex_);
  const auto it = std::ranges::find(held_, file, &Held::name);
  if (it != held_.end()) {
    held_.erase(it);
    provider_->release(file);
  }
}

}  // namespace pennyweight
