//! What the operator still misses before it can work: told by `controller/`, served by `server`.
//! Stands apart so that neither of the two has to know the other. Must hold nothing but that one answer.

use std::sync::{PoisonError, RwLock};

/// Whether the operator can do its work, and what is missing.
#[derive(Debug)]
pub struct Readiness {
    missing: RwLock<Option<String>>,
}

impl Default for Readiness {
    fn default() -> Self {
        Self { missing: RwLock::new(Some("the operator is starting".to_owned())) }
    }
}

impl Readiness {
    pub fn ready(&self) {
        *self.missing.write().unwrap_or_else(PoisonError::into_inner) = None;
    }

    pub fn not_yet(&self, missing: String) {
        *self.missing.write().unwrap_or_else(PoisonError::into_inner) = Some(missing);
    }

    /// What is missing; `None` when ready.
    pub fn missing(&self) -> Option<String> {
        self.missing.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
