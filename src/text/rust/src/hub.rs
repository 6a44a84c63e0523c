//! Snapshots of hub repositories in the cache that huggingface_hub uses too
//! (`models--org--name/{blobs,refs,snapshots}`). hf-hub fetches and resumes;
//! added here: the choice of files, offline use, tokens from the environment,
//! checksums, and names that can't leave the cache.

use crate::abi::{guard, text, Code, Failure, Outcome, PwBytes};
use hf_hub::api::sync::{Api, ApiBuilder, ApiError, ApiRepo};
use hf_hub::api::Progress;
use hf_hub::{Cache, Repo, RepoType};
use sha2::{Digest, Sha256};
use std::ffi::c_void;
use std::io::Read;
use std::panic::{catch_unwind, resume_unwind, AssertUnwindSafe};
use std::path::{Component, Path, PathBuf};

/// Told of a file's bytes; false stops the download.
type OnProgress =
    extern "C" fn(context: *mut c_void, name: *const u8, size: usize, done: u64, total: u64) -> bool;

/// What a progress callback throws through hf-hub to stop it.
struct Stopped;

struct Meter {
    call: OnProgress,
    context: *mut c_void,
    name: String,
    done: u64,
    total: u64,
}

impl Meter {
    fn tell(&self) {
        let name = self.name.as_bytes();
        if !(self.call)(self.context, name.as_ptr(), name.len(), self.done, self.total) {
            resume_unwind(Box::new(Stopped));
        }
    }
}

impl Progress for Meter {
    fn init(&mut self, size: usize, _filename: &str) {
        self.total = size as u64;
        self.tell();
    }
    fn update(&mut self, size: usize) {
        self.done += size as u64;
        self.tell();
    }
    fn finish(&mut self) {
        self.done = self.total;
        self.tell();
    }
}

fn is_set(name: &str) -> bool {
    let value = std::env::var(name).unwrap_or_default().to_lowercase();
    matches!(value.as_str(), "1" | "true" | "yes" | "on")
}

fn non_empty(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

fn open_cache() -> Cache {
    match non_empty("HF_HUB_CACHE") {
        Some(path) => Cache::new(PathBuf::from(path)),
        None => Cache::from_env(),
    }
}

fn open_api(cache: &Cache) -> Outcome<Api> {
    let token = non_empty("HF_TOKEN").or_else(|| cache.token());
    let mut builder = ApiBuilder::from_cache(cache.clone())
        .with_progress(false)
        .with_retries(3)
        .with_token(token);
    if let Some(endpoint) = non_empty("HF_ENDPOINT") {
        builder = builder.with_endpoint(endpoint.trim_end_matches('/').to_string());
    }
    builder.build().map_err(failure)
}

fn failure(error: ApiError) -> Failure {
    match error {
        ApiError::RequestError(request) => match *request {
            ureq::Error::StatusCode(status @ (401 | 403)) => Failure::new(
                Code::Io,
                format!("the hub refuses access ({status}); set HF_TOKEN, or check the name and that you accepted the model's terms"),
            ),
            ureq::Error::StatusCode(404) => Failure::new(
                Code::NotFound,
                "there is no such repository, revision or file on the hub",
            ),
            ureq::Error::StatusCode(status) => {
                Failure::io(format!("the hub answered {status}; try again later"))
            }
            error => Failure::io(format!("can't reach the hub ({error}); check the network, or set HF_HUB_OFFLINE=1 to use what is cached")),
        },
        ApiError::TooManyRetries(inner) => failure(*inner),
        ApiError::LockAcquisition(_) => {
            Failure::io("another process is fetching this file; wait for it and run again")
        }
        ApiError::IoError(error) if error.raw_os_error() == Some(28) => {
            Failure::io("the disk of the cache is full; free some space and run again, the download goes on where it stopped")
        }
        error => Failure::io(error),
    }
}

/// Whether a name from a listing stays inside its folder.
fn is_safe(name: &str) -> bool {
    let path = Path::new(name);
    !name.is_empty()
        && name.len() < 512
        && !name.contains(['\\', '\0'])
        && path.components().all(|part| matches!(part, Component::Normal(_)))
}

/// An etag or commit, which becomes a file name.
fn is_plain(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 128
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

/// What mlx-lm fetches of a model, but for code; what can hold rows of a data
/// set.
fn is_wanted(name: &str, kind: RepoType) -> bool {
    let ends = |endings: &[&str]| endings.iter().any(|ending| name.ends_with(ending));
    match kind {
        RepoType::Dataset => ends(&[".json", ".jsonl", ".parquet", ".txt"]),
        _ => {
            !name.contains('/')
                && (ends(&[".json", ".jsonl", ".jinja", ".tiktoken", ".txt"])
                    || name == "tokenizer.model"
                    || (name.starts_with("model") && name.ends_with(".safetensors")))
        }
    }
}

fn sha256(path: &Path) -> std::io::Result<String> {
    let mut file = std::fs::File::open(path)?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0u8; 1 << 20];
    loop {
        let count = file.read(&mut buffer)?;
        if count == 0 {
            break;
        }
        hasher.update(&buffer[..count]);
    }
    let digest = hasher.finalize();
    Ok(digest.iter().map(|byte| format!("{byte:02x}")).collect())
}

struct Snapshot<'a> {
    cache: &'a Cache,
    id: &'a str,
    kind: RepoType,
    revision: &'a str,
}

impl Snapshot<'_> {
    fn repo(&self, revision: &str) -> Repo {
        Repo::with_revision(self.id.to_string(), self.kind, revision.to_string())
    }

    fn folder(&self, commit: &str) -> PathBuf {
        self.cache.repo(self.repo(self.revision)).pointer_path(commit)
    }

    /// The cached snapshot that the revision stands for, if any.
    fn cached(&self) -> Option<PathBuf> {
        let root = self.cache.path().join(self.repo(self.revision).folder_name());
        let commit = std::fs::read_to_string(root.join("refs").join(self.revision))
            .map(|text| text.trim().to_string())
            .unwrap_or_else(|_| self.revision.to_string());
        let folder = root.join("snapshots").join(&commit);
        (is_plain(&commit) && folder.is_dir()).then_some(folder)
    }

    fn fetch(&self, api: &Api, call: OnProgress, context: *mut c_void) -> Outcome<PathBuf> {
        let info = api.repo(self.repo(self.revision)).info().map_err(failure)?;
        if !is_plain(&info.sha) {
            return Err(Failure::corrupt("the hub names an unusable commit"));
        }
        let repo = api.repo(self.repo(&info.sha));
        for file in &info.siblings {
            let name = file.rfilename.as_str();
            if !is_safe(name) {
                return Err(Failure::corrupt(format!(
                    "the hub lists a file outside the repository: {name:?}"
                )));
            }
            if is_wanted(name, self.kind) && !self.folder(&info.sha).join(name).exists() {
                let meter = Meter {
                    call,
                    context,
                    name: name.to_string(),
                    done: 0,
                    total: 0,
                };
                self.fetch_file(&repo, api, name, meter)?;
            }
        }
        let folder = self.folder(&info.sha);
        if !folder.is_dir() {
            return Err(Failure::new(
                Code::NotFound,
                "the repository holds no file that is of use here",
            ));
        }
        // Last, so that a ref stands for a whole snapshot only.
        self.cache
            .repo(self.repo(self.revision))
            .create_ref(&info.sha)
            .map_err(Failure::io)?;
        Ok(folder)
    }

    fn fetch_file(&self, repo: &ApiRepo, api: &Api, name: &str, meter: Meter) -> Outcome<()> {
        let metadata = api.metadata(&repo.url(name)).map_err(failure)?;
        if !is_plain(metadata.etag()) || !is_plain(metadata.commit_hash()) {
            return Err(Failure::corrupt(format!("the hub sends an unusable etag for {name}")));
        }
        let blob = self.cache.repo(self.repo(self.revision)).blob_path(metadata.etag());
        let result = catch_unwind(AssertUnwindSafe(|| repo.download_with_progress(name, meter)));
        let pointer = match result {
            Ok(done) => done.map_err(failure)?,
            Err(payload) if payload.is::<Stopped>() => {
                return Err(Failure::new(Code::Cancelled, "stopped by the user"))
            }
            Err(payload) => resume_unwind(payload),
        };
        let size = std::fs::metadata(&pointer).map_err(Failure::io)?.len();
        let mut whole = size == metadata.size() as u64;
        if whole && metadata.etag().len() == 64 {
            whole = sha256(&pointer).map_err(Failure::io)? == metadata.etag();
        }
        if !whole {
            // Neither is of use, and a resume would go on from bad bytes.
            let _ = std::fs::remove_file(&pointer);
            let _ = std::fs::remove_file(&blob);
            return Err(Failure::corrupt(format!(
                "{name} arrived damaged (its size or checksum is not the hub's); run again to fetch it anew"
            )));
        }
        Ok(())
    }
}

fn snapshot(
    id: &str,
    dataset: bool,
    revision: &str,
    call: OnProgress,
    context: *mut c_void,
) -> Outcome<(PathBuf, String)> {
    let cache = open_cache();
    let kind = if dataset { RepoType::Dataset } else { RepoType::Model };
    let snapshot = Snapshot { cache: &cache, id, kind, revision };
    if is_set("HF_HUB_OFFLINE") {
        let folder = snapshot.cached().ok_or_else(|| {
            Failure::new(Code::NotFound, "not in the cache, and HF_HUB_OFFLINE is set")
        })?;
        return Ok((folder, String::new()));
    }
    match snapshot.fetch(&open_api(&cache)?, call, context) {
        Ok(folder) => Ok((folder, String::new())),
        Err(error) if error.code == Code::Io && snapshot.cached().is_some() => {
            let note = format!("{}; using the snapshot in the cache", error.message);
            Ok((snapshot.cached().unwrap_or_default(), note))
        }
        Err(error) => Err(error),
    }
}

/// The folder of a repository's files, fetched where the cache lacks them.
/// `note` is empty, or says what the user must know of the result.
///
/// # Safety
/// Texts point to as many bytes; `folder`, `note` and `error` are writable;
/// `call` may be called with `context` until this returns.
#[no_mangle]
pub unsafe extern "C" fn pw_hub_snapshot(
    id: *const u8,
    id_size: usize,
    dataset: bool,
    revision: *const u8,
    revision_size: usize,
    call: OnProgress,
    context: *mut c_void,
    folder: *mut PwBytes,
    note: *mut PwBytes,
    error: *mut PwBytes,
) -> i32 {
    guard(error, || {
        let id = text(id, id_size, "the name")?;
        let revision = text(revision, revision_size, "the revision")?;
        let (path, words) = snapshot(id, dataset, revision, call, context)?;
        folder.write(PwBytes::from_vec(path.to_string_lossy().into_owned().into_bytes()));
        note.write(PwBytes::from_vec(words.into_bytes()));
        Ok(())
    })
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
    fn code_is_never_wanted() {
        assert!(!is_wanted("modeling.py", RepoType::Model));
        assert!(!is_wanted("pytorch_model.bin", RepoType::Model));
        assert!(is_wanted("model-00001-of-00002.safetensors", RepoType::Model));
        assert!(!is_wanted("onnx/config.json", RepoType::Model));
        assert!(is_wanted("data/train.parquet", RepoType::Dataset));
    }
}
