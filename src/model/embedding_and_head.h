#pragma once

#include <algorithm>
#include <optional>
#include <string>

#include "model/weights.h"
#include "ops/kl_head.h"

namespace pennyweight {

/// Rows of a table that are read together: a few megabytes.
inline constexpr int kTableRows = 8192;

/// A matrix [vocab, hidden], embedding or head, of which rows are read when
/// they are asked for: what is held of it is never more than its packed form,
/// and of a file's neither copy nor pages stay.
class VocabTable {
 public:
  /// As the model stores it, which must outlive this. Rows of a packed one are
  /// expanded to `dtype`.
  VocabTable(const Model& model, const std::string& path, mx::Dtype dtype);
  /// With another weight in the stored one's place.
  VocabTable with_packed(ops::QuantizedWeight weight) const;
  /// take() reads no rows but those asked for: for rows so wide that pieces of
  /// many would be most of the table.
  VocabTable by_rows() const;
  /// The codes that are stored, with other scales and biases.
  VocabTable with_groups(const mx::array& scales, const mx::array& biases)
      const;

  int vocab() const {
    return vocab_;
  }
  /// Of a row.
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
  /// The same, dense.
  LinearWeights dense_rows(int first, int count) const;
  /// tokens int32 [...] to float32 [..., hidden], evaluated. Of a packed table
  /// rows are expanded to float32, with `rounded` to its dtype before.
  mx::array take(const mx::array& tokens, bool rounded) const;
  /// Of a packed table the rows of tokens [n], evaluated.
  ops::QuantizedWeight packed_at(const mx::array& tokens) const;
  /// What reads x [rows, hidden].
  ops::Head head(const mx::array& x, float cap) const;

 private:
  ops::QuantizedWeight packed_rows(int first, int count) const;

  const Model* model_;
  std::string path_;
  mx::Dtype dtype_;
  int vocab_;
  int64_t width_;
  std::optional<QuantSpec> spec_;  // where it is stored packed
  std::optional<mx::array> bias_;
  std::optional<ops::QuantizedWeight> packed_;  // in the stored one's place
  std::optional<mx::array> scales_, biases_;    // of the stored codes
  int piece_ = kTableRows;                      // that take() reads together
};

/// f(first, count) for pieces of a table of kTableRows.
template <class F>
void each_rows(int64_t rows, F&& f) {
  for (int64_t first = 0; first < rows; first += kTableRows) {
    f(static_cast<int>(first),
      static_cast<int>(std::min<int64_t>(kTableRows, rows - first)));
  }
}

/// Of DecoderSpec::token_inputs.
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
  /// Whether an embedding that is packed is rounded to the model's type when
  /// it is expanded, as a dense one is; mlx-lm's packed one is not.
  bool rounded = false;
  std::optional<TokenTables> token = std::nullopt;

  /// The matrix of a module outside the blocks, which must not be the
  /// embedding where that is the head too.
  VocabTable& table(const std::string& path);
};
EmbeddingAndHead load_embedding_and_head(const Model& model, mx::Dtype dtype);

}  // namespace pennyweight
