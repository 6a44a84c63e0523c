#pragma once

// The entries of rust that this room uses; their contracts stand
// beside them in the crate.

#include <memory>

#include "core/rust_abi.h"

extern "C" {

void pw_meter_on_passed(void (*end)());
uint64_t pw_meter_used();
void pw_meter_limit(uint64_t bytes);

struct PwTokenizer;
int32_t pw_tokenizer_load(
    const uint8_t* json,
    size_t json_size,
    int32_t scheme,
    const uint8_t* added,
    size_t added_size,
    PwTokenizer** out,
    PwBytes* error);
void pw_tokenizer_free(PwTokenizer* tokenizer);
int32_t pw_tokenizer_encode(
    const PwTokenizer* tokenizer,
    const uint8_t* input,
    size_t input_size,
    int32_t special,
    PwBytes* out,
    PwBytes* error);
int32_t pw_tokenizer_encode_places(
    const PwTokenizer* tokenizer,
    const uint8_t* input,
    size_t input_size,
    PwBytes* out,
    PwBytes* error);
int32_t pw_tokenizer_decode(
    const PwTokenizer* tokenizer,
    const uint32_t* ids,
    size_t count,
    int32_t skip_special,
    PwBytes* out,
    PwBytes* error);
size_t pw_tokenizer_vocab_size(const PwTokenizer* tokenizer);
int64_t pw_tokenizer_id(
    const PwTokenizer* tokenizer,
    const uint8_t* token,
    size_t token_size);

struct PwTemplate;
int32_t pw_template_load(
    const uint8_t* source,
    size_t size,
    PwTemplate** out,
    PwBytes* error);
void pw_template_free(PwTemplate* chat_template);
int32_t pw_template_render(
    PwTemplate* chat_template,
    const uint8_t* variables,
    size_t size,
    PwBytes* out,
    PwBytes* error);

struct PwParquet;
int32_t pw_parquet_open(
    const uint8_t* path,
    size_t path_size,
    const uint8_t* columns,
    size_t columns_size,
    PwParquet** out,
    PwBytes* error);
void pw_parquet_free(PwParquet* rows);
int32_t
pw_parquet_next(PwParquet* rows, size_t limit, PwBytes* out, PwBytes* error);

}  // extern "C"

namespace pennyweight {

template <class T, void (*free_handle)(T*)>
struct RustDeleter {
  void operator()(T* handle) const {
    free_handle(handle);
  }
};

using TokenizerHandle =
    std::unique_ptr<PwTokenizer, RustDeleter<PwTokenizer, pw_tokenizer_free>>;
using TemplateHandle =
    std::unique_ptr<PwTemplate, RustDeleter<PwTemplate, pw_template_free>>;
using ParquetHandle =
    std::unique_ptr<PwParquet, RustDeleter<PwParquet, pw_parquet_free>>;

}  // namespace pennyweight
