#include "core/json.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>
#include <utility>

#include "core/error.h"
#include "core/files/atomic_file.h"
#include "core/files/wrong_file.h"
#include "core/json_literals.h"

namespace pennyweight {

namespace {

constexpr size_t kMaxDepth = 64;
constexpr size_t kMaxOrderedKeys = 20000;
constexpr const char* kFloatTag = "__float__";

// Builds a Json from the parser's events, and refuses deep nesting and too many
// keys while it runs, so that hostile text can't exhaust stack or time; puts
// numbers where stand-ins are. The library's own builder with a callback looks
// through all of a list at the end of each object in it.
template <class AnyJson>
class Builder : public nlohmann::json_sax<AnyJson> {
 public:
  using Base = nlohmann::json_sax<AnyJson>;
  using Text = typename Base::string_t;

  Builder(size_t max_keys, bool stand_ins)
      : max_keys_(max_keys), stand_ins_(stand_ins) {}

  bool null() override {
    return put(nullptr);
  }
  bool boolean(bool value) override {
    return put(value);
  }
  bool number_integer(typename Base::number_integer_t value) override {
    return put(value);
  }
  bool number_unsigned(typename Base::number_unsigned_t value) override {
    return put(value);
  }
  bool number_float(typename Base::number_float_t value, const Text& /*text*/)
      override {
    return put(value);
  }
  bool string(Text& value) override {
    const JsonLiteral* literal = literal_of(value);
    return literal ? put(literal->number) : put(std::move(value));
  }
  bool binary(typename Base::binary_t& /*value*/) override {
    return false;  // text has none
  }
  bool start_object(size_t /*elements*/) override {
    return open(AnyJson::object());
  }
  bool key(Text& name) override {
    require_shallow();
    if (open_.back().keys++ == max_keys_) {
      throw std::runtime_error("has an object of too many keys");
    }
    if (literal_of(name)) {
      throw std::runtime_error("is not valid JSON: a key is not a string");
    }
    member_ = &(*open_.back().json)[name];
    return true;
  }
  bool end_object() override {
    open_.pop_back();
    return true;
  }
  bool start_array(size_t /*elements*/) override {
    return open(AnyJson::array());
  }
  bool end_array() override {
    open_.pop_back();
    return true;
  }
  bool parse_error(
      size_t position,
      const std::string& /*token*/,
      const nlohmann::detail::exception& error) override {
    // Ids of 101 and so on are of the parser; others are of no place.
    constexpr int kParser = 1;
    byte_ = error.id / 100 == kParser ? std::optional(position) : std::nullopt;
    return false;
  }

  std::optional<size_t> byte() const {
    return byte_;
  }
  AnyJson take() {
    return std::move(root_);
  }

 private:
  struct Open {
    AnyJson* json;
    size_t keys = 0;
  };

  void require_shallow() const {
    if (open_.size() > kMaxDepth) {
      throw std::runtime_error("nests deeper than 64 levels");
    }
  }

  const JsonLiteral* literal_of(const std::string& text) const {
    return stand_ins_ ? literal_in(text) : nullptr;
  }

  template <class Value>
  bool put(Value&& value) {
    require_shallow();
    place(AnyJson(std::forward<Value>(value)));
    return true;
  }

  bool open(AnyJson value) {
    require_shallow();
    open_.push_back({place(std::move(value))});
    return true;
  }

  AnyJson* place(AnyJson value) {
    if (open_.empty()) {
      root_ = std::move(value);
      return &root_;
    }
    AnyJson& parent = *open_.back().json;
    if (parent.is_array()) {
      parent.push_back(std::move(value));
      return &parent.back();
    }
    *member_ = std::move(value);
    return member_;
  }

  size_t max_keys_;
  bool stand_ins_;
  AnyJson root_;
  std::vector<Open> open_;     // what is not closed yet, outermost first
  AnyJson* member_ = nullptr;  // of the last key
  std::optional<size_t> byte_;
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
  Builder<AnyJson> builder(max_keys, changed.has_value());
  const auto corrupt = [&](const std::string& what) {
    return corrupt_error("json", name + " " + what);
  };
  std::string place;
  try {
    if (AnyJson::sax_parse(read.begin(), read.end(), &builder)) {
      return builder.take();
    }
    place = builder.byte() ? place_of(read, *builder.byte()) : "";
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
    throw corrupt_error("json", origin_ + " is not a JSON object");
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
  throw corrupt_error(
      "json", origin_ + ": \"" + key + "\" must be " + expected);
}

const Json& JsonView::require(const std::string& key) const {
  const Json* value = find(key);
  if (!value) {
    throw corrupt_error("json", origin_ + ": \"" + key + "\" is missing");
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
