#include "run/session.h"

#include "checkpoint/packed/packed_source.h"
#include "core/error.h"
#include "core/process.h"
#include "core/time_left.h"
#include "export/published.h"
#include "pass/sample.h"
#include "run/check_output.h"
#include "run/fetched.h"
#include "run/streamed.h"
#include "text/text_reader.h"

namespace pennyweight {

Session::Session(
    std::string command,
    ProgressFn progress,
    const ProcessGroup& group)
    : command_(std::move(command)),
      progress_(std::move(progress)),
      group_(group),
      start_(std::chrono::steady_clock::now()) {}

void Session::note(const std::string& text) {
  report_.notes.push_back(text);
  warn(progress_, command_, text);
}

void Session::note(const std::vector<std::string>& texts) {
  for (const auto& text : texts) {
    note(text);
  }
}

void Session::say(const std::string& text) const {
  pennyweight::report(progress_, {command_, 0, 0, "", text});
}

void Session::refuse(const std::string& what) const {
  throw argument_error(command_, what);
}

void Session::require_one_process() const {
  if (group_.size() > 1) {
    throw not_supported_error(
        command_, "it runs as one process; leave out the launcher");
  }
}

double Session::seconds() const {
  return seconds_since(start_);
}

Json Session::hub_folders() const {
  return fetched ? *fetched : fetched_for_process();
}

fs::path Session::model_folder(const std::string& name) const {
  return resolve_model(name, hub_folders(), progress_);
}

FetchDatasetFn Session::fetch_dataset() const {
  return [this](const std::string& id) {
    return resolve_dataset(id, hub_folders(), progress_);
  };
}

void Session::check_folders(const fs::path& model, const OutputOptions& output)
    const {
  pennyweight::check_folders(
      command_,
      model,
      output.mlx_path,
      output.force,
      group_.first(),
      progress_);
}

TokenData Session::read_text(
    const fs::path& folder,
    const Model& model,
    const LoadDataOptions& options,
    const std::optional<std::string>& memory_limit) {
  TextReader reader(folder, memory_limit);
  auto data = load_data(
      reader,
      options,
      self_sampler(model, reader.facts(), progress_),
      fetch_dataset(),
      progress_);
  describe_data(data.source, data.use, data.warnings);
  return data;
}

CalibrationMix Session::read_mix(
    const fs::path& folder,
    const Model& model,
    const MixOptions& options,
    const MixSize& size,
    const std::optional<std::string>& memory_limit) {
  TextReader reader(folder, memory_limit);
  auto mix = load_mix(model, reader, options, size, fetch_dataset(), progress_);
  describe_data(mix.source, mix.use, mix.notes);
  return mix;
}

void Session::describe_data(
    const std::string& source,
    const DataUse& use,
    const std::vector<std::string>& notes) {
  report_.data = source;
  report_.data_use = use;
  report_.notes.insert(report_.notes.end(), notes.begin(), notes.end());
}

void Session::describe_output(
    const std::string& folder,
    const WrittenModel& model) {
  report_.output = folder;
  report_.bytes_out = model.bytes;
  report_.mtp = model.mtp;
  report_.bits_per_weight = model.bits_per_weight;
}

void Session::describe_packing(const Model& model) {
  if (const auto* packed = model.checkpoint.packed()) {
    report_.packed_source = packed->json();
  }
  report_.published_packed = published_json(model);
  if (!report_.published_packed.is_null()) {
    note(describe_published(model));
  }
}

std::shared_ptr<ShardProvider> Session::shards_of(
    const std::string& name) const {
  require_one_process();
  return shard_provider(name, hub_folders(), progress_);
}

void Session::describe_input(const Model& model) {
  describe_packing(model);
  const auto size = model_size(model);
  report_.parameters = size.parameters;
  report_.bytes_in = size.bytes;
  note(model.spec.notes);
}

const RunReport& Session::finish() {
  report_.seconds = seconds();
  report_.peak_rss = peak_rss();
  report_.processes = group_.size();
  return report_;
}

}  // namespace pennyweight
