#include "text/read_source.h"

#include <algorithm>
#include <chrono>
#include <optional>

#include "core/files/atomic_file.h"
#include "text/byte_file.h"
#include "text/data_files.h"
#include "text/rows/rows.h"

namespace pennyweight {

namespace {

using Kind = DataSource::Kind;
using Clock = std::chrono::steady_clock;

class Reader {
 public:
  Reader(
      const Tokenizer& tokenizer,
      const DataSource& source,
      const LoadDataOptions& options,
      const ProgressFn& progress)
      : source_(source),
        options_(options),
        progress_(progress),
        pool_(std::make_unique<TokenPool>(tokenizer, options.sequence_length)) {
    summary_.warnings = source.warnings;
  }

  ReadSource read() {
    switch (source_.kind) {
      case Kind::self:
        break;  // is not read
      case Kind::text:
        add_piece(source_.text, source_.name);
        end_text_file();
        break;
      case Kind::file:
        add_single_file(source_.path);
        break;
      case Kind::folder:
        add_files(source_.path, choose_folder_files(source_.path));
        break;
      case Kind::dataset:
        add_files(source_.path, choose_dataset_files(source_.path));
        break;
    }
    finish();
    return {std::move(pool_), std::move(summary_)};
  }

 private:
  /// The path is this file: what is wrong with it is an error.
  void add_single_file(const fs::path& path) {
    if (const auto problem = find_file_problem(path)) {
      throw Error(problem->code, "data", path.string() + " " + problem->what);
    }
    root_ = (path.parent_path() / "").string();
    add_file(path);
  }

  void add_files(const fs::path& folder, DataFiles found) {
    root_ = (folder / "").string();
    summary_.use.add(found.use);
    summary_.warnings.insert(
        summary_.warnings.end(), found.warnings.begin(), found.warnings.end());
    for (const fs::path& file : found.files) {
      try {
        add_file(file);
      } catch (const Error& error) {
        pool_->end_file();
        leave_file(file, error);
      }
    }
  }

  void add_file(const fs::path& path) {
    if (!is_row_file(path)) {
      add_text_file(path);
      return;
    }
    int64_t left_out = 0;
    read_rows(
        path,
        [this](Row row) { return add_row(row); },
        [&](const RowError& error) {
          summary_.use.leave_row(
              error.reason(), short_name(error.where()), error.detail());
          require_some_rows(path, ++left_out);
        });
    pool_->end_file();
    ++summary_.use.files;
  }

  /// A few kilobytes of Parquet may hold ten million rows of nothing.
  void require_some_rows(const fs::path& path, int64_t left_out) const {
    constexpr int64_t kEnough = 100000;
    if (left_out == kEnough && summary_.use.rows == 0) {
      throw corrupt_error(
          "data",
          path.string() + ": none of the first " + std::to_string(kEnough) +
              " rows can be used; " + summary_.use.warnings().front());
    }
  }

  void add_text_file(const fs::path& path) {
    const ByteFile file(path);
    require_utf8(file);
    TextPieces pieces(file, 0, file.size());
    for (std::string piece; pieces.next(piece);) {
      add_piece(piece, short_name(path.string()));
    }
    end_text_file();
  }

  void add_piece(std::string_view piece, const std::string& where) {
    pool_->add_piece(piece, where);
    summary_.use.lines += std::count(piece.begin(), piece.end(), '\n');
    last_ = piece.empty() ? last_ : piece.back();
    tick();
  }

  void end_text_file() {
    summary_.use.lines += last_ && last_ != '\n' ? 1 : 0;
    last_.reset();
    pool_->end_file();
    ++summary_.use.files;
  }

  bool add_row(const Row& row) {
    const auto where = short_name(row.where);
    std::optional<RowRefusal> refusal;
    if (!row.messages.is_null()) {
      refusal = pool_->add_chat(row.messages, where);
    } else if (row.long_text) {
      row.long_text([&](std::string_view piece) {
        pool_->add_piece(piece, where);
        tick();
      });
      pool_->end_text();
    } else if (row.text.empty()) {
      refusal = RowRefusal{kEmptyText, ""};
    } else {
      pool_->add_piece(row.text, where);
      pool_->end_text();
    }
    if (refusal) {
      summary_.use.leave_row(refusal->reason, where, refusal->detail);
    } else {
      ++summary_.use.rows;
    }
    tick();
    return true;
  }

  void leave_file(const fs::path& file, const Error& error) {
    if (error.code() == ErrorCode::cancelled) {
      throw error;
    }
    const std::string_view text = error.what();
    const bool encoding = text.find("not valid UTF-8") != text.npos;
    summary_.use.leave_file(
        error.code() == ErrorCode::io ? "unreadable"
            : encoding                ? "not UTF-8"
                                      : "without rows that can be read",
        short_name(file.string()),
        said_of(file.string(), error));
  }

  /// An error's text without where it comes from and the file it names first.
  static std::string said_of(const std::string& file, const Error& error) {
    std::string text = reason_of(error);
    text.erase(0, text.starts_with(file) ? file.size() : 0);
    const size_t start = text.find_first_not_of(" :,");
    return text.substr(std::min(start, text.size()));
  }

  /// Without the folder that --data-path names already, or lies in.
  std::string short_name(const std::string& where) const {
    return !root_.empty() && where.starts_with(root_)
        ? where.substr(root_.size())
        : where;
  }

  void tick() {
    const auto now = Clock::now();
    if (now - ticked_ > std::chrono::milliseconds(50)) {
      ticked_ = now;
      report(progress_, {"data", pool_->tokens(), 0, "tokens", "", false});
    }
  }

  void finish() {
    if (options_.judged) {
      require_half(summary_.use, source_.name);
    }
    const auto left_out = summary_.use.warnings();
    summary_.tokens = pool_->tokens();
    summary_.count = pool_->count();
    if (summary_.tokens == 0 && options_.judged && !left_out.empty()) {
      throw argument_error(
          "data",
          source_.name + " holds no text that can be used; " + left_out.back() +
              (left_out.size() > 1 ? "; " + left_out.front() : ""));
    }
    for (const auto& texts : {left_out, pool_->warnings()}) {
      summary_.warnings.insert(
          summary_.warnings.end(), texts.begin(), texts.end());
    }
  }

  const DataSource& source_;
  const LoadDataOptions& options_;
  const ProgressFn& progress_;
  std::unique_ptr<TokenPool> pool_;
  SourceSummary summary_;
  std::string root_;
  std::optional<char> last_;  // of the text file that is being read
  Clock::time_point ticked_{};
};

}  // namespace

ReadSource read_source(
    const Tokenizer& tokenizer,
    const DataSource& source,
    const LoadDataOptions& options,
    const ProgressFn& progress) {
  return Reader(tokenizer, source, options, progress).read();
}

}  // namespace pennyweight
