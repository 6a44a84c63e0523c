#include <algorithm>
#include <limits>
#include <optional>
#include <unordered_set>

#include "checkpoint/safetensors.h"
#include "core/error.h"
#include "core/json.h"

namespace pennyweight {

namespace {

constexpr size_t kMaxDimensions = 8;
constexpr size_t kMaxName = 1024;
constexpr uint64_t kMaxOffset = uint64_t{1} << 60;

struct DtypeName {
  const char* name;
  mx::Dtype dtype;
  ByteType byte_type = ByteType::plain;
};

const DtypeName kDtypes[] = {
    {"F32", mx::float32},
    {"F16", mx::float16},
    {"BF16", mx::bfloat16},
    {"U8", mx::uint8},
    {"I8", mx::int8},
    {"U16", mx::uint16},
    {"I16", mx::int16},
    {"U32", mx::uint32},
    {"I32", mx::int32},
    {"U64", mx::uint64},
    {"I64", mx::int64},
    {"BOOL", mx::bool_},
    {"F8_E4M3", mx::uint8, ByteType::e4m3},
    {"F8_E8M0", mx::uint8, ByteType::e8m0},
};

// Reads the header as a stream of events, since it is untrusted and may be
// 100 MB: only what the format allows is ever stored, nothing nests, and each
// name costs one look-up.
class HeaderReader {
 public:
  HeaderReader(
      uint64_t data_start,
      const std::string& file,
      std::map<std::string, std::string>* metadata)
      : data_start_(data_start), file_(file), metadata_(metadata) {}

  std::vector<SafetensorsEntry> take() {
    return std::move(entries_);
  }

  // What nlohmann::json::sax_parse calls; false would stop it.
  bool start_object(size_t) {
    switch (state_) {
      case State::start:
        state_ = State::names;
        return true;
      case State::tensor_value:
        state_ = name_ == "__metadata__" ? State::metadata : State::fields;
        fields_ = {};
        return true;
      default:
        misplaced();
    }
  }

  bool key(std::string& text) {
    switch (state_) {
      case State::names:
        begin_name(text);
        return true;
      case State::metadata:
        if (metadata_) {
          metadata_key_ = text;
        }
        state_ = State::metadata_value;
        return true;
      case State::fields:
        begin_field(text);
        return true;
      default:
        misplaced();
    }
  }

  bool end_object() {
    if (state_ == State::fields) {
      finish_entry();
      state_ = State::names;
    } else if (state_ == State::metadata) {
      state_ = State::names;
    } else {
      state_ = State::end;
    }
    return true;
  }

  bool string(std::string& text) {
    if (state_ == State::metadata_value) {
      if (metadata_) {
        (*metadata_)[metadata_key_] = text;
      }
      state_ = State::metadata;
    } else if (state_ == State::dtype) {
      fields_.dtype = read_dtype(text);
      state_ = State::fields;
    } else {
      misplaced();
    }
    return true;
  }

  bool start_array(size_t) {
    if (state_ == State::shape) {
      state_ = State::shape_items;
      fields_.shape.emplace();
    } else if (state_ == State::offsets) {
      state_ = State::offset_items;
      fields_.offsets.emplace();
    } else {
      misplaced();
    }
    return true;
  }

  bool number_unsigned(uint64_t number) {
    if (state_ == State::shape_items) {
      if (number > std::numeric_limits<int32_t>::max()) {
        broken("has a dimension out of range");
      }
      if (fields_.shape->size() == kMaxDimensions) {
        broken("has more than 8 dimensions");
      }
      fields_.shape->push_back(static_cast<int32_t>(number));
    } else if (state_ == State::offset_items) {
      if (fields_.offsets->size() == 2) {
        broken("has more than two data_offsets");
      }
      fields_.offsets->push_back(number);
    } else {
      misplaced();
    }
    return true;
  }

  bool end_array() {
    state_ = State::fields;
    return true;
  }

  bool null() {
    if (state_ != State::tensor_value || name_ != "__metadata__") {
      misplaced();
    }
    state_ = State::names;
    return true;
  }
  bool boolean(bool) {
    misplaced();
  }
  bool number_integer(int64_t) {
    misplaced();
  }
  bool number_float(double, const std::string&) {
    misplaced();
  }
  template <class Binary>
  bool binary(Binary&) {
    misplaced();
  }
  template <class Exception>
  bool parse_error(size_t, const std::string&, const Exception&) {
    throw Error(
        ErrorCode::corrupt,
        "safetensors",
        file_ +
            ": its header is not valid JSON (cut short or damaged); fetch "
            "it again");
  }

 private:
  enum class State {
    start,
    names,
    tensor_value,
    metadata,
    metadata_value,
    fields,
    dtype,
    shape,
    shape_items,
    offsets,
    offset_items,
    end,
  };

  struct Fields {
    std::optional<DtypeName> dtype;
    std::optional<mx::Shape> shape;
    std::optional<std::vector<uint64_t>> offsets;
  };

  // Names are quoted in errors, and they are untrusted.
  [[noreturn]] void broken(const std::string& what) const {
    throw Error(
        ErrorCode::corrupt,
        "safetensors",
        file_ + ": tensor \"" + one_line(name_, 120) + "\" " + what);
  }

  [[noreturn]] void misplaced() const {
    if (name_.empty()) {
      throw Error(
          ErrorCode::corrupt,
          "safetensors",
          file_ + ": the header is not an object");
    }
    broken(
        "is not described by a dtype, a shape and two data_offsets, all "
        "natural numbers");
  }

  void begin_name(const std::string& name) {
    if (name.empty() || name.size() > kMaxName) {
      throw Error(
          ErrorCode::corrupt,
          "safetensors",
          file_ + ": a tensor has no usable name");
    }
    name_ = name;
    if (!names_.insert(name).second) {
      broken("is described twice");
    }
    state_ = State::tensor_value;
  }

  void begin_field(const std::string& field) {
    bool repeated = false;
    if (field == "dtype") {
      state_ = State::dtype;
      repeated = fields_.dtype.has_value();
    } else if (field == "shape") {
      state_ = State::shape;
      repeated = fields_.shape.has_value();
    } else if (field == "data_offsets") {
      state_ = State::offsets;
      repeated = fields_.offsets.has_value();
    } else {
      broken("has the unknown field \"" + one_line(field, 40) + "\"");
    }
    if (repeated) {
      broken("has its " + field + " twice");
    }
  }

  DtypeName read_dtype(const std::string& text) const {
    for (const auto& known : kDtypes) {
      if (text == known.name) {
        return known;
      }
    }
    if (text == "F64" || text == "C64" || text.starts_with("F8") ||
        text.starts_with("F6") || text.starts_with("F4")) {
      throw Error(
          ErrorCode::not_supported,
          "safetensors",
          file_ + ": tensor \"" + one_line(name_, 120) + "\" is " +
              one_line(text, 20) +
              ", which MLX can't hold as weights; convert it to BF16 first");
    }
    broken("has the unknown dtype \"" + one_line(text, 20) + "\"");
  }

  void finish_entry() {
    if (!fields_.dtype || !fields_.shape || !fields_.offsets) {
      broken("lacks dtype, shape or data_offsets");
    }
    if (fields_.offsets->size() != 2) {
      broken("has no pair of data_offsets");
    }
    uint64_t begin = (*fields_.offsets)[0];
    uint64_t end = (*fields_.offsets)[1];
    if (begin > end || end > kMaxOffset) {
      broken("has data_offsets that no file holds");
    }
    uint64_t items = 1;
    for (int extent : *fields_.shape) {
      auto size = static_cast<uint64_t>(extent);
      if (size != 0 && items > (uint64_t{1} << 48) / size) {
        broken("is too large");
      }
      items *= size;
    }
    if (end - begin != items * mx::size_of(fields_.dtype->dtype)) {
      broken("has an extent that is not its shape's");
    }
    entries_.push_back(
        {name_,
         fields_.dtype->dtype,
         std::move(*fields_.shape),
         data_start_ + begin,
         data_start_ + end,
         fields_.dtype->byte_type});
  }

  uint64_t data_start_;
  const std::string& file_;
  std::map<std::string, std::string>* metadata_;
  std::string metadata_key_;
  State state_ = State::start;
  std::string name_;
  Fields fields_;
  std::unordered_set<std::string> names_;
  std::vector<SafetensorsEntry> entries_;
};

}  // namespace

std::vector<SafetensorsEntry> parse_safetensors_header(
    std::string_view header,
    uint64_t file_size,
    const std::string& file,
    std::map<std::string, std::string>* metadata) {
  uint64_t data_start = 8 + header.size();
  HeaderReader reader(data_start, file, metadata);
  nlohmann::json::sax_parse(header.begin(), header.end(), &reader);
  auto entries = reader.take();
  std::ranges::sort(entries, {}, [](const SafetensorsEntry& entry) {
    return std::pair(entry.begin, entry.end);
  });
  uint64_t expected = data_start;
  for (const auto& entry : entries) {
    if (entry.begin != expected) {
      throw Error(
          ErrorCode::corrupt,
          "safetensors",
          file + ": tensor \"" + one_line(entry.name, 120) +
              "\" overlaps another, or follows a hole");
    }
    expected = entry.end;
  }
  if (expected > file_size) {
    throw Error(
        ErrorCode::corrupt,
        "safetensors",
        file + " is cut short: " + std::to_string(file_size) + " of " +
            std::to_string(expected) + " bytes; fetch it again");
  }
  if (expected != file_size) {
    throw Error(
        ErrorCode::corrupt,
        "safetensors",
        file + ": holds bytes that belong to no tensor; fetch it again");
  }
  return entries;
}

std::string safetensors_dtype_name(mx::Dtype dtype, ByteType byte_type) {
  for (const auto& known : kDtypes) {
    if (known.dtype == dtype && known.byte_type == byte_type) {
      return known.name;
    }
  }
  throw Error(
      ErrorCode::not_supported,
      "safetensors",
      "a dtype that safetensors can't hold");
}

}  // namespace pennyweight
