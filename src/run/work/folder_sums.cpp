#include "run/work/folder_sums.h"

#include <fcntl.h>

#include <vector>

#include "core/hash.h"
#include "core/json.h"

namespace pennyweight {

namespace {

std::string sum_of(const DirHandle& folder, const std::string& name) {
  const auto fd = folder.open_file(name, O_RDONLY);
  const auto path = (folder.path() / name).string();
  std::vector<char> buffer(size_t{1} << 20);
  Hash hash;
  uint64_t at = 0;
  while (const size_t got =
             read_at(fd.get(), at, buffer.data(), buffer.size(), path)) {
    hash.add(buffer.data(), got);
    at += got;
  }
  return hash.text();
}

void add(const DirHandle& folder, const std::string& prefix, Json& sums) {
  for (const auto& entry : folder.list()) {
    if (entry.kind == DirHandle::Kind::folder) {
      add(folder.open_folder(entry.name), prefix + entry.name + "/", sums);
    } else {
      sums[prefix + entry.name] = sum_of(folder, entry.name);
    }
  }
}

}  // namespace

Json folder_sums(const DirHandle& folder) {
  Json sums = Json::object();
  add(folder, "", sums);
  return sums;
}

}  // namespace pennyweight
