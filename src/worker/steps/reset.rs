//! Reset: the migration's way back after its cohorts are back: the target as it was before Prepare, the source without fence.
//! Tables that Prepare created go, shared rows that it copied go, sequences return, then fences and ledgers.
//! Must not run while a customer lives on the target because of us, and must not take a row that was the target's own.

use std::time::Instant;

use futures::try_join;

use super::ending;
use super::reporting::{blocker, finding, milliseconds, signed};
use crate::contract::{Report, ReportResult, Severity, exit};
use crate::worker::postgres::bare;
use crate::worker::postgres::baseline::{Baseline, sum_of_table};
use crate::worker::postgres::catalog::read_catalog;
use crate::worker::postgres::fence;
use crate::worker::postgres::identifier::{TableName, quote_literal};
use crate::worker::postgres::landing::Landing;
use crate::worker::postgres::ledger;
use crate::worker::postgres::model::{Scope, entry};
use crate::worker::postgres::session::Session;
use crate::worker::postgres::token::Token;
use crate::worker::postgres::{closure, scope, sequence, split};
use crate::worker::{Error, Job};

pub async fn run(job: &Job) -> Result<Report, Error> {
    let started = Instant::now();
    let migration = &job.input.migration;
    let (mut source, mut target) = try_join!(job.source(), job.target())?;
    let mut report = Report::new(ReportResult::Pass);
    let source_has = ending::has_ledger(&source, migration).await?;
    if ending::has_ledger(&target, migration).await? {
        refuse_customers_abroad(&target).await?;
        let token = ending::take_over(&target, job.subject(), job.input.attempt).await?;
        let of_source = source_has.then_some(&source);
        ending::store_archive(job, (of_source, &target), &mut report).await?;
        reset_target(job, &source, (&mut target, &token), &mut report).await?;
    }
    if source_has {
        ending::take_over(&source, job.subject(), job.input.attempt).await?;
        let joined = split::undo(&mut source, job.subject(), |transaction, one| {
            Box::pin(sequence::join_source(transaction, one))
        })
        .await?;
        report.counts.insert("sequencesJoined".into(), signed(joined));
    }
    // The source first: it is the one whose application must run freely again.
    ending::leave(&mut source).await?;
    ending::leave(&mut target).await?;
    report.timings.insert("reset".into(), milliseconds(started));
    Ok(report)
}

/// Every cohort must be the source's again; what is in no cohort, too, unless Prepare never came to give it to the source.
async fn refuse_customers_abroad(target: &Session) -> Result<(), Error> {
    let others: Vec<String> = target
        .query(
            "select o.name from godwit.ownership o where o.owner <> 'Source' and o.entry <> $1 \
             and (o.entry >= $2 or (select prepared_at from godwit.migration) is not null) order by o.entry",
            &[&entry::NATIVE, &entry::FIRST_COHORT],
        )
        .await
        .map(|rows| rows.iter().map(|row| row.get(0)).collect())
        .map_err(Error::database("read what the target owns"))?;
    if others.is_empty() {
        return Ok(());
    }
    Err(Error::refused(
        exit::DATA_DIFFERS,
        blocker(
            "CohortNotBack",
            &others.join(", "),
            "The source does not own these entries of the ledger; roll their cohorts back before the migration.",
        ),
    ))
}

async fn reset_target(
    job: &Job,
    source: &Session,
    (target, token): (&mut Session, &Token),
    report: &mut Report,
) -> Result<(), Error> {
    let Some(baseline) = Baseline::load(&**target).await? else {
        // Prepare ended before it made anything.
        return Ok(());
    };
    let prepared = |part| (job.subject(), "prepare", part);
    let natives = ledger::checkpoint(&**target, prepared("natives")).await?.is_some();
    let references = ledger::checkpoint(&**target, prepared("references")).await?.is_some();
    if let Some(scope) = scope_of_either(job, source, target).await? {
        // Before its own customers were registered, every row was the target's own.
        if natives {
            prove_empty(target, &scope).await?;
            put_back((&mut *target, token)).await?;
        }
        // Before they were copied, the shared rows were the target's own, and so were later ones.
        if references {
            let rows = remove_references((&mut *target, token), (&scope, &baseline), report).await?;
            report.counts.insert("referenceRowsRemoved".into(), signed(rows));
        }
        compare(target, (&scope, &baseline), report).await?;
    }
    let kept: Vec<TableName> = baseline.tables.keys().cloned().collect();
    let restored = split::undo(target, job.subject(), |transaction, one| {
        let keep = one.columns().any(|(table, _)| kept.contains(table));
        Box::pin(async move {
            if keep {
                return sequence::restore_target(transaction, one).await;
            }
            Ok(())
        })
    })
    .await?;
    let dropped = drop_created(target, &baseline).await?;
    report.counts.insert("sequencesRestored".into(), signed(restored));
    report.counts.insert("tablesDropped".into(), signed(dropped));
    Ok(())
}

/// The tables that were there, against the baseline. The target's own customers may have been written since, so a change is told, not refused.
async fn compare(
    target: &mut Session,
    (scope, baseline): (&Scope, &Baseline),
    report: &mut Report,
) -> Result<(), Error> {
    let reading = target.transaction().await.map_err(Error::database("compare the target with its baseline"))?;
    let mut same = 0;
    for table in scope.tables() {
        let Some(before) = baseline.tables.get(&table.name) else {
            continue;
        };
        if sum_of_table(&reading, table).await? == *before {
            same += 1;
        } else {
            report.findings.push(finding(
                Severity::Info,
                "ChangedSinceBaseline",
                &table.name,
                "The table is not what it was before Prepare: its own customers were written meanwhile, or its shared rows stayed.",
            ));
        }
    }
    report.counts.insert("tablesAsBefore".into(), same);
    Ok(())
}

/// The scope from the source; when its catalogue changed since, from the target. `None`: the tables are gone.
async fn scope_of_either(job: &Job, source: &Session, target: &Session) -> Result<Option<Scope>, Error> {
    for session in [source, target] {
        let catalog = read_catalog(session).await?;
        if let Ok(scope) = scope::resolve(&job.input.dataset, &catalog) {
            return Ok(Some(scope));
        }
    }
    Ok(None)
}

/// No row of a cohort may be left: the tables may be dropped, and what stays is the target's own.
async fn prove_empty(target: &Session, scope: &Scope) -> Result<(), Error> {
    let existing = read_catalog(target).await?;
    let there = |name: &TableName| existing.tables.contains_key(name);
    for owned in scope.owned.iter().filter(|owned| there(&owned.table.name)) {
        if !owned.path.iter().all(|key| there(&key.referenced)) {
            continue;
        }
        let join = owned.customer_join("t", "p");
        let native = format!(
            "select count(*) from {} as t{} join godwit.member as member on member.customer = {} where member.entry = {}",
            owned.table.name.sql(),
            join.joins,
            join.customer,
            entry::NATIVE
        );
        let all = format!("select count(*) from {}", owned.table.name.sql());
        let foreign = target.number("count rows", &all).await? - target.number("count rows", &native).await?;
        if foreign != 0 {
            return Err(Error::refused(
                exit::DATA_DIFFERS,
                blocker(
                    "RowsLeft",
                    &owned.table.name,
                    format!(
                        "{foreign} rows that are not the target's own are left; discard or return their cohorts first."
                    ),
                ),
            ));
        }
    }
    Ok(())
}

/// A copy that was under way and never discarded may have laid tables bare; over empty tables everything comes back.
async fn put_back((target, token): (&mut Session, &Token)) -> Result<(), Error> {
    match bare::put_back(target, token).await?.first() {
        Some(waiting) => Err(Error::NotInForce { what: format!("{} of {}", waiting.name, waiting.table) }),
        None => Ok(()),
    }
}

/// Shared rows go where the table was empty before; where it had the same rows already, all of them stay.
async fn remove_references(
    (target, token): (&mut Session, &Token),
    (scope, baseline): (&Scope, &Baseline),
    report: &mut Report,
) -> Result<u64, Error> {
    let ownership = ledger::ownership(&**target, entry::REFERENCE).await?;
    let catalog = read_catalog(target).await?;
    let landing = Landing::begin(target, token).await?;
    landing.pass(&ownership).await?;
    let mut removed = 0;
    // Those that reference others first.
    for reference in scope.reference.iter().rev() {
        let name = &reference.table.name;
        match baseline.tables.get(name) {
            Some(before) if before.rows > 0 => report.findings.push(finding(
                Severity::Info,
                "SharedRowsStay",
                name,
                "The target had rows of this shared table before; its rows stay as they are now.",
            )),
            Some(_) => removed += landing.remove(name, &format!("delete from {}", name.sql())).await?,
            None => {}
        }
    }
    // With triggers off nothing cascades into rows of the target's own, and none of its triggers fires; whoever refers to a shared
    // row is found instead. A writer about to refer to one waits for this transaction, or is waited for by the removal.
    closure::refuse(&closure::of_whole_tables(&landing, (scope, &catalog)).await?)?;
    landing.commit().await?;
    Ok(removed)
}

/// In one transaction, so that a second attempt finds all or none.
async fn drop_created(target: &mut Session, baseline: &Baseline) -> Result<usize, Error> {
    if baseline.created.is_empty() {
        return Ok(0);
    }
    let tables: Vec<String> = baseline.created.iter().map(TableName::sql).collect();
    // No CASCADE: what others built on these tables is theirs to remove, and the error names it.
    let mut sql = format!("drop table if exists {};", tables.join(", "));
    for (kind, identity) in baseline.dependencies.iter().rev() {
        sql.push_str(&drop_dependency(kind, identity));
    }
    fence::with_short_locks(target, "the tables that Prepare created", &sql).await?;
    Ok(baseline.created.len())
}

/// What something else uses by now stays: a type or schema in use is no trace of ours.
fn drop_dependency(kind: &str, identity: &str) -> String {
    let statement = match kind {
        "type" | "function" | "schema" | "extension" => {
            format!("drop {} if exists {identity}", if kind == "function" { "routine" } else { kind })
        }
        _ => return String::new(),
    };
    format!(
        "do {} ;",
        quote_literal(&format!("begin {statement}; exception when dependent_objects_still_exist then null; end"))
    )
}
