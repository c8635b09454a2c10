//! GET requests for checks, kept from being a way into places that the user of a check could not reach.
//! Used by `checks/mod.rs`. No body, header or URL credential of an answer ever reaches a message.

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use futures::StreamExt;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::redirect::Policy;
use reqwest::{Client, Response, Url};
use serde_json::Value;

use super::{Answer, address};
use crate::api::check::HttpSource;
use crate::controller::error::Error;

/// Largest answer that is read.
const MAX_BODY: usize = 1024 * 1024;
const MAX_REDIRECTS: usize = 3;
const LONGEST: Duration = Duration::from_secs(30);

/// The client of http and prometheus checks.
pub struct Fetcher {
    client: Client,
    loopback_allowed: bool,
}

/// Resolves names and lets only addresses through that may be reached: the connection is made to what was looked at.
struct Guard {
    loopback_allowed: bool,
}

impl Resolve for Guard {
    fn resolve(&self, name: Name) -> Resolving {
        let loopback_allowed = self.loopback_allowed;
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let addresses: Vec<SocketAddr> = found.collect();
            for found in &addresses {
                if let Some(why) = address::refusal(found.ip(), loopback_allowed) {
                    return Err(refused(name.as_str(), why).into());
                }
            }
            Ok(Box::new(addresses.into_iter()) as Addrs)
        })
    }
}

fn refused(host: &str, why: &str) -> String {
    format!("{host} may not be reached: {why}")
}

impl Fetcher {
    pub fn new(loopback_allowed: bool) -> Result<Self, Error> {
        let client = Client::builder()
            .dns_resolver(Guard { loopback_allowed })
            .redirect(Policy::custom(move |attempt| {
                let first = attempt.previous().first().map(authority);
                let next = authority(attempt.url());
                if first.as_ref() != Some(&next) {
                    let host = next.0.unwrap_or_default();
                    return attempt.error(format!("redirect to another host ({host}) is not followed"));
                }
                if attempt.previous().len() > MAX_REDIRECTS {
                    return attempt.error("too many redirects");
                }
                attempt.follow()
            }))
            // A proxy would resolve names itself, out of our sight.
            .no_proxy()
            .referer(false)
            .timeout(LONGEST)
            .connect_timeout(Duration::from_secs(10))
            .user_agent(concat!("godwit/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(Error::CheckClient)?;
        Ok(Self { client, loopback_allowed })
    }

    pub async fn ask_http(&self, source: &HttpSource) -> Answer {
        let response = match self.get(&source.url, &[]).await {
            Ok(response) => response,
            Err(message) => return Answer::Error(message),
        };
        let status = response.status();
        let Some(pointer) = &source.pointer else {
            return Answer::Numbers(vec![f64::from(status.as_u16())]);
        };
        if !status.is_success() {
            return Answer::Error(format!("the server answered {}", status.as_u16()));
        }
        match json_body(response).await {
            Err(message) => Answer::Error(message),
            Ok(body) => match body.pointer(pointer).map(number) {
                None => Answer::NoData(format!("the answer has nothing at {pointer}")),
                Some(None) => Answer::NoData(format!("the answer has no number at {pointer}")),
                Some(Some(value)) => Answer::Numbers(vec![value]),
            },
        }
    }

    /// A request with the guards in place; an error is a text without credentials.
    pub async fn get(&self, url: &str, query: &[(&str, &str)]) -> Result<Response, String> {
        let mut url = Url::parse(url).map_err(|error| format!("the URL is unusable: {error}"))?;
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        self.refuse_literal(&url)?;
        let request = self.client.get(url).header("accept", "application/json");
        request.send().await.map_err(|error| spoken(&error))
    }

    /// A host that is an address already is never resolved, so the resolver does not see it.
    fn refuse_literal(&self, url: &Url) -> Result<(), String> {
        let host = url.host_str().unwrap_or_default();
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let Ok(literal) = bare.parse::<IpAddr>() else {
            return Ok(());
        };
        match address::refusal(literal, self.loopback_allowed) {
            Some(why) => Err(refused(host, why)),
            None => Ok(()),
        }
    }
}

fn authority(url: &Url) -> (Option<String>, Option<u16>) {
    (url.host_str().map(str::to_owned), url.port_or_known_default())
}

/// The error and its causes, without the URL, which may hold what is nobody's business.
fn spoken(error: &reqwest::Error) -> String {
    let mut text = if error.is_timeout() {
        "no answer in time".to_owned()
    } else if error.is_connect() {
        "no connection".to_owned()
    } else if error.is_redirect() {
        "redirected".to_owned()
    } else {
        "the request failed".to_owned()
    };
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        let _ = write!(text, ": {inner}");
        cause = inner.source();
    }
    text
}

/// The answer as JSON, read piece by piece so that an endless one costs a bounded amount of memory.
pub async fn json_body(response: Response) -> Result<Value, String> {
    let too_large = || format!("the answer is larger than {MAX_BODY} bytes");
    let announced = response.content_length().unwrap_or_default();
    if announced > MAX_BODY as u64 {
        return Err(too_large());
    }
    let mut body = Vec::new();
    let mut pieces = response.bytes_stream();
    while let Some(piece) = pieces.next().await {
        let piece = piece.map_err(|error| spoken(&error))?;
        if body.len() + piece.len() > MAX_BODY {
            return Err(too_large());
        }
        body.extend_from_slice(&piece);
    }
    serde_json::from_slice(&body).map_err(|_| "the answer is not JSON".to_owned())
}

/// A finite number, or a text that is one.
pub fn number(value: &Value) -> Option<f64> {
    let number = match value {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => text.parse().ok(),
        _ => None,
    };
    number.filter(|number: &f64| number.is_finite())
}

#[cfg(test)]
#[path = "http_tests.rs"]
mod tests;
