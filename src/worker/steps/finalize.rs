//! Finalize: the target owns everything; fences and ledger go, sequences are joined, the ledger's story is kept as a file.
//! The last step of a migration, after its approval. From here on there is no way back.
//! Must not end a migration that still has a customer on the source.

use std::collections::BTreeMap;
use std::time::Instant;

use super::reporting::{blocker, milliseconds, signed};
use super::{ending, validate};
use crate::contract::{Owner, Report, ReportResult, code, exit};
use crate::worker::postgres::catalog::read_catalog;
use crate::worker::postgres::ledger::{self, Ownership};
use crate::worker::postgres::model::entry;
use crate::worker::postgres::session::Session;
use crate::worker::postgres::soundness;
use crate::worker::{Error, Job};

pub async fn run(job: &Job) -> Result<Report, Error> {
    let started = Instant::now();
    let migration = &job.input.migration;
    let mut source = job.source().await?;
    let mut target = job.target().await?;
    let source_has = ending::has_ledger(&source, migration).await?;
    let target_has = ending::has_ledger(&target, migration).await?;
    let last_word = ending::last_word(job).await?;
    if target_has {
        refuse_unfinished(source_has.then_some(&source), &target).await?;
    }
    // An attempt that had its last word may have ended while it left the source, some of whose fences are gone then.
    if source_has && target_has && last_word.is_none() {
        refuse_open_source(job, &source, &target).await?;
    }
    // The source is left first: without its ledger an earlier attempt came that far, and what it had to tell is told again.
    let last_word = last_word.filter(|_| !source_has);
    let (mut report, is_told) = last_word.map_or((Report::new(ReportResult::Pass), false), |report| (report, true));
    if target_has {
        ending::take_over(&target, job.subject(), job.input.attempt).await?;
        if source_has {
            ending::take_over(&source, job.subject(), job.input.attempt).await?;
        }
    }
    if target_has && !is_told {
        let of_source = source_has.then_some(&source);
        ending::store_archive(job, (of_source, &target), &mut report).await?;
    }
    let joined =
        ending::join_sequences(source_has.then_some(&mut source), target_has.then_some(&mut target), job.subject())
            .await?;
    if !is_told {
        report.counts.insert("sequencesJoined".into(), signed(joined));
        report.timings.insert("finalize".into(), milliseconds(started));
        if target_has {
            ending::store_last_word(job, &report).await?;
        }
    }
    // While the target still has its ledger, the next attempt knows that there is something left to do.
    for session in [&mut source, &mut target] {
        ending::leave(session).await?;
        job.progress.advance(1);
    }
    Ok(report)
}

/// The two shared entries and every cohort that has customers must be the target's, in both ledgers alike: a source that was set back
/// owns some of them again, and may have been written since. A cohort that was given back has no customers.
async fn refuse_unfinished(source: Option<&Session>, target: &Session) -> Result<(), Error> {
    let on_target = entries(target).await?;
    let on_source = match source {
        Some(source) => entries(source).await?,
        None => on_target.clone(),
    };
    let both = || on_target.iter().chain(&on_source);
    let others = names(both().filter(|entry| entry.owner != Owner::Target));
    if !others.is_empty() {
        let told = "The target does not own these entries of the ledger, or the source has them again after it was set back; move \
                    their customers first.";
        return refuse(code::STILL_ON_SOURCE, &others, told);
    }
    let differ = names(both().filter(|entry| !(on_target.contains(entry) && on_source.contains(entry))));
    if differ.is_empty() {
        return Ok(());
    }
    let told = "The two ledgers do not tell the same of these entries; a database was set back or its ledger was changed. Find out what \
                else is missing before you retry.";
    refuse(code::LEDGERS_DISAGREE, &differ, told)
}

fn refuse(code: &str, entries: &[String], told: &str) -> Result<(), Error> {
    Err(Error::refused(exit::DATA_DIFFERS, blocker(code, &entries.join(", "), told)))
}

/// Each once, in the order of the ledger.
fn names<'a>(entries: impl Iterator<Item = &'a Ownership>) -> Vec<String> {
    let by_entry: BTreeMap<i32, String> = entries.map(|entry| (entry.entry, entry.name.clone())).collect();
    by_entry.into_values().collect()
}

/// The entries that the end of a migration depends on.
async fn entries(session: &Session) -> Result<Vec<Ownership>, Error> {
    let with_customers = session
        .query("select distinct entry from godwit.member", &[])
        .await
        .map_err(Error::database(format!("read which cohorts of the {} have customers", session.side())))?;
    let with_customers: Vec<i32> = with_customers.iter().map(|row| row.get(0)).collect();
    let mut entries = ledger::ownerships(&**session).await?;
    entries.retain(|it| {
        it.entry != entry::NATIVE && (it.entry < entry::FIRST_COHORT || with_customers.contains(&it.entry))
    });
    Ok(entries)
}

/// Where a fence of the source is down, both sides may have been written. A table that is gone from the source needs none.
async fn refuse_open_source(job: &Job, source: &Session, target: &Session) -> Result<(), Error> {
    let Some(mut scope) = ending::scope_of_either(job, source, target).await? else {
        return Ok(());
    };
    let catalog = read_catalog(source).await?;
    scope.owned.retain(|owned| catalog.tables.contains_key(&owned.table.name));
    scope.reference.retain(|reference| catalog.tables.contains_key(&reference.table.name));
    validate::refuse(soundness::fence_down(&**source, (&scope, &catalog), source.side()).await?)
}
