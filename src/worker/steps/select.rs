//! Select: decides once which customers a cohort takes, whole groups only, and writes them into both ledgers.
//! The first step of a cohort. A second run returns what the first one decided.
//! Must not split a group, nor take a customer that another cohort has, nor change what was decided.
//!
//! The target's ledger is written first: it is where the decision is durable. The source's copy follows from it, so a crash in
//! between is completed from there and never decided anew. On the source, writers that took a customer for unassigned may still be
//! in flight when its membership appears: they are waited for (`drain`) before Select ends, and so before the cohort can be closed.

use std::fmt::Write;
use std::time::Instant;

use futures::{SinkExt, TryStreamExt, try_join};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio_postgres::Transaction;

use super::cohort::{Cohort, Sides};
use super::reporting::{blocker, finding, milliseconds, signed};
use super::selection::{Choice, Selecting, choose};
use crate::contract::{Finding, Identity, Owner, Report, ReportResult, Selection, Severity, exit};
use crate::worker::postgres::model::entry;
use crate::worker::postgres::session::Session;
use crate::worker::postgres::token::{self, Token};
use crate::worker::postgres::{fence, ledger};
use crate::worker::{Error, Job};

/// What was decided, as the ledgers keep it (`checkpoint`, part "selection"). No keys.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Decision {
    pub entry: i32,
    /// This cohort takes over what is left: new customers and shared tables go with it.
    pub remainder: bool,
    pub customers: i64,
    pub groups: i64,
    pub chunks: i64,
    /// Customers that no one named, but that their group brought.
    pub taken_along: i64,
    /// Customers that were meant, but are in another cohort.
    pub elsewhere: i64,
    /// Of the keys in the order of their bytes.
    pub digest: String,
}

const PART: &str = "selection";

pub async fn run(job: &Job, selection: &Selection) -> Result<Report, Error> {
    let started = Instant::now();
    let cohort = job.cohort()?;
    let (mut source, mut target) = try_join!(job.source(), job.target())?;
    ledger::require(&target, &job.input.migration).await?;
    ledger::require(&source, &job.input.migration).await?;
    let attempt = job.input.attempt;
    let target_token = token::take(&target, &cohort.uid, attempt).await?;
    let source_token = token::follow(&source, &target_token).await?;
    let (_, scope) = job.scope(&source).await?;
    let decision = if let Some(decision) = recorded(&target, cohort).await? {
        decision
    } else {
        let selecting = Selecting { job, scope: &scope, selection };
        decide(&selecting, &source, (&mut target, &target_token)).await?
    };
    mirror(&decision, &target, (&mut source, &source_token), cohort).await?;
    let mut report = report(job, &decision, selection);
    let ownership = ledger::require_cohort(&*target, cohort).await?;
    report.owner = Some(ownership.owner);
    report.epoch = Some(ownership.epoch);
    report.timings.insert("select".into(), milliseconds(started));
    Ok(report)
}

async fn recorded(session: &Session, cohort: &Identity) -> Result<Option<Decision>, Error> {
    ledger::checkpoint(&**session, (&cohort.uid, "select", PART))
        .await?
        .map(|state| {
            serde_json::from_value(state).map_err(|source| Error::Json { what: "the record of a selection", source })
        })
        .transpose()
}

/// Chooses and records, in one transaction on the target that keeps other cohorts' Selects waiting.
async fn decide(
    selecting: &Selecting<'_>,
    source: &Session,
    (target, token): (&mut Session, &Token),
) -> Result<Decision, Error> {
    let cohort = selecting.job.cohort()?;
    let failed = || Error::database("record the selection");
    let transaction = target.transaction().await.map_err(failed())?;
    token::hold(&transaction, token).await?;
    transaction.batch_execute("lock table godwit.member in share row exclusive mode").await.map_err(failed())?;
    free_name(&transaction, cohort).await?;
    let choice = choose(selecting, &transaction).await?;
    let entry = match ledger::cohort(&transaction, cohort).await? {
        // It was discarded and starts over: its epoch goes on from where it was.
        Some(known) => known.entry,
        None => next_entry(&transaction, source).await?,
    };
    register(&transaction, entry, cohort).await?;
    write_members(&transaction, entry, &choice).await?;
    let decision = Decision {
        entry,
        remainder: matches!(selecting.selection, Selection::Remainder {}),
        customers: signed(choice.members.len()),
        groups: choice.groups,
        chunks: choice.members.last().map_or(0, |member| i64::from(member.chunk) + 1),
        taken_along: choice.taken_along,
        elsewhere: choice.elsewhere,
        digest: digest(&choice),
    };
    record(&transaction, cohort, &decision).await?;
    transaction.commit().await.map_err(failed())?;
    Ok(decision)
}

async fn record(transaction: &Transaction<'_>, cohort: &Identity, decision: &Decision) -> Result<(), Error> {
    let state =
        serde_json::to_value(decision).map_err(|source| Error::Json { what: "the record of a selection", source })?;
    ledger::set_checkpoint(transaction, (&cohort.uid, "select", PART), &state).await
}

/// A former cohort of the same name, whose customers were all given back, leaves the name; one that still has customers keeps it.
async fn free_name(transaction: &Transaction<'_>, cohort: &Identity) -> Result<(), Error> {
    let failed = || Error::database("look for a cohort of the same name");
    let former = transaction
        .query_opt(
            "select o.entry, o.uid, exists (select from godwit.member m where m.entry = o.entry) \
             from godwit.ownership o where o.name = $1 and o.uid <> $2",
            &[&cohort.name, &cohort.uid],
        )
        .await
        .map_err(failed())?;
    let Some(former) = former else { return Ok(()) };
    let (number, uid, has_members): (i32, String, bool) = (former.get(0), former.get(1), former.get(2));
    if has_members || number < entry::FIRST_COHORT {
        return Err(Error::refused(
            exit::DATA_DIFFERS,
            blocker(
                "CohortNameTaken",
                &cohort.name,
                format!(
                    "The ledger knows another cohort of this name (uid {uid}), which still has customers; give this cohort another name, or roll the former one back first."
                ),
            ),
        ));
    }
    transaction
        .execute("update godwit.ownership set name = name || ' ' || uid where entry = $1", &[&number])
        .await
        .map(drop)
        .map_err(failed())
}

async fn register(transaction: &Transaction<'_>, entry: i32, cohort: &Identity) -> Result<(), Error> {
    transaction
        .execute(
            "insert into godwit.ownership (entry, name, uid, owner) values ($1, $2, $3, $4) on conflict (entry) do nothing",
            &[&entry, &cohort.name, &cohort.uid, &ledger::owner_name(Owner::Source)],
        )
        .await
        .map(drop)
        .map_err(Error::database("register the cohort"))
}

/// One number for both ledgers, used by neither before.
async fn next_entry(transaction: &Transaction<'_>, source: &Session) -> Result<i32, Error> {
    let highest = |entries: Vec<ledger::Ownership>| entries.iter().map(|one| one.entry).max();
    let of_target = highest(ledger::ownerships(transaction).await?);
    let of_source = highest(ledger::ownerships(&**source).await?);
    let next = of_target.max(of_source).unwrap_or(0) + 1;
    Ok(next.max(entry::FIRST_COHORT))
}

const COPY_MEMBERS: &str = "copy godwit.member (customer, entry, customer_group, chunk) from stdin (format text)";

async fn write_members(transaction: &Transaction<'_>, entry: i32, choice: &Choice) -> Result<(), Error> {
    let failed = || Error::database("write the cohort's members");
    let sink = transaction.copy_in(COPY_MEMBERS).await.map_err(failed())?;
    let mut sink = std::pin::pin!(sink);
    let mut lines = String::new();
    for member in &choice.members {
        let key = escape(&String::from_utf8_lossy(choice.customers.key(member.customer)));
        let _ = writeln!(lines, "{key}\t{entry}\t{}\t{}", member.group, member.chunk);
        if lines.len() > 64 << 10 {
            let batch = bytes::Bytes::from(std::mem::take(&mut lines));
            sink.feed(batch).await.map_err(failed())?;
        }
    }
    sink.feed(bytes::Bytes::from(lines)).await.map_err(failed())?;
    sink.finish().await.map(drop).map_err(failed())
}

/// A field of COPY's text format.
fn escape(text: &str) -> String {
    text.replace('\\', "\\\\").replace('\t', "\\t").replace('\n', "\\n").replace('\r', "\\r")
}

fn digest(choice: &Choice) -> String {
    let mut places: Vec<usize> = choice.members.iter().map(|member| member.customer).collect();
    places.sort_unstable();
    let mut hash = Sha256::new();
    for place in places {
        let key = choice.customers.key(place);
        hash.update((key.len() as u64).to_be_bytes());
        hash.update(key);
    }
    let hex: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

/// Brings the decision into the source's ledger and waits for writers that may not have seen it.
async fn mirror(
    decision: &Decision,
    target: &Session,
    (source, token): (&mut Session, &Token),
    cohort: &Identity,
) -> Result<(), Error> {
    if recorded(source, cohort).await?.is_some() {
        return Ok(());
    }
    let members = format!("select count(*) from godwit.member where entry = {}", decision.entry);
    if source.number("count the cohort's customers", &members).await? == 0 {
        copy_members(decision, target, (source, token), cohort).await?;
    }
    let entries = [entry::UNASSIGNED];
    let drain = fence::change_members(source, token, &entries).await?;
    record(&drain, cohort, decision).await?;
    drain.commit().await.map_err(Error::database("record the selection"))
}

/// Enters the cohort in the source's ledger, without members, where Select ended between the two ledgers: what goes back needs both.
pub async fn complete_registration(cohort: &Cohort<'_>, sides: &mut Sides) -> Result<(), Error> {
    if ledger::cohort(&*sides.source, cohort.identity).await?.is_some() {
        return Ok(());
    }
    let failed = || Error::database("register the cohort");
    let transaction = sides.source.transaction().await.map_err(failed())?;
    token::hold(&transaction, &sides.source_token).await?;
    free_name(&transaction, cohort.identity).await?;
    register(&transaction, cohort.entry, cohort.identity).await?;
    transaction.commit().await.map_err(failed())
}

async fn copy_members(
    decision: &Decision,
    target: &Session,
    (source, token): (&mut Session, &Token),
    cohort: &Identity,
) -> Result<(), Error> {
    let failed = || Error::database("copy the cohort's members to the source");
    let transaction = source.transaction().await.map_err(failed())?;
    token::hold(&transaction, token).await?;
    free_name(&transaction, cohort).await?;
    register(&transaction, decision.entry, cohort).await?;
    let select = format!(
        "copy (select customer, entry, customer_group, chunk from godwit.member where entry = {}) to stdout (format text)",
        decision.entry
    );
    let pieces = target.copy_out(&select).await.map_err(failed())?;
    let mut pieces = std::pin::pin!(pieces);
    let sink = transaction.copy_in(COPY_MEMBERS).await.map_err(failed())?;
    let mut sink = std::pin::pin!(sink);
    while let Some(piece) = pieces.try_next().await.map_err(failed())? {
        sink.feed(piece).await.map_err(failed())?;
    }
    let copied = sink.finish().await.map_err(failed())?;
    if signed(copied) != decision.customers {
        return Err(Error::NotInLedger { what: format!("all members of cohort {}", cohort.name) });
    }
    transaction.commit().await.map_err(failed())
}

fn report(job: &Job, decision: &Decision, selection: &Selection) -> Report {
    let mut report = Report::new(ReportResult::Pass);
    for (name, number) in [
        ("customers", decision.customers),
        ("groups", decision.groups),
        ("chunks", decision.chunks),
        ("takenAlong", decision.taken_along),
        ("elsewhere", decision.elsewhere),
    ] {
        report.counts.insert(name.into(), number);
    }
    report.digest = Some(decision.digest.clone());
    report.findings = notes(job, decision, selection);
    report
}

fn notes(job: &Job, decision: &Decision, selection: &Selection) -> Vec<Finding> {
    let root = &job.input.dataset.root_table;
    let mut notes = Vec::new();
    if decision.taken_along > 0 && !matches!(selection, Selection::Percent { .. }) {
        notes.push(finding(
            Severity::Info,
            "CustomersTakenAlong",
            root,
            format!("{} customers were taken along because they are linked to selected ones.", decision.taken_along),
        ));
    }
    if decision.elsewhere > 0 {
        notes.push(finding(
            Severity::Warning,
            "CustomersElsewhere",
            root,
            format!("{} selected customers are in another cohort already and stay there.", decision.elsewhere),
        ));
    }
    notes
}
