#include "model/config_keys.h"

#include <algorithm>
#include <map>
#include <set>
#include <string_view>

#include "core/error.h"

namespace pennyweight {

namespace {

// Nothing here changes what the model computes from given tokens: training,
// generation, labels, bookkeeping; and the quantization, which is read apart.
const std::set<std::string_view> kHarmless = {
    "architectures",
    "attention_dropout",
    "attn_implementation",
    "auto_map",
    "bad_words_ids",
    "begin_suppress_tokens",
    "chunk_size_feed_forward",
    "diversity_penalty",
    "do_sample",
    "dtype",
    "early_stopping",
    "finetuning_task",
    "gradient_checkpointing",
    "id2label",
    "is_decoder",
    "is_llama_config",
    "keys_to_ignore_at_inference",
    "label2id",
    "length_penalty",
    "max_length",
    "max_new_tokens",
    "max_position_embeddings",
    "max_window_layers",
    "min_length",
    "model_max_length",
    "model_type",
    "no_repeat_ngram_size",
    "num_beam_groups",
    "num_beams",
    "num_labels",
    "num_return_sequences",
    "output_attentions",
    "output_hidden_states",
    "output_scores",
    "prefix",
    "pretraining_tp",
    "problem_type",
    "quantization",
    "quantization_config",
    "repetition_penalty",
    "return_dict",
    "return_dict_in_generate",
    "suppress_tokens",
    "task_specific_params",
    "temperature",
    "tokenizer_class",
    "tokenizer_model_max_length",
    "tokenizer_padding_side",
    "top_k",
    "top_p",
    "torch_dtype",
    "transformers_version",
    "typical_p",
    "use_cache"};

const std::string_view kHarmlessPrefixes[] =
    {"_", "initializer", "transformers", "unsloth", "encoder_no_repeat"};
const std::string_view kHarmlessSuffixes[] =
    {"_token_id", "_token_ids", "_dropout", "_dropout_prob", "_pdrop"};

// Structure that another family has, with the value at which it is off.
const std::map<std::string_view, Json>& neutral_values() {
  static const std::map<std::string_view, Json> values = {
      {"attention_multiplier", 1.0},
      {"embedding_multiplier", 1.0},
      {"logits_scaling", 1.0},
      {"partial_rotary_factor", 1.0},
      {"residual_multiplier", 1.0}};
  return values;
}

bool is_off(const Json& value) {
  return value.is_null() || (value.is_boolean() && !value.get<bool>()) ||
      (value.is_structured() && value.empty()) ||
      (value.is_string() && value.get_ref<const std::string&>().empty());
}

bool is_harmless(std::string_view key) {
  return kHarmless.contains(key) ||
      std::ranges::any_of(
             kHarmlessPrefixes,
             [&](auto prefix) { return key.starts_with(prefix); }) ||
      std::ranges::any_of(kHarmlessSuffixes, [&](auto suffix) {
           return key.ends_with(suffix);
         });
}

}  // namespace

void check_config_keys(
    const JsonView& config,
    const std::vector<const char*>& reads) {
  std::set<std::string_view> read(reads.begin(), reads.end());
  for (const auto& [key, value] : config.json().items()) {
    if (read.contains(key) || is_harmless(key) || is_off(value)) {
      continue;
    }
    auto neutral = neutral_values().find(key);
    if (neutral != neutral_values().end() && value == neutral->second) {
      continue;
    }
    throw Error(
        ErrorCode::not_supported,
        "model",
        config.origin() + ": the key \"" + one_line(key, 60) +
            "\" is not known for this family and may change what the model "
            "computes; remove it if it does not");
  }
}

}  // namespace pennyweight
