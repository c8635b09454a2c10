//! How long an object waits after a failed pass: growing per object, with jitter, forgotten on success.
//! Used by `error_policy`. Must hold nothing for objects that are well.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::error::Class;

const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(300);
const AFTER_CONFLICT: Duration = Duration::from_millis(300);
/// For what only a person can change; a watch wakes us when the object itself is repaired.
const AFTER_REFUSAL: Duration = Duration::from_secs(60);

/// Failures in a row, by object.
#[derive(Debug, Default)]
pub struct Backoff {
    failures: Mutex<HashMap<String, u32>>,
}

impl Backoff {
    pub fn clear(&self, object: &str) {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner).remove(object);
    }

    /// The wait after one more failure.
    pub fn next(&self, object: &str, class: Class) -> Duration {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        let count = failures.entry(object.to_owned()).or_default();
        *count = count.saturating_add(1);
        let wait = match class {
            Class::Conflict => AFTER_CONFLICT,
            Class::Transient => FIRST.saturating_mul(1 << (*count - 1).min(9)).min(LONGEST),
            Class::Denied | Class::Bug => AFTER_REFUSAL.saturating_mul(*count).min(LONGEST),
        };
        jittered(wait)
    }
}

/// Up to a fifth longer, so that objects that failed together do not come back together.
pub fn jittered(wait: Duration) -> Duration {
    let dice = RandomState::new().build_hasher().finish() % 200;
    let share = u32::try_from(dice).unwrap_or_default();
    wait + wait.saturating_mul(share) / 1000
}

#[cfg(test)]
mod tests {
    use super::*;

    fn within(wait: Duration, seconds: u64) -> bool {
        let base = Duration::from_secs(seconds);
        wait >= base && wait <= base + base / 5
    }

    #[test]
    fn failures_in_a_row_wait_longer_and_success_forgets_them() {
        let backoff = Backoff::default();
        assert!(within(backoff.next("a", Class::Transient), 1));
        assert!(within(backoff.next("a", Class::Transient), 2));
        assert!(within(backoff.next("a", Class::Transient), 4));
        assert!(within(backoff.next("b", Class::Transient), 1));
        for _ in 0..20 {
            backoff.next("a", Class::Transient);
        }
        assert!(within(backoff.next("a", Class::Transient), 300));
        backoff.clear("a");
        assert!(within(backoff.next("a", Class::Transient), 1));
    }

    #[test]
    fn a_conflict_is_looked_at_again_soon_and_a_refusal_slowly() {
        let backoff = Backoff::default();
        assert!(backoff.next("a", Class::Conflict) < Duration::from_secs(1));
        assert!(within(backoff.next("b", Class::Denied), 60));
        assert!(within(backoff.next("c", Class::Bug), 60));
    }
}
