#include "core/json.h"

#include <cmath>
#include <limits>
#include <set>

#include "core/atomic_file.h"
#include "core/error.h"

namespace pennyweight {

namespace {

constexpr int kMaxDepth = 64;
constexpr size_t kMaxOrderedKeys = 20000;

// Refuses deep nesting and repeated keys while the parser runs, so hostile
// text can neither exhaust the stack nor hide a second value.
class Guard {
 public:
  explicit Guard(size_t max_keys) : max_keys_(max_keys) {}

  template <class AnyJson>
  bool operator()(
      int depth,
      typename AnyJson::parse_event_t event,
      AnyJson& parsed) {
    using Event = typename AnyJson::parse_event_t;
    if (depth > kMaxDepth) {
      throw std::runtime_error("nests deeper than 64 levels");
    }
    switch (event) {
      case Event::object_start:
        keys_.emplace_back();
        break;
      case Event::object_end:
        keys_.pop_back();
        break;
      case Event::key: {
        auto key = parsed.template get<std::string>();
        if (keys_.back().size() == max_keys_) {
          throw std::runtime_error("has an object of too many keys");
        }
        if (!keys_.back().insert(key).second) {
          throw std::runtime_error("repeats the key \"" + one_line(key) + "\"");
        }
        break;
      }
      default:
        break;
    }
    return true;
  }

 private:
  size_t max_keys_;
  std::vector<std::set<std::string>> keys_;
};

template <class AnyJson>
AnyJson
parse_guarded(std::string_view text, const std::string& name, size_t max_keys) {
  Guard guard(max_keys);
  try {
    return AnyJson::parse(
        text.begin(),
        text.end(),
        [&guard](
            int depth, typename AnyJson::parse_event_t event, AnyJson& parsed) {
          return guard(depth, event, parsed);
        });
  } catch (const nlohmann::json::exception&) {
    throw Error(
        ErrorCode::corrupt,
        "json",
        name + " is not valid JSON (cut short or damaged); fetch it again");
  } catch (const std::runtime_error& error) {
    throw Error(ErrorCode::corrupt, "json", name + " " + error.what());
  }
}

}  // namespace

Json parse_json(std::string_view text, const std::string& name) {
  return parse_guarded<Json>(text, name, kMaxOrderedKeys);
}

SortedJson parse_sorted_json(std::string_view text, const std::string& name) {
  return parse_guarded<SortedJson>(text, name, SIZE_MAX);
}

Json read_json(const std::filesystem::path& path, size_t limit) {
  return parse_json(read_file(path, limit), path.string());
}

JsonView::JsonView(const Json& object, std::string origin)
    : object_(&object), origin_(std::move(origin)) {
  if (!object.is_object()) {
    throw Error(ErrorCode::corrupt, "json", origin_ + " is not a JSON object");
  }
}

JsonView JsonView::recorded(std::set<std::string>& reads) const {
  JsonView view = *this;
  view.reads_ = &reads;
  return view;
}

JsonView JsonView::like(const Json& object) const {
  JsonView view(object, origin_);
  view.reads_ = reads_;
  return view;
}

const Json* JsonView::find(const std::string& key) const {
  if (reads_) {
    reads_->insert(key);
  }
  auto it = object_->find(key);
  return it == object_->end() || it->is_null() ? nullptr : &*it;
}

bool JsonView::has(const std::string& key) const {
  return find(key) != nullptr;
}

void JsonView::wrong(const std::string& key, const char* expected) const {
  throw Error(
      ErrorCode::corrupt,
      "json",
      origin_ + ": \"" + key + "\" must be " + expected);
}

const Json& JsonView::require(const std::string& key) const {
  const Json* value = find(key);
  if (!value) {
    throw Error(
        ErrorCode::corrupt, "json", origin_ + ": \"" + key + "\" is missing");
  }
  return *value;
}

int64_t JsonView::integer(const std::string& key, int64_t low, int64_t high)
    const {
  const Json& value = require(key);
  std::string expected =
      "an integer from " + std::to_string(low) + " to " + std::to_string(high);
  if (value.is_number_unsigned() &&
      value.get<uint64_t>() >
          static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
    wrong(key, expected.c_str());
  }
  double real = value.is_number() ? value.get<double>() : NAN;
  // Some exporters write 4096.0; take it where it is exact.
  bool integral = value.is_number_integer() ||
      (value.is_number_float() && std::floor(real) == real &&
       std::fabs(real) < 9e15);
  if (!integral) {
    wrong(key, expected.c_str());
  }
  int64_t number = value.is_number_integer() ? value.get<int64_t>()
                                             : static_cast<int64_t>(real);
  if (number < low || number > high) {
    wrong(key, expected.c_str());
  }
  return number;
}

int64_t JsonView::integer_or(
    const std::string& key,
    int64_t fallback,
    int64_t low,
    int64_t high) const {
  return has(key) ? integer(key, low, high) : fallback;
}

double JsonView::number(const std::string& key) const {
  const Json& value = require(key);
  if (!value.is_number() || !std::isfinite(value.get<double>())) {
    wrong(key, "a finite number");
  }
  return value.get<double>();
}

double JsonView::number_or(const std::string& key, double fallback) const {
  return has(key) ? number(key) : fallback;
}

bool JsonView::boolean_or(const std::string& key, bool fallback) const {
  const Json* value = find(key);
  if (value && !value->is_boolean()) {
    wrong(key, "true or false");
  }
  return value ? value->get<bool>() : fallback;
}

std::string JsonView::string(const std::string& key) const {
  const Json& value = require(key);
  if (!value.is_string()) {
    wrong(key, "a string");
  }
  return value.get<std::string>();
}

std::string JsonView::string_or(
    const std::string& key,
    const std::string& fallback) const {
  return has(key) ? string(key) : fallback;
}

std::vector<double> JsonView::numbers(const std::string& key) const {
  const Json& value = require(key);
  if (!value.is_array()) {
    wrong(key, "a list of numbers");
  }
  std::vector<double> result;
  for (const Json& item : value) {
    if (!item.is_number()) {
      wrong(key, "a list of numbers");
    }
    result.push_back(item.get<double>());
  }
  return result;
}

std::optional<JsonView> JsonView::object(const std::string& key) const {
  const Json* value = find(key);
  if (!value) {
    return std::nullopt;
  }
  if (!value->is_object()) {
    wrong(key, "an object");
  }
  return JsonView(*value, origin_ + ": " + key);
}

}  // namespace pennyweight
