#include "export/write_model.h"

#include "core/files/atomic_file.h"
#include "export/front_matter.h"
#include "export/model_card.h"
#include "export/model_writer.h"
#include "export/published.h"
#include "export/side_files.h"
#include "export/tensor_order.h"

namespace pennyweight {

namespace {

int64_t write_tensors(
    const Model& model,
    const Conversion& conversion,
    int64_t parameters,
    const fs::path& folder,
    const std::string& where,
    const ProgressFn& progress) {
  int64_t total = 0;
  for (const auto& [name, info] : model.tensors.all()) {
    total += static_cast<int64_t>(info.bytes);
  }
  ModelWriter writer(folder, conversion.tensors());
  int64_t done = 0;
  for (const auto& [name, done_with] : tensor_order(model)) {
    conversion.run(name, writer);
    for (const auto& file : done_with) {
      model.checkpoint.release(file);
    }
    done += static_cast<int64_t>(model.tensors.info(name).bytes);
    report(progress, {where, done, total, "bytes"});
  }
  writer.finish(parameters);
  return static_cast<int64_t>(writer.total_bytes());
}

}  // namespace

WrittenModel write_model(
    const Model& model,
    const Conversion& conversion,
    const fs::path& folder,
    const std::string& source,
    std::string summary,
    const std::string& where,
    const ProgressFn& progress,
    const Model* full) {
  WrittenModel written;
  const auto& source_folder = model.checkpoint.folder();
  written.side_files =
      copy_side_files(list_side_files(source_folder), source_folder, folder);
  auto parameters = model_size(model).parameters;
  written.bytes =
      write_tensors(model, conversion, parameters, folder, where, progress);
  if (conversion.carries_mtp()) {
    written.mtp = carry_mtp(model, folder);
  }
  model.checkpoint.require_unchanged();
  int64_t carried = 0;
  for (const auto& [name, info] : model.tensors.all()) {
    carried += is_among(name, model.spec.carried)
        ? static_cast<int64_t>(info.bytes)
        : 0;
  }
  written.bits_per_weight = 8.0 * static_cast<double>(written.bytes - carried) /
      static_cast<double>(parameters);
  write_file(
      folder / "config.json", tag_floats(conversion.config()).dump(4) + "\n");
  if (auto at = summary.find("%bpw"); at != std::string::npos) {
    summary.replace(
        at, 4, std::to_string(written.bits_per_weight).substr(0, 5));
  }
  ModelCard card{.source = source, .summary = summary};
  card.mtp = describe_mtp(written.mtp);
  card.packed = packed_words(full ? *full : model);
  card.base = read_front_matter(source_folder / "README.md").values;
  if (auto config = conversion.config(); config.contains("quantization")) {
    card.quantization = config["quantization"];
  }
  write_file(folder / "README.md", model_card(card));
  return written;
}

}  // namespace pennyweight
