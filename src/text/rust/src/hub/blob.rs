//! One file of a repository into the cache's `blobs`: under a lock, resumed
//! from its `.part`, and given its name only when size and checksum are right.

use super::link::{pause, receive, Client, Response, Trouble};
use super::Meter;
use crate::abi::{Failure, Outcome};
use sha2::{Digest, Sha256};
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{sync_channel, SyncSender};
use std::time::Duration;

/// Connections in a row that may end without a new byte.
const TRIES: u32 = 5;
/// Times that a server may send anything but the range that it was asked for.
const RESTARTS: u32 = 3;

/// A file as the hub describes it.
pub struct Remote {
    pub name: String,
    pub url: String,
    pub etag: String,
    pub size: Option<u64>,
}

impl Remote {
    /// The hub's etag of a large file is its SHA-256.
    fn sha256(&self) -> Option<&str> {
        let hex = self.etag.bytes().all(|byte| byte.is_ascii_hexdigit());
        (self.etag.len() == 64 && hex).then_some(&self.etag)
    }
}

/// An io failure on a file of the cache.
pub fn disk(path: &Path, error: std::io::Error) -> Failure {
    if matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded) {
        return Failure::io(
            "the disk of the cache is full; free some space and run again, the download goes on where it stopped",
        );
    }
    Failure::io(format!("{}: {error}", path.display()))
}

/// Held while a blob is made: the same lock file as huggingface_hub's.
struct Lock {
    _file: File,
}

impl Lock {
    fn take(path: &Path, meter: &Meter) -> Outcome<Lock> {
        super::make_parent(path)?;
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(path)
            .map_err(|error| disk(path, error))?;
        // SAFETY: the descriptor is open for as long as `file` lives.
        while unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) } != 0 {
            let error = std::io::Error::last_os_error();
            match error.kind() {
                ErrorKind::WouldBlock => {
                    meter.note("another process is fetching this file; waiting for it")?;
                    pause(meter, Duration::from_millis(500))?;
                }
                ErrorKind::Interrupted => {}
                // A file system without locks: alone is all one can hope for.
                ErrorKind::Unsupported => break,
                _ if error.raw_os_error() == Some(libc::ENOLCK) => break,
                _ => return Err(disk(path, error)),
            }
        }
        Ok(Lock { _file: file })
    }
}

/// What the thread on the network tells the one on the disk.
enum Step {
    Begin { first: u64, size: Option<u64> },
    Bytes(Vec<u8>),
    End(Result<(), Trouble>),
}

/// First byte and whole size that a response stands for.
fn extent(response: &Response) -> Option<(u64, Option<u64>)> {
    let number = |name: &str| {
        let value = response.headers().get(name)?.to_str().ok()?;
        Some(value.to_string())
    };
    if response.status() != 206 {
        return Some((0, number("content-length").and_then(|text| text.parse().ok())));
    }
    // bytes FIRST-LAST/SIZE
    let range = number("content-range")?;
    let (span, size) = range.strip_prefix("bytes ")?.split_once('/')?;
    Some((span.split_once('-')?.0.parse().ok()?, size.parse().ok()))
}

fn read_body(client: &Client, url: &str, first: u64, steps: &SyncSender<Step>) -> Result<(), Trouble> {
    let mut response = client.get(url, first)?;
    if response.status() == 416 {
        // The part is of another size than the file: begin anew.
        let _ = steps.send(Step::Begin { first: 0, size: None });
        return Ok(());
    }
    let (first, size) = extent(&response)
        .ok_or_else(|| Failure::corrupt("the hub sends a range that makes no sense"))?;
    let mut more = steps.send(Step::Begin { first, size }).is_ok();
    let mut reader = response.body_mut().as_reader();
    while more {
        let mut bytes = vec![0u8; 256 << 10];
        let count = reader.read(&mut bytes).map_err(|error| {
            Trouble::passing(Failure::io(format!("the connection to the hub broke off ({error})")))
        })?;
        if count == 0 {
            break;
        }
        bytes.truncate(count);
        more = steps.send(Step::Bytes(bytes)).is_ok();
    }
    Ok(())
}

/// A download that is under way.
struct Part<'a> {
    remote: &'a Remote,
    path: PathBuf,
    file: File,
    len: u64,
    size: Option<u64>,
    hasher: Sha256,
    resumed: bool,
    restarts: u32,
    ended: bool,
}

impl<'a> Part<'a> {
    fn open(remote: &'a Remote, path: PathBuf, meter: &mut Meter) -> Outcome<Part<'a>> {
        let at = path.clone();
        let fail = |error| disk(&at, error);
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(false);
        let mut file = file.open(&path).map_err(fail)?;
        let mut left = file.metadata().map_err(fail)?.len();
        if remote.size.is_some_and(|size| left > size) {
            file.set_len(0).map_err(fail)?;
            left = 0;
        }
        let (mut hasher, mut len) = (Sha256::new(), 0);
        let mut bytes = vec![0u8; 1 << 20];
        while left > len {
            let room = (left - len).min(bytes.len() as u64) as usize;
            let count = file.read(&mut bytes[..room]).map_err(fail)?;
            if count == 0 {
                break;
            }
            hasher.update(&bytes[..count]);
            len += count as u64;
            meter.at(len)?;
        }
        Ok(Part {
            remote,
            path,
            file,
            len,
            size: remote.size,
            hasher,
            resumed: len > 0,
            restarts: 0,
            ended: false,
        })
    }

    fn restart(&mut self, meter: &mut Meter) -> Outcome<()> {
        self.file.set_len(0).map_err(|error| disk(&self.path, error))?;
        self.file
            .seek(SeekFrom::Start(0))
            .map_err(|error| disk(&self.path, error))?;
        self.len = 0;
        self.hasher = Sha256::new();
        self.resumed = false;
        meter.at(0)
    }

    fn is_whole(&self) -> bool {
        self.size.map_or(self.ended, |size| self.len == size)
    }

    fn damaged(&self, how: &str) -> Failure {
        // Of no use any more, and a resume would go on from bad bytes.
        let _ = std::fs::remove_file(&self.path);
        Failure::corrupt(format!(
            "{} arrived damaged ({how} is not the hub's); run again to fetch it anew",
            self.remote.name
        ))
    }

    fn write(&mut self, bytes: &[u8], meter: &mut Meter) -> Outcome<()> {
        self.len += bytes.len() as u64;
        if self.size.is_some_and(|size| self.len > size) {
            return Err(self.damaged("its size"));
        }
        self.file
            .write_all(bytes)
            .map_err(|error| disk(&self.path, error))?;
        self.hasher.update(bytes);
        meter.at(self.len)
    }

    /// What one connection gives.
    fn pull(&mut self, client: &Client, meter: &mut Meter) -> Result<(), Trouble> {
        let (sender, steps) = sync_channel(8);
        let (client, url, first) = (client.clone(), self.remote.url.clone(), self.len);
        std::thread::spawn(move || {
            let end = read_body(&client, &url, first, &sender);
            let _ = sender.send(Step::End(end));
        });
        while let Some(step) = receive(meter, &steps)? {
            match step {
                Step::Begin { first, size } => {
                    if first != self.len {
                        self.restarts += 1;
                        if self.restarts > RESTARTS {
                            return Err(self.damaged("the range").into());
                        }
                        self.restart(meter)?;
                        if first > 0 {
                            return Ok(());
                        }
                    }
                    match (self.size, size) {
                        (Some(known), Some(size)) if known != size => {
                            return Err(self.damaged("its size").into())
                        }
                        (None, size) => self.size = size,
                        _ => {}
                    }
                }
                Step::Bytes(bytes) => self.write(&bytes, meter)?,
                Step::End(Ok(())) => {
                    self.ended = self.size.is_none();
                    return Ok(());
                }
                Step::End(Err(trouble)) => return Err(trouble),
            }
        }
        Err(Failure::io("the download broke off without an answer").into())
    }

    /// Connection after connection until all bytes are there.
    fn fill(&mut self, client: &Client, meter: &mut Meter) -> Outcome<()> {
        let mut dry = 0;
        while !self.is_whole() {
            let before = self.len;
            let trouble = match self.pull(client, meter) {
                Ok(()) if self.is_whole() => break,
                Ok(()) => Failure::io("the hub ends the file too early"),
                Err(trouble) if !trouble.passing => return Err(trouble.failure),
                Err(trouble) => trouble.failure,
            };
            dry = if self.len > before { 0 } else { dry + 1 };
            if dry >= TRIES {
                return Err(Failure::new(
                    trouble.code,
                    format!("{}; run again to go on where it stopped", trouble.message),
                ));
            }
            pause(meter, Duration::from_millis(250 << dry))?;
        }
        Ok(())
    }

    fn is_right(&self) -> bool {
        let digest = self.hasher.clone().finalize();
        let digest: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        self.remote
            .sha256()
            .is_none_or(|wanted| wanted.eq_ignore_ascii_case(&digest))
    }
}

/// Makes `blob` of `remote`, unless it is there.
pub fn fetch(
    client: &Client,
    remote: &Remote,
    blob: &Path,
    lock: &Path,
    meter: &mut Meter,
) -> Outcome<()> {
    super::make_parent(blob)?;
    let _lock = Lock::take(lock, meter)?;
    if let Ok(found) = std::fs::metadata(blob) {
        if found.is_file() && remote.size.is_none_or(|size| size == found.len()) {
            return meter.at(found.len());
        }
    }
    let mut path = blob.as_os_str().to_owned();
    path.push(".part");
    let mut part = Part::open(remote, path.into(), meter)?;
    part.fill(client, meter)?;
    if part.resumed && !part.is_right() {
        // What was there from an earlier run may be to blame.
        part.restart(meter)?;
        part.fill(client, meter)?;
    }
    if !part.is_right() {
        return Err(part.damaged("its checksum"));
    }
    part.file
        .sync_data()
        .and_then(|()| std::fs::rename(&part.path, blob))
        .map_err(|error| disk(blob, error))
}
