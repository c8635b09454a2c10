//! Reset: the migration's way back after its cohorts are back: the target as it was before Prepare, the source without fence.
//! Tables that Prepare created go, shared rows that it copied go, sequences return, then fences and ledgers.
//! Must not run while a customer lives on the target because of us, and must not take a row that was the target's own.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::time::Instant;

use futures::try_join;

use super::ending;
use super::reporting::{blocker, finding, milliseconds, signed};
use crate::contract::{Finding, Report, ReportResult, Severity, exit};
use crate::worker::postgres::bare;
use crate::worker::postgres::baseline::{Baseline, sum_of_table};
use crate::worker::postgres::catalog::read_catalog;
use crate::worker::postgres::fence;
use crate::worker::postgres::identifier::{TableName, quote_literal};
use crate::worker::postgres::landing::Landing;
use crate::worker::postgres::ledger;
use crate::worker::postgres::model::{Catalog, Scope, entry};
use crate::worker::postgres::session::Session;
use crate::worker::postgres::token::Token;
use crate::worker::postgres::{closure, sequence, split};
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
    let mut copies = BTreeSet::new();
    if let Some(scope) = ending::scope_of_either(job, source, target).await? {
        // Before its own customers were registered, every row was the target's own.
        if natives {
            prove_empty(target, &scope).await?;
            put_back((&mut *target, token)).await?;
        }
        // Before they were copied, the shared rows were the target's own, and so were later ones.
        if references {
            let rows = remove_references((&mut *target, token), (&scope, &baseline), report).await?;
            report.counts.insert("referenceRowsRemoved".into(), signed(rows));
            copies.extend(scope.reference.iter().map(|reference| reference.table.name.clone()));
        }
        compare(target, (&scope, &baseline), report).await?;
    }
    // Those of tables that Prepare created, too: such a table may have to stay.
    let restored =
        split::undo(target, job.subject(), |transaction, one| Box::pin(sequence::restore_target(transaction, one)))
            .await?;
    let dropped = drop_created(target, (&baseline, &copies), report).await?;
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

/// In one transaction, so that a second attempt finds all or none. What the target's own customers wrote into a table made for the
/// migration's is nowhere else: such a table stays, and so do those that it refers to. `copies` are tables of shared rows, which the
/// source has.
async fn drop_created(
    target: &mut Session,
    (baseline, copies): (&Baseline, &BTreeSet<TableName>),
    report: &mut Report,
) -> Result<usize, Error> {
    let catalog = read_catalog(target).await?;
    let there = |name: &&TableName| catalog.tables.contains_key(*name);
    let written = written_to(target, baseline.created.difference(copies).filter(there)).await?;
    let kept = with_referenced(&written, (&catalog, &baseline.created));
    report.findings.extend(kept.iter().map(|name| kept_finding(name, written.contains(name))));
    let gone: Vec<&TableName> = baseline.created.difference(&kept).collect();
    if gone.is_empty() {
        return Ok(0);
    }
    let locked: Vec<&TableName> = gone.iter().copied().filter(there).collect();
    let empty: Vec<&TableName> = locked.iter().copied().filter(|name| !copies.contains(name)).collect();
    let mut sql = lock_while_empty(&locked, &empty);
    // No CASCADE: what others built on these tables is theirs to remove, and the error names it.
    let _ = write!(sql, "drop table if exists {};", list(&gone));
    for (kind, identity) in baseline.dependencies.iter().rev() {
        sql.push_str(&drop_dependency(kind, identity));
    }
    fence::with_short_locks(target, "the tables that Prepare created", &sql).await?;
    Ok(gone.len())
}

fn list(tables: &[&TableName]) -> String {
    tables.iter().map(|table| table.sql()).collect::<Vec<_>>().join(", ")
}

async fn written_to(target: &Session, tables: impl Iterator<Item = &TableName>) -> Result<BTreeSet<TableName>, Error> {
    let mut written = BTreeSet::new();
    for table in tables {
        let any = format!("select count(*) from (select from {} limit 1) as row", table.sql());
        if target.number("look for rows in the tables that Prepare created", &any).await? > 0 {
            written.insert(table.clone());
        }
    }
    Ok(written)
}

/// A table that refers to another one cannot stay without it.
fn with_referenced(
    written: &BTreeSet<TableName>,
    (catalog, created): (&Catalog, &BTreeSet<TableName>),
) -> BTreeSet<TableName> {
    let mut kept = written.clone();
    loop {
        let keys = catalog.foreign_keys.iter().filter(|key| kept.contains(&key.table));
        let referenced =
            keys.map(|key| &key.referenced).filter(|name| created.contains(*name) && !kept.contains(*name));
        let referenced: Vec<TableName> = referenced.cloned().collect();
        if referenced.is_empty() {
            return kept;
        }
        kept.extend(referenced);
    }
}

fn kept_finding(table: &TableName, is_written: bool) -> Finding {
    let told = if is_written {
        "Prepare created this table, and the target's own customers have rows in it, which are nowhere else: it stays. Move the rows \
         elsewhere and drop it, if it is not wanted."
    } else {
        "Prepare created this table, and one that stays refers to it: it stays with its rows."
    };
    finding(Severity::Warning, "TableKept", table, told)
}

/// A row may have been written since its table was found empty: then nothing goes, and the next attempt looks again.
fn lock_while_empty(tables: &[&TableName], empty: &[&TableName]) -> String {
    if empty.is_empty() {
        return String::new();
    }
    let any: Vec<String> = empty.iter().map(|table| format!("exists (select from {})", table.sql())).collect();
    let body = format!(
        "begin if {} then raise exception using errcode = 'serialization_failure', message = 'a table to be dropped was written to'; \
         end if; end",
        any.join(" or ")
    );
    format!("lock table {} in access exclusive mode; do {};", list(tables), quote_literal(&body))
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
