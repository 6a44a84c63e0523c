//! Requests to the hub. The token goes to the hub's own origin and nowhere
//! else, the user can stop while the network is silent, and every refusal has
//! a text of its own.

use super::Meter;
use crate::abi::{Code, Failure, Outcome};
use std::sync::mpsc::{sync_channel, Receiver, RecvTimeoutError};
use std::time::Duration;
use ureq::http::{HeaderMap, StatusCode};
use ureq::tls::{parse_pem, PemItem, RootCerts, TlsConfig};

pub type Response = ureq::http::Response<ureq::Body>;

pub const HOPS: usize = 10;
pub const POLL: Duration = Duration::from_millis(200);

/// Why a request gave nothing. What is `passing` (a network or a server that
/// fails) may be over at the next try; the rest would only fail again.
#[derive(Debug)]
pub struct Trouble {
    pub failure: Failure,
    pub passing: bool,
}

impl Trouble {
    pub fn passing(failure: Failure) -> Self {
        Trouble { failure, passing: true }
    }
}

impl From<Failure> for Trouble {
    fn from(failure: Failure) -> Self {
        Trouble { failure, passing: false }
    }
}

/// What the hub says of a file before sending it.
#[derive(Debug)]
pub struct Facts {
    pub etag: String,
    pub size: Option<u64>,
}

#[derive(Clone)]
pub struct Client {
    pub agent: ureq::Agent,
    origin: String,
    pub token: Option<String>,
}

/// `scheme://authority` of an address.
fn origin_of(url: &str) -> &str {
    let start = url.find("://").map_or(0, |at| at + 3);
    let end = url[start..].find(['/', '?', '#']).map_or(url.len(), |at| start + at);
    &url[..end]
}

/// Where `location` leads from `url`.
pub fn follow(url: &str, location: &str) -> Outcome<String> {
    let origin = origin_of(url);
    let next = if location.contains("://") && !location.starts_with('/') {
        location.to_string()
    } else if let Some(rest) = location.strip_prefix("//") {
        format!("{}://{rest}", origin.split("://").next().unwrap_or("https"))
    } else if location.starts_with('/') {
        format!("{origin}{location}")
    } else {
        return Err(Failure::corrupt("the hub redirects to an address that makes no sense"));
    };
    let secure = next.starts_with("https://");
    if !secure && (url.starts_with("https://") || !next.starts_with("http://")) {
        return Err(Failure::corrupt("the hub redirects away from https; refused"));
    }
    Ok(next)
}

/// The certificates that the usual variables name, where they do: the network
/// of a company may have its own.
fn root_certificates() -> Outcome<Option<RootCerts>> {
    let names = ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"];
    let Some((name, path)) = names.iter().find_map(|name| Some((name, super::non_empty(name)?)))
    else {
        return Ok(None);
    };
    let pem = std::fs::read(&path)
        .map_err(|error| Failure::io(format!("{name} names a file that can't be read ({error})")))?;
    let certificates: Vec<_> = parse_pem(&pem)
        .filter_map(|item| match item {
            Ok(PemItem::Certificate(certificate)) => Some(certificate),
            _ => None,
        })
        .collect();
    if certificates.is_empty() {
        return Err(Failure::invalid(format!("{name} names a file without certificates")));
    }
    Ok(Some(RootCerts::new_with_certs(&certificates)))
}

fn unreachable(error: ureq::Error) -> Trouble {
    let passing = !matches!(error, ureq::Error::BadUri(_) | ureq::Error::Http(_));
    let failure = Failure::io(format!(
        "can't reach the hub ({error}); check the network, or set HF_HUB_OFFLINE=1 to use what is cached"
    ));
    Trouble { failure, passing }
}

pub fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

fn refusal(status: StatusCode, headers: &HeaderMap, from_hub: bool) -> Trouble {
    let reason = header(headers, "x-error-code").unwrap_or_default();
    match status.as_u16() {
        code @ (401 | 403) if from_hub => match reason {
            "RepoNotFound" => Failure::new(
                Code::NotFound,
                "there is no such repository on the hub, or it is private; check the name, or set HF_TOKEN",
            ),
            "GatedRepo" => Failure::io(format!(
                "the hub refuses access ({code}): accept the terms on the repository's page and set HF_TOKEN"
            )),
            _ => Failure::io(format!(
                "the hub refuses access ({code}); set HF_TOKEN to a token that may read it"
            )),
        }
        .into(),
        404 if reason == "RevisionNotFound" => {
            Failure::new(Code::NotFound, "the repository has no such revision").into()
        }
        404 | 410 => Failure::new(
            Code::NotFound,
            "there is no such repository, revision or file on the hub, and no such folder here",
        )
        .into(),
        code @ (408 | 429 | 500..) => {
            Trouble::passing(Failure::io(format!("the hub answered {code}; try again later")))
        }
        // A signed address of the file store that ran out: ask for a new one.
        code if !from_hub => {
            Trouble::passing(Failure::io(format!("the hub's file store answered {code}")))
        }
        code => Failure::io(format!("the hub answered {code}")).into(),
    }
}

impl Client {
    /// `url`: any address at the hub, whose origin gets the token.
    pub fn new(url: &str, token: Option<String>) -> Outcome<Client> {
        if !url.starts_with("https://") && !url.starts_with("http://") {
            return Err(Failure::invalid("HF_ENDPOINT must begin with https:// or http://"));
        }
        if token.iter().any(|token| !token.bytes().all(|byte| byte.is_ascii_graphic())) {
            return Err(Failure::invalid("the token (HF_TOKEN or its file) is not a single word"));
        }
        let mut config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            // Sizes and ranges count the bytes of the file, not of an archive.
            .accept_encoding("identity")
            .user_agent(concat!("pennyweight/", env!("CARGO_PKG_VERSION")))
            .timeout_resolve(Some(Duration::from_secs(20)))
            .timeout_connect(Some(Duration::from_secs(20)))
            .timeout_recv_response(Some(Duration::from_secs(60)))
            .timeout_per_read(Some(Duration::from_secs(60)))
            .timeout_per_write(Some(Duration::from_secs(60)));
        if let Some(certificates) = root_certificates()? {
            config = config.tls_config(TlsConfig::builder().root_certs(certificates).build());
        }
        Ok(Client {
            agent: config.build().into(),
            origin: origin_of(url).to_string(),
            token,
        })
    }

    pub fn is_ours(&self, url: &str) -> bool {
        origin_of(url) == self.origin
    }

    fn send(&self, head: bool, url: &str, first: u64) -> Result<Response, Trouble> {
        let mut request = if head { self.agent.head(url) } else { self.agent.get(url) };
        if first > 0 {
            request = request.header("Range", format!("bytes={first}-"));
        }
        if let (Some(token), true) = (&self.token, self.is_ours(url)) {
            request = request.header("Authorization", format!("Bearer {token}"));
        }
        request.call().map_err(unreachable)
    }

    fn next(&self, url: &str, response: &Response) -> Result<Option<String>, Trouble> {
        if !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
            return Ok(None);
        }
        let location = header(response.headers(), "location")
            .ok_or_else(|| Failure::corrupt("the hub redirects without saying where"))?;
        Ok(Some(follow(url, location)?))
    }

    /// The response to a GET from byte `first` on, redirects followed. Status
    /// is 200, 206, or 416 where the range is not there.
    pub fn get(&self, url: &str, first: u64) -> Result<Response, Trouble> {
        let mut url = url.to_string();
        for _ in 0..HOPS {
            let response = self.send(false, &url, first)?;
            match self.next(&url, &response)? {
                Some(next) => url = next,
                None if matches!(response.status().as_u16(), 200 | 206 | 416) => {
                    return Ok(response)
                }
                None => {
                    return Err(refusal(response.status(), response.headers(), self.is_ours(&url)))
                }
            }
        }
        Err(Failure::corrupt("the hub redirects without end").into())
    }

    /// Redirects inside the hub are followed; the one to its file store is
    /// not: what counts is said before it.
    pub fn head(&self, url: &str) -> Result<Facts, Trouble> {
        let mut url = url.to_string();
        for _ in 0..HOPS {
            let response = self.send(true, &url, 0)?;
            let headers = response.headers();
            let etag = header(headers, "x-linked-etag").or_else(|| header(headers, "etag"));
            let next = self.next(&url, &response)?;
            match &next {
                Some(next) if self.is_ours(next) || etag.is_none() => {
                    url = next.clone();
                    continue;
                }
                Some(_) => {}
                None if response.status() == 200 => {}
                None => return Err(refusal(response.status(), headers, self.is_ours(&url))),
            }
            let length = match next {
                Some(_) => None,
                None => header(headers, "content-length"),
            };
            let size = header(headers, "x-linked-size").or(length);
            return Ok(Facts {
                etag: etag.unwrap_or_default().trim_start_matches("W/").replace('"', ""),
                size: size.and_then(|text| text.parse().ok()),
            });
        }
        Err(Failure::corrupt("the hub redirects without end").into())
    }
}

/// The next thing a worker sends; the user may stop meanwhile. None when the
/// worker is done.
pub fn receive<T>(meter: &Meter, receiver: &Receiver<T>) -> Outcome<Option<T>> {
    loop {
        match receiver.recv_timeout(POLL) {
            Ok(value) => return Ok(Some(value)),
            Err(RecvTimeoutError::Timeout) => meter.tell()?,
            Err(RecvTimeoutError::Disconnected) => return Ok(None),
        }
    }
}

/// Sleeps, but not past the user's wish to stop.
pub fn pause(meter: &Meter, time: Duration) -> Outcome<()> {
    let end = std::time::Instant::now() + time;
    while let Some(left) = end.checked_duration_since(std::time::Instant::now()) {
        std::thread::sleep(left.min(POLL));
        meter.tell()?;
    }
    Ok(())
}

/// The result of `work`, which a thread of its own does: one that hangs in the
/// network can't keep the user from stopping. What is passing is tried again
/// `tries` times in all.
pub fn ask<T: Send + 'static>(
    meter: &Meter,
    tries: u32,
    work: impl Fn() -> Result<T, Trouble> + Clone + Send + 'static,
) -> Result<T, Trouble> {
    let mut attempt = 0;
    loop {
        attempt += 1;
        let (sender, receiver) = sync_channel(1);
        let job = work.clone();
        std::thread::spawn(move || {
            let _ = sender.send(job());
        });
        let answer = receive(meter, &receiver)?
            .ok_or_else(|| Failure::io("the request broke off without an answer"))?;
        match answer {
            Err(trouble) if trouble.passing && attempt < tries => {
                pause(meter, Duration::from_millis(250 << attempt.min(5)))?;
            }
            answer => return answer,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects_stay_sane() {
        let url = "https://hub.test/a/b?c=d";
        assert_eq!(follow(url, "/x?u=http://y").unwrap(), "https://hub.test/x?u=http://y");
        assert_eq!(follow(url, "//cdn.test/x").unwrap(), "https://cdn.test/x");
        assert_eq!(follow(url, "https://cdn.test/x").unwrap(), "https://cdn.test/x");
        for bad in ["http://hub.test/x", "file:///etc/passwd", "javascript:x", ""] {
            assert!(follow(url, bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn origins_differ_by_host_and_port() {
        assert_eq!(origin_of("http://h:1/a"), "http://h:1");
        assert_ne!(origin_of("http://h:1/a"), origin_of("http://h:2/a"));
        assert_ne!(origin_of("https://hub.test"), origin_of("https://hub.test.evil"));
        assert_ne!(origin_of("https://hub.test"), origin_of("https://hub.test@evil"));
    }
}
