//! The body of a commit: JSON lines, files in them in base64, read from disk as
//! they are sent.

use super::send::{Body, Slice};
use serde_json::{json, Value};
use std::io::Read;
use std::path::PathBuf;
use std::sync::Arc;

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// RFC 4648, padded.
pub fn base64(bytes: &[u8]) -> Vec<u8> {
    let mut text = Vec::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let byte = |at: usize| u32::from(group.get(at).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for at in 0..4 {
            let sextet = (bits >> (18 - 6 * at) & 63) as usize;
            text.push(if at <= group.len() { ALPHABET[sextet] } else { b'=' });
        }
    }
    text
}

/// A reader of what another gives, in base64.
struct Encoded {
    reader: Box<dyn Read>,
    text: Vec<u8>,
    at: usize,
}

impl Read for Encoded {
    fn read(&mut self, bytes: &mut [u8]) -> std::io::Result<usize> {
        if self.at == self.text.len() {
            // A multiple of three, so that only the end is padded.
            let mut raw = Vec::with_capacity(48 << 10);
            self.reader.by_ref().take(48 << 10).read_to_end(&mut raw)?;
            self.text = base64(&raw);
            self.at = 0;
        }
        let count = bytes.len().min(self.text.len() - self.at);
        bytes[..count].copy_from_slice(&self.text[self.at..self.at + count]);
        self.at += count;
        Ok(count)
    }
}

enum Piece {
    Text(Vec<u8>),
    File(Slice),
}

/// Grows line by line; then a Body.
#[derive(Default)]
pub struct Lines {
    pieces: Vec<Arc<Piece>>,
}

impl Lines {
    pub fn line(&mut self, key: &str, value: Value) {
        let line = json!({"key": key, "value": value}).to_string() + "\n";
        self.pieces.push(Arc::new(Piece::Text(line.into_bytes())));
    }

    pub fn file(&mut self, name: &str, path: PathBuf, size: u64) {
        let before = format!(
            r#"{{"key":"file","value":{{"path":{},"encoding":"base64","content":""#,
            Value::from(name)
        );
        self.pieces.push(Arc::new(Piece::Text(before.into_bytes())));
        self.pieces.push(Arc::new(Piece::File(Slice { path, first: 0, size })));
        self.pieces.push(Arc::new(Piece::Text(b"\"}}\n".to_vec())));
    }
}

struct Chain {
    pieces: std::vec::IntoIter<Arc<Piece>>,
    current: Box<dyn Read>,
}

impl Read for Chain {
    fn read(&mut self, bytes: &mut [u8]) -> std::io::Result<usize> {
        loop {
            let count = self.current.read(bytes)?;
            if count > 0 || bytes.is_empty() {
                return Ok(count);
            }
            let Some(piece) = self.pieces.next() else {
                return Ok(0);
            };
            self.current = match piece.as_ref() {
                Piece::Text(text) => Box::new(std::io::Cursor::new(text.clone())),
                Piece::File(slice) => {
                    Box::new(Encoded { reader: slice.open()?, text: Vec::new(), at: 0 })
                }
            };
        }
    }
}

impl Body for Lines {
    fn size(&self) -> u64 {
        let sizes = self.pieces.iter().map(|piece| match piece.as_ref() {
            Piece::Text(text) => text.len() as u64,
            Piece::File(slice) => slice.size.div_ceil(3) * 4,
        });
        sizes.sum()
    }
    fn open(&self) -> std::io::Result<Box<dyn Read>> {
        let pieces = self.pieces.clone().into_iter();
        Ok(Box::new(Chain { pieces, current: Box::new(std::io::empty()) }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_that_of_the_rfc() {
        for (raw, text) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")] {
            assert_eq!(base64(raw.as_bytes()), text.as_bytes());
        }
        assert_eq!(base64(&[0xfb, 0xff, 0xfe]), b"+//+");
    }

    #[test]
    fn lines_have_the_size_that_they_say() {
        let path = std::env::temp_dir().join(format!("pennyweight-lines-{}", std::process::id()));
        for size in [0, 1, 2, 3, 49_151, 49_152, 49_153, 200_000] {
            let raw: Vec<u8> = (0..size).map(|at| (at * 7 % 251) as u8).collect();
            std::fs::write(&path, &raw).unwrap();
            let mut lines = Lines::default();
            lines.line("header", json!({"summary": "a \"b\""}));
            lines.file("odd \"name\"", path.clone(), size as u64);
            let mut text = String::new();
            lines.open().unwrap().read_to_string(&mut text).unwrap();
            assert_eq!(text.len() as u64, lines.size());
            let values: Vec<Value> =
                text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
            assert_eq!(values.len(), 2);
            assert_eq!(values[1]["value"]["path"], "odd \"name\"");
            let content = values[1]["value"]["content"].as_str().unwrap();
            assert_eq!(content.as_bytes(), base64(&raw));
        }
        std::fs::remove_file(&path).unwrap();
    }
}
