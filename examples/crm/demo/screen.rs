//! What runs, how far it is, and when it will be done: in place on a terminal, line by line elsewhere.
//! Driven by `demo/`. Must show what the objects' status says and nothing that it made up.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{IsTerminal as _, Write as _, stdout};
use std::time::{Duration, Instant};

use godwit::api::Cohort;
use godwit::api::status::ProgressStatus;
use jiff::Timestamp;
use kube::ResourceExt;

use super::view::{View, cohort_conditions, conditions, find};

/// Every line fits a terminal of 80 columns: a wrapped line could not be drawn over.
const WIDTH: usize = 79;
const BAR: usize = 14;
const STEPS: [&str; 6] = ["Assess", "Backup", "VerifyBackup", "Prepare", "Move", "Finalize"];

pub struct Screen {
    started: Instant,
    in_place: bool,
    /// Lines of the last drawing that the next one goes over.
    drawn: usize,
    /// Without a terminal: what was said last of each object.
    said: BTreeMap<String, String>,
}

impl Screen {
    pub fn new(title: &str) -> Self {
        let mut screen =
            Self { started: Instant::now(), in_place: stdout().is_terminal(), drawn: 0, said: BTreeMap::new() };
        screen.print(&format!("{title}\n\n"));
        screen
    }

    /// A line that stays.
    pub fn say(&mut self, text: &str) {
        let line = format!("{}  {text}\n", clock(self.started.elapsed()));
        self.leave();
        self.print(&line);
    }

    pub fn draw(&mut self, view: &View) {
        if self.in_place {
            let lines = lines(view, now());
            self.leave();
            let mut text = String::new();
            for line in &lines {
                // Writing to a String cannot fail.
                let _infallible = writeln!(text, "{line}");
            }
            self.print(&text);
            self.drawn = lines.len();
        } else {
            self.tell_changes(view);
        }
    }

    /// Removes the drawing, so that what follows starts on a clean line.
    pub fn leave(&mut self) {
        if self.drawn > 0 {
            let up = format!("\x1b[{}A\x1b[J", self.drawn);
            self.print(&up);
            self.drawn = 0;
        }
    }

    fn tell_changes(&mut self, view: &View) {
        let migration = find(conditions(&view.migration), "Progressing").map(|c| c.message.clone());
        let phase = view.migration.status.as_ref().and_then(|status| status.phase.clone());
        self.tell("migration crm", &phase.unwrap_or_default(), &migration.unwrap_or_default());
        for cohort in &view.cohorts {
            let status = cohort.status.as_ref();
            let phase = status.and_then(|status| status.phase.clone()).unwrap_or_default();
            let message = find(cohort_conditions(cohort), "Progressing").map(|c| c.message.clone());
            self.tell(&format!("cohort {}", cohort.name_any()), &phase, &message.unwrap_or_default());
        }
    }

    fn tell(&mut self, who: &str, phase: &str, message: &str) {
        if phase.is_empty() || self.said.get(who).is_some_and(|said| said == phase) {
            return;
        }
        self.said.insert(who.to_owned(), phase.to_owned());
        let line = format!("{}  {who:<14} {phase:<16} {message}\n", clock(self.started.elapsed()));
        self.print(&line);
    }

    /// A terminal that went away is no reason to stop a migration.
    fn print(&mut self, text: &str) {
        let mut out = stdout();
        if out.write_all(text.as_bytes()).and_then(|()| out.flush()).is_err() {
            self.in_place = false;
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "an estimate is shown as the time from now")]
fn now() -> Timestamp {
    Timestamp::now()
}

fn lines(view: &View, now: Timestamp) -> Vec<String> {
    let mut lines = vec![String::new(), migration_line(view)];
    if let Some(message) = find(conditions(&view.migration), "Progressing") {
        lines.push(format!("  {}", message.message));
    }
    lines.push(String::new());
    for cohort in &view.cohorts {
        lines.push(cohort_line(cohort, now));
    }
    lines.iter().map(|line| line.chars().take(WIDTH).collect()).collect()
}

fn migration_line(view: &View) -> String {
    let status = view.migration.status.as_ref();
    let current = status.and_then(|status| status.step.as_ref()).map(|step| step.name.clone());
    let position = current.and_then(|name| STEPS.iter().position(|step| *step == name));
    let marks = STEPS.iter().enumerate().map(|(index, step)| match position {
        _ if view.succeeded() => format!("{step} ✓"),
        Some(position) if index < position => format!("{step} ✓"),
        Some(position) if index == position => format!("{step} ●"),
        _ => format!("{step}  "),
    });
    format!("  {}", marks.collect::<Vec<_>>().join("  "))
}

fn cohort_line(cohort: &Cohort, now: Timestamp) -> String {
    let Some(status) = &cohort.status else {
        return format!("  {}", cohort.name_any());
    };
    let phase = status.phase.as_deref().unwrap_or("Pending");
    let soak = match (&status.cutover_time, &status.soak_end_time) {
        (Some(from), Some(to)) if phase == "Soaking" => Some((from.0, to.0)),
        _ => None,
    };
    let detail = match (soak, &status.progress) {
        (Some((from, to)), _) => {
            let whole = to.duration_since(from).as_secs_f64().max(0.001);
            let share = now.duration_since(from).as_secs_f64() / whole;
            format!("{}  another {}", bar(share), from_now(to, now))
        }
        (None, Some(progress)) if phase != "Done" && phase != "RolledBack" => {
            format!("{}{}", progress_bar(progress), progress_text(progress, now))
        }
        _ => find(cohort_conditions(cohort), "Progressing").map(|c| c.message.clone()).unwrap_or_default(),
    };
    let customers = status.customers.map(|customers| format!("{:<18}", format!("{} customers", grouped(customers))));
    format!("  {:<8}{phase:<13}{}{detail}", cohort.name_any(), customers.unwrap_or_default())
}

fn progress_bar(progress: &ProgressStatus) -> String {
    if progress.total <= 0 {
        return String::new();
    }
    #[expect(clippy::cast_precision_loss, reason = "a bar of a few characters")]
    let share = progress.completed as f64 / progress.total as f64;
    format!("{}  ", bar(share))
}

fn bar(share: f64) -> String {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "between 0 and the bar's length"
    )]
    let full = (share.clamp(0.0, 1.0) * BAR as f64) as usize;
    format!("{}{}", "█".repeat(full), "░".repeat(BAR - full))
}

fn progress_text(progress: &ProgressStatus, now: Timestamp) -> String {
    let mut text = String::new();
    if let Some(rate) = progress.rate_per_second.filter(|rate| *rate > 0) {
        text = format!("{} {}/s", grouped(rate), progress.unit);
    }
    if let Some(eta) = &progress.estimated_completion_time {
        // Writing to a String cannot fail.
        let _infallible = write!(text, "  ETA {}", from_now(eta.0, now));
    }
    text
}

fn from_now(time: Timestamp, now: Timestamp) -> String {
    let left = time.duration_since(now).as_secs().max(0);
    if left >= 60 { format!("{} min {} s", left / 60, left % 60) } else { format!("{left} s") }
}

fn clock(elapsed: Duration) -> String {
    let seconds = elapsed.as_secs();
    format!("{:>3}:{:02}", seconds / 60, seconds % 60)
}

/// 1234567 as 1,234,567.
pub fn grouped(number: i64) -> String {
    let digits = number.unsigned_abs().to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    if number < 0 { format!("-{text}") } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view() -> View {
        let cohort = r#"{"apiVersion":"godwit.dev/v1alpha1","kind":"Cohort","metadata":{"name":"early"},
            "spec":{"migrationRef":{"name":"crm"},"wave":1,"select":{"percent":20}},
            "status":{"phase":"Copying","attempts":1,"epoch":0,"customers":4000,
              "progress":{"unit":"rows","total":140000,"completed":70000,"ratePerSecond":35000,
                "estimatedCompletionTime":"2026-03-01T00:00:12Z","updateTime":"2026-03-01T00:00:10Z"}}}"#;
        let migration = r#"{"apiVersion":"godwit.dev/v1alpha1","kind":"Migration","metadata":{"name":"crm"},
            "spec":{"engine":{},"dataset":{"root":{"table":"public.account","key":"id"}},
              "backup":{"storage":{}},"rollback":{"mode":"RestoreOnly"}},
            "status":{"attempts":4,"phase":"Moving","step":{"name":"Move","startTime":"2026-03-01T00:00:00Z"}}}"#;
        View {
            migration: serde_json::from_str(migration).unwrap(),
            cohorts: vec![serde_json::from_str(cohort).unwrap()],
        }
    }

    #[test]
    fn the_drawing_says_what_runs_how_far_it_is_and_when_it_will_be_done() {
        let lines = lines(&view(), "2026-03-01T00:00:10Z".parse().unwrap());
        assert_eq!(lines[1], "  Assess ✓  Backup ✓  VerifyBackup ✓  Prepare ✓  Move ●  Finalize  ");
        assert_eq!(lines[3], "  early   Copying      4,000 customers   ███████░░░░░░░  35,000 rows/s  ETA 2 s");
        assert!(lines.iter().all(|line| line.chars().count() <= WIDTH));
    }

    #[test]
    fn numbers_are_grouped_by_thousands() {
        assert_eq!(["0", "999", "1,000", "-1,234,567"], [0, 999, 1_000, -1_234_567].map(grouped).as_slice());
    }
}
