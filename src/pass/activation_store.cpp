#include "pass/activation_store.h"

#include <fcntl.h>
#include <mlx/allocator.h>
#include <mlx/ops.h>
#include <mlx/transforms.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>

#include "core/error.h"

namespace pennyweight {

namespace {

// All of `bytes` at `offset`, by `call` (pread or pwrite).
template <class Call, class Pointer>
void transfer(
    Call call,
    int fd,
    Pointer data,
    size_t bytes,
    int64_t offset,
    const std::filesystem::path& folder) {
  while (bytes > 0) {
    size_t chunk = std::min(bytes, size_t{1} << 30);
    ssize_t done = call(fd, data, chunk, static_cast<off_t>(offset));
    if (done < 0 && errno == EINTR) {
      continue;
    }
    if (done <= 0) {
      throw io_error(
          "scratch",
          "can't use the scratch file in",
          folder.string(),
          done ? errno : ENOSPC);
    }
    data += done;
    bytes -= static_cast<size_t>(done);
    offset += done;
  }
}

}  // namespace

ActivationStore::ActivationStore(
    size_t slots,
    MemoryBudget& budget,
    std::filesystem::path folder)
    : slots_(slots), budget_(&budget), folder_(std::move(folder)) {}

ActivationStore::~ActivationStore() {
  clear();
}

void ActivationStore::open_scratch() {
  std::string name = (folder_ / ".scratch-XXXXXX").string();
  fd_ = ::mkstemp(name.data());
  if (fd_ < 0) {
    throw io_error("scratch", "can't create", name, errno);
  }
  ::unlink(name.c_str());
}

// In memory while there is some left. A place in the file that is too small for
// a slot's new size is left unused: sizes change at few blocks.
void ActivationStore::make_room(Slot& slot, int64_t bytes) {
  if (slot.memory) {
    const auto before = static_cast<int64_t>(slot.memory->nbytes());
    slot.memory.reset();
    memory_bytes_ -= before;
    budget_->left += before;
  }
  if (slot.offset >= 0 && bytes <= slot.room) {
    return;
  }
  if (slot.offset < 0 && bytes <= budget_->left) {
    memory_bytes_ += bytes;
    budget_->left -= bytes;
    return;
  }
  slot.offset = scratch_bytes_;
  slot.room = bytes;
  scratch_bytes_ += bytes;
}

void ActivationStore::put(size_t index, const mx::array& value) {
  auto dense = mx::contiguous(value);
  mx::eval(dense);
  Slot& slot = slots_.at(index);
  auto bytes = static_cast<int64_t>(dense.nbytes());
  if (!slot.shape.empty() && slot.dtype != dense.dtype()) {
    throw Error(
        ErrorCode::invalid_argument, "scratch", "a slot can't change its type");
  }
  if (slot.shape != dense.shape()) {
    make_room(slot, bytes);
    slot.shape = dense.shape();
    slot.dtype = dense.dtype();
  }
  if (slot.offset < 0) {
    slot.memory = dense;
    return;
  }
  if (fd_ < 0) {
    open_scratch();
  }
  const char* data = dense.data<char>();
  transfer(
      ::pwrite, fd_, data, static_cast<size_t>(bytes), slot.offset, folder_);
}

mx::array ActivationStore::get(size_t index) const {
  const Slot& slot = slots_.at(index);
  if (slot.memory) {
    return *slot.memory;
  }
  if (slot.offset < 0) {
    throw Error(
        ErrorCode::invalid_argument, "scratch", "an empty slot was read");
  }
  size_t count = 1;
  for (auto extent : slot.shape) {
    count *= static_cast<size_t>(extent);
  }
  size_t bytes = count * mx::size_of(slot.dtype);
  auto buffer = mx::allocator::malloc(bytes);
  transfer(
      ::pread,
      fd_,
      static_cast<char*>(buffer.buffer().raw_ptr()),
      bytes,
      slot.offset,
      folder_);
  return mx::array(std::move(buffer), slot.shape, slot.dtype);
}

void ActivationStore::clear() {
  if (fd_ >= 0) {
    ::close(fd_);
    fd_ = -1;
  }
  for (Slot& slot : slots_) {
    slot = Slot{};
  }
  budget_->left += memory_bytes_;
  memory_bytes_ = 0;
  scratch_bytes_ = 0;
}

}  // namespace pennyweight
