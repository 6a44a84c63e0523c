// Included once for each instruction set, hence no #pragma once.
#if defined(PENNYWEIGHT_SIMD_CODES_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef PENNYWEIGHT_SIMD_CODES_INL_H
#undef PENNYWEIGHT_SIMD_CODES_INL_H
#else
#define PENNYWEIGHT_SIMD_CODES_INL_H
#endif

#include "kernels/quant_codes.h"
#include "kernels/simd/vec_inl.h"

HWY_BEFORE_NAMESPACE();

namespace pennyweight::kernels::HWY_NAMESPACE {

using Bytes = hn::Repartition<uint8_t, Floats>;

/// Unpacks 16 codes of kBits bits at a time, which fill 2 * kBits bytes. Any 4
/// neighbouring codes lie within 4 bytes: a byte shuffle brings these to all 4
/// lanes, and each lane shifts its own code down.
template <int kBits>
class Unpacker {
 public:
  static constexpr int kMostParts = 4;  // of 4 lanes

  explicit Unpacker(const uint8_t* end) : end_(end) {
    const int step = int(lanes());
    for (int part = 0; part < parts(); ++part) {
      for (int lane = 0; lane < step; ++lane) {
        const int code = part * step + lane;
        const int first_bit = code / 4 * 4 * kBits;
        shifts_[part][lane] = uint32_t(first_bit % 8 + code % 4 * kBits);
        for (int byte = 0; byte < 4; ++byte) {
          bytes_[part][4 * lane + byte] = uint8_t(first_bit / 8 + byte);
        }
      }
    }
  }

  HWY_INLINE int parts() const {
    return int(16 / lanes());
  }

  /// The 16 bytes from p on, of which the first 2 * kBits are codes. Nothing is
  /// read beyond `end`.
  HWY_INLINE hn::Vec<Bytes> fetch(const uint8_t* p) const {
    if (HWY_LIKELY(p + 16 <= end_)) {
      return hn::LoadDup128(Bytes(), p);
    }
    HWY_ALIGN uint8_t buffer[16] = {};
    std::memcpy(buffer, p, 2 * kBits);
    return hn::LoadDup128(Bytes(), buffer);
  }

  /// The `part`-th vector of codes in what fetch returned.
  HWY_INLINE hn::Vec<Ints> codes(hn::Vec<Bytes> fetched, int part) const {
    const Words words;
    const auto spread = hn::BitCast(
        words, hn::TableLookupBytes(fetched, hn::LoadU(Bytes(), bytes_[part])));
    const auto shifted = hn::Shr(spread, hn::LoadU(words, shifts_[part]));
    const auto mask = hn::Set(words, (1u << kBits) - 1u);
    return hn::BitCast(Ints(), hn::And(shifted, mask));
  }

 private:
  const uint8_t* end_;
  HWY_ALIGN uint8_t bytes_[kMostParts][64];
  HWY_ALIGN uint32_t shifts_[kMostParts][16];
};

/// What a code stands for: itself, or an entry of a table.
struct AffineValue {
  HWY_INLINE Vec operator()(hn::Vec<Ints> codes) const {
    return hn::ConvertTo(Floats(), codes);
  }
};
struct TableValue {
  const float* table;
  HWY_INLINE Vec operator()(hn::Vec<Ints> codes) const {
    return hn::GatherIndex(Floats(), table, codes);
  }
};

/// Calls use(column, weights) for the vectors of one row, in order.
template <int kBits, class Value, class Use>
HWY_INLINE void expand_row(
    const QuantizedMatrix& weight,
    int64_t row,
    const Unpacker<kBits>& unpacker,
    const Value& value,
    const Use& use) {
  const int64_t groups = weight.columns / weight.group;
  const auto* codes = static_cast<const uint8_t*>(weight.codes) +
      row * code_bytes_per_row(weight);
  const int parts = unpacker.parts();
  int64_t column = 0;
  for (int64_t g = 0; g < groups; ++g) {
    const auto [scale, bias] = group_scale(weight, row * groups + g);
    const Vec s = hn::Set(Floats(), scale);
    const Vec b = hn::Set(Floats(), bias);
    for (int64_t i = 0; i < weight.group; i += 16, codes += 2 * kBits) {
      const auto fetched = unpacker.fetch(codes);
      for (int part = 0; part < parts; ++part, column += lanes()) {
        const Vec v = value(unpacker.codes(fetched, part));
        if constexpr (std::is_same_v<Value, AffineValue>) {
          use(column, hn::MulAdd(v, s, b));
        } else {
          use(column, hn::Mul(v, s));
        }
      }
    }
  }
}

/// Calls f(unpacker, value) with what fits the weight's mode and width.
template <class F>
HWY_INLINE void visit_codes(const QuantizedMatrix& weight, const F& f) {
  const auto* end = static_cast<const uint8_t*>(weight.codes) +
      weight.rows * code_bytes_per_row(weight);
  const float* table = code_values(weight.mode);
  if (table) {
    return weight.bits == 4 ? f(Unpacker<4>(end), TableValue{table})
                            : f(Unpacker<8>(end), TableValue{table});
  }
  switch (weight.bits) {
    case 2:
      return f(Unpacker<2>(end), AffineValue());
    case 3:
      return f(Unpacker<3>(end), AffineValue());
    case 4:
      return f(Unpacker<4>(end), AffineValue());
    case 5:
      return f(Unpacker<5>(end), AffineValue());
    case 6:
      return f(Unpacker<6>(end), AffineValue());
    default:
      return f(Unpacker<8>(end), AffineValue());
  }
}

}  // namespace pennyweight::kernels::HWY_NAMESPACE

HWY_AFTER_NAMESPACE();

#endif
