//! Takes the cohort's rows from the target again and proves that nothing of them is left.
//! Called by Discard (before cutover) and Reopen (after the way back); the source owns the cohort by then.
//! Must not touch a row of anybody else.

use std::collections::BTreeSet;

use super::cohort::{Cohort, Sides};
use super::copy::chunks;
use super::reporting::{blocker, signed};
use crate::contract::{Owner, exit};
use crate::worker::Error;
use crate::worker::postgres::landing::Landing;
use crate::worker::postgres::ledger::{self, Ownership};
use crate::worker::postgres::model::{Chunks, OwnedTable, entry};
use crate::worker::postgres::sides::Portion;
use crate::worker::postgres::{closure, fence, remnant};

/// What becomes of the customers' membership.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Members {
    /// Back among the unassigned, free for another cohort.
    Release,
    /// They stay this cohort's: it was rolled back, and only its own retry may move them again.
    Keep,
}

/// Removes the rows, chunk by chunk, and returns how many.
pub async fn remove(cohort: &Cohort<'_>, sides: &mut Sides, members: Members) -> Result<u64, Error> {
    let ownership = ledger::ownership(&*sides.target, cohort.entry).await?;
    if ownership.owner != Owner::Source {
        return Err(Error::refused(
            exit::DATA_DIFFERS,
            blocker(
                "NotOwnedBySource",
                "godwit.ownership",
                "The source does not own the cohort, so its rows on the target are not removed; freeze it and go back first.",
            ),
        ));
    }
    refuse_while_referred_to(cohort, sides).await?;
    let mut removed = 0;
    let chunks: BTreeSet<i32> = chunks(cohort, sides).await?;
    // New customers first: they may refer to older ones.
    for chunk in chunks.iter().rev() {
        removed += remove_chunk(cohort, sides, &ownership, *chunk).await?;
    }
    let release = members == Members::Release && unassigned_are_sources(sides).await?;
    prove(cohort, sides, release).await?;
    forget_on_source(cohort, sides, release).await?;
    Ok(removed)
}

/// On the target an application may have linked other cohorts' customers to these; nobody but its users can say what becomes of that.
async fn refuse_while_referred_to(cohort: &Cohort<'_>, sides: &mut Sides) -> Result<(), Error> {
    let target = super::snapshot::of(&mut sides.target).await?;
    let catalogue = (&cohort.scope, &cohort.target_catalog);
    closure::refuse(&closure::from_others(&target, catalogue, cohort.entry, None).await?)
}

/// Released customers are the unassigned's owner's: while that is the target, they must stay under their own entry.
async fn unassigned_are_sources(sides: &Sides) -> Result<bool, Error> {
    let unassigned = ledger::ownership(&*sides.target, entry::UNASSIGNED).await?;
    Ok(unassigned.owner == Owner::Source)
}

async fn remove_chunk(cohort: &Cohort<'_>, sides: &mut Sides, ownership: &Ownership, chunk: i32) -> Result<u64, Error> {
    let landing = Landing::begin(&mut sides.target, &sides.target_token).await?;
    landing.pass(ownership).await?;
    hold_rows(&landing, cohort, chunk).await?;
    let mut removed = 0;
    for owned in cohort.scope.owned.iter().rev() {
        let delete = delete_of_entry(owned, cohort.entry, Some((chunk, chunk)));
        removed += landing.remove(&owned.table.name, &delete).await?;
    }
    // With the rows goes the proof that they landed, or a later Copy would pass over them.
    landing
        .execute(
            "delete from godwit.checkpoint where subject = $1 and step in ('copy', 'cutover') and part <> 'restore-point'",
            &[&cohort.subject()],
        )
        .await
        .map_err(Error::database("forget what landed"))?;
    landing.commit().await?;
    cohort.job.progress.advance(removed);
    Ok(removed)
}

/// Whoever was about to refer to the rows has finished or will fail; then nobody may have done it.
async fn hold_rows(landing: &Landing<'_>, cohort: &Cohort<'_>, chunk: i32) -> Result<(), Error> {
    let chunks = Some((chunk, chunk));
    for owned in &cohort.scope.owned {
        let hold = format!(
            "select count(*) from (select 1 {} for update of t) as held",
            owned.from_entry(cohort.entry, chunks)
        );
        landing
            .batch_execute(&hold)
            .await
            .map_err(Error::database(format!("hold the rows of {}", owned.table.name)))?;
    }
    let catalogue = (&cohort.scope, &cohort.target_catalog);
    closure::refuse(&closure::from_others(landing, catalogue, cohort.entry, chunks).await?)
}

/// The rows are found through their own key: a table can be joined to its customers only as a whole. Not by IN, which knows no
/// operator of an extension's type.
fn delete_of_entry(owned: &OwnedTable, entry: i32, chunks: Chunks) -> String {
    let table = &owned.table;
    format!(
        "delete from {} as gone where exists (select {} and {})",
        table.name.sql(),
        owned.from_entry(entry, chunks),
        table.same_key("gone", "t")
    )
}

/// The rows of a portion, a cohort's or a whole shared table's.
pub fn delete_portion(cohort: &Cohort<'_>, portion: &Portion<'_>) -> String {
    match cohort.scope.owned_table(&portion.table.name) {
        Some(owned) => delete_of_entry(owned, cohort.entry, None),
        None => format!("delete from {}", portion.table.name.sql()),
    }
}

/// Nothing reachable is left, nothing refers to what is gone, and the tables are what they were before.
async fn prove(cohort: &Cohort<'_>, sides: &mut Sides, release: bool) -> Result<(), Error> {
    let landing = Landing::begin_in_snapshot(&mut sides.target, &sides.target_token).await?;
    for owned in &cohort.scope.owned {
        let left: i64 = landing
            .query_one(&owned.count_of_entry(cohort.entry, None), &[])
            .await
            .and_then(|row| row.try_get(0))
            .map_err(Error::database(format!("count what is left of {}", owned.table.name)))?;
        if left > 0 {
            return Err(Error::refused(
                exit::DATA_DIFFERS,
                blocker(
                    "RowsLeft",
                    &owned.table.name.to_string(),
                    format!("{left} rows of the cohort are left on the target."),
                ),
            ));
        }
    }
    let catalogue = (&cohort.scope, &cohort.target_catalog);
    closure::refuse(&closure::of_whole_tables(&landing, catalogue).await?)?;
    remnant::prove(&landing, &cohort.scope, cohort.entry).await?;
    if !release {
        // Under the token: a worker that lost it long ago must not forget the restore point of a later cutover.
        forget(&*landing, cohort, false).await?;
        return landing.commit().await;
    }
    landing.commit().await?;
    let members = [entry::UNASSIGNED, cohort.entry];
    let releasing = fence::change_members(&mut sides.target, &sides.target_token, &members).await?;
    forget(&releasing, cohort, true).await?;
    releasing.commit().await.map_err(Error::database("release the cohort's customers"))
}

async fn forget_on_source(cohort: &Cohort<'_>, sides: &mut Sides, release: bool) -> Result<(), Error> {
    let members = [entry::UNASSIGNED, cohort.entry];
    let releasing = fence::change_members(&mut sides.source, &sides.source_token, &members).await?;
    forget(&releasing, cohort, release).await?;
    releasing.commit().await.map_err(Error::database("release the cohort's customers"))
}

/// Drops what the steps recorded, and the members when they are released; reports and the journal stay.
async fn forget(client: &impl tokio_postgres::GenericClient, cohort: &Cohort<'_>, release: bool) -> Result<(), Error> {
    let failed = || Error::database("release the cohort's customers");
    if release {
        client.execute("delete from godwit.member where entry = $1", &[&cohort.entry]).await.map_err(failed())?;
    }
    client
        .execute(
            "delete from godwit.checkpoint where subject = $1 and (step <> 'select' or $2)",
            &[&cohort.subject(), &release],
        )
        .await
        .map(drop)
        .map_err(failed())
}

/// The report's counts of a removal.
pub fn counted(report: &mut crate::contract::Report, removed: u64) {
    report.counts.insert("rowsRemoved".into(), signed(removed));
}
