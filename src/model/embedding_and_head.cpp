#include "model/embedding_and_head.h"

#include <mlx/ops.h>
#include <mlx/transforms.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <utility>
#include <vector>

#include "ops/evaluated.h"
#include "ops/rounding/packed_rows.h"

namespace pennyweight {

namespace {

/// Gathers rows from pieces of a table, in the order of their tokens.
class Picked {
 public:
  explicit Picked(size_t count) : count_(count) {}

  /// Copies rows of this piece: `rows` are pairs of a place among all that are
  /// picked, and the row of the piece that goes there.
  void add(
      const mx::array& piece,
      const std::vector<std::pair<size_t, size_t>>& rows) {
    auto from = evaluated(mx::contiguous(piece));
    if (!all_) {
      auto shape = from.shape();
      shape[0] = static_cast<int>(count_);
      all_ = unset(std::move(shape), from.dtype());
    }
    const size_t bytes = from.nbytes() / static_cast<size_t>(from.shape(0));
    for (const auto& [to, row] : rows) {
      std::memcpy(
          all_->data<char>() + to * bytes,
          from.data<char>() + row * bytes,
          bytes);
    }
  }
  const mx::array& all() const {
    return *all_;
  }

 private:
  size_t count_;
  std::optional<mx::array> all_;
};

// A scale as it is when rounded to `dtype`.
float in_type(float scale, mx::Dtype dtype) {
  return mx::astype(mx::astype(mx::array(scale), dtype), mx::float32)
      .item<float>();
}

/// Calls f(first, count, rows) for each piece of `most` rows in which there are
/// tokens; `rows` are pairs of a token's place and its row, counted from
/// `first`. It goes by pieces since a file's pages are mapped by the megabyte:
/// rows picked from all over the table would map all of it.
template <class F>
void each_piece(const mx::array& tokens, int vocab, int most, F&& f) {
  auto at = evaluated(mx::contiguous(tokens));
  std::map<int, std::vector<std::pair<size_t, size_t>>> pieces;
  for (size_t i = 0; i < at.size(); ++i) {
    const int token = at.data<int32_t>()[i];
    pieces[token / most].emplace_back(i, static_cast<size_t>(token % most));
  }
  for (const auto& [piece, rows] : pieces) {
    const int first = piece * most;
    f(first, std::min(most, vocab - first), rows);
  }
}

}  // namespace

VocabTable::VocabTable(
    const Model& model,
    const std::string& path,
    mx::Dtype dtype)
    : model_(&model),
      path_(path),
      dtype_(dtype),
      vocab_(model.tensors.info(path + ".weight").shape.at(0)),
      width_(0) {
  width_ = model.tensors.info(path + ".weight").shape.at(1);
  if (const auto it = model.quantized.find(path); it != model.quantized.end()) {
    spec_ = it->second;
    width_ = width_ * 32 / spec_->bits;  // of packed words
  }
  if (model.tensors.contains(path + ".bias")) {
    bias_ = load_as(model, path + ".bias", dtype);
  }
}

VocabTable VocabTable::with_packed(ops::QuantizedWeight weight) const {
  auto table = *this;
  table.packed_ = std::move(weight);
  return table;
}

VocabTable VocabTable::by_rows() const {
  auto table = *this;
  table.piece_ = 1;
  return table;
}

VocabTable VocabTable::with_groups(
    const mx::array& scales,
    const mx::array& biases) const {
  auto table = *this;
  table.scales_ = scales;
  table.biases_ = biases;
  return table;
}

ops::QuantizedWeight VocabTable::packed_rows(int first, int count) const {
  if (packed_) {
    const LinearWeights whole{std::nullopt, packed_, std::nullopt};
    return *whole.rows(first, count).packed;
  }
  const auto load = [&](const char* suffix) {
    return model_->load_rows(path_ + suffix, first, count);
  };
  ops::QuantizedWeight part{
      load(".weight"),
      scales_ ? ops::slice_rows(*scales_, first, count) : load(".scales"),
      std::nullopt,
      spec_->group_size,
      spec_->bits,
      spec_->mode};
  if (spec_->mode == "affine") {
    part.biases =
        biases_ ? ops::slice_rows(*biases_, first, count) : load(".biases");
  }
  return part;
}

LinearWeights VocabTable::rows(int first, int count) const {
  LinearWeights part;
  if (bias_) {
    part.bias = ops::slice_rows(*bias_, first, count);
  }
  if (is_packed()) {
    part.packed = packed_rows(first, count);
    return part;
  }
  const auto dense = model_->load_rows(path_ + ".weight", first, count);
  part.dense = mx::astype(dense, dtype_);
  return part;
}

LinearWeights VocabTable::dense_rows(int first, int count) const {
  auto part = rows(first, count);
  if (part.packed) {
    part.dense = ops::dequantize(*part.packed, dtype_);
    part.packed.reset();
  }
  return part;
}

ops::QuantizedWeight VocabTable::packed_at(const mx::array& tokens) const {
  Picked codes(tokens.size()), scales(tokens.size()), biases(tokens.size());
  std::optional<ops::QuantizedWeight> form;
  each_piece(
      tokens, vocab_, piece_, [&](int first, int count, const auto& rows) {
        form = packed_rows(first, count);
        codes.add(form->codes, rows);
        scales.add(form->scales, rows);
        if (form->biases) {
          biases.add(*form->biases, rows);
        }
      });
  form->codes = codes.all();
  form->scales = scales.all();
  if (form->biases) {
    form->biases = biases.all();
  }
  return *form;
}

mx::array VocabTable::take(const mx::array& tokens, bool rounded) const {
  const auto flat = mx::flatten(tokens);
  mx::array dense(0.0f);
  if (is_packed()) {
    dense = ops::dequantize(packed_at(flat), rounded ? dtype_ : mx::float32);
  } else {
    Picked picked(flat.size());
    each_piece(
        flat, vocab_, piece_, [&](int first, int count, const auto& rows) {
          picked.add(model_->load_rows(path_ + ".weight", first, count), rows);
        });
    dense = mx::astype(picked.all(), dtype_);
  }
  auto shape = tokens.shape();
  shape.push_back(dense.shape(1));
  dense = mx::reshape(mx::astype(dense, mx::float32), shape);
  mx::eval(dense);
  return dense;
}

ops::Head VocabTable::head(const mx::array& x, float cap) const {
  return {
      x,
      vocab_,
      [table = *this](int first, int count) {
        auto part = table.dense_rows(first, count);
        return ops::HeadTile{std::move(*part.dense), std::move(part.bias)};
      },
      cap};
}

VocabTable& EmbeddingAndHead::table(const std::string& path) {
  if (token && path == token->table.path()) {
    return token->table;
  }
  if (token && path == token->projection.path()) {
    return token->projection;
  }
  return path == embedding.path() ? embedding : head;
}

EmbeddingAndHead load_embedding_and_head(const Model& model, mx::Dtype dtype) {
  const DecoderSpec& spec = model.spec;
  VocabTable embedding(model, spec.embedding, dtype);
  std::optional<mx::array> bias;
  if (spec.final_norm.bias) {
    bias = load_as(model, spec.final_norm.path + ".bias", dtype);
  }
  std::optional<TokenTables> token;
  if (const auto& own = spec.token_inputs) {
    token.emplace(TokenTables{
        *own,
        VocabTable(model, own->table, dtype).by_rows(),
        VocabTable(model, own->projection.path, dtype),
        load_as(model, own->norm.path + ".weight", dtype)});
  }
  return {
      embedding,
      load_as(model, spec.final_norm.path + ".weight", dtype),
      std::move(bias),
      spec.head ? VocabTable(model, spec.head->path, dtype) : embedding,
      spec.embedding_scale_in_type ? in_type(spec.embedding_scale, dtype)
                                   : spec.embedding_scale,
      spec.embedding_eps,
      spec.logit_cap,
      false,
      std::move(token)};
}

}  // namespace pennyweight
