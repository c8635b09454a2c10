//! The summary at the end: a table for people, and the same facts as JSON for tests.
//! Called by `demo/`. Must print broken promises as loudly as kept ones.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;

use anyhow::Context;
use serde_json::json;

use super::Story;
use super::facts::{CohortFacts, Facts, StepTime};
use super::promises::Promise;
use super::screen::grouped;
use crate::history::Classes;

pub fn print(story: Story, facts: &Facts, promises: &[Promise]) -> anyhow::Result<()> {
    let text = render(story, facts, promises).context("failed to write the summary")?;
    std::io::stdout().write_all(text.as_bytes()).context("failed to print the summary")
}

pub async fn store(path: &Path, story: Story, facts: &Facts, promises: &[Promise]) -> anyhow::Result<()> {
    let kept = promises.iter().all(|promise| promise.kept);
    let summary = json!({"story": format!("{story:?}"), "kept": kept, "promises": promises, "facts": facts});
    tokio::fs::write(path, serde_json::to_vec_pretty(&summary)?)
        .await
        .with_context(|| format!("failed to write {}", path.display()))
}

fn render(story: Story, facts: &Facts, promises: &[Promise]) -> Result<String, std::fmt::Error> {
    let mut text = String::new();
    let minutes = facts.elapsed_seconds / 60;
    writeln!(text, "\nSummary after {minutes} min {} s\n", facts.elapsed_seconds % 60)?;
    writeln!(text, "  migration  {}", steps(&facts.steps))?;
    writeln!(text)?;
    writeln!(text, "  cohort     customers       rows    write pause   as users saw it   checks")?;
    for cohort in &facts.cohorts {
        row(&mut text, cohort, facts)?;
    }
    writeln!(text)?;
    for cohort in &facts.cohorts {
        if !cohort.steps.is_empty() {
            writeln!(text, "  {:<10} {}", cohort.name, steps(&cohort.steps))?;
        }
    }
    if story == Story::Rollback {
        set_aside(&mut text, facts)?;
    }
    writeln!(text)?;
    for promise in promises {
        let mark = if promise.kept { "kept  " } else { "BROKEN" };
        writeln!(text, "  {mark}  {}", promise.text)?;
        writeln!(text, "          {}", promise.seen)?;
    }
    writeln!(text)?;
    Ok(text)
}

fn row(text: &mut String, cohort: &CohortFacts, facts: &Facts) -> std::fmt::Result {
    let users = facts.findings.cohorts.get(&cohort.name).and_then(|found| found.pause_millis);
    let checks = cohort.checks.iter().map(|(name, verdict)| format!("{name} {verdict}"));
    writeln!(
        text,
        "  {:<10}{:>10} {:>10} {:>14} {:>17}   {}",
        cohort.name,
        number(cohort.customers),
        number(cohort.rows),
        duration(cohort.pause_millis),
        duration(users),
        checks.collect::<Vec<_>>().join(", ")
    )
}

fn set_aside(text: &mut String, facts: &Facts) -> std::fmt::Result {
    let back = facts.findings.cohorts.iter().filter_map(|(name, found)| Some((name, found.way_back_millis?)));
    for (name, millis) in back {
        writeln!(text, "\n  The way back of cohort {name} paused its users for {}.", duration(Some(millis)))?;
    }
    writeln!(text, "\n  Set aside by going back     inserted  updated  deleted   as exported")?;
    for (cohort, tables) in &facts.findings.set_aside {
        for (table, recorded) in tables {
            let exported = facts.findings.exported.get(table).copied().unwrap_or_default();
            let same = if exported == *recorded { "the same".to_owned() } else { classes(exported) };
            writeln!(
                text,
                "  {cohort:<8} {table:<18} {:>8} {:>8} {:>8}   {same}",
                recorded.insert, recorded.update, recorded.delete
            )?;
        }
    }
    let (files, bytes) = (facts.findings.exported_files, facts.findings.exported_bytes);
    writeln!(text, "  in {files} files of together {bytes} bytes in the backup storage, each as its digest says")
}

fn classes(classes: Classes) -> String {
    format!("{} {} {}", classes.insert, classes.update, classes.delete)
}

fn steps(steps: &[StepTime]) -> String {
    let steps = steps.iter().map(|step| format!("{} {:.1} s", step.step, step.seconds));
    steps.collect::<Vec<_>>().join(" · ")
}

fn number(number: Option<i64>) -> String {
    number.map_or_else(|| "–".to_owned(), grouped)
}

fn duration(millis: Option<i64>) -> String {
    millis.map_or_else(|| "–".to_owned(), |millis| format!("{}.{:03} s", millis / 1000, millis % 1000))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broken_promise_stands_out_and_says_what_was_seen() {
        let promise = Promise { text: "No user met an error", kept: false, seen: "2 errors".to_owned() };
        let text = render(Story::Forward, &Facts::default(), &[promise]).unwrap();
        assert!(text.contains("  BROKEN  No user met an error\n          2 errors\n"), "{text}");
    }

    #[test]
    fn the_pauses_of_godwit_and_of_the_users_stand_side_by_side() {
        let mut facts = Facts::default();
        let pause_millis = Some(412);
        facts.cohorts.push(CohortFacts {
            name: "canary".to_owned(),
            customers: Some(1200),
            pause_millis,
            ..CohortFacts::default()
        });
        let found = facts.findings.cohorts.entry("canary".to_owned()).or_default();
        found.pause_millis = Some(1_050);
        let text = render(Story::Forward, &facts, &[]).unwrap();
        assert!(text.contains("1,200          –        0.412 s           1.050 s"), "{text}");
    }
}
