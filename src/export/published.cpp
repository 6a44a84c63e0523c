#include "export/published.h"

#include <algorithm>
#include <set>

#include "checkpoint/packed/packed_source.h"
#include "core/json.h"
#include "core/text.h"

namespace pennyweight {

namespace {

struct Published {
  int64_t modules = 0;
  int64_t parameters = 0;
  int64_t bytes = 0;  // of codes and scales
  std::set<std::string> widths, modes;
};

Published find_published(const Model& model) {
  Published found;
  for (const ModuleSpec& module : list_stored_modules(model.spec)) {
    if (const auto& spec = module.published) {
      const int64_t stack = std::max<int64_t>(1, module.count);
      ++found.modules;
      found.parameters += stack * module.out * module.in;
      found.bytes += stack *
          quantized_bytes(
                         *spec,
                         module.out,
                         module.in,
                         static_cast<int>(mx::size_of(model.dtype)));
      found.widths.insert(width_name(*spec));
      found.modes.insert(spec->mode);
    }
  }
  return found;
}

}  // namespace

std::string describe_published(const Model& model) {
  const auto found = find_published(model);
  if (found.modules == 0) {
    return "";
  }
  return std::to_string(found.modules) + " modules are published packed (" +
      joined({found.modes.begin(), found.modes.end()}) + ", " +
      fixed(8.0 * double(found.bytes) / double(found.parameters), 2) +
      " bits a weight): there is no fuller model, and what quantizes it leaves "
      "them as they are";
}

std::string packed_words(const Model& model) {
  const auto* packed = model.checkpoint.packed();
  return packed ? packed->describe() : describe_published(model);
}

Json published_json(const Model& model) {
  const auto found = find_published(model);
  if (found.modules == 0) {
    return nullptr;
  }
  return {
      {"modules", found.modules},
      {"widths", found.widths},
      {"parameters", found.parameters},
      {"bytes", found.bytes}};
}

}  // namespace pennyweight
