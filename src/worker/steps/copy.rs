//! Copy: the cohort's rows, chunk by chunk, each chunk one transaction on the target with its checkpoint.
//! Run by the operator after Select; the source keeps writing, Cutover brings what it wrote since.
//! Must not land a chunk twice, nor one whose references do not hold.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::cohort::{Cohort, Sides, merge_sum};
use super::reporting::{blocker, milliseconds, signed};
use super::validate::refuse;
use super::{fill, references, resume, snapshot};
use crate::contract::{Owner, Report, ReportResult, exit};
use crate::worker::postgres::landing::Landing;
use crate::worker::postgres::ledger::{self, Ownership};
use crate::worker::postgres::relay::{Rows, Shape};
use crate::worker::postgres::row::Sum;
use crate::worker::postgres::{bare, closure, identifier::TableName};
use crate::worker::{Error, Job};

/// A shared row that appeared on the source after the last look is no reason to give up.
const REFERENCE_TRIES: usize = 3;

/// What a chunk's checkpoint says about it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ChunkState {
    pub tables: BTreeMap<String, Sum>,
}

pub async fn run(job: &Job) -> Result<Report, Error> {
    resume::run(job, attempt).await
}

async fn attempt(job: &Job) -> Result<Report, Error> {
    let started = Instant::now();
    wait_for_the_tables(job).await?;
    let (cohort, mut sides) = Cohort::open(job).await?;
    let ownership = sides.settle(cohort.entry).await?;
    refuse_unless_sources(&ownership)?;
    refuse(cohort.keys_about_to_meet(&sides).await?)?;
    cohort.refuse_firing(&sides.target).await?;
    let shared = references::bring(&cohort, &mut sides, None).await?;
    for session in [&sides.source, &sides.target] {
        session.run("analyse the members", "analyze godwit.member").await?;
    }
    let chunks = chunks(&cohort, &sides).await?;
    let done = finished(&cohort, &sides).await?;
    job.progress.set_total(estimate(&cohort, &sides).await?);
    for state in done.values() {
        job.progress.advance(rows_of(state));
    }
    if fills_bare_tables(&cohort, &mut sides, (&chunks, &done)).await? {
        fill::run(&cohort, &mut sides, &ownership, &chunks).await?;
    } else {
        copy_chunks(&cohort, &mut sides, &ownership, (&chunks, &done)).await?;
    }
    let states = finished(&cohort, &sides).await?;
    let mut report = cohort.report(&sides, ReportResult::Pass).await?;
    let rows: u64 = states.values().map(rows_of).sum();
    for (name, count) in [
        ("rows", rows),
        ("chunks", chunks.len() as u64),
        ("chunksResumed", done.len() as u64),
        ("tables", cohort.scope.owned.len() as u64),
        ("referenceRows", shared.rows()),
    ] {
        report.counts.insert(name.into(), signed(count));
    }
    report.timings.insert("copy".into(), milliseconds(started));
    Ok(report)
}

/// Until no other cohort's copy has the tables bare. Before the catalogue is read: it would lack the keys that come back meanwhile.
/// Afterwards nobody lays them bare any more, since this cohort has customers.
async fn wait_for_the_tables(job: &Job) -> Result<(), Error> {
    let target = job.target().await?;
    ledger::require(&target, &job.input.migration).await?;
    if bare::are_bare_for_another(&*target, job.subject()).await? {
        tracing::info!("another cohort's copy fills the tables from nothing; this one waits for its end");
        bare::wait_while_filled(&target).await?;
    }
    bare::refuse_while_bare(&*target, job.subject()).await
}

/// Whether the tables are bare for this cohort's rows, or can be: worth it where more than one chunk has to land.
async fn fills_bare_tables(
    cohort: &Cohort<'_>,
    sides: &mut Sides,
    (chunks, done): (&BTreeSet<i32>, &BTreeMap<i32, ChunkState>),
) -> Result<bool, Error> {
    if bare::waiting(&*sides.target, cohort.subject()).await?.is_some() {
        return Ok(true);
    }
    if chunks.len() < 2 || !done.is_empty() {
        return Ok(false);
    }
    // Two sessions build; a role with few connections may have no other.
    if let Err(error) = cohort.job.target().await {
        tracing::info!(%error, "there is no second session to build with: the tables keep their keys and indexes");
        return Ok(false);
    }
    let catalogue = (&cohort.scope, &cohort.target_catalog);
    bare::lay_bare(&mut sides.target, &sides.target_token, catalogue).await
}

async fn copy_chunks(
    cohort: &Cohort<'_>,
    sides: &mut Sides,
    ownership: &Ownership,
    (chunks, done): (&BTreeSet<i32>, &BTreeMap<i32, ChunkState>),
) -> Result<(), Error> {
    let mut since_analyzed = 0;
    for (number, chunk) in chunks.iter().filter(|chunk| !done.contains_key(*chunk)).enumerate() {
        copy_chunk(cohort, sides, ownership, *chunk).await?;
        since_analyzed += 1;
        // While a table grows from nothing its statistics age fastest; without them each proof would scan all that landed before.
        if (number + 1).is_power_of_two() {
            analyze(cohort, sides).await?;
            since_analyzed = 0;
        }
    }
    if since_analyzed > 0 {
        analyze(cohort, sides).await?;
    }
    Ok(())
}

/// Only the source's rows are copied; a cohort that went over already has newer rows on the target.
pub fn refuse_unless_sources(ownership: &Ownership) -> Result<(), Error> {
    if ownership.owner == Owner::Source {
        return Ok(());
    }
    Err(Error::refused(
        exit::DATA_DIFFERS,
        blocker(
            "NotOwnedBySource",
            "godwit.ownership",
            format!(
                "The source does not own the cohort (the ledger says {}); it can only be cut over again after it was rolled back.",
                ledger::owner_name(ownership.owner)
            ),
        ),
    ))
}

/// The chunk numbers that the cohort's customers have.
pub async fn chunks(cohort: &Cohort<'_>, sides: &Sides) -> Result<BTreeSet<i32>, Error> {
    let rows = sides
        .target
        .query("select distinct chunk from godwit.member where entry = $1", &[&cohort.entry])
        .await
        .map_err(Error::database("list the cohort's chunks"))?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// The chunks that landed, with what landed.
pub async fn finished(cohort: &Cohort<'_>, sides: &Sides) -> Result<BTreeMap<i32, ChunkState>, Error> {
    let parts = ledger::checkpoints(&*sides.target, (cohort.subject(), "copy")).await?;
    let mut finished = BTreeMap::new();
    for (part, state) in parts {
        let Ok(chunk) = part.parse::<i32>() else {
            continue;
        };
        let state =
            serde_json::from_value(state).map_err(|source| Error::Json { what: "a chunk's checkpoint", source })?;
        finished.insert(chunk, state);
    }
    Ok(finished)
}

fn rows_of(state: &ChunkState) -> u64 {
    state.tables.values().map(|sum| sum.rows).sum()
}

/// The planner's row counts, by the cohort's share of all customers: for the display only.
async fn estimate(cohort: &Cohort<'_>, sides: &Sides) -> Result<u64, Error> {
    let rows = cohort.scope.owned.iter().map(|owned| owned.table.estimated_rows).sum();
    share_of(cohort, sides, rows).await
}

/// The cohort's part of what all customers have.
pub async fn share_of(cohort: &Cohort<'_>, sides: &Sides, whole: u64) -> Result<u64, Error> {
    let customers = cohort.customers(&sides.source).await?;
    let (Some(root), Ok(customers)) = (cohort.scope.root_table(), u64::try_from(customers)) else {
        return Ok(0);
    };
    let all = root.table.estimated_rows.max(customers).max(1);
    Ok(u64::try_from(u128::from(whole) * u128::from(customers) / u128::from(all)).unwrap_or(0))
}

async fn copy_chunk(cohort: &Cohort<'_>, sides: &mut Sides, ownership: &Ownership, chunk: i32) -> Result<(), Error> {
    let mut tries = 0;
    loop {
        tries += 1;
        match land_chunk(cohort, sides, ownership, chunk).await {
            Err(Error::Refused { findings, .. })
                if tries < REFERENCE_TRIES && only_shared_rows_lack(cohort, &findings) =>
            {
                references::bring(cohort, sides, None).await?;
            }
            outcome => return outcome,
        }
    }
}

/// Whether all that is missing are shared rows, which may have been written after they were last brought.
fn only_shared_rows_lack(cohort: &Cohort<'_>, findings: &[crate::contract::Finding]) -> bool {
    let shares = |object: &str| {
        TableName::parse(object).is_some_and(|table| cohort.scope.reference_keys.iter().any(|key| key.table == table))
    };
    findings.iter().all(|finding| finding.code == "OrphanRows" && shares(&finding.object))
}

async fn land_chunk(cohort: &Cohort<'_>, sides: &mut Sides, ownership: &Ownership, chunk: i32) -> Result<(), Error> {
    let range = Some((chunk, chunk));
    let source = snapshot::of(&mut sides.source).await?;
    let landing = Landing::begin(&mut sides.target, &sides.target_token).await?;
    landing.pass(ownership).await?;
    let mut state = ChunkState::default();
    for owned in &cohort.scope.owned {
        let select = owned.select_of_entry(cohort.entry, range);
        let name = owned.table.name.to_string();
        let mut rows = Rows::select(&source, &select, owned.format, &name).await?;
        let sum = landing.receive(&mut rows, (&owned.table, Shape::from(owned))).await?;
        cohort.job.progress.advance(sum.rows);
        merge_sum(&mut state.tables, name, sum);
    }
    for owned in &cohort.scope.owned {
        let landed = state.tables.get(&owned.table.name.to_string()).map_or(0, |sum| sum.rows);
        let count = owned.count_of_entry(cohort.entry, range);
        prove_reached(&landing, &owned.table.name, &count, landed).await?;
    }
    let catalogue = (&cohort.scope, &cohort.target_catalog);
    closure::hold_parents(&landing, catalogue, cohort.entry, range).await?;
    let violations = closure::of_entry(&landing, catalogue, cohort.entry, range).await?;
    closure::refuse(&violations)?;
    let key = (cohort.subject(), "copy", &*chunk.to_string());
    let state = serde_json::to_value(&state).map_err(|source| Error::Json { what: "a chunk's checkpoint", source })?;
    ledger::set_checkpoint(&*landing, key, &state).await?;
    landing.commit().await
}

/// Each landed row must lead to a customer of the chunk, and the customers must have no other rows.
pub async fn prove_reached(landing: &Landing<'_>, table: &TableName, count: &str, landed: u64) -> Result<(), Error> {
    let reached: i64 = landing
        .query_one(count, &[])
        .await
        .and_then(|row| row.try_get(0))
        .map_err(Error::database(format!("count the landed rows of {table}")))?;
    if reached == signed(landed) {
        return Ok(());
    }
    Err(Error::refused(
        exit::DATA_DIFFERS,
        blocker(
            "RowsOfOthers",
            &table.to_string(),
            format!(
                "{landed} rows landed and {reached} belong to the customers now: the target had rows of theirs, or rows without a parent. \
                 Remove them, then retry."
            ),
        ),
    ))
}

/// After a bulk load the planner knows nothing of the rows, and the next steps join them all.
async fn analyze(cohort: &Cohort<'_>, sides: &Sides) -> Result<(), Error> {
    for owned in &cohort.scope.owned {
        let sql = format!("analyze {}", owned.table.name.sql());
        sides.target.run("analyse the copied tables", &sql).await?;
    }
    Ok(())
}
