//! Snapshots of hub repositories in the cache that huggingface_hub uses too
//! (`models--org--name/{blobs,refs,snapshots}`). hf-hub knows the addresses and
//! the layout. It can't resume a whole part, verify what arrives, work offline,
//! stop while the network is silent, or keep the token from the file store;
//! `link` and `blob` can.

mod blob;
mod commit;
mod lfs;
mod link;
mod names;
mod send;
mod upload;

use crate::abi::{guard, text, Code, Failure, Outcome, PwBytes};
use blob::{disk, Remote};
use hf_hub::api::sync::{ApiBuilder, ApiRepo};
use hf_hub::{Cache, Repo, RepoType};
use link::{ask, Client, Trouble};
use names::{escaped, is_commit, is_plain, is_safe, is_wanted, is_welcome, shards_of};
use serde_json::Value;
use std::collections::BTreeSet;
use std::ffi::c_void;
use std::path::{Path, PathBuf};

/// Told of bytes done of all (0: not known); false stops the download.
type OnProgress =
    extern "C" fn(context: *mut c_void, name: *const u8, size: usize, done: u64, total: u64) -> bool;

pub struct Meter {
    call: OnProgress,
    context: *mut c_void,
    name: String,
    base: u64,
    done: u64,
    total: u64,
}

impl Meter {
    fn note(&self, text: &str) -> Outcome<()> {
        let text = text.as_bytes();
        if (self.call)(self.context, text.as_ptr(), text.len(), self.done, self.total) {
            return Ok(());
        }
        Err(Failure::new(Code::Cancelled, "stopped by the user"))
    }
    fn tell(&self) -> Outcome<()> {
        self.note(&self.name)
    }
    /// `bytes` of the current file are there.
    fn at(&mut self, bytes: u64) -> Outcome<()> {
        self.done = self.base + bytes;
        self.tell()
    }
}

fn non_empty(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

fn is_set(name: &str) -> bool {
    let value = non_empty(name).unwrap_or_default().to_lowercase();
    matches!(value.as_str(), "1" | "true" | "yes" | "on")
}

/// A folder that a variable names, `~` being the home folder.
fn folder_of(name: &str) -> Option<PathBuf> {
    let value = non_empty(name)?;
    match (value.strip_prefix("~/"), non_empty("HOME")) {
        (Some(rest), Some(home)) => Some(Path::new(&home).join(rest)),
        _ => Some(value.into()),
    }
}

/// The folder that HF_HOME stands for.
fn home() -> PathBuf {
    folder_of("HF_HOME")
        .or_else(|| folder_of("XDG_CACHE_HOME").map(|cache| cache.join("huggingface")))
        .unwrap_or_else(|| {
            let cache = Cache::default();
            cache.path().parent().unwrap_or(cache.path()).to_path_buf()
        })
}

fn open_cache() -> Outcome<Cache> {
    let path = folder_of("HF_HUB_CACHE")
        .or_else(|| folder_of("HUGGINGFACE_HUB_CACHE"))
        .unwrap_or_else(|| home().join("hub"));
    Ok(Cache::new(std::path::absolute(&path).map_err(|error| disk(&path, error))?))
}

fn token() -> Option<String> {
    let clean = |text: String| Some(text.trim().to_string()).filter(|token| !token.is_empty());
    let file = || {
        let path = folder_of("HF_TOKEN_PATH").unwrap_or_else(|| home().join("token"));
        std::fs::read_to_string(path).ok()
    };
    non_empty("HF_TOKEN")
        .and_then(clean)
        .or_else(|| non_empty("HUGGING_FACE_HUB_TOKEN").and_then(clean))
        .or_else(|| file().and_then(clean))
}

fn make_parent(path: &Path) -> Outcome<()> {
    let folder = path.parent().unwrap_or(path);
    std::fs::create_dir_all(folder).map_err(|error| disk(folder, error))
}

struct Listing {
    commit: String,
    /// Wanted files, weights last, with their size where the hub says it.
    files: Vec<(String, Option<u64>)>,
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

    /// `models--org--name`
    fn root(&self) -> PathBuf {
        self.cache.path().join(self.repo(self.revision).folder_name())
    }

    fn folder(&self, commit: &str) -> PathBuf {
        self.cache.repo(self.repo(self.revision)).pointer_path(commit)
    }

    /// The commit that the revision stood for when it was fetched last.
    fn known_commit(&self) -> Option<String> {
        std::fs::read_to_string(self.root().join("refs").join(self.revision))
            .ok()
            .map(|text| text.trim().to_string())
            .filter(|commit| is_plain(commit))
    }

    /// A file that a snapshot should have and has not. A cut download leaves a
    /// folder that only looks like a snapshot.
    fn missing(&self, commit: &str) -> Option<String> {
        let folder = self.folder(commit);
        let mut names = BTreeSet::new();
        // huggingface_hub's record of what the commit holds.
        let tree = self.root().join("trees").join(format!("{commit}.json"));
        if let Some(Value::Object(files)) = read_json(&tree).map(|mut tree| tree["files"].take()) {
            names.extend(files.keys().filter(|name| is_wanted(name, self.kind)).cloned());
        }
        let entries = std::fs::read_dir(&folder).into_iter().flatten().flatten();
        let there: Vec<String> = entries.filter_map(|e| e.file_name().into_string().ok()).collect();
        names.extend(there.iter().cloned());
        if !matches!(self.kind, RepoType::Dataset) {
            names.insert("config.json".to_string());
            names.extend(there.iter().filter_map(|name| shards_of(name)).flatten());
            let index = read_json(&folder.join("model.safetensors.index.json"));
            let map = index.as_ref().and_then(|index| index["weight_map"].as_object());
            let shards = map.into_iter().flat_map(|map| map.values());
            names.extend(shards.filter_map(Value::as_str).map(str::to_string));
            if !names.iter().any(|name| name.ends_with(".safetensors")) {
                names.insert("model.safetensors".to_string());
            }
        } else if there.is_empty() {
            return Some("every file".to_string());
        }
        names.into_iter().find(|name| !is_safe(name) || !folder.join(name).exists())
    }

    /// The cached snapshot that the revision stands for. Err says what it lacks.
    fn cached(&self) -> Outcome<PathBuf> {
        let commit = self.known_commit().unwrap_or_else(|| self.revision.to_string());
        if !is_plain(&commit) || !self.folder(&commit).is_dir() {
            return Err(Failure::new(Code::NotFound, "it is not in the cache"));
        }
        match self.missing(&commit) {
            None => Ok(self.folder(&commit)),
            Some(name) => Err(Failure::new(
                Code::NotFound,
                format!("its copy in the cache is incomplete ({name} is missing)"),
            )),
        }
    }

    fn list(
        &self,
        client: &Client,
        repo: &ApiRepo,
        tries: u32,
        meter: &Meter,
    ) -> Result<Listing, Trouble> {
        let request = repo.info_request();
        let url = request.uri_ref().map(|uri| uri.to_string()).unwrap_or_default() + "?blobs=true";
        let client = client.clone();
        let bytes = ask(meter, tries, move || {
            let mut response = client.get(&url, 0)?;
            let body = response.body_mut().with_config().limit(64 << 20);
            body.read_to_vec().map_err(|error| {
                Trouble::passing(Failure::io(format!("the hub's listing broke off ({error})")))
            })
        })?;
        let nonsense = || Failure::corrupt("the hub's listing makes no sense");
        let info: Value = serde_json::from_slice(&bytes).map_err(|_| nonsense())?;
        let commit = info["sha"].as_str().filter(|sha| is_plain(sha)).ok_or_else(nonsense)?;
        let mut files = Vec::new();
        for file in info["siblings"].as_array().ok_or_else(nonsense)? {
            let name = file["rfilename"].as_str().ok_or_else(nonsense)?;
            if !is_safe(name) {
                return Err(Failure::corrupt(format!(
                    "the hub lists a file outside the repository: {name:?}"
                ))
                .into());
            }
            if is_welcome(name, self.kind) {
                files.push((name.to_string(), file["size"].as_u64()));
            }
        }
        files.sort_by_key(|(name, _)| name.ends_with(".safetensors"));
        Ok(Listing { commit: commit.to_string(), files })
    }

    fn fetch(
        &self,
        client: &Client,
        repo: &ApiRepo,
        listing: Listing,
        meter: &mut Meter,
    ) -> Outcome<PathBuf> {
        let folder = self.folder(&listing.commit);
        if !listing.files.iter().any(|(name, _)| is_wanted(name, self.kind)) {
            return Err(Failure::new(
                Code::NotFound,
                "the repository holds no file that is of use here",
            ));
        }
        let mut remotes = Vec::new();
        for (name, size) in listing.files {
            let found = std::fs::metadata(folder.join(&name)).ok();
            if found.is_some_and(|file| size.is_none_or(|size| size == file.len())) {
                continue;
            }
            let (worker, url) = (client.clone(), repo.url(&escaped(&name)));
            let address = url.clone();
            let facts = ask(meter, 3, move || worker.head(&address)).map_err(|t| t.failure)?;
            if !is_plain(&facts.etag) {
                return Err(Failure::corrupt(format!("the hub sends an unusable etag for {name}")));
            }
            let size = facts.size.or(size);
            meter.total += size.unwrap_or(0);
            remotes.push(Remote { name, url, etag: facts.etag, size });
        }
        for remote in remotes {
            meter.name = remote.name.clone();
            let blob = self.root().join("blobs").join(&remote.etag);
            let locks = self.cache.path().join(".locks");
            let lock = locks.join(self.repo(self.revision).folder_name());
            let lock = lock.join(format!("{}.lock", remote.etag));
            blob::fetch(client, &remote, &blob, &lock, meter)?;
            place(&blob, &folder, &remote)?;
            meter.base = meter.done;
        }
        // Last, so that a ref stands for a whole snapshot only.
        self.write_ref(&listing.commit)?;
        Ok(folder)
    }

    fn write_ref(&self, commit: &str) -> Outcome<()> {
        let path = self.root().join("refs").join(self.revision);
        make_parent(&path)?;
        let mut draft = path.as_os_str().to_owned();
        draft.push(format!(".{}.tmp", std::process::id()));
        std::fs::write(&draft, commit)
            .and_then(|()| std::fs::rename(&draft, &path))
            .map_err(|error| disk(&path, error))
    }
}

fn read_json(path: &Path) -> Option<Value> {
    serde_json::from_slice(&std::fs::read(path).ok()?).ok()
}

/// The name in the snapshot: a relative link to the blob, or a copy on a file
/// system without links.
fn place(blob: &Path, folder: &Path, remote: &Remote) -> Outcome<()> {
    let path = folder.join(&remote.name);
    make_parent(&path)?;
    if path.symlink_metadata().is_ok() {
        std::fs::remove_file(&path).map_err(|error| disk(&path, error))?;
    }
    // From the file's folder up to the root, over `snapshots` and the commit.
    let depth = Path::new(&remote.name).components().count() + 1;
    let target = Path::new(&"../".repeat(depth)).join("blobs").join(&remote.etag);
    std::os::unix::fs::symlink(target, &path)
        .or_else(|_| std::fs::copy(blob, &path).map(drop))
        .map_err(|error| disk(&path, error))
}

fn snapshot(
    id: &str,
    dataset: bool,
    revision: &str,
    call: OnProgress,
    context: *mut c_void,
) -> Outcome<(PathBuf, String)> {
    if !is_safe(id) || !is_safe(revision) {
        return Err(Failure::invalid("this is not a name that the hub could have"));
    }
    let cache = open_cache()?;
    let kind = if dataset { RepoType::Dataset } else { RepoType::Model };
    let snapshot = Snapshot { cache: &cache, id, kind, revision };
    let cached = snapshot.cached();
    if is_set("HF_HUB_OFFLINE") || is_set("TRANSFORMERS_OFFLINE") {
        let folder = cached.map_err(|lack| {
            Failure::new(lack.code, format!("{}, and HF_HUB_OFFLINE is set", lack.message))
        })?;
        return Ok((folder, String::new()));
    }
    if is_commit(revision) && snapshot.known_commit().is_some() && cached.is_ok() {
        return Ok((cached?, String::new())); // it can't have changed
    }
    let mut builder = ApiBuilder::from_cache(cache.clone()).with_token(None);
    if let Some(endpoint) = non_empty("HF_ENDPOINT") {
        builder = builder.with_endpoint(endpoint.trim_end_matches('/').to_string());
    }
    let api = builder.build().map_err(Failure::io)?;
    let repo = api.repo(snapshot.repo(revision));
    let client = Client::new(&repo.url(""), token())?;
    let mut meter = Meter {
        call,
        context,
        name: "asking the hub".to_string(),
        base: 0,
        done: 0,
        total: 0,
    };
    let tries = if cached.is_ok() { 2 } else { 4 };
    match snapshot.list(&client, &repo, tries, &meter) {
        Ok(listing) => {
            let repo = api.repo(snapshot.repo(&listing.commit));
            let folder = snapshot.fetch(&client, &repo, listing, &mut meter)?;
            Ok((folder, String::new()))
        }
        Err(trouble) if trouble.passing && cached.is_ok() => {
            let note = format!("{}; using the snapshot in the cache", trouble.failure.message);
            Ok((cached?, note))
        }
        Err(trouble) => Err(trouble.failure),
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
