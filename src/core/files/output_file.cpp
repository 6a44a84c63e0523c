#include "core/files/output_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>

#include "core/error.h"
#include "core/files/atomic_file.h"
#include "core/text.h"

namespace pennyweight {

namespace {

// The number of an open file that a path stands for; -1: none. By its path
// such a file would be opened anew, and written over from its beginning.
int descriptor_of(const fs::path& path) {
  const auto text = path.string();
  if (text == "/dev/stdout") {
    return STDOUT_FILENO;
  }
  if (text == "/dev/stderr") {
    return STDERR_FILENO;
  }
  for (const std::string folder : {"/dev/fd/", "/proc/self/fd/"}) {
    if (text.starts_with(folder)) {
      return number_in<int>(text.substr(folder.size())).value_or(-1);
    }
  }
  return -1;
}

void write_all(int fd, std::string_view text, const std::string& name) {
  while (!text.empty()) {
    const ssize_t written = ::write(fd, text.data(), text.size());
    if (written < 0 && errno == EINTR) {
      continue;
    }
    if (written <= 0) {
      throw io_error("output", "can't write", name, written ? errno : ENOSPC);
    }
    text.remove_prefix(static_cast<size_t>(written));
  }
}

}  // namespace

OutputFile::OutputFile(
    const fs::path& path,
    bool force,
    const std::string& option)
    : path_(path),
      file_(path),
      descriptor_(descriptor_of(path)),
      force_(force),
      option_(option) {
  if (path.empty()) {
    throw argument_error("output", option + " names no file");
  }
  std::error_code ignored;
  if (descriptor_ < 0 && fs::is_symlink(path, ignored)) {
    file_ = fs::canonical(path, ignored);
  }
  kind_ = look();
  if (kind_ == Kind::file) {
    AtomicFile probe(file_);
  } else if (kind_ == Kind::stream && ::access(file_.c_str(), W_OK) != 0) {
    throw io_error("output", "can't write", path_.string(), errno);
  } else if (kind_ == Kind::descriptor && ::fcntl(descriptor_, F_GETFD) == -1) {
    throw io_error("output", "can't write", path_.string(), errno);
  }
}

OutputFile::Kind OutputFile::look() const {
  const auto refuse = [this](const std::string& what) {
    throw argument_error(
        "output", option_ + ": " + path_.string() + " " + what);
  };
  if (descriptor_ >= 0) {
    return Kind::descriptor;
  }
  std::error_code ignored;
  switch (fs::status(file_, ignored).type()) {
    case fs::file_type::regular:
      if (!force_) {
        refuse("already exists; choose another name or pass --force");
      }
      return Kind::file;
    case fs::file_type::directory:
      refuse("is a folder; name a file");
      break;
    case fs::file_type::block:
      refuse("is a disk; name a file");
      break;
    case fs::file_type::character:
    case fs::file_type::fifo:
    case fs::file_type::socket:
      return Kind::stream;
    default:
      break;
  }
  if (file_.empty() || fs::is_symlink(file_, ignored)) {
    refuse("is a link to nothing; choose another name");
  }
  return Kind::file;
}

void OutputFile::write(std::string_view text) const {
  if (kind_ == Kind::descriptor) {
    write_all(descriptor_, text, path_.string());
    return;
  }
  if (kind_ == Kind::file) {
    look();  // it may have appeared meanwhile
    write_file(file_, text);
    return;
  }
  Descriptor fd(::open(file_.c_str(), O_WRONLY | O_NOCTTY | O_CLOEXEC));
  if (!fd && errno == EINTR) {
    throw Error(
        ErrorCode::cancelled,
        "output",
        "stopped while nobody read " + path_.string());
  }
  if (!fd) {
    throw io_error("output", "can't write", path_.string(), errno);
  }
  write_all(fd.get(), text, path_.string());
  if (::close(fd.release()) != 0) {
    throw io_error("output", "can't write", path_.string(), errno);
  }
}

bool OutputFile::is(const OutputFile& other) const {
  if (kind_ != Kind::file || other.kind_ != Kind::file) {
    return false;
  }
  std::error_code ignored;
  return whole_path(file_) == whole_path(other.file_) ||
      fs::equivalent(file_, other.file_, ignored);
}

}  // namespace pennyweight
