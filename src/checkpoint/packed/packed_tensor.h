#pragma once

#include <mlx/array.h>

#include <functional>
#include <string>
#include <vector>

#include "checkpoint/tensor_info.h"

namespace pennyweight {

/// Gives a stored tensor by its name, as a view of its file.
using LoadStored = std::function<mx::array(const std::string& name)>;

/// Reads scales of any type that they are stored in as float32, which is exact.
class FloatReader {
 public:
  FloatReader() = default;
  /// `stored` must outlive this.
  FloatReader(const mx::array& stored, ByteType byte_type);

  float operator[](size_t at) const {
    return read_(data_, at);
  }
  /// Whether a tensor is of a type that can be read: floating, or bytes.
  static bool can_read(const TensorInfo& info);

 private:
  const void* data_ = nullptr;
  float (*read_)(const void* data, size_t at) = nullptr;
};

/// The values of the 256 F8_E4M3 bytes; 0x7f and 0xff are NaN.
const float* e4m3_values();
/// Two to the power of the byte less 127; 0xff is NaN.
float from_e8m0(uint8_t byte);

/// A matrix, or a stack of them, that the files hold as several tensors: codes,
/// scales and what else their format needs. It is expanded when it is read, as
/// a whole or some rows alone. Values are made in float32, in which a code
/// times its scale is rounded once at most, and then rounded to the tensor's
/// type.
class PackedTensor {
 public:
  virtual ~PackedTensor() = default;
  PackedTensor(const PackedTensor&) = delete;
  PackedTensor& operator=(const PackedTensor&) = delete;

  /// The tensor as it expands, with its bytes then. The file is that of the
  /// codes.
  const TensorInfo& info() const {
    return info_;
  }
  /// Names of the tensors that it is stored as; the first has the codes.
  const std::vector<std::string>& parts() const {
    return parts_;
  }
  /// Its format in words: "int4 in groups of 128".
  const std::string& form() const {
    return form_;
  }

  /// Expands entries first .. first + count - 1 along the first axis, on all
  /// threads; evaluated.
  mx::array expand(const LoadStored& load, int first, int count) const;

 protected:
  struct Shape {
    std::string name;
    mx::Shape shape;  // [rows, columns] or [stack, rows, columns]
    mx::Dtype dtype;
  };
  /// `parts` begin with the codes.
  PackedTensor(Shape shape, std::vector<TensorInfo> parts, std::string form);

  /// Writes rows first .. first + count - 1 to out [count, columns]; the rows
  /// of a stack's matrices are counted one after the other. `parts` has the
  /// arrays of parts(). Called from any thread.
  virtual void expand_rows(
      const std::vector<mx::array>& parts,
      int64_t first,
      int64_t count,
      float* out) const = 0;

  int64_t columns() const {
    return info_.shape.back();
  }
  FloatReader reader(const std::vector<mx::array>& parts, size_t part) const {
    return {parts[part], byte_types_[part]};
  }

 private:
  TensorInfo info_;
  std::vector<std::string> parts_;
  std::vector<ByteType> byte_types_;
  std::string form_;
};

/// The type that a packed matrix is expanded to: its scales' where that is one
/// of 16 bits, as the formats' own programs do, else bfloat16, as mlx-lm does
/// for FP8 with scales in float32.
mx::Dtype expanded_type(const TensorInfo& scales);

}  // namespace pennyweight
