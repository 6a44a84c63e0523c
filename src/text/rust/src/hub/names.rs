//! Names that come from the hub: which are safe, and which are wanted.

use hf_hub::RepoType;
use std::path::{Component, Path};

/// Whether a name from a listing stays inside its folder.
pub fn is_safe(name: &str) -> bool {
    let path = Path::new(name);
    !name.is_empty()
        && name.len() < 512
        && !name.contains(|c: char| c == '\\' || c.is_control())
        && path.components().all(|part| matches!(part, Component::Normal(_)))
}

/// An etag or commit, which becomes a file name.
pub fn is_plain(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 128
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

pub fn is_commit(name: &str) -> bool {
    name.len() == 40 && name.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// What mlx-lm fetches of a model (its patterns match across folders), code that
/// an output carries and nothing here runs included; what can hold rows of a
/// data set.
pub fn is_wanted(name: &str, kind: RepoType) -> bool {
    let ends = |endings: &[&str]| endings.iter().any(|ending| name.ends_with(ending));
    match kind {
        RepoType::Dataset => ends(&[".json", ".jsonl", ".parquet", ".txt"]),
        _ => {
            ends(&[".json", ".jsonl", ".jinja", ".py", ".tiktoken", ".txt"])
                || name == "tokenizer.model"
                || name == "tiktoken.model"
                || (name.starts_with("model") && name.ends_with(".safetensors"))
        }
    }
}

/// What is fetched: beside that, the card, which tells the licence, and
/// SentencePiece models of any name. A snapshot is whole without them, since
/// other clients fetch none.
pub fn is_welcome(name: &str, kind: RepoType) -> bool {
    let sentencepiece = name.ends_with(".model") || name.contains(".model.v");
    is_wanted(name, kind)
        || (!matches!(kind, RepoType::Dataset) && (name == "README.md" || sentencepiece))
}

/// A name as a part of an address.
pub fn escaped(name: &str) -> String {
    let keep = |byte: u8| byte.is_ascii_alphanumeric() || b"/-_.~".contains(&byte);
    name.bytes()
        .map(|byte| match keep(byte) {
            true => char::from(byte).to_string(),
            false => format!("%{byte:02X}"),
        })
        .collect()
}

/// `x-00002-of-00003.safetensors`: the names of all three.
pub fn shards_of(name: &str) -> Option<Vec<String>> {
    let stem = name.strip_suffix(".safetensors")?;
    let (rest, count) = stem.rsplit_once("-of-")?;
    let (prefix, index) = rest.rsplit_once('-')?;
    let number = |text: &str| text.parse::<u32>().ok().filter(|_| text.len() == 5);
    number(index)?;
    let all = 1..=number(count)?;
    Some(all.map(|at| format!("{prefix}-{at:05}-of-{count}.safetensors")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_inside() {
        for name in ["../x", "/etc/passwd", "a/../../b", "a\\b", "", "..", "."] {
            assert!(!is_safe(name), "{name}");
        }
        assert!(is_safe("data/train.parquet"));
    }

    #[test]
    fn wanted_is_what_an_output_carries() {
        assert!(is_wanted("tokenization.py", RepoType::Model));
        assert!(is_wanted("additional_chat_templates/tool.jinja", RepoType::Model));
        assert!(is_welcome("spiece.model", RepoType::Model));
        assert!(!is_wanted("spiece.model", RepoType::Model));
        assert!(is_welcome("tokenizer.model.v3", RepoType::Model));
        assert!(!is_wanted("pytorch_model.bin", RepoType::Model));
        assert!(is_wanted("model-00001-of-00002.safetensors", RepoType::Model));
        assert!(!is_wanted("onnx/model.safetensors", RepoType::Model));
        assert!(is_welcome("README.md", RepoType::Model));
        assert!(!is_wanted("README.md", RepoType::Model));
        assert!(!is_welcome("README.md", RepoType::Dataset));
        assert!(!is_wanted("load.py", RepoType::Dataset));
        assert!(is_wanted("data/train.parquet", RepoType::Dataset));
    }

    #[test]
    fn a_shard_names_its_siblings() {
        let all = shards_of("model-00002-of-00003.safetensors").unwrap();
        assert_eq!(all.len(), 3);
        assert_eq!(all[2], "model-00003-of-00003.safetensors");
        assert_eq!(shards_of("model.safetensors"), None);
        assert_eq!(shards_of("model-1-of-4000000000.safetensors"), None);
    }

    #[test]
    fn names_are_escaped_in_addresses() {
        assert_eq!(escaped("a b/c?d#e%"), "a%20b/c%3Fd%23e%25");
    }
}
