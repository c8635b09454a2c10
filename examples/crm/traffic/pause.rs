//! How long the users of a cohort could not write. Pure: time comes in as milliseconds of a monotonic clock.
//! Used by `traffic/`. A pause begins with the first refused write and ends with the next one that is confirmed.

use std::collections::BTreeMap;

#[derive(Default)]
pub struct Pauses {
    open: BTreeMap<String, Pause>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pause {
    began_at: i64,
    pub millis: i64,
    /// Attempts that were refused.
    pub attempts: i64,
}

impl Pauses {
    pub fn refused(&mut self, cohort: &str, now: i64) {
        let pause = self.open.entry(cohort.to_owned()).or_insert(Pause { began_at: now, millis: 0, attempts: 0 });
        pause.attempts += 1;
    }

    /// The pause that this write ended, if it did. `tried_at` is when the attempt that succeeded began: a write that was
    /// on its way before the pause began says nothing about its end.
    pub fn confirmed(&mut self, cohort: &str, tried_at: i64, now: i64) -> Option<Pause> {
        if self.open.get(cohort)?.began_at > tried_at {
            return None;
        }
        let mut pause = self.open.remove(cohort)?;
        pause.millis = now - pause.began_at;
        Some(pause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_lasts_from_the_first_refusal_to_the_next_confirmed_write_of_the_same_cohort() {
        let mut pauses = Pauses::default();
        pauses.refused("early", 1_000);
        pauses.refused("early", 1_400);
        assert_eq!(pauses.confirmed("canary", 1_450, 1_500), None);
        let pause = pauses.confirmed("early", 1_850, 1_900).unwrap();
        assert_eq!((pause.millis, pause.attempts), (900, 2));
        assert_eq!(pauses.confirmed("early", 2_400, 2_500), None);
    }

    #[test]
    fn a_write_that_was_on_its_way_before_the_pause_does_not_end_it() {
        let mut pauses = Pauses::default();
        pauses.refused("early", 1_000);
        assert_eq!(pauses.confirmed("early", 990, 1_010), None);
        assert_eq!(pauses.confirmed("early", 1_200, 1_210).unwrap().millis, 210);
    }
}
