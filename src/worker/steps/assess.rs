//! Assess: can this dataset move between these two databases, and if not, what exactly is in the way?
//! The first step. Every session is read-only by the server's own word.
//! Must find everything it can in one run: a user who repairs one finding should not meet the next one only then.

use std::time::Instant;

use futures::try_join;
use serde::Serialize;
use tokio_postgres::{IsolationLevel, Transaction};

use super::audit::{self, GroupSizes};
use super::reporting::{blocker, finding, has_blocker, milliseconds, signed};
use crate::contract::{Finding, Report, ReportResult, Severity, Side};
use crate::worker::postgres::catalog::read_catalog;
use crate::worker::postgres::identifier::TableName;
use crate::worker::postgres::model::{Catalog, RowFormat, Scope, Table};
use crate::worker::postgres::session::Session;
use crate::worker::postgres::{
    agreement, bare, dependency, labels, ledger, obstacle, rights, sandbox, scope, sequence,
};
use crate::worker::{Error, Job};

/// Rows and bytes that a modest machine copies in a second, with keys and proofs: a first estimate, never a promise.
const BYTES_PER_SECOND: u64 = 40 << 20;

/// The evidence file.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Assessment {
    v: u32,
    source_version: i32,
    target_version: i32,
    tables: Vec<AssessedTable>,
    /// Foreign keys that join customers to groups.
    links: Vec<String>,
    groups: GroupSizes,
    estimated_copy_seconds: u64,
    findings: Vec<Finding>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct AssessedTable {
    name: TableName,
    role: &'static str,
    /// Foreign keys from the table to the customer.
    path: Vec<String>,
    rows: i64,
    bytes: u64,
    format: RowFormat,
    on_target: bool,
}

/// Both sides as they are.
struct Assessing<'j> {
    job: &'j Job,
    source: Session,
    target: Session,
    catalog: Catalog,
    existing: Catalog,
    findings: Vec<Finding>,
}

pub async fn run(job: &Job) -> Result<Report, Error> {
    let started = Instant::now();
    let (source, target) = try_join!(job.reader(Side::Source), job.reader(Side::Target))?;
    if ledger::owner_of(&target).await?.is_some_and(|owner| owner.uid == job.input.migration.uid) {
        bare::refuse_while_bare(&*target, job.subject()).await?;
    }
    let (catalog, existing) = try_join!(read_catalog(&source), read_catalog(&target))?;
    let mut assessing = Assessing { job, source, target, catalog, existing, findings: Vec::new() };
    assessing.servers().await?;
    let resolved = scope::resolve(&job.input.dataset, &assessing.catalog);
    let assessment = match resolved {
        Ok(scope) => assessing.dataset(&scope).await?,
        Err(findings) => {
            assessing.findings.extend(findings);
            assessing.assessment(None, Vec::new(), GroupSizes::default())
        }
    };
    let mut report = report(&assessment);
    let text =
        serde_json::to_vec_pretty(&assessment).map_err(|source| Error::Json { what: "the assessment", source })?;
    let path = format!("assess/{}/{}/assessment.json", job.subject(), job.input.attempt);
    let stored = job.storage()?.put_bytes(&path, text).await?;
    report.digest = Some(stored.digest);
    report.evidence_uri = Some(stored.path);
    report.timings.insert("assess".into(), milliseconds(started));
    Ok(report)
}

fn report(assessment: &Assessment) -> Report {
    let result = if has_blocker(&assessment.findings) { ReportResult::Fail } else { ReportResult::Pass };
    let mut report = Report::new(result);
    let rows: i64 = assessment.tables.iter().map(|table| table.rows).sum();
    let bytes: u64 = assessment.tables.iter().map(|table| table.bytes).sum();
    for (name, number) in [
        ("tables", signed(assessment.tables.len())),
        ("rows", rows),
        ("bytes", signed(bytes)),
        ("customers", signed(assessment.groups.customers)),
        ("groups", signed(assessment.groups.groups)),
        ("largestGroup", signed(assessment.groups.largest)),
        ("estimatedCopySeconds", signed(assessment.estimated_copy_seconds)),
    ] {
        report.counts.insert(name.into(), number);
    }
    report.findings.clone_from(&assessment.findings);
    report.findings.sort_by_key(|finding| finding.severity);
    report
}

impl Assessing<'_> {
    /// What does not depend on the dataset.
    async fn servers(&mut self) -> Result<(), Error> {
        for session in [&self.source, &self.target] {
            if let Some(owner) = ledger::owner_of(session).await?
                && owner.uid != self.job.input.migration.uid
            {
                self.findings.push(blocker(
                    "ForeignLedger",
                    session.side(),
                    format!(
                        "The database is part of another migration, {}/{} (uid {}); finish or delete that one first. If it is gone for good, drop schema godwit with cascade in both databases.",
                        owner.namespace, owner.name, owner.uid
                    ),
                ));
            }
        }
        let (here, there) = (self.source.server_version(), self.target.server_version());
        if there / 10_000 < here / 10_000 {
            self.findings.push(finding(
                Severity::Warning,
                "TargetOlder",
                "target",
                format!(
                    "The target runs PostgreSQL {}, the source {}: what only the newer one knows cannot be created there.",
                    there / 10_000,
                    here / 10_000
                ),
            ));
        }
        let large = "select count(*) from pg_catalog.pg_largeobject_metadata";
        let large = self.source.number("count large objects", large).await?;
        if large > 0 {
            self.findings.push(finding(
                Severity::Warning,
                "LargeObjects",
                "source",
                format!(
                    "{large} large objects exist and do not move; keep such content in tables, or move it yourself."
                ),
            ));
        }
        let encodings = obstacle::encodings(&self.source, &self.target).await?;
        self.findings.extend(encodings);
        self.findings.extend(program_findings(here).await);
        Ok(())
    }

    async fn dataset(&mut self, scope: &Scope) -> Result<Assessment, Error> {
        self.findings.extend(scope.notes.iter().cloned());
        self.findings.extend(agreement::findings(scope, &self.existing));
        self.tables(scope);
        self.rights(scope).await?;
        self.needed(scope).await?;
        self.sequences(scope).await?;
        let tables: Vec<&Table> = scope.tables().collect();
        let views = obstacle::views(&self.source, &tables).await?;
        self.findings.extend(views);
        if !rights::may_read(&self.findings) {
            let tables = self.assessed(scope, &[]);
            return Ok(self.assessment(Some(scope), tables, GroupSizes::default()));
        }
        self.rows(scope).await
    }

    async fn rows(&mut self, scope: &Scope) -> Result<Assessment, Error> {
        let progress = &self.job.progress;
        let mut reading = self.job.reader(Side::Source).await?;
        let snapshot = snapshot(&mut reading).await?;
        progress.set_total(5);
        let rows = audit::rows(&snapshot, scope).await?;
        progress.advance(1);
        self.findings.extend(audit::orphans(&snapshot, scope).await?);
        progress.advance(1);
        self.findings.extend(audit::unowned(&snapshot, scope).await?);
        progress.advance(1);
        self.findings.extend(audit::checks(&snapshot, scope).await?);
        self.findings.extend(obstacle::large_objects(&snapshot, scope).await?);
        let (groups, findings) = audit::groups(&snapshot, scope).await?;
        self.findings.extend(findings);
        progress.advance(1);
        // Once the migration has begun, the target's rows are our own copies.
        if self.comparable(scope) && !ledger::exists(&self.target).await? {
            let both = (scope, &self.existing);
            let found = audit::collisions((&self.source, &snapshot), &mut self.target, both).await?;
            self.findings.extend(found);
        }
        progress.advance(1);
        let tables = self.assessed(scope, &rows);
        Ok(self.assessment(Some(scope), tables, groups))
    }

    /// Rows are compared only where the columns are the same.
    fn comparable(&self, scope: &Scope) -> bool {
        agreement::rows_comparable(&agreement::findings(scope, &self.existing))
    }

    fn tables(&mut self, scope: &Scope) {
        for table in scope.tables() {
            let mut note = |severity, code, message: &str| {
                self.findings.push(finding(severity, code, &table.name, message));
            };
            if table.unlogged {
                note(
                    Severity::Warning,
                    "TableUnlogged",
                    "The table is unlogged: a crash of its server empties it, on either side.",
                );
            }
            if table.columns.iter().any(|column| column.large_object) {
                note(
                    Severity::Blocker,
                    "LargeObjectColumn",
                    "The table refers to large objects, which do not move; exclude it, or store the content in the table.",
                );
            }
            let rules = self.existing.tables.get(&table.name).is_some_and(|there| there.has_rules);
            if rules {
                note(
                    Severity::Warning,
                    "RulesOnTarget",
                    "The target's table has rules; they are not applied to rows that arrive.",
                );
            }
        }
    }

    async fn rights(&mut self, scope: &Scope) -> Result<(), Error> {
        let of_source: Vec<&Table> = scope.tables().collect();
        let of_target: Vec<&Table> =
            of_source.iter().filter_map(|table| self.existing.tables.get(&table.name)).collect();
        let mut found = rights::findings(&self.source, &of_source).await?;
        found.extend(rights::findings(&self.target, &of_target).await?);
        if of_target.len() < of_source.len() {
            found.extend(rights::schema_findings(&self.target, scope).await?);
        }
        self.findings.extend(found);
        Ok(())
    }

    /// Types, functions and extensions for the tables that Prepare has to create.
    async fn needed(&mut self, scope: &Scope) -> Result<(), Error> {
        let missing: Vec<&TableName> = scope
            .tables()
            .filter(|table| !self.existing.tables.contains_key(&table.name))
            .flat_map(|table| std::iter::once(&table.name).chain(&table.partitions))
            .collect();
        let taken = obstacle::names_taken(&self.source, &self.target, &missing).await?;
        self.findings.extend(taken);
        let all: Vec<&TableName> = scope.tables().map(|table| &table.name).collect();
        let types = dependency::differing_types(&self.source, &*self.target, &all).await?;
        self.findings.extend(types);
        let needed = dependency::of_tables(&self.source, &missing).await?;
        let needed = dependency::missing(&*self.target, needed).await?;
        self.findings.extend(dependency::findings(&needed));
        for extension in needed.iter().filter(|needed| needed.kind == "extension") {
            let available = self
                .target
                .query_one(
                    "select exists (select from pg_catalog.pg_available_extensions where pg_catalog.quote_ident(name) = $1)",
                    &[&extension.identity],
                )
                .await
                .map_err(Error::database("look for extensions on the target"))?;
            if !available.get::<_, bool>(0) {
                self.findings.push(blocker(
                    "ExtensionMissing",
                    &extension.identity,
                    "The dataset needs this extension, which is not installed on the target's server; install it there.",
                ));
            }
        }
        let labels = labels::findings(&self.source, &self.target).await?;
        self.findings.extend(labels);
        Ok(())
    }

    async fn sequences(&mut self, scope: &Scope) -> Result<(), Error> {
        let strategy = self.job.input.dataset.keys;
        // Sequences that Prepare has split already are no longer as it found them.
        if ledger::exists(&self.source).await? {
            return Ok(());
        }
        let mut names = Vec::new();
        let mut found = Vec::new();
        for sequence in scope.sequences(&self.catalog) {
            names.push(&sequence.name);
            found.extend(sequence::finding(sequence, strategy));
        }
        if strategy != crate::contract::KeyStrategy::None {
            found.extend(obstacle::sequences_missing(scope, (&self.catalog, &self.existing)));
            found.extend(rights::sequence_findings(&self.source, &names).await?);
            found.extend(rights::sequence_findings(&self.target, &names).await?);
        }
        self.findings.extend(found);
        Ok(())
    }

    fn assessed(&self, scope: &Scope, rows: &[(String, i64)]) -> Vec<AssessedTable> {
        let describe = |table: &Table, role, path: Vec<String>| AssessedTable {
            rows: rows.iter().find(|(name, _)| *name == table.name.to_string()).map_or(0, |(_, rows)| *rows),
            on_target: self.existing.tables.contains_key(&table.name),
            name: table.name.clone(),
            role,
            path,
            bytes: table.bytes,
            format: table.format(),
        };
        let owned = scope.owned.iter().map(|owned| {
            let path = owned.path.iter().map(|key| key.name.clone()).collect();
            describe(&owned.table, "owned", path)
        });
        let reference = scope.reference.iter().map(|reference| describe(&reference.table, "reference", Vec::new()));
        owned.chain(reference).collect()
    }

    fn assessment(&self, scope: Option<&Scope>, tables: Vec<AssessedTable>, groups: GroupSizes) -> Assessment {
        let mut findings = self.findings.clone();
        findings.sort_by(|one, other| {
            (one.severity, &one.code, &one.object).cmp(&(other.severity, &other.code, &other.object))
        });
        findings.dedup();
        let bytes: u64 = tables.iter().map(|table| table.bytes).sum();
        Assessment {
            v: 1,
            source_version: self.source.server_version(),
            target_version: self.target.server_version(),
            tables,
            links: scope
                .iter()
                .flat_map(|scope| &scope.links)
                .map(|link| format!("{} of {}", link.name, link.table))
                .collect(),
            groups,
            estimated_copy_seconds: bytes / BYTES_PER_SECOND + 1,
            findings,
        }
    }
}

/// `pg_dump` and the sandbox must not be older than the source's server.
async fn program_findings(source_version: i32) -> Option<Finding> {
    let folder = match sandbox::programs() {
        Ok(folder) => folder,
        Err(error) => return Some(blocker("ProgramsMissing", "worker image", error.to_string())),
    };
    let output = tokio::process::Command::new(folder.join("pg_dump")).arg("--version").output().await.ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let major: i32 = text.split_whitespace().find_map(|word| word.split('.').next()?.parse().ok())?;
    (major < source_version / 10_000).then(|| {
        blocker(
            "ProgramsTooOld",
            "worker image",
            format!(
                "The image has PostgreSQL {major}'s programs, the source runs {}; use an image with programs at least as new.",
                source_version / 10_000
            ),
        )
    })
}

async fn snapshot(session: &mut Session) -> Result<Transaction<'_>, Error> {
    session
        .build_transaction()
        .isolation_level(IsolationLevel::RepeatableRead)
        .read_only(true)
        .start()
        .await
        .map_err(Error::database("take a snapshot of the source"))
}
