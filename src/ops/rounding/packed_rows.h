#pragma once

#include <optional>

#include "ops/ops.h"

namespace pennyweight {

/// An array in memory of its own, whose values are still to be set.
mx::array unset(mx::Shape shape, mx::Dtype dtype);
/// Puts `part`, evaluating it, in whole's rows from `first` on, in place.
void copy_rows(const mx::array& part, int first, mx::array& whole);

/// A packed weight that is made some rows at a time, in place.
class PackedRows {
 public:
  explicit PackedRows(int rows) : rows_(rows) {}

  /// Rows first .. of the whole; all parts are of one form.
  void put(int first, const ops::QuantizedWeight& part);
  /// The whole, evaluated. Once, when all rows are there.
  ops::QuantizedWeight take();

 private:
  int rows_;
  std::optional<ops::QuantizedWeight> whole_;
};

}  // namespace pennyweight
