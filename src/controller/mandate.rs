//! Until when this process may write: as long as nobody else can hold the lease.
//! Extended by `lease.rs` with each renewal, asked by `client.rs` before each write. Without it a leader that was stopped and goes on
//! would write, from what it knew or reads anew, until it notices that its lease is another's.

use std::sync::{Mutex, PoisonError};

use tokio::time::Instant;

/// Nobody's at first.
#[derive(Debug, Default)]
pub struct Mandate {
    until: Mutex<Option<Instant>>,
}

impl Mandate {
    pub fn extend(&self, until: Instant) {
        *self.until.lock().unwrap_or_else(PoisonError::into_inner) = Some(until);
    }

    pub fn end(&self) {
        *self.until.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    pub fn holds(&self) -> bool {
        self.until.lock().unwrap_or_else(PoisonError::into_inner).is_some_and(|until| Instant::now() < until)
    }
}

/// What a write is answered with that nobody may send any more.
#[derive(Debug, thiserror::Error)]
#[error("this process may not write: it does not hold the lease, or could not renew it in time")]
pub struct NoMandate;
