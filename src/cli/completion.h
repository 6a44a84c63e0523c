#pragma once

#include <string>
#include <vector>

namespace CLI {
class App;
}

namespace pennyweight::cli {

/// The shells that completion() is for.
std::vector<std::string> shells();

/// A script for one of shells() that completes the commands of `app`, their
/// flags, and the values of flags that have choices or are paths. It goes by
/// what the parser knows, and so by the option visitor.
std::string completion(const CLI::App& app, const std::string& shell);

}  // namespace pennyweight::cli
