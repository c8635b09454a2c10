//! Progress lines on standard output, the only thing that a Job prints there.
//! Steps count what they did; the operator reads the last line and shows it with rate and ETA.
//! Must not print more than about one line a second, and never anything but numbers.

use std::io::Write;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::contract;

const INTERVAL: Duration = Duration::from_secs(1);

/// Counts of one step; shared by its lanes.
#[derive(Debug)]
pub struct Progress {
    unit: &'static str,
    done: AtomicU64,
    total: AtomicU64,
    last: Mutex<Option<Instant>>,
}

impl Progress {
    /// `unit` is `rows`, `bytes` or `tables`.
    pub fn new(unit: &'static str) -> Self {
        Self { unit, done: AtomicU64::new(0), total: AtomicU64::new(0), last: Mutex::new(None) }
    }

    pub fn set_total(&self, total: u64) {
        self.total.store(total, Ordering::Relaxed);
        self.tell(false);
    }

    /// Adds what was just done; prints at most once a second.
    pub fn advance(&self, done: u64) {
        self.done.fetch_add(done, Ordering::Relaxed);
        self.tell(false);
    }

    /// Prints the last state.
    pub fn finish(&self) {
        self.tell(true);
    }

    pub fn snapshot(&self) -> contract::Progress {
        contract::Progress {
            unit: self.unit.to_owned(),
            done: self.done.load(Ordering::Relaxed),
            total: self.total.load(Ordering::Relaxed),
        }
    }

    fn tell(&self, now: bool) {
        let Ok(mut last) = self.last.lock() else {
            return;
        };
        if !now && last.is_some_and(|at| at.elapsed() < INTERVAL) {
            return;
        }
        *last = Some(Instant::now());
        let line = contract::ProgressLine { progress: self.snapshot() };
        if let Ok(text) = serde_json::to_string(&line) {
            // A closed standard output costs the display, never the step.
            let _ = writeln!(std::io::stdout().lock(), "{text}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lanes_add_up() {
        let progress = Progress::new("rows");
        progress.set_total(10);
        progress.advance(3);
        progress.advance(4);
        assert_eq!(progress.snapshot(), contract::Progress { unit: "rows".into(), done: 7, total: 10 });
    }
}
