#include "pass/activation_store.h"

#include <mlx/allocator.h>
#include <mlx/ops.h>
#include <mlx/transforms.h>

#include "core/error.h"
#include "ops/evaluated.h"

namespace pennyweight {

ActivationStore::ActivationStore(
    size_t slots,
    MemoryBudget& budget,
    std::filesystem::path folder)
    : slots_(slots), budget_(&budget), file_(std::move(folder)) {}

ActivationStore::~ActivationStore() {
  clear();
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
  auto dense = evaluated(mx::contiguous(value));
  Slot& slot = slots_.at(index);
  auto bytes = static_cast<int64_t>(dense.nbytes());
  if (!slot.shape.empty() && slot.dtype != dense.dtype()) {
    throw argument_error("scratch", "a slot can't change its type");
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
  file_.write(
      static_cast<uint64_t>(slot.offset), dense.data<char>(), dense.nbytes());
}

mx::array ActivationStore::get(size_t index) const {
  const Slot& slot = slots_.at(index);
  if (slot.memory) {
    return *slot.memory;
  }
  if (slot.offset < 0) {
    throw argument_error("scratch", "an empty slot was read");
  }
  size_t count = 1;
  for (auto extent : slot.shape) {
    count *= static_cast<size_t>(extent);
  }
  size_t bytes = count * mx::size_of(slot.dtype);
  auto buffer = mx::allocator::malloc(bytes);
  file_.read(
      static_cast<uint64_t>(slot.offset), buffer.buffer().raw_ptr(), bytes);
  return mx::array(std::move(buffer), slot.shape, slot.dtype);
}

void ActivationStore::clear() {
  file_.clear();
  for (Slot& slot : slots_) {
    slot = Slot{};
  }
  budget_->left += memory_bytes_;
  memory_bytes_ = 0;
  scratch_bytes_ = 0;
}

}  // namespace pennyweight
