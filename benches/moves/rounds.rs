//! Rounds in which every contestant runs once, one after the other, so that what else the machine does meets all of them alike.
//! Used by every metric. Must not keep a best run: medians and the whole spread are what is told.

use std::collections::BTreeMap;
use std::time::Duration;

/// Who runs in each round. Preparing and cleaning up happen in `run`, outside of what it returns.
pub struct Contestant<'a> {
    pub name: &'static str,
    run: Box<dyn FnMut(usize) -> Duration + 'a>,
}

impl<'a> Contestant<'a> {
    /// `run` gets the round's number and returns the time that counts.
    pub fn new(name: &'static str, run: impl FnMut(usize) -> Duration + 'a) -> Self {
        Self { name, run: Box::new(run) }
    }
}

/// Seconds by contestant, one for each round.
pub type Times = BTreeMap<&'static str, Vec<f64>>;

pub fn run(rounds: usize, contestants: &mut [Contestant<'_>]) -> Times {
    let mut times = Times::new();
    for round in 0..rounds {
        for contestant in contestants.iter_mut() {
            let seconds = (contestant.run)(round).as_secs_f64();
            eprintln!("   round {}: {} {seconds:.2} s", round + 1, contestant.name);
            times.entry(contestant.name).or_default().push(seconds);
        }
    }
    times
}

pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        length if length % 2 == 1 => sorted[length / 2],
        length => f64::midpoint(sorted[length / 2 - 1], sorted[length / 2]),
    }
}
