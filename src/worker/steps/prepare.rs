//! Prepare: target schema where absent, the target's baseline, ledger, fences, key ranges, reference tables.
//! The first step that changes a database; every part is durable and skipped when it is done already.
//! Must leave the application of the source running: locks are short, and until a cutover the source owns everything it owned before.

use std::time::Instant;

use futures::try_join;
use serde_json::json;
use tokio_postgres::Transaction;

use super::reporting::{blocker, has_blocker, milliseconds, signed};
use crate::contract::{Owner, Report, ReportResult, Side, exit};
use crate::worker::postgres::agreement;
use crate::worker::postgres::baseline::{Baseline, sum_of_table};
use crate::worker::postgres::catalog::read_catalog;
use crate::worker::postgres::identifier::{TableName, quote_identifier};
use crate::worker::postgres::landing::Landing;
use crate::worker::postgres::model::{Catalog, Scope, Table, entry};
use crate::worker::postgres::relay::{Rows, Shape};
use crate::worker::postgres::row::Sum;
use crate::worker::postgres::schema::{Section, dump};
use crate::worker::postgres::session::Session;
use crate::worker::postgres::token::{self, Token};
use crate::worker::postgres::{bare, closure, collision, dependency, fence, ledger, split};
use crate::worker::{Error, Job};

/// Both databases with this attempt's tokens, and what of the source is to move.
struct Work<'j> {
    job: &'j Job,
    source: Session,
    target: Session,
    source_token: Token,
    target_token: Token,
    catalog: Catalog,
    scope: Scope,
}

pub async fn run(job: &Job) -> Result<Report, Error> {
    let started = Instant::now();
    let mut work = Work::open(job).await?;
    job.progress.set_total(work.scope.tables().count() as u64);
    let baseline = work.create_schema().await?;
    job.progress.advance(work.scope.owned.len() as u64);
    let natives = work.admit_natives().await?;
    fence::install(&mut work.source, Side::Source, &work.scope).await?;
    let splits = split::split(
        (&mut work.source, &work.source_token),
        (&mut work.target, &work.target_token),
        split::Plan {
            sequences: work.scope.sequences(&work.catalog).collect(),
            strategy: job.input.dataset.keys,
            subject: job.subject(),
        },
    )
    .await?;
    let references = work.copy_references().await?;
    work.finish().await?;
    let mut report = Report::new(ReportResult::Pass);
    for (name, number) in [
        ("tables", signed(work.scope.tables().count())),
        ("tablesCreated", signed(baseline.created.len())),
        ("nativeCustomers", natives),
        ("sequencesSplit", signed(splits)),
        ("referenceRows", references),
    ] {
        report.counts.insert(name.into(), number);
    }
    store_evidence(job, &baseline, &mut report).await?;
    report.timings.insert("prepare".into(), milliseconds(started));
    Ok(report)
}

async fn store_evidence(job: &Job, baseline: &Baseline, report: &mut Report) -> Result<(), Error> {
    let text =
        serde_json::to_vec_pretty(baseline).map_err(|source| Error::Json { what: "the target's baseline", source })?;
    let path = format!("prepare/{}/{}/baseline.json", job.subject(), job.input.attempt);
    let stored = job.storage()?.put_bytes(&path, text).await?;
    report.digest = Some(stored.digest);
    report.evidence_uri = Some(stored.path);
    Ok(())
}

impl<'j> Work<'j> {
    async fn open(job: &'j Job) -> Result<Self, Error> {
        let (mut source, mut target) = try_join!(job.source(), job.target())?;
        let migration = &job.input.migration;
        ledger::refuse_foreign(&source, migration).await?;
        ledger::refuse_foreign(&target, migration).await?;
        let (catalog, scope) = job.scope(&source).await?;
        if ledger::exists(&target).await? {
            bare::refuse_while_bare(&*target, job.subject()).await?;
        }
        let existing = read_catalog(&target).await?;
        let findings = agreement::findings(&scope, &existing);
        if has_blocker(&findings) {
            return Err(Error::Refused { exit: exit::DATA_DIFFERS, findings });
        }
        ledger::create(&mut target, Side::Target, migration, &scope.root_key_type).await?;
        ledger::create(&mut source, Side::Source, migration, &scope.root_key_type).await?;
        let (subject, attempt) = (job.subject(), job.input.attempt);
        let target_token = token::take(&target, subject, attempt).await?;
        let source_token = token::follow(&source, &target_token).await?;
        Ok(Self { job, source, target, source_token, target_token, catalog, scope })
    }

    fn part<'a>(&'a self, part: &'a str) -> (&'a str, &'a str, &'a str) {
        (self.job.subject(), "prepare", part)
    }

    /// Records the baseline and creates what is missing, in one transaction: a table is either created and known as ours, or not there.
    async fn create_schema(&mut self) -> Result<Baseline, Error> {
        if let Some(baseline) = Baseline::load(&*self.target).await? {
            return Ok(baseline);
        }
        // A session of its own: dumps change settings.
        let mut target = self.job.target().await?;
        let existing = read_catalog(&target).await?;
        let missing: Vec<&Table> =
            self.scope.tables().filter(|table| !existing.tables.contains_key(&table.name)).collect();
        let needed = self.missing_dependencies(&target, &missing).await?;
        let ddl = self.ddl(&missing).await?;
        for table in self.scope.tables().filter(|table| existing.tables.contains_key(&table.name)) {
            self.refuse_rows(table).await?;
        }
        let mut transaction = begin(&mut target, &self.target_token).await?;
        let mut baseline = Baseline::read(&transaction, &self.scope, &existing).await?;
        baseline.depends_on(&needed);
        dependency::create(&mut transaction, &needed).await?;
        baseline.store(&transaction).await?;
        transaction.batch_execute(&ddl).await.map_err(Error::database("create the dataset's tables on the target"))?;
        transaction.commit().await.map_err(Error::database("create the dataset's tables on the target"))?;
        self.note("schema", json!({"created": baseline.created.len(), "found": baseline.tables.len()})).await?;
        Ok(baseline)
    }

    async fn missing_dependencies(
        &self,
        target: &Session,
        missing: &[&Table],
    ) -> Result<Vec<dependency::Dependency>, Error> {
        let names: Vec<&TableName> =
            missing.iter().flat_map(|table| std::iter::once(&table.name).chain(&table.partitions)).collect();
        let needed = dependency::of_tables(&self.source, &names).await?;
        let needed = dependency::missing(&**target, needed).await?;
        let findings = dependency::findings(&needed);
        if findings.is_empty() {
            return Ok(needed);
        }
        Err(Error::Refused { exit: exit::DATA_DIFFERS, findings })
    }

    async fn ddl(&self, missing: &[&Table]) -> Result<String, Error> {
        let of = self.job.uri(Side::Source)?;
        let tables = (&self.catalog, missing);
        let before = dump(of, tables, Section::PreData).await?;
        let after = dump(of, tables, Section::PostData).await?;
        Ok(format!("{before}\n{after}"))
    }

    /// What the target's rows must not be, asked before anything is fenced: whoever has to change them still can.
    async fn refuse_rows(&self, table: &Table) -> Result<(), Error> {
        if self.scope.owned_table(&table.name).is_none() {
            return self.refuse_other_references(table).await;
        }
        let collisions = collision::count(&self.source, &self.target, (table, &table.primary_key)).await?;
        if collisions == 0 {
            return Ok(());
        }
        Err(Error::refused(
            exit::DATA_DIFFERS,
            blocker(
                "KeyCollision",
                &table.name,
                format!(
                    "{collisions} rows of the target have keys that the source's rows have too; give them other keys."
                ),
            ),
        ))
    }

    async fn refuse_other_references(&self, table: &Table) -> Result<(), Error> {
        let (mut source, mut target) = try_join!(self.job.reader(Side::Source), self.job.reader(Side::Target))?;
        let there = sum_of_table(&snapshot(&mut target).await?, table).await?;
        if there.rows == 0 {
            return Ok(());
        }
        let here = sum_of_table(&snapshot(&mut source).await?, table).await?;
        refuse_difference(table, here, there)
    }

    /// Fences the target and registers the customers that it had, without refusing them a single write in between.
    async fn admit_natives(&mut self) -> Result<i64, Error> {
        let done = ledger::checkpoint(&*self.target, self.part("natives")).await?;
        if done.is_none() {
            // Until its own customers are registered, the target owns everything in its ledger: only its own rows are there.
            self.set_owner_of_rest(Owner::Target).await?;
        }
        fence::install(&mut self.target, Side::Target, &self.scope).await?;
        if let Some(state) = done {
            return Ok(state["customers"].as_i64().unwrap_or_default());
        }
        let key = quote_identifier(&self.scope.root_key);
        let register = format!(
            "insert into godwit.member (customer, entry) select {key}, {} from {} on conflict do nothing",
            entry::NATIVE,
            self.scope.root.sql()
        );
        let entries = [entry::UNASSIGNED, entry::REFERENCE, entry::NATIVE];
        let transaction = fence::change_members(&mut self.target, &self.target_token, &entries).await?;
        let failed = || Error::database("register the target's own customers");
        let natives = transaction.execute(&register, &[]).await.map_err(failed())?;
        set_owner_of_rest(&transaction, Owner::Source).await?;
        let key = (self.job.subject(), "prepare", "natives");
        ledger::set_checkpoint(&transaction, key, &json!({ "customers": natives })).await?;
        transaction.commit().await.map_err(failed())?;
        Ok(signed(natives))
    }

    async fn set_owner_of_rest(&mut self, owner: Owner) -> Result<(), Error> {
        let transaction = begin(&mut self.target, &self.target_token).await?;
        set_owner_of_rest(&transaction, owner).await?;
        transaction.commit().await.map_err(Error::database("set the owner of unassigned rows"))
    }

    /// Shared rows go over whole; tables that the target has filled must hold the same rows already.
    async fn copy_references(&mut self) -> Result<i64, Error> {
        if let Some(state) = ledger::checkpoint(&*self.target, self.part("references")).await? {
            return Ok(state["rows"].as_i64().unwrap_or_default());
        }
        let catalog = read_catalog(&self.target).await?;
        let ownership = ledger::ownership(&*self.target, entry::REFERENCE).await?;
        let snapshot = snapshot(&mut self.source).await?;
        let landing = Landing::begin(&mut self.target, &self.target_token).await?;
        landing.pass(&ownership).await?;
        let mut rows = 0;
        for reference in &self.scope.reference {
            rows += copy_reference(&snapshot, &landing, &reference.table).await?;
            self.job.progress.advance(1);
        }
        let violations = closure::of_whole_tables(&landing, (&self.scope, &catalog)).await?;
        closure::refuse(&violations)?;
        let part = (self.job.subject(), "prepare", "references");
        ledger::set_checkpoint(&*landing, part, &json!({ "rows": rows })).await?;
        landing.commit().await?;
        Ok(rows)
    }

    async fn finish(&mut self) -> Result<(), Error> {
        for session in [&self.target, &self.source] {
            session
                .run(
                    "record the end of Prepare",
                    "update godwit.migration set prepared_at = pg_catalog.now() where prepared_at is null",
                )
                .await?;
        }
        self.note("prepared", json!({})).await
    }

    async fn note(&self, event: &str, detail: serde_json::Value) -> Result<(), Error> {
        ledger::note(&*self.target, self.job.attempt_key(), event, &detail).await
    }
}

/// Entries that belong to nobody in particular; without a change of epoch, since the two sides' epochs are compared later.
async fn set_owner_of_rest(transaction: &Transaction<'_>, owner: Owner) -> Result<(), Error> {
    transaction
        .execute(
            "update godwit.ownership set owner = $1 where entry = any($2) and epoch = 0",
            &[&ledger::owner_name(owner), &vec![entry::UNASSIGNED, entry::REFERENCE]],
        )
        .await
        .map(drop)
        .map_err(Error::database("set the owner of unassigned rows"))
}

async fn copy_reference(source: &Transaction<'_>, landing: &Landing<'_>, table: &Table) -> Result<i64, Error> {
    let there = sum_of_table(landing, table).await?;
    if there.rows == 0 {
        let shape = Shape::new(table, table.format());
        let name = table.name.to_string();
        let mut rows = Rows::select(source, &table.select_all(), shape.format, &name).await?;
        let landed = landing.receive(&mut rows, (table, shape)).await?;
        if sum_of_table(landing, table).await? == landed {
            return Ok(signed(landed.rows));
        }
        return Err(Error::CopyDiffers { table: name });
    }
    let here = sum_of_table(source, table).await?;
    refuse_difference(table, here, there)?;
    Ok(signed(here.rows))
}

fn refuse_difference(table: &Table, source: Sum, target: Sum) -> Result<(), Error> {
    if source == target {
        return Ok(());
    }
    Err(Error::refused(
        exit::DATA_DIFFERS,
        blocker(
            "ReferenceRowsDiffer",
            &table.name,
            format!(
                "The target has {} rows of this shared table, the source {}, and they are not the same; empty the target's table or make them equal.",
                target.rows, source.rows
            ),
        ),
    ))
}

async fn begin<'s>(session: &'s mut Session, token: &Token) -> Result<Transaction<'s>, Error> {
    let transaction = session.transaction().await.map_err(Error::database("begin a transaction"))?;
    token::hold(&transaction, token).await?;
    Ok(transaction)
}

async fn snapshot(session: &mut Session) -> Result<Transaction<'_>, Error> {
    session
        .build_transaction()
        .isolation_level(tokio_postgres::IsolationLevel::RepeatableRead)
        .read_only(true)
        .start()
        .await
        .map_err(Error::database("take a snapshot"))
}
