#include "run/fetched.h"

#include <cstdlib>

#include "core/error.h"
#include "core/hub_name.h"
#include "core/json.h"

namespace pennyweight {

namespace fs = std::filesystem;

namespace {

constexpr const char* kWhere = "hub";
constexpr const char* kFetched = "PENNYWEIGHT_FETCHED";

bool exists(const std::string& path) {
  std::error_code ignored;
  return fs::exists(path, ignored);
}

std::string how_to_fetch(const std::string& kind, const HubName& name) {
  std::string command = "hf download " + name.id;
  if (kind == "dataset") {
    command += " --repo-type dataset";
  }
  if (name.revision != "main") {
    command += " --revision " + name.revision;
  }
  return command + " --local-dir FOLDER";
}

fs::path resolve(
    const std::string& kind,
    const std::string& text,
    const Json& fetched,
    const ProgressFn& progress) {
  std::error_code ignored;
  if (fs::is_directory(text, ignored)) {
    return text;
  }
  const auto name = parse_hub_name(text);
  if (!name || exists(text)) {
    throw not_found_error(
        kWhere,
        one_line(text, 200) +
            " is neither a folder nor a hub id such as org/name[@revision]");
  }
  const auto path = Json::json_pointer() / kind / text;
  if (!fetched.contains(path)) {
    throw not_found_error(
        kWhere,
        text + " is no folder here; get one by `" + how_to_fetch(kind, *name) +
            "`, or take the pennyweight that `pip install` gives, which "
            "fetches by id");
  }
  const JsonView found(fetched.at(path), kFetched);
  if (found.has("code")) {
    throw Error(
        code_named(found.string("code")),
        kWhere,
        text + ": " + one_line(found.string("message"), 600));
  }
  if (found.has("warning")) {
    warn(progress, kWhere, text + ": " + found.string("warning"));
  }
  return found.string("folder");
}

}  // namespace

ErrorCode code_named(const std::string& name) {
  for (auto code :
       {ErrorCode::invalid_argument,
        ErrorCode::not_found,
        ErrorCode::corrupt,
        ErrorCode::cancelled}) {
    if (error_code_name(code) == name) {
      return code;
    }
  }
  return ErrorCode::io;
}

Json fetched_for_process() {
  const char* variable = std::getenv(kFetched);
  return variable ? parse_json(variable, kFetched) : Json::object();
}

fs::path resolve_model(
    const std::string& model,
    const Json& fetched,
    const ProgressFn& progress) {
  return resolve("model", model, fetched, progress);
}

fs::path resolve_dataset(
    const std::string& id,
    const Json& fetched,
    const ProgressFn& progress) {
  return resolve("dataset", id, fetched, progress);
}

}  // namespace pennyweight
