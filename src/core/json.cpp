#include "core/json.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/atomic_file.h"
#include "core/error.h"
#include "core/json_literals.h"
#include "core/wrong_file.h"

namespace pennyweight {

namespace {

constexpr int kMaxDepth = 64;
constexpr size_t kMaxOrderedKeys = 20000;
constexpr const char* kFloatTag = "__float__";

// Refuses deep nesting and too many keys while the parser runs, so that hostile
// text can't exhaust stack or time, and puts numbers where stand-ins are.
class Guard {
 public:
  Guard(size_t max_keys, bool stand_ins)
      : max_keys_(max_keys), stand_ins_(stand_ins) {}

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
        keys_.push_back(0);
        break;
      case Event::object_end:
        keys_.pop_back();
        break;
      case Event::key:
        if (keys_.back()++ == max_keys_) {
          throw std::runtime_error("has an object of too many keys");
        }
        if (literal_of(parsed)) {
          throw std::runtime_error("is not valid JSON: a key is not a string");
        }
        break;
      case Event::value:
        if (const JsonLiteral* literal = literal_of(parsed)) {
          parsed = literal->number;
        }
        break;
      default:
        break;
    }
    return true;
  }

 private:
  template <class AnyJson>
  const JsonLiteral* literal_of(const AnyJson& parsed) const {
    if (!stand_ins_ || !parsed.is_string()) {
      return nullptr;
    }
    return literal_in(parsed.template get_ref<const std::string&>());
  }

  size_t max_keys_;
  bool stand_ins_;
  std::vector<size_t> keys_;
};

// Where the parser stopped, for a text of several lines.
std::string place_of(std::string_view text, size_t byte) {
  const auto line =
      1 + std::ranges::count(text.substr(0, byte > 0 ? byte - 1 : 0), '\n');
  return line > 1 ? " in line " + std::to_string(line) : "";
}

template <class AnyJson>
AnyJson
parse_guarded(std::string_view text, const std::string& name, size_t max_keys) {
  const auto changed = with_stand_ins(text);
  const std::string_view read = changed ? std::string_view(*changed) : text;
  Guard guard(max_keys, changed.has_value());
  const auto corrupt = [&](const std::string& what) {
    return Error(ErrorCode::corrupt, "json", name + " " + what);
  };
  std::string place;
  try {
    return AnyJson::parse(
        read.begin(),
        read.end(),
        [&guard](
            int depth, typename AnyJson::parse_event_t event, AnyJson& parsed) {
          return guard(depth, event, parsed);
        });
  } catch (const nlohmann::json::parse_error& error) {
    place = place_of(read, error.byte);
  } catch (const nlohmann::json::exception&) {
    // Of no place.
  } catch (const std::runtime_error& error) {
    throw corrupt(error.what());
  }
  if (const auto wrong = wrong_file(text)) {
    throw corrupt(*wrong);
  }
  throw corrupt(
      "is not valid JSON" + place + " (cut short or damaged); fetch it again");
}

// As mlx-lm's _decode_tagged_floats.
const JsonLiteral* tag_of(const Json& json) {
  if (!json.is_object() || json.size() != 1 || !json.contains(kFloatTag) ||
      !json[kFloatTag].is_string()) {
    return nullptr;
  }
  return literal_named(json[kFloatTag].get_ref<const std::string&>());
}

}  // namespace

Json parse_json(std::string_view text, const std::string& name) {
  return parse_guarded<Json>(text, name, kMaxOrderedKeys);
}

SortedJson parse_sorted_json(std::string_view text, const std::string& name) {
  return parse_guarded<SortedJson>(text, name, SIZE_MAX);
}

bool is_python_json(std::string_view text) {
  // Python reads what was opened as UTF-8 text, and refuses the mark there.
  const auto changed = with_stand_ins(text);
  return !text.starts_with("\xEF\xBB\xBF") &&
      (changed ? nlohmann::json::accept(*changed)
               : nlohmann::json::accept(text));
}

Json tag_floats(Json json) {
  if (json.is_number_float() && !std::isfinite(json.get<double>())) {
    return {{kFloatTag, std::string(literal_of(json.get<double>()).text)}};
  }
  if (json.is_structured()) {
    for (Json& item : json) {
      item = tag_floats(std::move(item));
    }
  }
  return json;
}

Json untag_floats(Json json) {
  if (const JsonLiteral* literal = tag_of(json)) {
    return literal->number;
  }
  if (json.is_structured()) {
    for (Json& item : json) {
      item = untag_floats(std::move(item));
    }
  }
  return json;
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
  // Python takes 0 and 1 for them, too.
  const bool number = value && (*value == 0 || *value == 1);
  if (value && !value->is_boolean() && !number) {
    wrong(key, "true or false");
  }
  return !value ? fallback : number ? *value == 1 : value->get<bool>();
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
