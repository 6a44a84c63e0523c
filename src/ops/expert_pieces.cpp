#include "ops/expert_pieces.h"

#include <cstring>
#include <vector>

#include "kernels/access.h"
#include "kernels/scratch.h"
#include "kernels/threads.h"

namespace pennyweight::ops {

namespace {

constexpr int64_t kPieceRows = 256;
constexpr int64_t kFewPieces = 16;
constexpr int64_t kRowStep = 8;
constexpr int64_t kFewRows = 4;  // for so few nothing is compiled

/// Rows of one expert that are multiplied together.
struct Piece {
  int64_t first = 0;
  int64_t count = 0;
};

std::vector<Piece> list_pieces(const ExpertRows& rows) {
  std::vector<Piece> pieces;
  for (int64_t first = 0, last = 0; first < rows.count; first = last) {
    while (last < rows.count && last - first < kPieceRows &&
           rows.expert[last] == rows.expert[first]) {
      ++last;
    }
    pieces.push_back({first, last - first});
  }
  return pieces;
}

kernels::Matrix room(
    int64_t rows,
    int64_t columns,
    kernels::DType type,
    kernels::Scratch& scratch) {
  const int64_t bytes = rows * columns * int64_t(kernels::size_of(type));
  return {scratch.get<char>(bytes), type, columns};
}

void copy_rows(
    int64_t count,
    int64_t columns,
    const kernels::ConstMatrix& from,
    const kernels::Matrix& to) {
  for (int64_t i = 0; i < count; ++i) {
    std::memcpy(
        kernels::from_row(to, i).data,
        kernels::from_row(from, i).data,
        size_t(columns) * kernels::size_of(to.type));
  }
}

void multiply_piece(
    const ExpertRows& rows,
    const Piece& piece,
    const MultiplyRows& multiply) {
  const uint32_t expert = rows.expert[piece.first];
  const auto x = kernels::from_row(rows.x, piece.first);
  const auto out = kernels::from_row(rows.out, piece.first);
  if (piece.count % kRowStep == 0 || piece.count <= kFewRows) {
    return multiply(expert, piece.count, x, out);
  }
  thread_local kernels::Scratch read, made;
  const int64_t even = (piece.count + kRowStep - 1) / kRowStep * kRowStep;
  const auto padded = room(even, rows.in, x.type, read);
  const auto result = room(even, rows.width, out.type, made);
  copy_rows(piece.count, rows.in, x, padded);
  std::memset(
      kernels::from_row(padded, piece.count).data,
      0,
      size_t((even - piece.count) * rows.in) * kernels::size_of(x.type));
  multiply(expert, even, kernels::as_const(padded), result);
  copy_rows(piece.count, rows.width, kernels::as_const(result), out);
}

}  // namespace

void multiply_pieces(const ExpertRows& rows, const MultiplyRows& multiply) {
  const auto pieces = list_pieces(rows);
  const auto count = int64_t(pieces.size());
  if (count >= kFewPieces) {
    kernels::parallel_tasks(count, [&](int64_t i) {
      multiply_piece(rows, pieces[size_t(i)], multiply);
    });
    return;
  }
  for (const Piece& piece : pieces) {
    multiply_piece(rows, piece, multiply);
  }
}

}  // namespace pennyweight::ops
