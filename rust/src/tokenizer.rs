//! `tokenizer.json`: load, encode, decode.

use crate::abi::{bytes, guard, text, Failure, Outcome, PwBytes};
use serde_json::{json, Value};
use tokenizers::{AddedToken, Tokenizer};

pub struct PwTokenizer(Tokenizer);

/// How much of the file's own pipeline is kept; `text/tokenizer_config.h` says
/// when transformers replaces it.
const METASPACE_FIRST: i32 = 1;
const METASPACE_ALWAYS: i32 = 2;
const METASPACE_NEVER: i32 = 3;
const GPT2: i32 = 4;
const GPT2_PREFIX: i32 = 5;
const QWEN2: i32 = 6;

const QWEN2_PATTERN: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}",
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
);

fn byte_level(prefix: bool, regex: bool) -> Value {
    json!({"type": "ByteLevel", "add_prefix_space": prefix,
        "trim_offsets": true, "use_regex": regex})
}

/// Normalizer, pre-tokenizer and decoder of transformers' LlamaTokenizer.
fn metaspace(scheme: &str) -> [Value; 3] {
    let mut decoders = vec![
        json!({"type": "Replace", "pattern": {"String": "▁"}, "content": " "}),
        json!({"type": "ByteFallback"}),
        json!({"type": "Fuse"}),
    ];
    if scheme != "never" {
        decoders.push(json!({"type": "Strip", "content": " ", "start": 1, "stop": 0}));
    }
    [
        Value::Null,
        json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme,
            "split": false}),
        json!({"type": "Sequence", "decoders": decoders}),
    ]
}

fn gpt2(prefix: bool) -> [Value; 3] {
    [
        Value::Null,
        byte_level(prefix, true),
        byte_level(true, true),
    ]
}

fn qwen2() -> [Value; 3] {
    let split = json!({"type": "Split", "pattern": {"Regex": QWEN2_PATTERN},
        "behavior": "Isolated", "invert": false});
    [
        json!({"type": "NFC"}),
        json!({"type": "Sequence", "pretokenizers": [split, byte_level(false, false)]}),
        byte_level(true, true),
    ]
}

/// Puts the pipeline of a class of transformers around the file's vocabulary. Files
/// whose model is not BPE stay as they are.
fn use_class(file: &mut Value, scheme: i32) {
    let parts = match scheme {
        METASPACE_FIRST => metaspace("first"),
        METASPACE_ALWAYS => metaspace("always"),
        METASPACE_NEVER => metaspace("never"),
        GPT2 => gpt2(false),
        GPT2_PREFIX => gpt2(true),
        QWEN2 => qwen2(),
        _ => return,
    };
    if file["model"]["type"] != "BPE" {
        return;
    }
    let [normalizer, pre_tokenizer, decoder] = parts;
    file["normalizer"] = normalizer;
    file["pre_tokenizer"] = pre_tokenizer;
    file["decoder"] = decoder;
    let llama = scheme <= METASPACE_NEVER;
    for (key, value) in [
        ("unk_token", Value::Null),
        ("dropout", Value::Null),
        ("continuing_subword_prefix", Value::Null),
        ("end_of_word_suffix", Value::Null),
        ("fuse_unk", json!(llama)),
        ("byte_fallback", json!(llama)),
        ("ignore_merges", json!(false)),
    ] {
        file["model"][key] = value;
    }
}

fn added_token(entry: &Value) -> AddedToken {
    let flag = |key: &str, fallback: bool| entry[key].as_bool().unwrap_or(fallback);
    let special = flag("special", true);
    AddedToken::from(entry["content"].as_str().unwrap_or_default(), special)
        .single_word(flag("single_word", false))
        .lstrip(flag("lstrip", false))
        .rstrip(flag("rstrip", false))
        .normalized(flag("normalized", !special))
}

/// Ids are positions in tables that the tokenizer sizes by the largest one, so
/// one absurd id would ask for as much memory as it says.
fn check_ids(file: &Value) -> Outcome<()> {
    let model = &file["model"];
    let vocabulary = model["vocab"].as_object().map_or(0, |vocab| vocab.len())
        + model["vocab"].as_array().map_or(0, |vocab| vocab.len());
    let added = file["added_tokens"].as_array();
    let limit = 16 * (vocabulary + added.map_or(0, |list| list.len())) as u64 + (1 << 20);
    let ids = model["vocab"]
        .as_object()
        .into_iter()
        .flat_map(|vocab| vocab.values());
    let added_ids = added.into_iter().flatten().map(|entry| &entry["id"]);
    for id in ids.chain(added_ids) {
        match id.as_u64() {
            Some(id) if id < limit => {}
            _ => return Err(Failure::corrupt(format!("{id} can't be a token's id"))),
        }
    }
    Ok(())
}

fn load(json: &[u8], scheme: i32, added: &[u8]) -> Outcome<PwTokenizer> {
    let mut file: Value = serde_json::from_slice(json)
        .map_err(|error| Failure::corrupt(format!("no valid JSON: {error}")))?;
    if !file["model"].is_object() {
        return Err(Failure::corrupt("\"model\" is missing"));
    }
    check_ids(&file)?;
    use_class(&mut file, scheme);
    // transformers encodes without the file's truncation and padding.
    file["truncation"] = Value::Null;
    file["padding"] = Value::Null;
    let mut tokenizer: Tokenizer = serde_json::from_value(file)
        .map_err(|error| Failure::corrupt(format!("no tokenizer: {error}")))?;
    let added: Value = serde_json::from_slice(added).map_err(Failure::corrupt)?;
    for entry in added.as_array().into_iter().flatten() {
        let token = added_token(entry);
        if token.content.is_empty() {
            continue;
        }
        let known = tokenizer.get_added_tokens_decoder();
        let same = known.values().any(|other| other.content == token.content);
        // `named` tokens (bos and so on) keep the flags they already have.
        if same && entry["named"] == true {
            continue;
        }
        let outcome = if token.special {
            tokenizer.add_special_tokens([token])
        } else {
            tokenizer.add_tokens([token])
        };
        outcome.map_err(Failure::corrupt)?;
    }
    Ok(PwTokenizer(tokenizer))
}

fn encode(tokenizer: &PwTokenizer, text: &str, special: bool) -> Outcome<Vec<u8>> {
    let encoding = tokenizer
        .0
        .encode_fast(text, special)
        .map_err(|error| Failure::corrupt(format!("the tokenizer failed: {error}")))?;
    let ids = encoding.get_ids();
    let mut bytes = Vec::with_capacity(ids.len() * 4);
    for id in ids {
        bytes.extend_from_slice(&id.to_ne_bytes());
    }
    Ok(bytes)
}

/// Ids without special tokens, each with the range [begin, end) of the bytes of
/// `text` that it stands for.
fn encode_places(tokenizer: &PwTokenizer, text: &str) -> Outcome<Vec<u8>> {
    let encoding = tokenizer
        .0
        .encode(text, false)
        .map_err(|error| Failure::corrupt(format!("the tokenizer failed: {error}")))?;
    let mut bytes = Vec::with_capacity(encoding.len() * 12);
    for (id, (begin, end)) in encoding.get_ids().iter().zip(encoding.get_offsets()) {
        for value in [*id, *begin as u32, *end as u32] {
            bytes.extend_from_slice(&value.to_ne_bytes());
        }
    }
    Ok(bytes)
}

/// # Safety
/// Pointers with their lengths are readable; `out` and `error` are writable.
/// The tokenizer is given back with `pw_tokenizer_free`.
#[no_mangle]
pub unsafe extern "C" fn pw_tokenizer_load(
    json: *const u8,
    json_size: usize,
    scheme: i32,
    added: *const u8,
    added_size: usize,
    out: *mut *mut PwTokenizer,
    error: *mut PwBytes,
) -> i32 {
    guard(error, || {
        let tokenizer = load(bytes(json, json_size), scheme, bytes(added, added_size))?;
        *out = Box::into_raw(Box::new(tokenizer));
        Ok(())
    })
}

/// # Safety
/// `tokenizer` is null or came from `pw_tokenizer_load` and is not used again.
#[no_mangle]
pub unsafe extern "C" fn pw_tokenizer_free(tokenizer: *mut PwTokenizer) {
    if !tokenizer.is_null() {
        guard(std::ptr::null_mut(), || {
            drop(Box::from_raw(tokenizer));
            Ok(())
        });
    }
}

/// Ids as native-endian u32.
///
/// # Safety
/// As `pw_tokenizer_load`; `tokenizer` is alive. Safe from several threads.
#[no_mangle]
pub unsafe extern "C" fn pw_tokenizer_encode(
    tokenizer: *const PwTokenizer,
    input: *const u8,
    input_size: usize,
    special: i32,
    out: *mut PwBytes,
    error: *mut PwBytes,
) -> i32 {
    guard(error, || {
        let input = text(input, input_size, "the text")?;
        let ids = encode(&*tokenizer, input, special != 0)?;
        out.write(PwBytes::from_vec(ids));
        Ok(())
    })
}

/// Three native-endian u32 a token: its id, and where the bytes of the text that it
/// stands for begin and end (one past the last). `input` is shorter than 4 GiB.
///
/// # Safety
/// As `pw_tokenizer_encode`.
#[no_mangle]
pub unsafe extern "C" fn pw_tokenizer_encode_places(
    tokenizer: *const PwTokenizer,
    input: *const u8,
    input_size: usize,
    out: *mut PwBytes,
    error: *mut PwBytes,
) -> i32 {
    guard(error, || {
        let input = text(input, input_size, "the text")?;
        let places = encode_places(&*tokenizer, input)?;
        out.write(PwBytes::from_vec(places));
        Ok(())
    })
}

/// # Safety
/// As `pw_tokenizer_encode`; `ids` points to `count` values.
#[no_mangle]
pub unsafe extern "C" fn pw_tokenizer_decode(
    tokenizer: *const PwTokenizer,
    ids: *const u32,
    count: usize,
    skip_special: i32,
    out: *mut PwBytes,
    error: *mut PwBytes,
) -> i32 {
    guard(error, || {
        let ids = if count == 0 {
            &[]
        } else {
            std::slice::from_raw_parts(ids, count)
        };
        let text = (*tokenizer)
            .0
            .decode(ids, skip_special != 0)
            .map_err(Failure::invalid)?;
        out.write(PwBytes::from_vec(text.into_bytes()));
        Ok(())
    })
}

/// # Safety
/// As `pw_tokenizer_encode`.
#[no_mangle]
pub unsafe extern "C" fn pw_tokenizer_vocab_size(tokenizer: *const PwTokenizer) -> usize {
    (*tokenizer).0.get_vocab_size(true)
}

/// The id of a whole token, -1 where the vocabulary has none.
///
/// # Safety
/// As `pw_tokenizer_encode`.
#[no_mangle]
pub unsafe extern "C" fn pw_tokenizer_id(
    tokenizer: *const PwTokenizer,
    token: *const u8,
    token_size: usize,
) -> i64 {
    let token = std::str::from_utf8(bytes(token, token_size)).unwrap_or_default();
    (*tokenizer).0.token_to_id(token).map_or(-1, i64::from)
}
