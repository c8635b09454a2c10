//! Results: each ratio with its rounds, as one JSON file and as a Markdown table.
//! Filled by the metrics, written by `main`. Must tell the spread and the misses, and nothing about the machine but its kind.

use serde_json::{Value, json};

use crate::peers;
use crate::rig::{Rig, line_of, value};
use crate::rounds::{Times, median};

/// Where the generated table stands in docs/benchmarks.md.
const BEGIN: &str = "<!-- begin of what `make bench` writes -->";
const END: &str = "<!-- end of what `make bench` writes -->";

#[derive(Clone, Copy, Debug)]
pub enum Goal {
    /// How many times faster than the peer we are.
    AtLeast(f64),
    /// How many times the peer's time we take.
    AtMost(f64),
}

/// One ratio.
pub struct Line {
    pub metric: &'static str,
    pub ours: &'static str,
    pub peer: &'static str,
    /// Absent where the figure is for information only.
    pub goal: Option<Goal>,
    /// What of the product ran.
    pub by: &'static str,
}

pub struct Results {
    pub ratios: Vec<Value>,
    /// Figures that are no ratio of times: memory, row versions, parts of a whole.
    pub figures: Vec<Value>,
    about: Value,
    scale: f64,
}

impl Results {
    pub fn of(rig: &Rig) -> Self {
        let server = value(&rig.source_uri(), "show server_version");
        let about = json!({
            "postgres": server,
            "pgcopydb": peers::pgcopydb_version(),
            "cores": std::thread::available_parallelism().map_or(0, std::num::NonZero::get),
            "processor": line_of("grep -m1 'model name' /proc/cpuinfo | cut -d: -f2").trim(),
            "load": line_of("cut -d' ' -f1-3 /proc/loadavg"),
            "scale": rig.scale,
            "bytes": value(&rig.source_uri(), "select sum(pg_table_size(oid)) from pg_class where relkind = 'r' and relnamespace = 'public'::regnamespace"),
            "rows": crate::data::TABLES.iter().map(|table| crate::data::rows(table.name, rig.scale)).sum::<u64>(),
        });
        Self { ratios: Vec::new(), figures: Vec::new(), about, scale: rig.scale }
    }

    /// The ratio round by round, then its median: both contestants of a round met the same machine.
    pub fn add(&mut self, times: &Times, line: Line) {
        let (ours, theirs) = (&times[line.ours], &times[line.peer]);
        let (goal, wanted, slower) = match line.goal {
            Some(Goal::AtMost(limit)) => (format!("≤ {limit}×"), Some(limit), true),
            Some(Goal::AtLeast(limit)) => (format!("≥ {limit}×"), Some(limit), false),
            None => (String::new(), None, false),
        };
        let ratios: Vec<f64> =
            ours.iter().zip(theirs).map(|(ours, theirs)| if slower { ours / theirs } else { theirs / ours }).collect();
        let middle = median(&ratios);
        let met = wanted.map(|limit| if slower { middle <= limit } else { middle >= limit });
        eprintln!("   {} / {}: {middle:.2} {goal} {met:?}", line.metric, line.peer);
        self.ratios.push(json!({
            "metric": line.metric, "peer": line.peer, "goal": goal, "met": met, "ratio": rounded(middle),
            "spread": [rounded(ratios.iter().copied().fold(f64::INFINITY, f64::min)), rounded(ratios.iter().copied().fold(0.0, f64::max))],
            "rounds": ratios.len(), "ours": ours, "theirs": theirs, "by": line.by,
            "medians": [rounded(median(ours)), rounded(median(theirs))],
        }));
    }

    pub fn figure(&mut self, name: &str, figure: impl Into<String>, met: Option<bool>, goal: &str) {
        let figure = figure.into();
        eprintln!("   {name}: {figure} {goal}");
        self.figures.push(json!({"name": name, "figure": figure, "goal": goal, "met": met}));
    }

    pub fn write(&self) {
        let all = json!({"v": 1, "about": self.about, "ratios": self.ratios, "figures": self.figures});
        std::fs::write("target/bench.json", serde_json::to_string_pretty(&all).unwrap()).unwrap();
    }

    pub fn markdown(&self) -> String {
        let about = &self.about;
        let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), ToOwned::to_owned);
        let mib = about["bytes"].as_str().and_then(|bytes| bytes.parse::<f64>().ok()).unwrap_or(0.0) / 1_048_576.0;
        let mut page = format!(
            "PostgreSQL {}, {}, {} cores; {} rows, {mib:.0} MiB of heap (scale {}). Load of the machine when it began: {}.\n\n\
             | metric | against | goal | measured | spread | rounds | seconds, ours / theirs | |\n\
             | --- | --- | --- | --- | --- | --- | --- | --- |\n",
            text(&about["postgres"]),
            text(&about["pgcopydb"]),
            about["cores"],
            about["rows"],
            self.scale,
            text(&about["load"]),
        );
        for ratio in &self.ratios {
            let verdict = verdict(&ratio["met"]);
            page.push_str(&format!(
                "| {} | {} | {} | **{}×** | {}–{} | {} | {} / {} | {verdict} |\n",
                text(&ratio["metric"]),
                text(&ratio["peer"]),
                text(&ratio["goal"]),
                ratio["ratio"],
                ratio["spread"][0],
                ratio["spread"][1],
                ratio["rounds"],
                ratio["medians"][0],
                ratio["medians"][1],
            ));
        }
        page.push_str("\n| figure | goal | measured | |\n| --- | --- | --- | --- |\n");
        for figure in &self.figures {
            page.push_str(&format!(
                "| {} | {} | {} | {} |\n",
                text(&figure["name"]),
                text(&figure["goal"]),
                text(&figure["figure"]),
                verdict(&figure["met"])
            ));
        }
        page
    }

    /// Only on request: a run on a loaded machine or a small scale must not replace what was measured with care.
    pub fn write_page(&self) {
        if std::env::var_os("GODWIT_BENCH_DOCS").is_none() {
            return;
        }
        let path = "docs/benchmarks.md";
        let page = std::fs::read_to_string(path).unwrap();
        let (head, rest) = page.split_once(BEGIN).unwrap();
        let (_, tail) = rest.split_once(END).unwrap();
        std::fs::write(path, format!("{head}{BEGIN}\n{}{END}{tail}", self.markdown())).unwrap();
    }
}

fn verdict(met: &Value) -> &'static str {
    match met.as_bool() {
        Some(true) => "met",
        Some(false) => "**missed**",
        None => "",
    }
}

fn rounded(number: f64) -> f64 {
    (number * 100.0).round() / 100.0
}
