#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "core/files/descriptor.h"

namespace pennyweight {

/// A list that grows at its end without growing in memory: full blocks of
/// 1 MiB go to a scratch file. A list of less than a block makes no file.
template <class T>
class SpilledList {
 public:
  size_t size() const {
    return written_ + tail_.size();
  }
  bool empty() const {
    return size() == 0;
  }

  void push(const T& value) {
    tail_.push_back(value);
    if (tail_.size() == kBlock) {
      file_.write(written_ * sizeof(T), tail_.data(), tail_.size() * sizeof(T));
      written_ += tail_.size();
      tail_.clear();
    }
  }
  void push(std::span<const T> values) {
    for (const T& value : values) {
      push(value);
    }
  }

  /// Values first .. first + out.size() - 1.
  void read(size_t first, std::span<T> out) const {
    size_t in_file = first < written_ ? written_ - first : 0;
    in_file = in_file < out.size() ? in_file : out.size();
    if (in_file > 0) {
      file_.read(first * sizeof(T), out.data(), in_file * sizeof(T));
    }
    for (size_t i = in_file; i < out.size(); ++i) {
      out[i] = tail_[first + i - written_];
    }
  }

  /// Quick where calls ask for neighbours.
  T at(size_t index) const {
    if (index >= written_) {
      return tail_[index - written_];
    }
    const size_t page = index / kPage;
    if (cached_ != page || page_.empty()) {
      page_.resize(
          written_ - page * kPage < kPage ? written_ - page * kPage : kPage);
      read(page * kPage, page_);
      cached_ = page;
    }
    return page_[index - page * kPage];
  }

 private:
  static constexpr size_t kBlock = (size_t{1} << 20) / sizeof(T);
  static constexpr size_t kPage = 4096;

  ScratchFile file_;
  size_t written_ = 0;  // values in the file
  std::vector<T> tail_;
  mutable std::vector<T> page_;
  mutable size_t cached_ = 0;
};

}  // namespace pennyweight
