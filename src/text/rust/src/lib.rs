//! Hugging Face's tokenizers, minijinja, Parquet and the hub behind a C ABI
//! (`core/rust_abi.h`): opaque handles, pointer and length in, a status and an
//! owned message out.

mod abi;
mod http;
mod hub;
mod meter;
mod parquet;
mod pyjson;
mod template;
mod tokenizer;
