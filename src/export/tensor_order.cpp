#include "export/tensor_order.h"

#include <algorithm>
#include <map>
#include <set>

namespace pennyweight {

namespace {

std::set<std::string> files_of(const Model& model, const std::string& name) {
  std::set<std::string> files;
  for (const auto& stored : model.tensors.stored(model.checkpoint, name)) {
    const auto& info = model.checkpoint.stored_info(stored);
    if (info.bytes > kAlwaysThere) {
      files.insert(info.file.filename().string());
    }
  }
  return files;
}

}  // namespace

std::vector<OrderedTensor> tensor_order(const Model& model) {
  std::vector<OrderedTensor> order;
  for (const auto& [name, info] : model.tensors.all()) {
    order.push_back({name, {}});
  }
  if (!model.checkpoint.is_streamed()) {
    return order;
  }
  std::map<std::string, std::set<std::string>> files;
  for (const auto& [name, done_with] : order) {
    files[name] = files_of(model, name);
  }
  // The last file counts: what came before is there, or is brought again.
  std::ranges::stable_sort(order, {}, [&](const OrderedTensor& one) {
    const auto& own = files.at(one.name);
    return own.empty() ? std::string() : *own.rbegin();
  });
  std::set<std::string> seen;
  for (auto it = order.rbegin(); it != order.rend(); ++it) {
    for (const auto& file : files.at(it->name)) {
      if (seen.insert(file).second) {
        it->done_with.push_back(file);
      }
    }
  }
  return order;
}

}  // namespace pennyweight
