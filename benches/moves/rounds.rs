//! Rounds in which every contestant runs once, one after the other, so that what else the machine does meets all of them alike.
//! Used by every metric. Must not keep a best run: medians and the whole spread are what is told.

use std::collections::BTreeMap;
use std::sync::OnceLock;
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
            let before = processor_seconds();
            let seconds = (contestant.run)(round).as_secs_f64();
            let worked = processor_seconds() - before;
            eprintln!(
                "   round {}: {} {seconds:.2} s (processor, with preparing: {worked:.2} s)",
                round + 1,
                contestant.name
            );
            times.entry(contestant.name).or_default().push(seconds);
        }
    }
    times
}

/// Kernel accounts of the servers, set once they run.
pub static SERVERS: OnceLock<Vec<String>> = OnceLock::new();

/// What this program's children and the servers' ended backends have computed: unlike the clock it hardly depends on who else runs.
fn processor_seconds() -> f64 {
    let servers = SERVERS.get().map(Vec::as_slice).unwrap_or_default();
    let own = "/proc/self/stat".to_owned();
    servers.iter().chain([&own]).map(|path| of_ended_children(path)).sum()
}

fn of_ended_children(path: &str) -> f64 {
    const TICKS_PER_SECOND: f64 = 100.0;
    let text = std::fs::read_to_string(path).unwrap_or_default();
    // Behind the name, which may hold spaces; there cutime and cstime are the 14th and 15th.
    let fields = text.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace();
    fields.skip(13).take(2).filter_map(|field| field.parse::<f64>().ok()).sum::<f64>() / TICKS_PER_SECOND
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
