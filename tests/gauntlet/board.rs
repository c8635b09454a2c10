//! What the Migrations and Cohorts of all runs look like now, kept current by two watches past the proxy.
//! Used by the runs to see how far they are, and by the fake kubelet. Must not write anything.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::StreamExt;
use godwit::api::{Cohort, Migration};
use kube::core::{ApiResource, DynamicObject};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, ResourceExt};
use serde_json::Value;
use tokio::sync::watch;

#[derive(Clone)]
pub struct Board {
    objects: Arc<Mutex<HashMap<(String, String), Value>>>,
    changes: watch::Receiver<u64>,
}

impl Board {
    /// Works until the runtime ends.
    pub fn start(client: &Client) -> Self {
        let (tell, changes) = watch::channel(0);
        let tell = Arc::new(tell);
        let board = Self { objects: Arc::default(), changes };
        for kind in [ApiResource::erase::<Migration>(&()), ApiResource::erase::<Cohort>(&())] {
            let api: Api<DynamicObject> = Api::all_with(client.clone(), &kind);
            let (objects, tell) = (Arc::clone(&board.objects), Arc::clone(&tell));
            tokio::spawn(async move {
                let mut seen = watcher(api, watcher::Config::default()).default_backoff().applied_objects().boxed();
                while let Some(object) = seen.next().await {
                    let Ok(object) = object else { continue };
                    let key = (object.namespace().unwrap_or_default(), object.name_any());
                    objects.lock().unwrap().insert(key, object.data["status"].clone());
                    tell.send_modify(|count| *count += 1);
                }
            });
        }
        board
    }

    /// The status of a Migration or Cohort; all names of a run differ.
    pub fn status(&self, namespace: &str, name: &str) -> Value {
        let key = (namespace.to_owned(), name.to_owned());
        self.objects.lock().unwrap().get(&key).cloned().unwrap_or_default()
    }

    pub async fn changed(&mut self) {
        let _ = self.changes.changed().await;
    }

    /// False: it did not come true in time.
    pub async fn until(&self, limit: Duration, holds: impl Fn(&Board) -> bool) -> bool {
        let mut board = self.clone();
        let came_true = async {
            while !holds(&board) {
                board.changed().await;
            }
        };
        tokio::time::timeout(limit, came_true).await.is_ok()
    }
}

/// Whether the recorded step has this name and its Job was seen.
pub fn runs_step(status: &Value, step: &str) -> bool {
    status["step"]["name"] == step && status["step"]["job"]["seen"] == true
}

pub fn step(status: &Value) -> &str {
    status["step"]["name"].as_str().unwrap_or_default()
}
