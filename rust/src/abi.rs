//! What every entry of the C ABI shares: the status codes, owned buffers, and
//! the wrapper that lets no panic across the border. The C++ side is
//! `core/rust_abi.h`.

use std::panic::{catch_unwind, AssertUnwindSafe};

/// The values of `pennyweight::ErrorCode` plus one; 0 is success.
#[repr(i32)]
#[allow(dead_code)] // the whole of ErrorCode, used or not
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    InvalidArgument = 1,
    NotSupported = 2,
    NotFound = 3,
    Corrupt = 4,
    Io = 5,
    Numeric = 6,
    Cancelled = 7,
}

#[derive(Debug)]
pub struct Failure {
    pub code: Code,
    pub message: String,
}

pub type Outcome<T> = Result<T, Failure>;

impl Failure {
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Failure {
            code,
            message: message.into(),
        }
    }
    pub fn corrupt(message: impl std::fmt::Display) -> Self {
        Self::new(Code::Corrupt, message.to_string())
    }
    pub fn invalid(message: impl std::fmt::Display) -> Self {
        Self::new(Code::InvalidArgument, message.to_string())
    }
    pub fn io(message: impl std::fmt::Display) -> Self {
        Self::new(Code::Io, message.to_string())
    }
}

/// Bytes that Rust owns and C++ gives back with `pw_bytes_free`.
#[repr(C)]
pub struct PwBytes {
    data: *mut u8,
    size: usize,
    capacity: usize,
}

impl PwBytes {
    pub fn from_vec(bytes: Vec<u8>) -> Self {
        let mut bytes = std::mem::ManuallyDrop::new(bytes);
        PwBytes {
            data: bytes.as_mut_ptr(),
            size: bytes.len(),
            capacity: bytes.capacity(),
        }
    }
}

/// # Safety
/// `bytes` came from this library and was not freed before.
#[no_mangle]
pub unsafe extern "C" fn pw_bytes_free(bytes: PwBytes) {
    if !bytes.data.is_null() {
        drop(Vec::from_raw_parts(bytes.data, bytes.size, bytes.capacity));
    }
}

/// # Safety
/// `data` points to `size` readable bytes, or `size` is 0.
pub unsafe fn bytes<'a>(data: *const u8, size: usize) -> &'a [u8] {
    if size == 0 {
        &[]
    } else {
        std::slice::from_raw_parts(data, size)
    }
}

/// # Safety
/// As `bytes`; text that is not UTF-8 is an `InvalidArgument` failure.
pub unsafe fn text<'a>(data: *const u8, size: usize, what: &str) -> Outcome<&'a str> {
    std::str::from_utf8(bytes(data, size)).map_err(|error| {
        Failure::invalid(format!(
            "{what} is not valid UTF-8 at byte {}",
            error.valid_up_to()
        ))
    })
}

fn panic_text(payload: &(dyn std::any::Any + Send)) -> String {
    let text = payload
        .downcast_ref::<&str>()
        .map(|text| text.to_string())
        .or_else(|| payload.downcast_ref::<String>().cloned());
    text.unwrap_or_else(|| "unknown".to_string())
}

/// Runs `body`, writes a failure's message to `error`, and gives the status.
/// A panic becomes `Corrupt`: in this crate only unforeseen input makes one.
///
/// # Safety
/// `error` is null or points to a writable `PwBytes` that owns nothing.
pub unsafe fn guard(error: *mut PwBytes, body: impl FnOnce() -> Outcome<()>) -> i32 {
    quiet_panics();
    let outcome = catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|payload| {
        Err(Failure::corrupt(format!(
            "input that the reader can't handle ({})",
            panic_text(payload.as_ref())
        )))
    });
    match outcome {
        Ok(()) => 0,
        Err(failure) => {
            if !error.is_null() {
                error.write(PwBytes::from_vec(failure.message.into_bytes()));
            }
            failure.code as i32
        }
    }
}

/// Keeps panics off stderr: `guard` reports their text.
fn quiet_panics() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| std::panic::set_hook(Box::new(|_| {})));
}
