#include "model/spec/rope_spec.h"

#include <mlx/ops.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <numbers>
#include <set>

#include "core/error.h"
#include "core/json.h"
#include "model/config/class_keys.h"

namespace pennyweight {

namespace {

using Scaling = RopeSpec::Scaling;

[[noreturn]] void wrong(const JsonView& view, const std::string& what) {
  throw corrupt_error("model", view.origin() + ": " + what);
}

double positive(const JsonView& view, const std::string& key, double value) {
  if (!(value > 0) || value > 1e12) {
    wrong(view, "\"" + key + "\" must be a positive number");
  }
  return value;
}

double positive_or(
    const JsonView& view,
    const std::string& key,
    std::optional<double> fallback) {
  double value = fallback ? view.number_or(key, *fallback) : view.number(key);
  return positive(view, key, value);
}

// Refuses a key that mlx-lm's rope code asks for and that is not known here. A
// key that it does not ask for changes nothing there, and passes.
void check_rope_keys(const JsonView& view) {
  static const std::set<std::string> known = {
      "type",
      "rope_type",
      "rope_theta",
      "factor",
      "low_freq_factor",
      "high_freq_factor",
      "original_max_position_embeddings",
      "beta_fast",
      "beta_slow",
      "mscale",
      "mscale_all_dim",
      "short_factor",
      "long_factor",
      "mrope_section",
      "partial_rotary_factor",
      "llama_4_scaling_beta",
      // Some classes of mlx-lm read these themselves, and so do their families
      // here.
      "alpha",
      "long_mscale",
      "short_mscale"};
  for (const auto& [key, value] : view.json().items()) {
    if (is_rope_key(key) && !known.contains(key) && !value.is_null()) {
      throw not_supported_error(
          "model",
          view.origin() + ": the key \"" + key +
              "\" changes the rotary embedding in mlx-lm and is not known "
              "here");
    }
  }
}

std::string type_name(const JsonView& view) {
  // mlx-lm looks at "type" first, transformers at "rope_type".
  const std::string type = view.string_or("type", "");
  return type.empty() ? view.string_or("rope_type", "default") : type;
}

Scaling scaling_type(const JsonView& view) {
  const std::string type = type_name(view);
  static const std::map<std::string, Scaling> types = {
      {"default", Scaling::none},
      {"mrope", Scaling::none},  // its sections are equal for text
      {"linear", Scaling::linear},
      {"dynamic", Scaling::dynamic},
      {"llama3", Scaling::llama3},
      {"yarn", Scaling::yarn},
      {"deepseek_yarn", Scaling::yarn},
      {"telechat3-yarn", Scaling::yarn},
      {"longrope", Scaling::longrope},
      {"proportional", Scaling::proportional}};
  auto it = types.find(type);
  if (it == types.end()) {
    throw not_supported_error(
        "model",
        view.origin() + ": unknown rope type \"" + one_line(type, 60) + "\"");
  }
  if (type == "mrope" && view.numbers("mrope_section").size() != 3) {
    wrong(view, "\"mrope_section\" must have 3 sections");
  }
  return it->second;
}

void read_yarn(
    const JsonView& view,
    RopeSpec& rope,
    std::vector<std::string>& notes) {
  rope.original_positions =
      positive_or(view, "original_max_position_embeddings", 4096);
  rope.beta_fast = positive_or(view, "beta_fast", 32);
  rope.beta_slow = positive_or(view, "beta_slow", 1);
  rope.mscale = view.number_or("mscale", 1);
  rope.mscale_all_dim = view.number_or("mscale_all_dim", 0);
  if (!view.has("original_max_position_embeddings")) {
    notes.push_back(
        "yarn without original_max_position_embeddings: 4096 is taken, as "
        "mlx-lm does");
  }
  if (view.has("attention_factor") || !view.boolean_or("truncate", true)) {
    notes.push_back(
        "yarn's attention_factor and truncate are not read, as in mlx-lm");
  }
}

void read_longrope(
    const JsonView& view,
    RopeSpec& rope,
    std::vector<std::string>& notes) {
  rope.original_positions =
      positive_or(view, "original_max_position_embeddings", {});
  if (rope.original_positions <= 1) {
    wrong(view, "\"original_max_position_embeddings\" must be above 1");
  }
  if (!view.has("short_factor")) {
    wrong(view, "\"short_factor\" is missing");
  }
  const Json* factors = view.find("long_factor");
  if (factors && factors->is_number()) {
    rope.long_factor = {view.number("long_factor")};
  } else {
    rope.long_factor = view.numbers("long_factor");
    if (rope.long_factor.size() != static_cast<size_t>(rope.dims / 2)) {
      wrong(
          view,
          "\"long_factor\" must have " + std::to_string(rope.dims / 2) +
              " entries");
    }
  }
  for (double factor : rope.long_factor) {
    positive(view, "long_factor", factor);
  }
  rope.traditional = false;
  notes.push_back(
      "longrope: the long factors are used at every length, as mlx-lm does");
}

void read_scaled(
    const JsonView& view,
    RopeSpec& rope,
    std::vector<std::string>& notes) {
  bool optional_factor = rope.scaling == Scaling::proportional;
  if (rope.scaling != Scaling::longrope) {
    rope.factor = positive_or(
        view, "factor", optional_factor ? std::optional(1.0) : std::nullopt);
  }
  switch (rope.scaling) {
    case Scaling::llama3:
      rope.low_frequency_factor = positive_or(view, "low_freq_factor", 1);
      rope.high_frequency_factor = positive_or(view, "high_freq_factor", 4);
      rope.original_positions =
          positive_or(view, "original_max_position_embeddings", 8192);
      if (rope.high_frequency_factor == rope.low_frequency_factor) {
        wrong(view, "\"low_freq_factor\" and \"high_freq_factor\" are equal");
      }
      break;
    case Scaling::yarn:
      read_yarn(view, rope, notes);
      break;
    case Scaling::longrope:
      read_longrope(view, rope, notes);
      break;
    case Scaling::dynamic:
      if (rope.dims <= 2) {
        wrong(view, "dynamic scaling needs heads of more than 2 dims");
      }
      break;
    default:
      break;
  }
}

// The wavelengths over 2 pi: base ** (2 i / dims), i = 0 .. dims / 2 - 1.
mx::array wavelengths(const RopeSpec& rope) {
  auto exponents =
      mx::arange(0.0, static_cast<double>(rope.dims), 2.0, mx::float32) /
      mx::array(static_cast<float>(rope.dims));
  return mx::power(mx::array(static_cast<float>(rope.base)), exponents);
}

mx::array scalar(double value) {
  return mx::array(static_cast<float>(value));
}

// The frequencies exp(-i log(base) / (dims / 2)), as mx::fast::rope computes
// them.
mx::array plain_frequencies(double base, int dims) {
  int half = dims / 2;
  float step = std::log(static_cast<float>(base)) / half;
  auto index = mx::arange(0.0, -static_cast<double>(half), -1.0, mx::float32);
  return mx::exp(index * mx::array(step));
}

mx::array llama3_wavelengths(const RopeSpec& rope) {
  double low = rope.low_frequency_factor;
  double high = rope.high_frequency_factor;
  auto waves = wavelengths(rope);
  auto lengths = scalar(2 * std::numbers::pi) * waves;
  auto low_length = scalar(rope.original_positions / low);
  auto high_length = scalar(rope.original_positions / high);
  auto stretched =
      mx::where(lengths > low_length, waves * scalar(rope.factor), waves);
  auto medium = lengths > high_length && lengths < low_length;
  auto smooth = (scalar(rope.original_positions) / lengths - scalar(low)) /
      scalar(high - low);
  auto blend = (scalar(1) - smooth) / scalar(rope.factor) + smooth;
  return mx::where(medium, stretched / blend, stretched);
}

mx::array yarn_wavelengths(const RopeSpec& rope) {
  auto correction = [&](double rotations) {
    return rope.dims *
        std::log(rope.original_positions / (rotations * 2 * std::numbers::pi)) /
        (2 * std::log(rope.base));
  };
  double low = std::max(std::floor(correction(rope.beta_fast)), 0.0);
  double high =
      std::min(std::ceil(correction(rope.beta_slow)), rope.dims - 1.0);
  double span = high == low ? 0.001 : high - low;
  auto extra = wavelengths(rope);
  auto inter = scalar(rope.factor) * extra;
  auto index =
      mx::arange(0.0, static_cast<double>(rope.dims / 2), 1.0, mx::float32);
  auto ramp =
      mx::clip((index - scalar(low)) / scalar(span), scalar(0), scalar(1));
  auto mask = scalar(1) - ramp;
  return inter * extra / (inter * mask + extra * (scalar(1) - mask));
}

mx::array proportional_wavelengths(const RopeSpec& rope) {
  auto exponents =
      mx::arange(
          0.0, static_cast<double>(rope.rotated_dims), 2.0, mx::float32) /
      scalar(rope.dims);
  auto rotated = scalar(rope.factor) * mx::power(scalar(rope.base), exponents);
  int rest = rope.dims / 2 - static_cast<int>(rotated.size());
  return mx::concatenate({rotated, mx::full({rest}, INFINITY, mx::float32)}, 0);
}

double yarn_scale(double factor, double mscale) {
  return factor <= 1 ? 1 : 0.1 * mscale * std::log(factor) + 1;
}

mx::array frequencies(const RopeSpec& rope, int positions) {
  switch (rope.scaling) {
    case Scaling::none:
      return plain_frequencies(rope.base, rope.dims);
    case Scaling::linear:
      return plain_frequencies(rope.base, rope.dims) * scalar(1 / rope.factor);
    case Scaling::dynamic: {
      double length = std::max(positions, rope.max_positions);
      double stretch =
          rope.factor * length / rope.max_positions - (rope.factor - 1);
      double exponent = rope.dims / (rope.dims - 2.0);
      return plain_frequencies(
          rope.base * std::pow(stretch, exponent), rope.dims);
    }
    case Scaling::llama3:
      return mx::reciprocal(llama3_wavelengths(rope));
    case Scaling::yarn:
      return mx::reciprocal(yarn_wavelengths(rope));
    case Scaling::longrope: {
      std::vector<float> factors(
          rope.long_factor.begin(), rope.long_factor.end());
      mx::Shape shape{static_cast<int>(factors.size())};
      return mx::reciprocal(
          mx::array(factors.begin(), shape) * wavelengths(rope));
    }
    case Scaling::proportional:
      return mx::reciprocal(proportional_wavelengths(rope));
  }
  throw not_supported_error("model", "unknown rope scaling");
}

double input_scale(const RopeSpec& rope) {
  if (rope.scaling == Scaling::yarn) {
    return yarn_scale(rope.factor, rope.mscale) /
        yarn_scale(rope.factor, rope.mscale_all_dim);
  }
  if (rope.scaling == Scaling::longrope) {
    if (rope.long_mscale != 0) {
      return rope.long_mscale;
    }
    double factor = rope.max_positions / rope.original_positions;
    return factor <= 1
        ? 1
        : std::sqrt(1 + std::log(factor) / std::log(rope.original_positions));
  }
  return 1;
}

}  // namespace

void read_rope_scaling(
    const JsonView& scaling,
    std::optional<int> max_positions,
    RopeSpec& rope,
    std::vector<std::string>& notes) {
  check_rope_keys(scaling);
  rope.scaling = scaling_type(scaling);
  bool needs_length =
      rope.scaling == Scaling::dynamic || rope.scaling == Scaling::longrope;
  if (needs_length && !max_positions) {
    wrong(scaling, "its type needs \"max_position_embeddings\" in the config");
  }
  rope.max_positions = max_positions.value_or(0);
  if (rope.scaling == Scaling::proportional) {
    const double partial = scaling.number_or("partial_rotary_factor", 1);
    if (!(partial > 0) || partial > 1) {
      wrong(scaling, "\"partial_rotary_factor\" must be in (0, 1]");
    }
    rope.rotated_dims = static_cast<int>(rope.dims * partial);
  }
  if (rope.scaling != Scaling::none) {
    read_scaled(scaling, rope, notes);
  }
}

bool is_scaled(const JsonView& scaling) {
  return type_name(scaling) != "default";
}

ops::RopeTable make_rope_table(const RopeSpec& rope, int positions) {
  return {
      .frequencies = frequencies(rope, positions),
      .dims = rope.dims,
      .traditional = rope.traditional,
      .input_scale = static_cast<float>(input_scale(rope))};
}

}  // namespace pennyweight
