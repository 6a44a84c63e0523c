#include "method/registry.h"

#include "core/error.h"
#include "core/text.h"

namespace pennyweight {

#define PENNYWEIGHT_METHOD(name) MethodEntry name##_method();
#include "method/methods.def"
#undef PENNYWEIGHT_METHOD

const std::vector<MethodEntry>& methods() {
  static const std::vector<MethodEntry> all{
#define PENNYWEIGHT_METHOD(name) name##_method(),
#include "method/methods.def"
#undef PENNYWEIGHT_METHOD
  };
  return all;
}

const MethodEntry& find_method(const std::string& name) {
  std::vector<std::string> names;
  for (const MethodEntry& entry : methods()) {
    if (entry.name == name) {
      return entry;
    }
    names.push_back(entry.name);
  }
  throw argument_error(
      "method",
      "there is no method " + shown(name) + "; choose one of " + joined(names));
}

}  // namespace pennyweight
