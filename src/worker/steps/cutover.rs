//! Cutover: the cohort changes hands. Between closing and opening nobody may write it; that pause is measured.
//! Run by the operator once the cohort is copied, validated and allowed to go.
//! Must never leave two owners: each point is durable in the ledgers, and a new attempt continues from what they say.

use std::collections::BTreeMap;
use std::time::Instant;

use serde_json::json;

use super::cohort::{Cohort, RESTORE_PART, RestoreState, Sides, TOTAL_PART};
use super::reporting::{milliseconds, signed};
use super::validate::{expected, left_behind, refuse};
use super::{newborn, pairs, references, resume, snapshot};
use crate::contract::{Finding, Owner, QueryPair, Report, ReportResult, Side, exit};
use crate::worker::postgres::difference::{Bringing, Brought, Extra};
use crate::worker::postgres::landing::Landing;
use crate::worker::postgres::ledger::{self, Ownership};
use crate::worker::postgres::restore_point::{Reference, RestoreWriter};
use crate::worker::postgres::sides::Portion;
use crate::worker::postgres::{closure, soundness};
use crate::worker::{Error, Job};

pub async fn run(job: &Job, checks: &[QueryPair]) -> Result<Report, Error> {
    resume::run(job, async |job: &Job| attempt(job, checks).await).await
}

async fn attempt(job: &Job, checks: &[QueryPair]) -> Result<Report, Error> {
    let storage = job.storage()?;
    let (cohort, mut sides) = Cohort::open(job).await?;
    let mut closed = false;
    for entry in cohort.entries() {
        closed |= sides.settle(entry).await?.owner == Owner::None;
    }
    let ownership = ledger::ownership(&*sides.target, cohort.entry).await?;
    let mut timings = BTreeMap::new();
    if ownership.owner == Owner::Target {
        // An earlier attempt decided it and could not finish, or could not tell.
        hand_over(&cohort, &mut sides).await?;
        return report(&cohort, &sides, timings).await;
    }
    // Where the fence is closed already, somebody waits: straight on.
    if !closed {
        let started = Instant::now();
        if let Err(error) = approach(&cohort, &mut sides, &ownership).await {
            return refusal(&cohort, &sides, error).await;
        }
        timings.insert("approach", milliseconds(started));
    }
    let restore = RestoreWriter::new(&storage, &sides.target_token);
    if let Err(error) = cross(&cohort, &mut sides, (checks, restore), &mut timings).await {
        let error = turn_back(&cohort, &mut sides, error).await;
        return refusal(&cohort, &sides, error).await;
    }
    report(&cohort, &sides, timings).await
}

/// A no tells whom the cohort belongs to: without that the operator would have to assume that anything may have happened,
/// and keep the cohort's users waiting.
async fn refusal(cohort: &Cohort<'_>, sides: &Sides, error: Error) -> Result<Report, Error> {
    let Error::Refused { exit: exit::DATA_DIFFERS, findings } = error else {
        return Err(error);
    };
    let mut report = cohort.report(sides, ReportResult::Fail).await?;
    report.findings = findings;
    Ok(report)
}

/// What took how long, in milliseconds.
type Timings = BTreeMap<&'static str, i64>;

/// While the source still writes: brings what it wrote since the copy, so that little is left for the pause.
async fn approach(cohort: &Cohort<'_>, sides: &mut Sides, ownership: &Ownership) -> Result<(), Error> {
    cohort.refuse_firing(&sides.target).await?;
    for (session, catalog) in [(&sides.source, &cohort.source_catalog), (&sides.target, &cohort.target_catalog)] {
        refuse(soundness::fence_down(&**session, (&cohort.scope, catalog), session.side()).await?)?;
    }
    refuse(left_behind(cohort, sides).await?)?;
    if cohort.remainder {
        newborn::take_in(cohort, sides, Side::Source).await?;
    }
    references::bring(cohort, sides, None).await?;
    match bring(cohort, sides, ownership, None).await {
        // A shared row may have been written between the two reads; inside the pause that cannot be.
        Err(Error::Refused { .. }) => {
            tracing::info!("the difference cannot be brought before the pause");
        }
        outcome => drop(outcome?),
    }
    refuse(sequences(cohort, sides).await?)?;
    refuse(cohort.keys_about_to_meet(sides).await?)?;
    let target = snapshot::of(&mut sides.target).await?;
    let catalogue = (&cohort.scope, &cohort.target_catalog);
    closure::refuse(&closure::of_whole_tables(&target, catalogue).await?)
}

/// The pause: from here until `hand_over` nobody writes the cohort.
async fn cross(
    cohort: &Cohort<'_>,
    sides: &mut Sides,
    (checks, mut restore): (&[QueryPair], RestoreWriter<'_>),
    timings: &mut Timings,
) -> Result<(), Error> {
    let started = Instant::now();
    note_closing(cohort, sides).await?;
    for entry in cohort.entries() {
        sides.close(entry).await?;
    }
    timings.insert("drain", milliseconds(started));
    let started = Instant::now();
    // Only now that creation is closed can nobody take another row from its customer.
    refuse(left_behind(cohort, sides).await?)?;
    if cohort.remainder {
        newborn::take_in(cohort, sides, Side::Source).await?;
        references::bring(cohort, sides, Some(&mut restore)).await?;
    } else {
        references::bring(cohort, sides, None).await?;
    }
    let ownership = ledger::ownership(&*sides.target, cohort.entry).await?;
    bring(cohort, sides, &ownership, Some(&mut restore)).await?;
    timings.insert("difference", milliseconds(started));
    let started = Instant::now();
    refuse(sequences(cohort, sides).await?)?;
    refuse(pairs::compare(cohort, sides, checks).await?)?;
    timings.insert("checks", milliseconds(started));
    record(cohort, sides, restore.finish().await?).await?;
    hand_over(cohort, sides).await
}

async fn sequences(cohort: &Cohort<'_>, sides: &mut Sides) -> Result<Vec<Finding>, Error> {
    let target = snapshot::of(&mut sides.target).await?;
    soundness::sequences_behind(&target, (&cohort.scope, &cohort.target_catalog), &cohort.source_catalog).await
}

/// Makes the target's rows the source's and proves it, in one landing; the restore point is written in the same read.
async fn bring(
    cohort: &Cohort<'_>,
    sides: &mut Sides,
    ownership: &Ownership,
    restore: Option<&mut RestoreWriter<'_>>,
) -> Result<Brought, Error> {
    let portions = Portion::of_entry(&cohort.scope, cohort.entry);
    let expected = expected(cohort, sides).await?;
    let source = snapshot::of(&mut sides.source).await?;
    let landing = Landing::begin(&mut sides.target, &sides.target_token).await?;
    landing.pass(ownership).await?;
    let bringing = Bringing {
        source: &source,
        landing: &landing,
        scope: &cohort.scope,
        entry: Some(cohort.entry),
        catalog: &cohort.target_catalog,
        extra: Extra::Remove,
        expected: Some(&expected),
    };
    let brought = bringing.bring(&portions, restore).await?;
    cohort.job.progress.advance(brought.rows());
    let state =
        serde_json::to_value(&brought).map_err(|source| Error::Json { what: "the sums of the cohort", source })?;
    ledger::set_checkpoint(&*landing, (cohort.subject(), "copy", TOTAL_PART), &state).await?;
    landing.commit().await?;
    Ok(brought)
}

/// The restore point is in the ledger before the target may write: Return must find it.
async fn record(cohort: &Cohort<'_>, sides: &mut Sides, manifest: Reference) -> Result<(), Error> {
    let landing = Landing::begin(&mut sides.target, &sides.target_token).await?;
    let ownership = ledger::ownership(&*landing, cohort.entry).await?;
    let state = RestoreState { manifest, closed_epoch: ownership.epoch };
    let state =
        serde_json::to_value(&state).map_err(|source| Error::Json { what: "the record of a restore point", source })?;
    let key = (cohort.subject(), "cutover", RESTORE_PART);
    ledger::set_checkpoint(&*landing, key, &state).await?;
    landing.commit().await
}

/// Gives the entries to the target, the cohort's own first: with it the decision is made, and the others follow.
async fn hand_over(cohort: &Cohort<'_>, sides: &mut Sides) -> Result<(), Error> {
    sides.open(cohort.entry, Owner::Target).await?;
    for entry in cohort.entries() {
        sides.open(entry, Owner::Target).await?;
    }
    Ok(())
}

/// A failure inside the pause gives the cohort back to the source at once: nobody waits for our next attempt.
///
/// Not so when the connection was lost, because what happened is not known; then this process goes on, or the next attempt.
async fn turn_back(cohort: &Cohort<'_>, sides: &mut Sides, error: Error) -> Error {
    if error.is_connection_lost() || matches!(error, Error::NewerAttempt { .. }) {
        return error;
    }
    match reopen_source(cohort, sides).await {
        Ok(()) => error,
        Err(failure) => failure,
    }
}

async fn reopen_source(cohort: &Cohort<'_>, sides: &mut Sides) -> Result<(), Error> {
    if !forget_restore_point(cohort, sides).await? {
        // Decided already: the next attempt finishes it.
        return Ok(());
    }
    for entry in cohort.entries() {
        sides.open(entry, Owner::Source).await?;
    }
    let detail = json!({"owner": "Source"});
    cohort.note(sides, "cutover turned back", detail).await
}

/// Unless the target is the owner. Comes before the epoch rises: a restore point with a risen epoch means that the target was it.
pub async fn forget_restore_point(cohort: &Cohort<'_>, sides: &mut Sides) -> Result<bool, Error> {
    let landing = Landing::begin(&mut sides.target, &sides.target_token).await?;
    if ledger::ownership(&*landing, cohort.entry).await?.owner == Owner::Target {
        return Ok(false);
    }
    ledger::clear_checkpoints(&*landing, (cohort.subject(), "cutover")).await?;
    landing.commit().await?;
    Ok(true)
}

/// The pause begins here, by the target's clock; a later attempt must not move it.
async fn note_closing(cohort: &Cohort<'_>, sides: &mut Sides) -> Result<(), Error> {
    let landing = Landing::begin(&mut sides.target, &sides.target_token).await?;
    landing
        .execute(
            "insert into godwit.checkpoint (subject, step, part, state) values ($1, 'cutover', 'closing', '{}') on conflict do nothing",
            &[&cohort.subject()],
        )
        .await
        .map_err(Error::database("record the beginning of the pause"))?;
    landing.commit().await?;
    let detail = json!({"entries": cohort.entries().len()});
    cohort.note(sides, "closing", detail).await
}

/// From the beginning of the pause to the moment when the last entry was opened, all by the target's clock.
async fn pause(cohort: &Cohort<'_>, sides: &Sides) -> Result<Option<i64>, Error> {
    let row = sides
        .target
        .query_one(
            "select (extract(epoch from max(o.updated_at) - max(c.at)) * 1000)::int8 from godwit.ownership o, godwit.checkpoint c \
             where o.entry = any($1) and c.subject = $2 and c.step = 'cutover' and c.part = 'closing'",
            &[&cohort.entries(), &cohort.subject()],
        )
        .await
        .map_err(Error::database("measure the pause"))?;
    Ok(row.get(0))
}

/// A function of the ledger, so that a repeated attempt tells the same.
async fn report(cohort: &Cohort<'_>, sides: &Sides, timings: Timings) -> Result<Report, Error> {
    let mut report = cohort.report(sides, ReportResult::Pass).await?;
    let key = (cohort.subject(), "copy", TOTAL_PART);
    if let Some(state) = ledger::checkpoint(&*sides.target, key).await? {
        let brought: Brought =
            serde_json::from_value(state).map_err(|source| Error::Json { what: "the sums of the cohort", source })?;
        report.counts.insert("rows".into(), signed(brought.rows()));
        let difference = signed(brought.counts.total());
        report.counts.insert("difference".into(), difference);
    }
    if let Some(restore) = cohort.restore_state(sides).await? {
        report.evidence_uri = Some(restore.manifest.uri);
        report.digest = Some(restore.manifest.digest);
    }
    for (name, value) in timings {
        report.timings.insert(name.into(), value);
    }
    if let Some(pause) = pause(cohort, sides).await? {
        report.timings.insert("pause".into(), pause);
        let detail = json!({"owner": "Target", "pause": pause});
        cohort.note(sides, "opened", detail).await?;
    }
    Ok(report)
}
