#pragma once

#include <string>

namespace pennyweight {

/// Whether `pattern` is a glob: * stands for any text, dots included, ? for one
/// character, [a-c] for one of a set and [!a-c] for one that is not in it. An
/// opening bracket needs a closing one behind a character at least.
bool is_glob(const std::string& pattern);

/// Whether the glob matches all of `path`, or all that follows one of its dots:
/// "self_attn.*" matches model.layers.3.self_attn.q_proj, and "q_proj" does.
/// The part "language_model." counts for nothing in either, since one model's
/// layers have it in one place or another, or not at all, by who names them.
bool matches_path(const std::string& pattern, const std::string& path);

}  // namespace pennyweight
