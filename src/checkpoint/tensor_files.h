#pragma once

#include <filesystem>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <tuple>
#include <unordered_map>
#include <vector>

#include "checkpoint/held_files.h"
#include "checkpoint/safetensors.h"
#include "checkpoint/weight_index.h"

namespace pennyweight {

namespace fs = std::filesystem;

/// The tensors that a folder's files hold, by the rules in checkpoint.h.
class TensorFiles {
 public:
  struct Source {
    std::shared_ptr<SafetensorsFile> file;
    SafetensorsEntry entry;
  };

  /// Reads index and headers. Errors are those of Checkpoint::open.
  void open(const fs::path& folder, std::shared_ptr<ShardProvider> provider);
  /// The file that has a tensor's bytes.
  std::shared_ptr<SafetensorsFile> file_of(const Source& source) const {
    return held ? held->at(source.file, source.entry) : source.file;
  }
  /// See Checkpoint::about_missing().
  std::string about_missing(const std::string& name) const;
  bool lacks_files() const {
    return !missing_.empty() || !left_out_.empty();
  }
  /// Adds to the notes which tensors stand in two files.
  void note_twice();

  std::map<std::string, TensorInfo> infos;
  std::unordered_map<std::string, Source> sources;
  std::vector<std::string> notes;
  std::unique_ptr<HeldFiles> held;  // only where a checkpoint is streamed

 private:
  // Tensors that stand in the same two files, which share a note.
  struct Twice {
    std::string first;
    int64_t count = 0;
  };

  void put(const Source& source);
  bool are_equal(const Source& a, const Source& b) const;
  void put_second(const Source& second);
  void add(const std::shared_ptr<SafetensorsFile>& file);
  bool index_holds() const;
  void leave_out(const std::string& file, const std::string& why);
  void add_unnamed(const fs::path& path, bool holds);
  std::set<std::string> list_files() const;
  [[noreturn]] void fail_without_weights() const;
  void add_files();
  std::vector<std::string> index_faults() const;
  void note_index();

  fs::path folder_;
  WeightIndex index_;
  std::map<std::string, std::string> left_out_;  // file -> why
  std::set<std::string> missing_;                // files
  // The keys are the file that was taken, the other one, and whether the index
  // decided.
  std::map<std::tuple<std::string, std::string, bool>, Twice> twice_;
};

}  // namespace pennyweight
