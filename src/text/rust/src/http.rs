//! A plain HTTPS GET.

use crate::abi::{guard, text, Code, Failure, Outcome, PwBytes};
use std::time::Duration;

fn get(url: &str, limit: u64, seconds: u64) -> Outcome<Vec<u8>> {
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .https_only(true)
        .timeout_global(Some(Duration::from_secs(seconds)))
        .build()
        .into();
    let mut response = agent.get(url).call().map_err(|error| match error {
        ureq::Error::StatusCode(404) => Failure::new(Code::NotFound, "not found"),
        error => Failure::io(error),
    })?;
    response
        .body_mut()
        .with_config()
        .limit(limit)
        .read_to_vec()
        .map_err(Failure::io)
}

/// The body of `url`, at most `limit` bytes, within `seconds` in all.
///
/// # Safety
/// `url` points to `size` bytes; `out` and `error` are writable.
#[no_mangle]
pub unsafe extern "C" fn pw_http_get(
    url: *const u8,
    size: usize,
    limit: u64,
    seconds: u64,
    out: *mut PwBytes,
    error: *mut PwBytes,
) -> i32 {
    guard(error, || {
        let body = get(text(url, size, "the address")?, limit, seconds)?;
        out.write(PwBytes::from_vec(body));
        Ok(())
    })
}
