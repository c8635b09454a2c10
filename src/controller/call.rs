//! One request to the API server: with a time limit, and with a name for what was attempted.
//! Every request of this room goes through here: the client library itself would wait for ever for a silent server.

use std::fmt::Debug;
use std::future::Future;
use std::time::Duration;

use kube::Api;
use kube::api::ListParams;
use serde::de::DeserializeOwned;

use super::error::{Attempt, Error};

/// Longest wait for one answer.
pub const LIMIT: Duration = Duration::from_secs(15);
/// Objects a page.
const PAGE: u32 = 500;

/// Sends a request; an answer that does not come in time is an error like any other.
pub async fn call<T>(attempt: Attempt, request: impl Future<Output = kube::Result<T>>) -> Result<T, Error> {
    match tokio::time::timeout(LIMIT, request).await {
        Err(_) => Err(Error::NoAnswer { attempt, limit: LIMIT }),
        Ok(Err(kube::Error::SerdeError(source))) => Err(Error::Malformed(attempt, source)),
        Ok(Err(source)) => Err(Error::Request { attempt, source: Box::new(source) }),
        Ok(Ok(answer)) => Ok(answer),
    }
}

/// All pages of a consistent list.
pub async fn list<K>(resource: &'static str, api: &Api<K>, params: ListParams) -> Result<Vec<K>, Error>
where
    K: Clone + DeserializeOwned + Debug,
{
    let selectors = [&params.label_selector, &params.field_selector];
    let text: Vec<_> = selectors.into_iter().flatten().cloned().collect();
    let mut found = Vec::new();
    let mut page = params.limit(PAGE);
    loop {
        let attempt = Attempt::new("list", resource, text.join(","));
        let answer = call(attempt, api.list(&page)).await?;
        let next = answer.metadata.continue_.filter(|next| !next.is_empty());
        found.extend(answer.items);
        match next {
            Some(token) => page = page.continue_token(&token),
            None => return Ok(found),
        }
    }
}
