//! Hugging Face's tokenizers, minijinja, Parquet and the hub behind a C ABI
//! (`core/rust_abi.h`): opaque handles, pointer and length in, a status and an
//! owned message out.

mod abi;
mod http;
mod hub;
<<<<<<< HEAD
mod meter;
=======
mod memory;
>>>>>>> 8e94e41 (A run that the system refuses memory, threads or descriptors ends in one line and exit code 5)
mod parquet;
mod pyjson;
mod template;
mod tokenizer;
