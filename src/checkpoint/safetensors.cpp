#include "checkpoint/safetensors.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <limits>

#include "core/error.h"
#include "core/json.h"

namespace pennyweight {

namespace {

constexpr const char* kWhere = "safetensors";

struct DtypeName {
  const char* name;
  mx::Dtype dtype;
};

const DtypeName kDtypes[] = {
    {"F32", mx::float32},
    {"F16", mx::float16},
    {"BF16", mx::bfloat16},
    {"U8", mx::uint8},
    {"I8", mx::int8},
    {"U16", mx::uint16},
    {"I16", mx::int16},
    {"U32", mx::uint32},
    {"I32", mx::int32},
    {"U64", mx::uint64},
    {"I64", mx::int64},
    {"BOOL", mx::bool_},
};

// Names are quoted in errors, and they are untrusted.
[[noreturn]] void broken(
    const std::string& file,
    const std::string& name,
    const std::string& what) {
  throw Error(
      ErrorCode::corrupt,
      kWhere,
      file + ": tensor \"" + one_line(name, 120) + "\" " + what);
}

mx::Dtype read_dtype(
    const Json& value,
    const std::string& file,
    const std::string& name) {
  if (!value.is_string()) {
    broken(file, name, "has no dtype");
  }
  const auto& text = value.get_ref<const std::string&>();
  for (const auto& known : kDtypes) {
    if (text == known.name) {
      return known.dtype;
    }
  }
  if (text == "F64" || text.starts_with("F8") || text.starts_with("F4") ||
      text.starts_with("F6") || text == "C64") {
    throw Error(
        ErrorCode::not_supported,
        kWhere,
        file + ": tensor \"" + one_line(name, 120) + "\" is " +
            one_line(text, 20) +
            ", which MLX can't hold as weights; convert it to BF16 first");
  }
  broken(file, name, "has the unknown dtype \"" + one_line(text, 20) + "\"");
}

uint64_t read_offset(
    const Json& value,
    const std::string& file,
    const std::string& name) {
  if (!value.is_number_unsigned()) {
    broken(file, name, "has an offset that is not a natural number");
  }
  return value.get<uint64_t>();
}

mx::Shape read_shape(
    const Json& value,
    const std::string& file,
    const std::string& name,
    uint64_t& items) {
  if (!value.is_array() || value.size() > 8) {
    broken(file, name, "has no shape of at most 8 dimensions");
  }
  mx::Shape shape;
  items = 1;
  for (const Json& extent : value) {
    if (!extent.is_number_unsigned() ||
        extent.get<uint64_t>() > std::numeric_limits<int32_t>::max()) {
      broken(file, name, "has a dimension out of range");
    }
    auto size = extent.get<uint64_t>();
    // MLX counts items in size_t, but strides in 64 bits and shapes in 32.
    if (size != 0 && items > (uint64_t{1} << 48) / size) {
      broken(file, name, "is too large");
    }
    items *= size;
    shape.push_back(static_cast<int32_t>(size));
  }
  return shape;
}

SafetensorsEntry read_entry(
    const std::string& name,
    const Json& value,
    uint64_t data_start,
    uint64_t data_size,
    const std::string& file) {
  if (!value.is_object() || !value.contains("dtype") ||
      !value.contains("shape") || !value.contains("data_offsets")) {
    broken(file, name, "lacks dtype, shape or data_offsets");
  }
  auto dtype = read_dtype(value["dtype"], file, name);
  uint64_t items = 0;
  auto shape = read_shape(value["shape"], file, name, items);
  const Json& offsets = value["data_offsets"];
  if (!offsets.is_array() || offsets.size() != 2) {
    broken(file, name, "has no pair of data_offsets");
  }
  uint64_t begin = read_offset(offsets[0], file, name);
  uint64_t end = read_offset(offsets[1], file, name);
  if (begin > end || end > data_size) {
    broken(
        file,
        name,
        "lies outside the file; the file is cut short or damaged, fetch it "
        "again");
  }
  if (end - begin != items * mx::size_of(dtype)) {
    broken(file, name, "has an extent that is not its shape's");
  }
  return {name, dtype, std::move(shape), data_start + begin, data_start + end};
}

}  // namespace

std::vector<SafetensorsEntry> parse_safetensors_header(
    std::string_view header,
    uint64_t file_size,
    const std::string& file) {
  Json json = parse_json(header, file + ": its header");
  if (!json.is_object()) {
    throw Error(
        ErrorCode::corrupt, kWhere, file + ": the header is not an object");
  }
  uint64_t data_start = 8 + header.size();
  uint64_t data_size = file_size > data_start ? file_size - data_start : 0;
  std::vector<SafetensorsEntry> entries;
  for (const auto& [name, value] : json.items()) {
    if (name == "__metadata__") {
      continue;
    }
    if (name.empty() || name.size() > 1024) {
      broken(file, name, "has an unusable name");
    }
    entries.push_back(read_entry(name, value, data_start, data_size, file));
  }
  std::ranges::sort(entries, {}, [](const SafetensorsEntry& entry) {
    return std::pair(entry.begin, entry.end);
  });
  uint64_t expected = data_start;
  for (const auto& entry : entries) {
    if (entry.begin != expected) {
      broken(file, entry.name, "overlaps another, or follows a hole");
    }
    expected = entry.end;
  }
  if (expected != data_start + data_size) {
    throw Error(
        ErrorCode::corrupt,
        kWhere,
        file + ": holds bytes that belong to no tensor");
  }
  return entries;
}

std::string safetensors_dtype_name(mx::Dtype dtype) {
  for (const auto& known : kDtypes) {
    if (known.dtype == dtype) {
      return known.name;
    }
  }
  throw Error(
      ErrorCode::not_supported, kWhere, "a dtype that safetensors can't hold");
}

std::shared_ptr<SafetensorsFile> SafetensorsFile::open(
    const std::filesystem::path& path) {
  std::shared_ptr<SafetensorsFile> file(new SafetensorsFile(path));
  std::string name = path.string();
  int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) {
    throw io_error(kWhere, "can't open", name, errno);
  }
  struct stat info {};
  int failed = ::fstat(fd, &info) == 0 ? 0 : errno;
  bool regular = !failed && S_ISREG(info.st_mode);
  if (regular && info.st_size >= 8) {
    void* data = ::mmap(
        nullptr,
        static_cast<size_t>(info.st_size),
        PROT_READ,
        MAP_PRIVATE,
        fd,
        0);
    if (data == MAP_FAILED) {
      failed = errno;
    } else {
      file->data_ = static_cast<char*>(data);
      file->size_ = static_cast<size_t>(info.st_size);
    }
  }
  ::close(fd);
  if (failed) {
    throw io_error(kWhere, "can't read", name, failed);
  }
  if (!file->data_) {
    throw Error(
        ErrorCode::corrupt,
        kWhere,
        name + (regular ? " is too short to be" : " is not a regular file or") +
            " a safetensors file; fetch it again");
  }
  uint64_t length = 0;
  std::memcpy(&length, file->data_, 8);  // little endian, as are our targets
  if (length > kMaxSafetensorsHeader || length > file->size_ - 8) {
    throw Error(
        ErrorCode::corrupt,
        kWhere,
        name + ": the header does not fit the file; it is cut short or no " +
            "safetensors file, fetch it again");
  }
  file->entries_ =
      parse_safetensors_header({file->data_ + 8, length}, file->size_, name);
  return file;
}

SafetensorsFile::~SafetensorsFile() {
  if (data_) {
    ::munmap(data_, size_);
  }
}

void SafetensorsFile::give_back(const char* data, size_t bytes) const {
  // Whole pages only: those at the ends may hold a neighbour in use, which
  // would be read again from the file, at a cost but not in error.
  auto page = static_cast<uintptr_t>(::sysconf(_SC_PAGESIZE));
  auto first = (reinterpret_cast<uintptr_t>(data) + page - 1) / page * page;
  auto last = (reinterpret_cast<uintptr_t>(data) + bytes) / page * page;
  if (last > first) {
    ::madvise(reinterpret_cast<void*>(first), last - first, MADV_DONTNEED);
  }
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
  return mx::array(data, entry.shape, entry.dtype, [file, data, bytes](void*) {
    file->give_back(data, bytes);
  });
}

}  // namespace pennyweight
