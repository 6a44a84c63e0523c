#include "run/session.h"

#include "checkpoint/packed/packed_source.h"
#include "core/error.h"
#include "core/process.h"
#include "run/fetched.h"
#include "run/streamed.h"

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
  throw Error(ErrorCode::invalid_argument, command_, what);
}

void Session::require_one_process() const {
  if (group_.size() > 1) {
    throw Error(
        ErrorCode::not_supported,
        command_,
        "it runs as one process; leave out the launcher");
  }
}

double Session::seconds() const {
  return std::chrono::duration<double>(
             std::chrono::steady_clock::now() - start_)
      .count();
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

void Session::describe_packing(const Model& model) {
  if (const auto* packed = model.checkpoint.packed()) {
    report_.packed_source = packed->json();
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
