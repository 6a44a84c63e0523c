#include "model/config/unread_keys.h"

#include <algorithm>

#include "core/error.h"
#include "core/json.h"

namespace pennyweight {

namespace {

struct UnreadKey {
  const char* name;
  Json neutral;         // with this value, or null, the key has no effect
  const char* meaning;  // what transformers does by it
};

const std::vector<UnreadKey>& unread_keys() {
  static const std::vector<UnreadKey> keys = {
      {"attention_chunk_size", 0, "attends within chunks of that many tokens"},
      {"attention_multiplier", 1, "scales the attention scores by it"},
      {"attn_logit_softcapping", 0, "caps the attention scores at it"},
      {"clip_qkv", 0, "clips queries, keys and values at it"},
      {"embedding_multiplier", 1, "multiplies embeddings by it"},
      {"final_logit_softcapping", 0, "caps the logits at it"},
      {"logit_scale", 1, "multiplies the logits by it"},
      {"logits_scaling", 1, "divides the logits by it"},
      {"norm_topk_prob",
       false,
       "makes the scores of the chosen experts add up to 1"},
      {"partial_rotary_factor", 1, "rotates that part of each head"},
      {"residual_multiplier", 1, "multiplies what each layer adds by it"},
      {"rotary_pct", 1, "rotates that part of each head"},
      {"routed_scaling_factor", 1, "multiplies the experts' results by it"},
      {"scoring_func", "softmax", "scores the experts by it"},
      {"swiglu_limit", 7, "clips the experts' activations at it"},
      {"use_bidirectional_attention",
       false,
       "lets each token attend to those behind it, too"},
      {"use_gated_activation", true, "has MLPs without a gate"},
      {"use_parallel_block", true, "has attention and MLP one after another"}};
  return keys;
}

std::string not_used(const std::string& key, const Json& value) {
  return key + " " + one_line(value.dump(), 40) + " is not used, as in mlx-lm";
}

// A class has windows only where layer_types or a pattern of the layers' places
// says which layers have one. Elsewhere sliding_window is of no effect.
void note_window(const ModelClass& type, ClassConfig& config) {
  const Json& values = config.values;
  auto window = values.find("sliding_window");
  auto used = values.find("use_sliding_window");
  auto types = values.find("layer_types");
  const bool off = window == values.end() || !window->is_number() ||
      *window <= 0 || (used != values.end() && *used == false);
  const bool listed = types != values.end() && types->is_array() &&
      std::ranges::find(*types, Json("sliding_attention")) != types->end();
  const bool by_place = type.reads("sliding_window_pattern");
  const bool by_types =
      type.reads("layer_types") && types != values.end() && !types->is_null();
  if ((off && !listed) || by_place || by_types || type.name == "gpt_oss") {
    return;
  }
  const bool known = window != values.end() && !window->is_null();
  config.window_note = "sliding_window" +
      (known ? " " + one_line(window->dump(), 40) : "") +
      " is not used, as in mlx-lm: every token attends to all of its past";
}

void note_rope_scaling(const ModelClass& type, ClassConfig& config) {
  auto scaling = config.values.find("rope_scaling");
  if (type.reads("rope_scaling") || scaling == config.values.end() ||
      !scaling->is_object() || scaling->empty()) {
    return;
  }
  for (const char* key : {"type", "rope_type"}) {
    if (scaling->value(key, Json("default")) != "default") {
      config.notes.push_back(
          "rope_scaling is not used, as in mlx-lm, whose class for this "
          "family does not read it");
      return;
    }
  }
}

}  // namespace

void note_unread_keys(const ModelClass& type, ClassConfig& config) {
  for (const UnreadKey& key : unread_keys()) {
    auto it = config.values.find(key.name);
    if (type.reads(key.name) || it == config.values.end() || it->is_null() ||
        *it == key.neutral || (*it == false && key.neutral != true) ||
        *it == "vision") {  // is about images, which mlx-lm does not read
      continue;
    }
    config.notes.push_back(
        not_used(key.name, *it) + "; transformers " + key.meaning);
  }
  note_window(type, config);
  note_rope_scaling(type, config);
}

}  // namespace pennyweight
