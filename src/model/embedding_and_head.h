#pragma once

#include <algorithm>
#include <optional>
#include <string>

#include "model/weights.h"
#include "ops/kl_head.h"

namespace pennyweight {

/// How many rows of a vocabulary table are read together: a few megabytes.
inline constexpr int kTableRows = 8192;

/// A matrix [vocab, hidden], embedding or head, whose rows are read when they
/// are asked for. No more of it is ever in memory than its packed form, and
/// neither copies nor pages of a file stay.
class VocabTable {
 public:
  /// The table as `model`, which must outlive this, stores it at `path`. Packed
  /// rows are expanded to `dtype`.
  VocabTable(const Model& model, const std::string& path, mx::Dtype dtype);
  /// The same table with another weight in place of the stored one.
  VocabTable with_packed(ops::QuantizedWeight weight) const;
  /// The same table, of which take() reads only the rows that are asked for:
  /// for rows so wide that a piece of many would be most of the table.
  VocabTable by_rows() const;
  /// The same table with the stored codes and other scales and biases, [vocab,
  /// groups].
  VocabTable with_groups(const mx::array& scales, const mx::array& biases)
      const;

  int vocab() const {
    return vocab_;
  }
  /// Weights in a row.
  int64_t width() const {
    return width_;
  }
  const std::string& path() const {
    return path_;
  }
  bool is_packed() const {
    return packed_ || spec_;
  }
  /// Rows first .. first + count - 1, lazily: dense, or packed.
  LinearWeights rows(int first, int count) const;
  /// The same rows, expanded to the table's dtype where they are packed.
  LinearWeights dense_rows(int first, int count) const;
  /// The rows of tokens int32 [...], all below vocab(): float32 [..., hidden],
  /// evaluated. Packed rows are expanded to float32, or with `rounded` to the
  /// table's dtype first.
  mx::array take(const mx::array& tokens, bool rounded) const;
  /// The packed rows of tokens int32 [n], evaluated; for a packed table only.
  ops::QuantizedWeight packed_at(const mx::array& tokens) const;
  /// The table as a head that reads x [rows, hidden]; logits are capped at
  /// `cap` (0: they are not).
  ops::Head head(const mx::array& x, float cap) const;

 private:
  ops::QuantizedWeight packed_rows(int first, int count) const;

  const Model* model_;
  std::string path_;
  mx::Dtype dtype_;
  int vocab_;
  int64_t width_;
  std::optional<QuantSpec> spec_;  // of the stored table, where that is packed
  std::optional<mx::array> bias_;
  std::optional<ops::QuantizedWeight> packed_;  // see with_packed()
  std::optional<mx::array> scales_, biases_;    // see with_groups()
  int piece_ = kTableRows;  // rows that take() reads at once
};

/// Calls f(first, count) for each piece of kTableRows rows of a table.
template <class F>
void each_rows(int64_t rows, F&& f) {
  for (int64_t first = 0; first < rows; first += kTableRows) {
    f(static_cast<int>(first),
      static_cast<int>(std::min<int64_t>(kTableRows, rows - first)));
  }
}

/// The weights of DecoderSpec::token_inputs.
struct TokenTables {
  TokenInputsSpec spec;
  VocabTable table;
  VocabTable projection;
  mx::array norm;
};

/// Embedding, final norm and head.
struct EmbeddingAndHead {
  VocabTable embedding;
  mx::array final_norm;
  std::optional<mx::array> final_norm_bias;
  VocabTable head;  // the embedding again where they are tied
  float embedding_scale = 1;
  std::optional<float> embedding_eps;
  float logit_cap = 0;
  /// Whether a packed embedding is rounded to the model's type when it is
  /// expanded, as a dense one is; mlx-lm does not round a packed one.
  bool rounded = false;
  std::optional<TokenTables> token = std::nullopt;

  /// The matrix of a module outside the blocks. `path` must not be the
  /// embedding's where that is the head, too.
  VocabTable& table(const std::string& path);
};
/// The embedding and head of a model, in `dtype`. Of the tables nothing is read
/// yet; `model` must outlive the result.
EmbeddingAndHead load_embedding_and_head(const Model& model, mx::Dtype dtype);

}  // namespace pennyweight
