//! Large files to the hub's store by the protocol of Git LFS, with the hub's
//! transfer in parts (`chunk_size` and numbered addresses in `header`).

use super::link::{follow, Client, Trouble};
use super::names::escaped;
use super::send::{back_off, push, Push, Slice};
use super::Meter;
use crate::abi::{Failure, Outcome};
use serde_json::{json, Value};
use std::path::PathBuf;
use std::sync::Arc;

const KIND: &str = "application/vnd.git-lfs+json";
/// Files whose addresses are asked for at once.
const BATCH: usize = 32;
/// Requests for one part, and rounds of addresses for one file.
const TRIES: u32 = 4;

#[derive(Clone)]
pub struct Blob {
    pub name: String,
    pub path: PathBuf,
    pub size: u64,
    pub oid: String, // SHA-256
}

pub struct Store<'a> {
    pub client: &'a Client,
    pub endpoint: &'a str,
    pub repo: &'a str,
    pub revision: &'a str,
}

fn nonsense(what: &str) -> Failure {
    Failure::corrupt(format!("the hub's answer on where to send files makes no sense ({what})"))
}

/// What the action says to send along.
fn headers_of(action: &Value) -> Vec<(String, String)> {
    let fields = action["header"].as_object().into_iter().flatten();
    let ours = ["host", "content-length", "transfer-encoding", "connection"];
    fields
        .filter(|(name, _)| !ours.contains(&name.to_lowercase().as_str()))
        .filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_string())))
        .collect()
}

fn part_of(url: String, headers: Vec<(String, String)>, body: Arc<Slice>, first: u64) -> Push {
    Push { put: true, url, headers, body, signed: true, offset: Some(first) }
}

impl Store<'_> {
    fn address(&self, text: &Value) -> Outcome<String> {
        let text = text.as_str().ok_or_else(|| nonsense("no address"))?;
        // The hub names itself, whatever mirror it is asked through.
        let text = match text.strip_prefix("https://huggingface.co/") {
            Some(rest) => format!("{}/{rest}", self.endpoint),
            None => text.to_string(),
        };
        follow(&format!("{}/", self.endpoint), &text).map_err(|_| nonsense("an odd address"))
    }

    /// For each blob the actions that bring it there; None where it is.
    pub fn ask(&self, meter: &mut Meter, blobs: &[Blob]) -> Outcome<Vec<Option<Value>>> {
        let mut all = Vec::new();
        for some in blobs.chunks(BATCH) {
            let objects: Vec<Value> =
                some.iter().map(|blob| json!({"oid": blob.oid, "size": blob.size})).collect();
            let request = json!({
                "operation": "upload",
                "transfers": ["basic", "multipart"],
                "hash_algo": "sha256",
                "ref": {"name": self.revision},
                "objects": objects,
            });
            let url = format!("{}/{}.git/info/lfs/objects/batch", self.endpoint, escaped(self.repo));
            let answer = push(self.client, meter, TRIES, &Push::json(url, KIND, &request))
                .and_then(|answer| answer.good(self.repo))
                .map_err(|trouble| trouble.failure)?;
            let answer = answer.json();
            let objects = answer["objects"].as_array().ok_or_else(|| nonsense("no objects"))?;
            for blob in some {
                let object = objects.iter().find(|object| object["oid"] == blob.oid.as_str());
                let object = object.ok_or_else(|| nonsense("a file is missing"))?;
                if let Some(error) = object.get("error") {
                    let words = error["message"].as_str().unwrap_or("without a reason");
                    return Err(Failure::io(format!("the hub refuses {} ({words})", blob.name)));
                }
                let upload = object["actions"].get("upload").is_some();
                all.push(upload.then(|| object["actions"].clone()));
            }
        }
        Ok(all)
    }

    fn put(&self, meter: &mut Meter, push_: Push) -> Result<String, Trouble> {
        Ok(push(self.client, meter, TRIES, &push_)?.good(self.repo)?.etag)
    }

    fn send_parts(&self, meter: &mut Meter, blob: &Blob, action: &Value) -> Result<(), Trouble> {
        let header = &action["header"];
        let chunk = header["chunk_size"].as_u64();
        let chunk = chunk.or_else(|| header["chunk_size"].as_str()?.parse().ok());
        let chunk = chunk.filter(|chunk| *chunk > 0).ok_or_else(|| nonsense("chunk_size"))?;
        let mut urls: Vec<(u64, &Value)> = header
            .as_object()
            .into_iter()
            .flatten()
            .filter_map(|(name, url)| Some((name.parse().ok()?, url)))
            .collect();
        urls.sort_by_key(|(number, _)| *number);
        if urls.len() as u64 != blob.size.div_ceil(chunk) {
            return Err(nonsense("the number of parts").into());
        }
        let mut parts = Vec::new();
        for (number, (part, url)) in (1u64..).zip(urls) {
            if part != number {
                return Err(nonsense("the numbers of parts").into());
            }
            let first = (number - 1) * chunk;
            let size = chunk.min(blob.size - first);
            let body = Arc::new(Slice { path: blob.path.clone(), first, size });
            let url = self.address(url)?;
            let etag = self.put(meter, part_of(url, Vec::new(), body, first))?;
            if etag.is_empty() {
                return Err(nonsense("a part without etag").into());
            }
            parts.push(json!({"partNumber": number, "etag": etag}));
        }
        let url = self.address(&action["href"])?;
        let whole = json!({"oid": blob.oid, "parts": parts});
        self.put(meter, Push { signed: true, ..Push::json(url, KIND, &whole) }).map(drop)
    }

    fn send_once(&self, meter: &mut Meter, blob: &Blob, actions: &Value) -> Result<(), Trouble> {
        let action = &actions["upload"];
        if action["header"].get("chunk_size").is_some() {
            self.send_parts(meter, blob, action)?;
        } else {
            let body = Arc::new(Slice { path: blob.path.clone(), first: 0, size: blob.size });
            let (url, headers) = (self.address(&action["href"])?, headers_of(action));
            self.put(meter, part_of(url, headers, body, 0))?;
        }
        if let Some(verify) = actions.get("verify") {
            let facts = json!({"oid": blob.oid, "size": blob.size});
            let mut request = Push::json(self.address(&verify["href"])?, KIND, &facts);
            request.headers.extend(headers_of(verify));
            self.put(meter, request)?;
        }
        Ok(())
    }

    /// The blob to the store, with new addresses where old ones fail.
    pub fn send(&self, meter: &mut Meter, blob: &Blob, mut actions: Value) -> Outcome<()> {
        let mut round = 0;
        loop {
            let failure = match self.send_once(meter, blob, &actions) {
                Ok(()) => return Ok(()),
                Err(trouble) if !trouble.passing => return Err(trouble.failure),
                Err(trouble) => trouble.failure,
            };
            round += 1;
            if round >= TRIES {
                return Err(Failure::new(
                    failure.code,
                    format!("{}; run again, what has arrived whole is not sent again", failure.message),
                ));
            }
            back_off(meter, round)?;
            match self.ask(meter, std::slice::from_ref(blob))?.pop().flatten() {
                Some(fresh) => actions = fresh,
                None => return Ok(()), // it had arrived
            }
        }
    }
}
