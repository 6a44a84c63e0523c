//! Requests that carry a body: streamed, counted, sent again after a failure
//! that may pass. The user can stop while the network is silent.

use super::link::{follow, header, pause, Client, Response, Trouble, HOPS, POLL};
use super::Meter;
use crate::abi::{Code, Failure, Outcome};
use serde_json::Value;
use std::fs::File;
use std::io::{Error, ErrorKind, Read, Seek, SeekFrom};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{sync_channel, RecvTimeoutError};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// The store may take its time to put parts together.
const PATIENCE: Duration = Duration::from_secs(300);
/// Answers are lists of files or of addresses.
const MAX_ANSWER: u64 = 64 << 20;

/// What a request carries; read once for each time that it is sent.
pub trait Body: Send + Sync {
    fn size(&self) -> u64;
    fn open(&self) -> std::io::Result<Box<dyn Read>>;
}

impl Body for Vec<u8> {
    fn size(&self) -> u64 {
        self.len() as u64
    }
    fn open(&self) -> std::io::Result<Box<dyn Read>> {
        Ok(Box::new(std::io::Cursor::new(self.clone())))
    }
}

/// `size` bytes of a file, from `first` on.
pub struct Slice {
    pub path: PathBuf,
    pub first: u64,
    pub size: u64,
}

impl Body for Slice {
    fn size(&self) -> u64 {
        self.size
    }
    fn open(&self) -> std::io::Result<Box<dyn Read>> {
        let name = |error: Error| Error::new(error.kind(), format!("{}: {error}", self.path.display()));
        let mut file = File::open(&self.path).map_err(name)?;
        file.seek(SeekFrom::Start(self.first)).map_err(name)?;
        Ok(Box::new(file.take(self.size)))
    }
}

#[derive(Clone)]
pub struct Push {
    pub put: bool,
    pub url: String,
    pub headers: Vec<(String, String)>,
    pub body: Arc<dyn Body>,
    /// To a signed address, which takes no token, wherever it is.
    pub signed: bool,
    /// Where the body lies in the file that the meter counts; None: not counted.
    pub offset: Option<u64>,
}

impl Push {
    pub fn json(url: String, kind: &str, value: &Value) -> Push {
        let headers = ["Content-Type", "Accept"].map(|name| (name.to_string(), kind.to_string()));
        let body = Arc::new(value.to_string().into_bytes());
        Push { put: false, url, headers: headers.into(), body, signed: false, offset: None }
    }
}

/// What a thread that sends shares with the one that waits for it.
#[derive(Default)]
struct Sent {
    bytes: AtomicU64,
    stop: AtomicBool,
    /// Why the body itself can't be read.
    unreadable: Mutex<Option<String>>,
}

impl Sent {
    fn fail(&self, error: Error) -> Error {
        if let Ok(mut slot) = self.unreadable.lock() {
            *slot = Some(error.to_string());
        }
        error
    }
}

struct Counted {
    reader: Box<dyn Read>,
    left: u64,
    sent: Arc<Sent>,
}

impl Read for Counted {
    fn read(&mut self, bytes: &mut [u8]) -> std::io::Result<usize> {
        if self.sent.stop.load(Ordering::Relaxed) {
            return Err(Error::other("stopped"));
        }
        let count = self.reader.read(bytes).map_err(|error| self.sent.fail(error))?;
        if count == 0 && self.left > 0 && !bytes.is_empty() {
            let error = Error::new(ErrorKind::UnexpectedEof, "a file shrank while it was read");
            return Err(self.sent.fail(error));
        }
        self.left = self.left.saturating_sub(count as u64);
        self.sent.bytes.fetch_add(count as u64, Ordering::Relaxed);
        Ok(count)
    }
}

/// A response that is no reason to try again.
pub struct Answer {
    pub status: u16,
    /// From the hub, not from its file store.
    pub ours: bool,
    pub reason: String,
    pub etag: String,
    text: Vec<u8>,
}

impl Answer {
    fn read(mut response: Response, ours: bool) -> Result<Answer, Trouble> {
        let word = |name| header(response.headers(), name).unwrap_or_default().to_string();
        let (reason, etag) = (word("x-error-code"), word("etag"));
        let status = response.status().as_u16();
        let body = response.body_mut().with_config().limit(MAX_ANSWER);
        let text = body.read_to_vec().map_err(|error| {
            Trouble::passing(Failure::io(format!("the hub's answer broke off ({error})")))
        })?;
        Ok(Answer { status, ours, reason, etag, text })
    }

    pub fn is_good(&self) -> bool {
        (200..300).contains(&self.status)
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.text).unwrap_or_default()
    }

    /// ": WORDS" of the hub, or nothing.
    pub fn words(&self) -> String {
        let json = self.json();
        let errors = json["errors"].as_array().into_iter().flatten();
        let mut words: Vec<&str> = errors.filter_map(|error| error["message"].as_str()).collect();
        words.extend(json["error"].as_str().or(json["message"].as_str()));
        words.dedup();
        match words.is_empty() {
            true => String::new(),
            false => format!(": {}", words.join("; ")),
        }
    }

    /// The answer where it is good. `repo` is what was to be written.
    pub fn good(self, repo: &str) -> Result<Answer, Trouble> {
        if self.is_good() {
            return Ok(self);
        }
        if !self.ours {
            // A signed address that ran out: ask for a new one.
            let text = format!("the hub's file store answered {}", self.status);
            return Err(Trouble::passing(Failure::io(text)));
        }
        Err(self.refusal(repo).into())
    }

    pub fn refusal(&self, repo: &str) -> Failure {
        let words = self.words();
        match (self.status, self.reason.as_str()) {
            (401, _) => Failure::io(
                "the hub refuses the token (401): it is wrong or has run out; set HF_TOKEN to a token with write access",
            ),
            (403, _) => Failure::io(format!(
                "the token may not write to {repo} (403{words}); use a token with write access to it, or another --repo"
            )),
            (404, "RevisionNotFound") => Failure::new(
                Code::NotFound,
                format!("{repo} has no such branch (404); create it on the hub, or leave --revision out"),
            ),
            (404, _) => Failure::new(
                Code::NotFound,
                format!("the hub has no {repo} that this token may see (404); check --repo and HF_ENDPOINT"),
            ),
            (409 | 412, _) => Failure::io(format!(
                "{repo} is being changed by somebody else ({}{words}); wait and run again", self.status
            )),
            (status, _) => Failure::io(format!("the hub refuses the upload ({status}{words})")),
        }
    }
}

impl Client {
    fn push_once(&self, push: &Push, url: &str, sent: &Arc<Sent>) -> Result<Response, Trouble> {
        let body = &push.body;
        let local = |error: Error| Trouble::from(Failure::io(sent.fail(error)));
        let reader = body.open().map_err(local)?;
        let mut counted = Counted { reader, left: body.size(), sent: sent.clone() };
        let mut request = match push.put {
            true => self.agent.put(url),
            false => self.agent.post(url),
        };
        for (name, value) in &push.headers {
            request = request.header(name, value);
        }
        request = request.header("Content-Length", body.size());
        if let (Some(token), true) = (&self.token, self.is_ours(url) && !push.signed) {
            request = request.header("Authorization", format!("Bearer {token}"));
        }
        let request = request
            .config()
            .timeout_recv_response(Some(PATIENCE))
            .timeout_per_read(Some(PATIENCE))
            .build();
        request.send(ureq::SendBody::from_reader(&mut counted)).map_err(|error| {
            let slot = sent.unreadable.lock().ok().and_then(|mut slot| slot.take());
            if let Some(text) = slot {
                return Failure::io(format!("{text}; run again once the folder is at rest")).into();
            }
            let passing = !matches!(error, ureq::Error::BadUri(_) | ureq::Error::Http(_));
            let store = if self.is_ours(url) { "" } else { "'s file store" };
            let failure =
                Failure::io(format!("can't reach the hub{store} ({error}); check the network"));
            Trouble { failure, passing }
        })
    }

    fn push(&self, push: &Push, sent: &Arc<Sent>) -> Result<Answer, Trouble> {
        let mut url = push.url.clone();
        for _ in 0..HOPS {
            sent.bytes.store(0, Ordering::Relaxed);
            let response = self.push_once(push, &url, sent)?;
            let ours = self.is_ours(&url);
            match response.status().as_u16() {
                // A repository that was renamed. Bytes go nowhere else.
                307 | 308 => {
                    let location = header(response.headers(), "location").unwrap_or_default();
                    let next = follow(&url, location)?;
                    if !ours || !self.is_ours(&next) {
                        return Err(Failure::corrupt("the hub redirects an upload elsewhere").into());
                    }
                    url = next;
                }
                status @ (408 | 429 | 500..) => {
                    let who = if ours { "the hub" } else { "the hub's file store" };
                    let text = format!("{who} answered {status}; try again later");
                    return Err(Trouble::passing(Failure::io(text)));
                }
                _ => return Answer::read(response, ours),
            }
        }
        Err(Failure::corrupt("the hub redirects without end").into())
    }
}

/// Ends the thread that sends, whatever ends the wait for it.
struct Stopper(Arc<Sent>);

impl Drop for Stopper {
    fn drop(&mut self) {
        self.0.stop.store(true, Ordering::Relaxed);
    }
}

/// Sends once, in a thread of its own.
fn carry(client: &Client, meter: &mut Meter, push: &Push) -> Result<Answer, Trouble> {
    let sent = Arc::new(Sent::default());
    let _stopper = Stopper(sent.clone());
    let (sender, receiver) = sync_channel(1);
    let (worker, job, count) = (client.clone(), push.clone(), sent.clone());
    std::thread::spawn(move || {
        let _ = sender.send(worker.push(&job, &count));
    });
    loop {
        let end = receiver.recv_timeout(POLL);
        match push.offset {
            Some(offset) => meter.at(offset + sent.bytes.load(Ordering::Relaxed))?,
            None => meter.tell()?,
        }
        match end {
            Ok(answer) => return answer,
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => {
                return Err(Failure::io("the request broke off without an answer").into())
            }
        }
    }
}

/// Sends, `tries` times in all where what fails may pass.
pub fn push(
    client: &Client,
    meter: &mut Meter,
    tries: u32,
    push: &Push,
) -> Result<Answer, Trouble> {
    let mut attempt = 0;
    loop {
        attempt += 1;
        match carry(client, meter, push) {
            Err(trouble) if trouble.passing && attempt < tries => {
                back_off(meter, attempt)?;
            }
            answer => return answer,
        }
    }
}

pub fn back_off(meter: &Meter, attempt: u32) -> Outcome<()> {
    pause(meter, Duration::from_millis(250 << attempt.min(6)))
}
