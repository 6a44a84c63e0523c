#pragma once

#include <filesystem>

namespace pennyweight {

/// The name of something that this process is writing and that must not stay
/// if it can't go on. Destroyed or released, the name is forgotten; the thing
/// itself is its owner's. Names of another process (a fork's parent) are left
/// alone.
class Temporary {
 public:
  enum class Kind {
    entry,   // a file or a folder with all that is in it
    parent,  // a folder that goes only where nothing is in it
  };

  Temporary() = default;
  /// `path` is absolute. Named before the thing is made, so that no moment is
  /// between the two; what does not exist is passed over.
  explicit Temporary(
      const std::filesystem::path& path,
      Kind kind = Kind::entry);
  Temporary(Temporary&& other) noexcept;
  Temporary& operator=(Temporary&& other) noexcept;
  ~Temporary();

  void release();

 private:
  struct Name;
  friend void remove_temporaries();

  Name* name_ = nullptr;
};

/// Removes all that is named, without C++'s memory or exceptions: for a
/// process that ends where its destructors can't run. Owners that go on in
/// other threads meanwhile lose what they write.
void remove_temporaries();

}  // namespace pennyweight
