#include "model/families/expert_layouts.h"

#include "core/error.h"

namespace pennyweight {

namespace {

const std::string kExperts = "experts.";

// The prefix of the experts' names in the checkpoint, up to "experts.", made of
// the name that the family looks for; empty where that name has no such part.
std::string experts_under(const std::string& source) {
  for (const char* stack : {"input_linear.weight", "output_linear.weight"}) {
    if (source.ends_with(stack)) {
      const auto end = source.size() - std::string(stack).size();
      return source.substr(0, end) + kExperts;
    }
  }
  const auto at = source.rfind("." + kExperts);
  return at == source.npos ? "" : source.substr(0, at + 1 + kExperts.size());
}

// The source of a stack, if the checkpoint has neither the stack nor this
// source; otherwise null.
const TensorSource* missing_source(
    const FamilyInput& input,
    const LinearSpec& stack,
    const DecoderSpec& spec) {
  const auto name = stack.path + ".weight";
  const auto it = spec.sources.find(name);
  return it == spec.sources.end() || input.has_tensor(name) ||
          input.has_tensor(it->second.part(0))
      ? nullptr
      : &it->second;
}

struct Projection {
  const LinearSpec* stack;
  const char* name;
  const char* short_name;
};

std::vector<Projection> projections_of(const MlpSpec& experts) {
  std::vector<Projection> all{
      {&experts.up, "up_proj", "w3"}, {&experts.down, "down_proj", "w2"}};
  if (!experts.gate.path.empty()) {
    all.push_back({&experts.gate, "gate_proj", "w1"});
  }
  return all;
}

// A source for matrices that stand one by one, under either of their names.
std::optional<TensorSource> single_source(
    const FamilyInput& input,
    const std::string& under,
    const Projection& projection,
    int count) {
  for (const char* name : {projection.name, projection.short_name}) {
    TensorSource source{.name = under + "#." + name + ".weight"};
    source.count = count;
    if (input.has_tensor(source.part(0))) {
      return source;
    }
  }
  return std::nullopt;
}

// A source for the rows of a stack of all experts.
std::optional<TensorSource> stacked_source(
    const FamilyInput& input,
    const std::string& under,
    const Projection& projection,
    bool gated) {
  const LinearSpec& own = *projection.stack;
  const std::string name = projection.name;
  const bool joined = gated && name != "down_proj";
  TensorSource source{.name = under + (joined ? "gate_up_proj" : name)};
  const mx::Shape wanted{
      static_cast<int>(own.count),
      static_cast<int>(joined ? 2 * own.out : own.out),
      static_cast<int>(own.in)};
  if (input.shape_of(source.name) != wanted) {
    return std::nullopt;
  }
  if (joined) {
    const int half = static_cast<int>(own.out);
    source.first = name == "up_proj" ? half : 0;
    source.end = name == "up_proj" ? 0 : half;
  }
  return source;
}

// Takes other sources for the block's stacks; whether there was one to take.
bool take_other_layout(
    const FamilyInput& input,
    const MoeSpec& moe,
    DecoderSpec& spec) {
  bool taken = false;
  const bool gated = !moe.experts.gate.path.empty();
  for (const Projection& projection : projections_of(moe.experts)) {
    const auto* missing = missing_source(input, *projection.stack, spec);
    const auto under = missing ? experts_under(missing->name) : "";
    if (under.empty()) {
      continue;
    }
    auto other = single_source(input, under, projection, moe.count);
    other = other ? other : stacked_source(input, under, projection, gated);
    if (other) {
      const auto name = projection.stack->path + ".weight";
      spec.sources.insert_or_assign(name, *std::move(other));
      taken = true;
    }
  }
  return taken;
}

}  // namespace

void take_other_expert_layouts(const FamilyInput& input, DecoderSpec& spec) {
  int64_t blocks = 0;
  for (const BlockSpec& block : spec.blocks) {
    blocks += block.moe && take_other_layout(input, *block.moe, spec) ? 1 : 0;
  }
  if (blocks > 0) {
    spec.notes.push_back(
        "the experts of " + std::to_string(blocks) +
        " layers are not held as this family's are published, which mlx-lm "
        "does not load: an output has the stacks that it loads");
  }
}

}  // namespace pennyweight
