// MLX's allocator gives a null pointer where the system refuses memory, which
// MLX's ops then write to. On Linux a program's own symbols come before its
// libraries': this allocator stands before MLX's, for MLX itself as well, and
// throws.

#ifdef __linux__

#include <dlfcn.h>
#include <mlx/allocator.h>

#include <new>

namespace pennyweight::ops {

namespace {

using mlx::core::allocator::Allocator;
using mlx::core::allocator::Buffer;

class CheckedAllocator : public Allocator {
 public:
  explicit CheckedAllocator(Allocator& own) : own_(own) {}

  Buffer malloc(size_t size) override {
    auto buffer = own_.malloc(size);
    if (!buffer.ptr() && size > 0) {
      throw std::bad_alloc();
    }
    return buffer;
  }
  void free(Buffer buffer) override {
    own_.free(buffer);
  }
  size_t size(Buffer buffer) const override {
    return own_.size(buffer);
  }
  Buffer make_buffer(void* data, size_t size) override {
    return own_.make_buffer(data, size);
  }
  void release(Buffer buffer) override {
    own_.release(buffer);
  }

 private:
  Allocator& own_;
};

Allocator& mlx_allocator() {
  using Get = Allocator& (*)();
  void* symbol = ::dlsym(RTLD_NEXT, "_ZN3mlx4core9allocator9allocatorEv");
  return reinterpret_cast<Get>(symbol)();
}

}  // namespace

}  // namespace pennyweight::ops

namespace mlx::core::allocator {

Allocator& allocator() {
  // Never destroyed: MLX frees arrays until the process has ended.
  static auto* checked =
      new pennyweight::ops::CheckedAllocator(pennyweight::ops::mlx_allocator());
  return *checked;
}

}  // namespace mlx::core::allocator

#endif
