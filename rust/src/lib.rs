//! Hugging Face's tokenizers, minijinja and Parquet behind a C ABI
//! (`core/rust_abi.h`): opaque handles, pointer and length in, a status and an
//! owned message out.

mod abi;
mod meter;
mod parquet;
mod pyjson;
mod template;
mod tokenizer;
