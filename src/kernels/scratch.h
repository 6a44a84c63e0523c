#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>

namespace pennyweight::kernels {

/// Memory that begins at a cache line, grows as it is asked for more, and is
/// kept: kernels hold one for each thread (thread_local), so that no call pays
/// for fresh pages. What it holds after get() is undefined.
class Scratch {
 public:
  template <class T>
  T* get(int64_t count) {
    const size_t bytes = size_t(count) * sizeof(T);
    if (bytes > size_) {
      data_.reset();
      size_ = 0;  // in case that `new` throws
      data_.reset(static_cast<char*>(::operator new(bytes, kAlignment)));
      size_ = bytes;
    }
    return reinterpret_cast<T*>(data_.get());
  }

 private:
  static constexpr std::align_val_t kAlignment{64};
  struct Free {
    void operator()(char* p) const {
      ::operator delete(p, kAlignment);
    }
  };

  std::unique_ptr<char, Free> data_;
  size_t size_ = 0;
};

}  // namespace pennyweight::kernels
