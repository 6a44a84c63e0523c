#include "checkpoint/safetensors.h"

#include <fcntl.h>
#include <mlx/allocator.h>
#include <mlx/backend/gpu/device_info.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "core/error.h"
#include "core/files/wrong_file.h"

namespace pennyweight {

namespace {

constexpr size_t kBeginning = 512;  // shows what a file is

// MLX's CPU allocator wraps no memory but its own: the array would be a copy.
// But an array's data is its buffer's address plus an offset, and an offset
// may lead from an empty buffer to the mapping. MLX neither frees nor reuses a
// buffer that comes with a deleter. `data` is aligned to the item's size.
mx::array view_on_cpu(
    char* data,
    const SafetensorsEntry& entry,
    std::function<void()> release) {
  auto anchor = mx::allocator::allocator().malloc(1);
  auto from = reinterpret_cast<intptr_t>(anchor.raw_ptr());
  auto to = reinterpret_cast<intptr_t>(data);
  mx::allocator::Data owner(
      anchor, [release = std::move(release)](mx::allocator::Buffer buffer) {
        release();
        mx::allocator::allocator().free(buffer);
      });
  mx::array view(std::move(owner), entry.shape, entry.dtype);
  view.copy_shared_buffer(
      view,
      view.strides(),
      view.flags(),
      view.data_size(),
      (to - from) / static_cast<intptr_t>(view.itemsize()));
  return view;
}

Error corrupt(const std::string& name, const std::string& what) {
  return corrupt_error("safetensors", name + " " + what);
}

// Reads the length of the header in a file of `size` bytes. `data` is the file,
// or empty where that has fewer than 8 bytes.
uint64_t
header_length(std::string_view data, uint64_t size, const std::string& name) {
  if (data.empty()) {
    throw corrupt(
        name,
        size == 0 ? "is empty; fetch it again"
                  : "is cut short: " + std::to_string(size) +
                " bytes; fetch it again");
  }
  if (const auto wrong = wrong_file(data.substr(0, kBeginning))) {
    throw corrupt(name, *wrong);
  }
  uint64_t length = 0;
  std::memcpy(&length, data.data(), 8);  // little endian, as are our targets
  if (length > kMaxSafetensorsHeader) {
    throw corrupt(name, "is no safetensors file; fetch it again");
  }
  if (length > size - 8) {
    throw corrupt(
        name,
        "is cut short: " + std::to_string(size) + " bytes of more than " +
            std::to_string(length + 8) + "; fetch it again");
  }
  return length;
}

}  // namespace

std::shared_ptr<SafetensorsFile> SafetensorsFile::open(
    const std::filesystem::path& path) {
  // Without O_NONBLOCK it would wait where the name is a pipe's.
  const Descriptor fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (!fd && std::filesystem::is_symlink(path)) {
    throw not_found_error(
        "safetensors",
        path.string() +
            " is a link to a file that is not there; fetch it again");
  }
  if (!fd) {
    throw io_error("safetensors", "can't open", path.string(), errno);
  }
  return map(fd, path);
}

std::shared_ptr<SafetensorsFile> SafetensorsFile::open(
    const DirHandle& folder,
    const std::string& name) {
  return map(folder.open_file(name, O_RDONLY), folder.path() / name);
}

std::shared_ptr<SafetensorsFile> SafetensorsFile::map(
    const Descriptor& fd,
    const std::filesystem::path& path) {
  std::shared_ptr<SafetensorsFile> file(new SafetensorsFile(path));
  const std::string name = path.string();
  struct stat info {};
  int failed = ::fstat(fd.get(), &info) == 0 ? 0 : errno;
  const bool regular = !failed && S_ISREG(info.st_mode);
  if (regular && info.st_size >= 8) {
    void* data = ::mmap(
        nullptr,
        static_cast<size_t>(info.st_size),
        PROT_READ,
        MAP_PRIVATE,
        fd.get(),
        0);
    if (data == MAP_FAILED) {
      failed = errno;
    } else {
      file->data_ = static_cast<char*>(data);
      file->size_ = static_cast<size_t>(info.st_size);
    }
  }
  if (failed) {
    throw io_error("safetensors", "can't read", name, failed);
  }
  if (!regular) {
    throw corrupt(name, "is not a regular file");
  }
  file->stamp_ = FileStamp::of(fd.get());
  const uint64_t length = header_length(
      {file->data_ ? file->data_ : "", file->size_},
      static_cast<uint64_t>(info.st_size),
      name);
  file->entries_ =
      parse_safetensors_header({file->data_ + 8, length}, file->size_, name);
  return file;
}

std::map<std::string, std::string> SafetensorsFile::metadata() const {
  const auto name = path_.string();
  const auto length = header_length({data_, size_}, size_, name);
  std::map<std::string, std::string> found;
  parse_safetensors_header({data_ + 8, length}, size_, name, &found);
  return found;
}

void SafetensorsFile::require_unchanged() const {
  const auto now = FileStamp::of(path_);
  if (now && now->same_file(stamp_) && *now != stamp_) {
    throw Error(
        ErrorCode::io,
        "safetensors",
        path_.string() +
            " was written to while it was read; let it be and run again");
  }
}

void SafetensorsFile::read(
    uint64_t begin,
    uint64_t end,
    const std::function<void(const char* data, size_t bytes)>& use) const {
  use(data_ + begin, end - begin);
  give_back(data_ + begin, end - begin);
}

SafetensorsFile::~SafetensorsFile() {
  if (data_) {
    ::munmap(data_, size_);
  }
}

void SafetensorsFile::give_back(const char* data, size_t bytes) const {
  // Linux maps the pages around a fault with it, in windows of 64 KiB, or of 2
  // MiB where its cache holds the file in large pages. Whole windows go back:
  // what a neighbour still needs is mapped again from the file, at a cost but
  // not in error.
  constexpr uintptr_t kWindow = 2 << 20;
  auto page = static_cast<uintptr_t>(::sysconf(_SC_PAGESIZE));
  auto window = std::max(kWindow, page);
  auto begin = reinterpret_cast<uintptr_t>(data_);
  auto end = begin + size_;
  auto at = reinterpret_cast<uintptr_t>(data);
  auto first = std::max(begin, at / window * window);
  auto last = std::min(end, (at + bytes + window - 1) / window * window);
  ::madvise(reinterpret_cast<void*>(first), last - first, MADV_DONTNEED);
}

mx::array SafetensorsFile::load(
    const std::shared_ptr<SafetensorsFile>& file,
    const SafetensorsEntry& entry) {
  char* data = file->data_ + entry.begin;
  size_t bytes = entry.end - entry.begin;
  if (bytes == 0) {
    auto none = mx::allocator::malloc(1);
    return mx::array(std::move(none), entry.shape, entry.dtype);
  }
  if (reinterpret_cast<uintptr_t>(data) % mx::size_of(entry.dtype) != 0) {
    auto copy = mx::allocator::malloc(bytes);
    std::memcpy(copy.buffer().raw_ptr(), data, bytes);
    file->give_back(data, bytes);
    return mx::array(std::move(copy), entry.shape, entry.dtype);
  }
  if (mx::gpu::is_available()) {
    return mx::array(
        data, entry.shape, entry.dtype, [file, data, bytes](void*) {
          file->give_back(data, bytes);
        });
  }
  return view_on_cpu(
      data, entry, [file, data, bytes] { file->give_back(data, bytes); });
}

namespace {

std::map<std::string, mx::array> load_all(
    const std::shared_ptr<SafetensorsFile>& file) {
  std::map<std::string, mx::array> tensors;
  for (const auto& entry : file->entries()) {
    tensors.emplace(entry.name, SafetensorsFile::load(file, entry));
  }
  return tensors;
}

}  // namespace

std::map<std::string, mx::array> load_safetensors(
    const std::filesystem::path& path) {
  return load_all(SafetensorsFile::open(path));
}

std::map<std::string, mx::array> load_safetensors(
    const DirHandle& folder,
    const std::string& name) {
  return load_all(SafetensorsFile::open(folder, name));
}

}  // namespace pennyweight
