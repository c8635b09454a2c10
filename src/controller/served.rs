//! Whether the cluster serves our kinds: people and Helm install the definitions, the operator only looks.
//! Asked once at start; until all are served the operator is not ready and says which one is missing.

use std::time::Duration;

use kube::Client;

use super::call::call;
use super::error::Attempt;
use crate::api::names::GROUP;
use crate::readiness::Readiness;

const KINDS: [&str; 3] = ["migrations", "cohorts", "approvals"];
const PAUSE: Duration = Duration::from_secs(2);

/// Waits until every kind is served.
pub async fn wait_for_kinds(client: &Client, readiness: &Readiness) {
    loop {
        match missing(client).await {
            Ok(None) => return,
            Ok(Some(kind)) => {
                tracing::warn!(definition = kind, "CustomResourceDefinition is missing");
                readiness.not_yet(format!("the CustomResourceDefinition {kind} is not installed"));
            }
            Err(error) => {
                tracing::warn!(error, "API server could not be asked for its kinds");
                readiness.not_yet(format!("the API server cannot be asked: {error}"));
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn missing(client: &Client) -> Result<Option<String>, String> {
    let version = format!("{GROUP}/v1alpha1");
    let attempt = Attempt::new("list", "api resources of", version.as_str());
    let served = match call(attempt, client.list_api_group_resources(&version)).await {
        Ok(list) => list.resources,
        Err(error) if error.text().contains("404") => Vec::new(),
        Err(error) if is_absent(&error) => Vec::new(),
        Err(error) => return Err(error.text()),
    };
    let absent = KINDS.into_iter().find(|kind| !served.iter().any(|resource| resource.name == *kind));
    Ok(absent.map(|kind| format!("{kind}.{GROUP}")))
}

fn is_absent(error: &super::error::Error) -> bool {
    matches!(error, super::error::Error::Request { source, .. }
        if matches!(&**source, kube::Error::Api(status) if status.is_not_found()))
}
