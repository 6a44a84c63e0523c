#pragma once

#include <map>
#include <string>
#include <vector>

#include "method/block_method.h"

namespace pennyweight {

/// One way to make a block, and its error.
struct Judged {
  std::string name;
  double error = 0;
};

/// The least error; of equals the first.
size_t least(const std::vector<Judged>& ways);

/// Errors by name.
std::map<std::string, double> by_name(const std::vector<Judged>& ways);

/// What a user is told where a way other than the first was kept.
std::string describe_kept(
    const BlockSpec& block,
    const std::vector<Judged>& ways,
    size_t kept);

}  // namespace pennyweight
