#include "run/work/folder_sums.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <vector>

#include "core/error.h"
#include "core/hash.h"
#include "core/json.h"

namespace pennyweight {

namespace {

std::string sum_of(const DirHandle& folder, const std::string& name) {
  const auto fd = folder.open_file(name, O_RDONLY);
  std::vector<char> buffer(size_t{1} << 20);
  Hash hash;
  for (;;) {
    const ssize_t got = ::read(fd.get(), buffer.data(), buffer.size());
    if (got < 0 && errno == EINTR) {
      continue;
    }
    if (got < 0) {
      throw io_error(
          "read", "can't read", (folder.path() / name).string(), errno);
    }
    if (got == 0) {
      return hash.text();
    }
    hash.add(buffer.data(), static_cast<size_t>(got));
  }
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
