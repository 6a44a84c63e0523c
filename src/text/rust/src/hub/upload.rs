//! A folder's files into a repository of the hub, as one commit. Large files go
//! to the store first; one that is there already is not sent again, which is how
//! an upload that was cut goes on.

use super::commit::{base64, Lines};
use super::lfs::{Blob, Store};
use super::link::{ask, Client};
use super::names::{escaped, is_safe};
use super::send::{push, Answer, Push};
use super::{is_set, non_empty, token, Meter, OnProgress};
use crate::abi::{bytes, guard, Code, Failure, Outcome, PwBytes};
use serde_json::{json, Value};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::ffi::{c_void, OsStr};
use std::fs::File;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const JSON: &str = "application/json";
const TRIES: u32 = 5;
/// Files that the hub is asked about at once.
const BATCH: usize = 256;
const MAX_CARD: u64 = 1 << 20;

struct Source {
    name: String,
    path: PathBuf,
    size: u64,
    oid: Option<String>, // of one that goes to the store
}

impl Source {
    fn open(folder: &Path, name: &str) -> Outcome<Source> {
        if !is_safe(name) {
            return Err(Failure::invalid(format!("{name:?} is no name for a file of the hub")));
        }
        let path = folder.join(name);
        let size = std::fs::metadata(&path).map_err(|error| unreadable(&path, error))?.len();
        Ok(Source { name: name.to_string(), path, size, oid: None })
    }

    fn head(&self, limit: u64) -> Outcome<Vec<u8>> {
        let mut start = Vec::new();
        File::open(&self.path)
            .and_then(|file| file.take(limit).read_to_end(&mut start))
            .map_err(|error| unreadable(&self.path, error))?;
        Ok(start)
    }

    fn sha256(&self, meter: &mut Meter) -> Outcome<String> {
        let fail = |error| unreadable(&self.path, error);
        let mut file = File::open(&self.path).map_err(fail)?;
        let (mut hasher, mut buffer, mut done) = (Sha256::new(), vec![0u8; 1 << 20], 0);
        loop {
            let count = file.read(&mut buffer).map_err(fail)?;
            if count == 0 {
                break;
            }
            hasher.update(&buffer[..count]);
            done += count as u64;
            meter.at(done)?;
        }
        Ok(hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
    }
}

fn unreadable(path: &Path, error: std::io::Error) -> Failure {
    Failure::io(format!("{}: {error}", path.display()))
}

struct Upload {
    client: Client,
    endpoint: String,
    repo: String,
    revision: String,
    notes: Vec<String>,
}

impl Upload {
    fn post(&self, meter: &mut Meter, path: &str, value: &Value) -> Outcome<Answer> {
        let request = Push::json(format!("{}{path}", self.endpoint), JSON, value);
        push(&self.client, meter, TRIES, &request).map_err(|trouble| trouble.failure)
    }

    /// What the hub says of the repository, or a revision of it by path(), if
    /// it shows it to us.
    fn facts(&self, meter: &Meter, path: &str) -> Option<Value> {
        let url = self.endpoint.clone() + path;
        let client = self.client.clone();
        let text = ask(meter, TRIES, move || {
            let mut response = client.get(&url, 0)?;
            let body = response.body_mut().with_config().limit(64 << 20);
            body.read_to_vec().map_err(|error| Failure::io(error).into())
        });
        serde_json::from_slice(&text.ok()?).ok()
    }

    /// True where the repository was there before.
    fn create(&self, meter: &mut Meter, private: bool) -> Outcome<bool> {
        let (organization, name) = self.repo.split_once('/').unwrap_or_default();
        let mut request = json!({"type": "model", "organization": organization, "name": name});
        if private {
            request["private"] = true.into();
        }
        let answer = self.post(meter, "/api/repos/create", &request)?;
        if answer.is_good() {
            return Ok(false);
        }
        // It is there (409), or may be: a token can write to one repository and
        // not be allowed to make another.
        if !matches!(answer.status, 401..=403 | 409) {
            return Err(answer.refusal(&self.repo));
        }
        let facts = self.facts(meter, &format!("/api/models/{}", escaped(&self.repo)));
        meter.tell()?;
        match facts {
            Some(facts) if private && facts["private"] != true => Err(Failure::invalid(format!(
                "{} exists and is public; make it private in its settings, or leave --private out",
                self.repo
            ))),
            Some(_) => Ok(true),
            None => Err(answer.refusal(&self.repo)),
        }
    }

    /// Weights of an earlier upload: mlx-lm loads all files that are named so,
    /// and would mix them with ours.
    fn stale(&mut self, meter: &mut Meter, files: &[Source]) -> Outcome<Vec<String>> {
        let facts = self.facts(meter, &self.path("revision")).unwrap_or_default();
        meter.tell()?;
        let mut names = Vec::new();
        for file in facts["siblings"].as_array().into_iter().flatten() {
            let name = file["rfilename"].as_str().unwrap_or_default();
            let weights = name.starts_with("model")
                && (name.ends_with(".safetensors") || name.ends_with(".safetensors.index.json"))
                && !name.contains('/');
            if weights && files.iter().all(|file| file.name != name) {
                self.notes.push(format!("{name}, weights of an earlier upload, is deleted"));
                names.push(name.to_string());
            }
        }
        Ok(names)
    }

    /// The hub refuses a commit with a bad card: better before all is sent.
    fn check_card(&mut self, meter: &mut Meter, card: &Source) -> Outcome<()> {
        let text = String::from_utf8_lossy(&card.head(MAX_CARD)?).into_owned();
        let request = json!({"repoType": "model", "content": text});
        let answer = self.post(meter, "/api/validate-yaml", &request)?;
        for warning in answer.json()["warnings"].as_array().into_iter().flatten() {
            if let Some(words) = warning["message"].as_str() {
                self.notes.push(format!("the hub says of README.md: {words}"));
            }
        }
        match answer.status {
            400 => Err(Failure::invalid(format!(
                "the hub refuses the front matter of README.md{}; correct it",
                answer.words()
            ))),
            // A hub that has no such check.
            404 | 405 => Ok(()),
            _ => answer.good(&self.repo).map(drop).map_err(|trouble| trouble.failure),
        }
    }

    /// Leaves out what the repository ignores; gives the files for the store.
    fn sort(&mut self, meter: &mut Meter, files: &mut Vec<Source>) -> Outcome<Vec<bool>> {
        let nonsense = || Failure::corrupt("the hub's answer on the files makes no sense");
        let mut modes = BTreeMap::new();
        for some in files.chunks(BATCH) {
            let mut facts = Vec::new();
            for file in some {
                let sample = String::from_utf8(base64(&file.head(512)?)).unwrap_or_default();
                facts.push(json!({"path": file.name, "size": file.size, "sample": sample}));
            }
            let path = self.path("preupload");
            let answer = self.post(meter, &path, &json!({"files": facts}))?;
            let answer = answer.good(&self.repo).map_err(|trouble| trouble.failure)?.json();
            for file in answer["files"].as_array().ok_or_else(nonsense)? {
                let name = file["path"].as_str().ok_or_else(nonsense)?.to_string();
                modes.insert(name, file.clone());
            }
        }
        let mut large = Vec::new();
        let mut kept = Vec::new();
        for file in files.drain(..) {
            let mode = modes.get(&file.name).ok_or_else(nonsense)?;
            if mode["shouldIgnore"] == true {
                self.notes.push(format!("the repository's .gitignore leaves out {}", file.name));
                continue;
            }
            large.push(match mode["uploadMode"].as_str() {
                Some("lfs") => file.size > 0, // the store takes no empty file
                Some("regular") => false,
                _ => return Err(nonsense()),
            });
            kept.push(file);
        }
        *files = kept;
        Ok(large)
    }

    fn path(&self, what: &str) -> String {
        let revision = escaped(&self.revision).replace('/', "%2F");
        format!("/api/models/{}/{what}/{revision}", escaped(&self.repo))
    }

    /// What goes to the store, each content once; bytes sent.
    fn send(&self, meter: &mut Meter, files: &[Source], rest: u64) -> Outcome<u64> {
        let mut blobs: Vec<Blob> = Vec::new();
        for file in files {
            let Some(oid) = file.oid.clone() else { continue };
            if blobs.iter().all(|blob| blob.oid != oid) {
                let (name, path) = (file.name.clone(), file.path.clone());
                blobs.push(Blob { name, path, size: file.size, oid });
            }
        }
        let (client, endpoint) = (&self.client, self.endpoint.as_str());
        let store = Store { client, endpoint, repo: &self.repo, revision: &self.revision };
        let actions = store.ask(meter, &blobs)?;
        let needed = || blobs.iter().zip(&actions).filter(|(_, actions)| actions.is_some());
        let bytes: u64 = needed().map(|(blob, _)| blob.size).sum();
        meter.total = bytes + rest;
        for (blob, actions) in blobs.iter().zip(actions.clone()) {
            if let Some(actions) = actions {
                meter.name = blob.name.clone();
                store.send(meter, blob, actions)?;
                meter.base += blob.size;
                meter.at(0)?;
            }
        }
        Ok(bytes)
    }

    fn commit(&self, meter: &mut Meter, lines: Arc<Lines>) -> Outcome<Value> {
        meter.name = "the commit".to_string();
        let request = Push {
            put: false,
            url: self.endpoint.clone() + &self.path("commit"),
            headers: vec![("Content-Type".into(), "application/x-ndjson".into())],
            body: lines,
            signed: false,
            offset: Some(0),
        };
        let answer = push(&self.client, meter, TRIES, &request).map_err(|t| t.failure)?;
        if answer.status == 400 {
            let words = answer.words();
            return Err(Failure::invalid(format!("the hub refuses the commit (400{words})")));
        }
        Ok(answer.good(&self.repo).map_err(|trouble| trouble.failure)?.json())
    }
}

fn lines_of(files: &[Source], stale: &[String], message: &str) -> Arc<Lines> {
    let mut lines = Lines::default();
    lines.line("header", json!({"summary": message, "description": ""}));
    for name in stale {
        lines.line("deletedFile", json!({"path": name}));
    }
    for file in files {
        match &file.oid {
            Some(oid) => lines.line(
                "lfsFile",
                json!({"path": file.name, "algo": "sha256", "oid": oid, "size": file.size}),
            ),
            None => lines.file(&file.name, file.path.clone(), file.size),
        }
    }
    Arc::new(lines)
}

fn begin(request: &Value) -> Outcome<Upload> {
    if is_set("HF_HUB_OFFLINE") || is_set("TRANSFORMERS_OFFLINE") {
        return Err(Failure::invalid("HF_HUB_OFFLINE is set; unset it to upload"));
    }
    let endpoint =
        non_empty("HF_ENDPOINT").unwrap_or_else(|| "https://huggingface.co".to_string());
    let endpoint = endpoint.trim_end_matches('/').to_string();
    let client = Client::new(&format!("{endpoint}/"), token())?;
    if client.token.is_none() {
        return Err(Failure::io(format!(
            "there is no token; make one with write access at {endpoint}/settings/tokens and set HF_TOKEN"
        )));
    }
    let word = |key: &str| request[key].as_str().unwrap_or_default().to_string();
    let (repo, revision) = (word("repo"), word("revision"));
    Ok(Upload { client, endpoint, repo, revision, notes: Vec::new() })
}

fn upload(folder: &Path, request: &Value, mut hash: Meter, mut meter: Meter) -> Outcome<Value> {
    let mut upload = begin(request)?;
    let names = request["files"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let mut files = names.map(|name| Source::open(folder, name)).collect::<Outcome<Vec<_>>>()?;
    let existed = upload.create(&mut meter, request["private"] == true)?;
    if let Some(card) = files.iter().find(|file| file.name == "README.md") {
        upload.check_card(&mut meter, card)?;
    }
    let large = upload.sort(&mut meter, &mut files)?;
    let sizes = files.iter().zip(&large).filter(|(_, large)| **large);
    hash.total = sizes.map(|(file, _)| file.size).sum();
    for (file, _) in files.iter_mut().zip(large).filter(|(_, large)| *large) {
        hash.name = file.name.clone();
        file.oid = Some(file.sha256(&mut hash)?);
        hash.base = hash.done;
    }
    let has_weights = files.iter().any(|file| file.name.ends_with(".safetensors"));
    let stale =
        if existed && has_weights { upload.stale(&mut meter, &files)? } else { Vec::new() };
    let lines = lines_of(&files, &stale, request["message"].as_str().unwrap_or_default());
    let rest = super::send::Body::size(lines.as_ref());
    let sent = upload.send(&mut meter, &files, rest)?;
    let commit = upload.commit(&mut meter, lines)?;
    let inline: u64 = files.iter().filter(|file| file.oid.is_none()).map(|file| file.size).sum();
    Ok(json!({
        "url": format!("{}/{}", upload.endpoint, upload.repo),
        "commit": commit["commitOid"].as_str().unwrap_or_default(),
        "files": files.len(),
        "bytes": files.iter().map(|file| file.size).sum::<u64>(),
        "sent": sent + inline,
        "notes": upload.notes,
    }))
}

/// Publishes files of `folder` as `request` says (JSON: repo, revision,
/// message, private, files). `result` is JSON: url, commit, files, bytes, sent,
/// notes. `on_hash` is told of bytes whose checksum is known, `on_send` of bytes
/// that are there.
///
/// # Safety
/// `folder` and `request` point to as many bytes; `result` and `error` are
/// writable; the two functions may be called with `context` until this returns.
#[no_mangle]
pub unsafe extern "C" fn pw_hub_upload(
    folder: *const u8,
    folder_size: usize,
    request: *const u8,
    request_size: usize,
    on_hash: OnProgress,
    on_send: OnProgress,
    context: *mut c_void,
    result: *mut PwBytes,
    error: *mut PwBytes,
) -> i32 {
    guard(error, || {
        let folder = Path::new(OsStr::from_bytes(bytes(folder, folder_size)));
        let request: Value = serde_json::from_slice(bytes(request, request_size))
            .map_err(|_| Failure::new(Code::InvalidArgument, "the request is not JSON"))?;
        let meter = |call| Meter {
            call,
            context,
            name: "asking the hub".to_string(),
            base: 0,
            done: 0,
            total: 0,
        };
        let report = upload(folder, &request, meter(on_hash), meter(on_send))?;
        result.write(PwBytes::from_vec(report.to_string().into_bytes()));
        Ok(())
    })
}
