//! VerifyBackup: a backup counts only after it was restored. Every file is read, checked and loaded into a throw-away PostgreSQL,
//! read back, compared, and its constraints created for real.
//! Must not touch source or target, and must not pass what it could not compare.

use std::collections::BTreeMap;
use std::time::Instant;

use super::reporting::{milliseconds, signed};
use crate::contract::{EvidenceRef, Finding, Report, ReportResult, Severity};
use crate::worker::error::Fault;
use crate::worker::postgres::identifier::{TableName, quote_identifier, quote_literal};
use crate::worker::postgres::manifest::{Manifest, PartitionFile, SchemaFact, TableBackup, blocker};
use crate::worker::postgres::relay::{Batches, Rows, Shape, head, tail};
use crate::worker::postgres::restore::{PartReader, copy_target, findings_of};
use crate::worker::postgres::sandbox::Sandbox;
use crate::worker::postgres::session::{Purpose, Session, connect};
use crate::worker::postgres::{dump, sequence, soundness};
use crate::worker::storage::{Storage, StorageError, Stored};
use crate::worker::{Error, Job};

/// Schema files and includes are read whole.
const MAX_SMALL_FILE: u64 = 64 << 20;

pub async fn run(job: &Job, backup: &EvidenceRef) -> Result<Report, Error> {
    let started = Instant::now();
    let storage = job.storage()?;
    let manifest = Manifest::load(&storage, backup).await?;
    let mut findings = Vec::new();
    if manifest.migration.uid != job.input.migration.uid {
        findings.push(blocker(
            "BackupOfAnotherMigration",
            &backup.uri,
            "The backup was taken for another migration; take a new one.",
        ));
        return Ok(report(backup, &manifest, findings));
    }
    let total = manifest.tables.iter().map(|table| table.sum.rows).sum();
    job.progress.set_total(total);
    let mut trial = Trial { job, storage, manifest, findings };
    trial.run().await?;
    let Trial { manifest, mut findings, .. } = trial;
    findings.sort_by_key(|finding| finding.severity);
    let mut report = report(backup, &manifest, findings);
    report.timings.insert("verify".into(), milliseconds(started));
    Ok(report)
}

fn report(backup: &EvidenceRef, manifest: &Manifest, findings: Vec<Finding>) -> Report {
    let blocked = findings.iter().any(|finding| finding.severity == Severity::Blocker);
    let mut report = Report::new(if blocked { ReportResult::Fail } else { ReportResult::Pass });
    report.digest = Some(backup.digest.clone());
    report.evidence_uri = Some(backup.uri.clone());
    let tables = &manifest.tables;
    for (name, count) in [
        ("tables", tables.len() as u64),
        ("rows", tables.iter().map(|table| table.sum.rows).sum()),
        ("files", manifest.files().count() as u64),
        ("bytes", manifest.files().map(|file| file.bytes).sum()),
        ("constraints", manifest.schema.facts.len() as u64),
        ("sequences", manifest.sequences.len() as u64),
        ("differences", findings.len() as u64),
    ] {
        report.counts.insert(name.into(), signed(count));
    }
    report.findings = findings;
    report
}

/// One test restore; what is wrong is collected, so that one run names all of it.
struct Trial<'j> {
    job: &'j Job,
    storage: Storage,
    manifest: Manifest,
    findings: Vec<Finding>,
}

impl Trial<'_> {
    async fn run(&mut self) -> Result<(), Error> {
        let pre_data = self.small_file(&self.manifest.schema.pre_data.clone()).await?;
        let post_data = self.small_file(&self.manifest.schema.post_data.clone()).await?;
        for include in self.manifest.includes.clone() {
            for file in &include.files {
                self.small_file(file).await?;
            }
        }
        let (Some(pre_data), Some(post_data)) = (pre_data, post_data) else {
            return self.check_files_alone().await;
        };
        let sandbox = Sandbox::start(&self.job.mounts.scratch).await?;
        let uri = sandbox.uri();
        let purpose = || Purpose { side: "sandbox", name: "godwit verify-backup".into(), read_only: false };
        let (mut session, reader) = futures::try_join!(connect(&uri, purpose()), connect(&uri, purpose()))?;
        self.create_roles(&session).await?;
        let errors = dump::apply(&uri, &pre_data).await?;
        self.note_schema_errors("pre-data.sql", &errors);
        self.restore_tables(&session, &reader).await?;
        self.restore_sequences(&session).await?;
        // What these errors say may quote rows; what they did is seen by looking at the result.
        let errors = dump::apply(&uri, &post_data).await?;
        let unspoken = vec![String::new(); errors.len()];
        self.note_schema_errors("post-data.sql", &unspoken);
        self.compare_facts(&session).await?;
        self.look_at_sequences(&mut session).await
    }

    /// Content of a file that is read whole, or a finding.
    async fn small_file(&mut self, file: &Stored) -> Result<Option<Vec<u8>>, Error> {
        let problem = match self.storage.get_bytes(&file.path, MAX_SMALL_FILE).await {
            Ok(bytes) if crate::worker::storage::digest(&bytes) == file.digest => {
                return Ok(Some(bytes.to_vec()));
            }
            Ok(_) | Err(StorageError::TooLarge { .. }) => ("BackupFileDamaged", "is damaged: its digest differs"),
            Err(StorageError::Missing { .. }) => ("BackupFileMissing", "is not in storage"),
            Err(error) => return Err(error.into()),
        };
        let message = format!("{} {}; take a new backup.", file.path, problem.1);
        self.findings.push(blocker(problem.0, &file.path, message));
        Ok(None)
    }

    /// Without its schema nothing can be restored, but every damaged file can still be named.
    async fn check_files_alone(&mut self) -> Result<(), Error> {
        for table in self.manifest.tables.clone() {
            for file in &table.files {
                let checked = match PartReader::open(&self.storage, &table, file).await {
                    Ok(mut part) => part.skip_rows().await,
                    Err(error) => Err(error),
                };
                if let Err(error) = checked {
                    self.findings.extend(findings_of(error)?);
                }
            }
        }
        Ok(())
    }

    async fn create_roles(&self, session: &Session) -> Result<(), Error> {
        for role in &self.manifest.schema.roles {
            let create = format!(
                "do $$ begin create role {}; exception when duplicate_object then null; end $$",
                quote_identifier(role)
            );
            session.run("create the roles that the schema names", &create).await?;
        }
        Ok(())
    }

    fn note_schema_errors(&mut self, file: &str, errors: &[String]) {
        for error in errors {
            self.findings.push(Finding {
                severity: Severity::Warning,
                code: "SchemaObjectNotRestored".into(),
                object: file.to_owned(),
                message: match error.as_str() {
                    "" => "A statement failed in the sandbox; what is missing of the dataset is named apart.".into(),
                    error => format!("The sandbox could not restore an object of the schema: {error}"),
                },
            });
        }
    }

    /// While a table is loaded the one before it is read back.
    async fn restore_tables(&mut self, session: &Session, reader: &Session) -> Result<(), Error> {
        let mut restored = None;
        for table in self.manifest.tables.iter().map(Some).chain([None]) {
            let (damage, difference) =
                futures::try_join!(self.restore_table(session, table), self.compare_rows(reader, restored))?;
            restored = table.filter(|_| damage.is_empty());
            self.findings.extend(damage.into_iter().chain(difference));
        }
        Ok(())
    }

    /// Returns why it could not be restored whole.
    async fn restore_table(&self, session: &Session, table: Option<&TableBackup>) -> Result<Vec<Finding>, Error> {
        let mut findings = Vec::new();
        let Some(table) = table else {
            return Ok(findings);
        };
        let name = table.name();
        // Truncated in the transaction that loads it, a table needs no write-ahead log.
        let begin = format!("begin; truncate {}", name.sql());
        if let Err(error) = session.run("empty a table", &begin).await {
            session.run("go on", "rollback").await?;
            return Ok(vec![not_restored(&name, error)?]);
        }
        for file in &table.files {
            session.run("mark the beginning of a file", "savepoint file").await?;
            match self.load(session, table, file).await {
                Ok(()) => session.run("keep a file's rows", "release savepoint file").await?,
                Err(Error::Refused { findings: damage, .. }) => {
                    findings.extend(damage);
                    session.run("drop a file's rows", "rollback to savepoint file").await?;
                }
                Err(error) if session.is_closed() => return Err(error),
                Err(error) => {
                    session.run("drop a file's rows", "rollback to savepoint file").await?;
                    findings.push(not_restored(&name, error)?);
                }
            }
        }
        session.run("commit a restored table", "commit").await?;
        Ok(findings)
    }

    /// Loads one file; its own damage is told before what the server says about its rows.
    async fn load(&self, session: &Session, table: &TableBackup, file: &PartitionFile) -> Result<(), Error> {
        let mut part = PartReader::open(&self.storage, table, file).await?;
        let format = table.routed.format;
        let copy = format!("{} from stdin {}", copy_target(&table.routed), format.copy_options());
        let sink = session.copy_in(&copy).await.map_err(Error::database(format!("restore {}", table.name())))?;
        let mut into = Batches::into_table(sink, &table.name());
        into.push(head(format)).await?;
        let rows = part.pour(&mut into, |_| Ok(true)).await?.rows;
        into.push(tail(format)).await?;
        let landed = into.finish().await?;
        self.job.progress.advance(landed);
        if landed == rows {
            return Ok(());
        }
        let message = format!("The sandbox took {landed} of the {rows} rows of {}.", file.file.path);
        let finding = blocker("RowsLost", &table.name().to_string(), message);
        Err(Error::refused(crate::contract::exit::DATA_DIFFERS, finding))
    }

    /// Reads the restored table back: what a user would get is compared, not what was sent.
    async fn compare_rows(&self, session: &Session, table: Option<&TableBackup>) -> Result<Option<Finding>, Error> {
        let Some(table) = table else {
            return Ok(None);
        };
        let (name, format) = (table.name(), table.routed.format);
        let columns: Vec<String> = table.routed.columns.iter().map(|column| quote_identifier(&column.name)).collect();
        let copy =
            format!("copy (select {} from {}) to stdout {}", columns.join(", "), name.sql(), format.copy_options());
        let what = format!("the restored {name}");
        let stream = session.copy_out(&copy).await.map_err(Error::database(format!("read {what}")))?;
        let shape = Shape { format, columns: columns.len(), keys: 0 };
        let sum = Rows::of_server(&what, stream).sum(shape).await?;
        if sum == table.sum {
            return Ok(None);
        }
        let message = format!(
            "The restored table has {} rows, the backup counted {}; the rows differ.",
            sum.rows, table.sum.rows
        );
        Ok(Some(blocker("RestoredRowsDiffer", &name.to_string(), message)))
    }

    async fn restore_sequences(&mut self, session: &Session) -> Result<(), Error> {
        for backup in self.manifest.sequences.clone() {
            let name = backup.name();
            let set = format!(
                "select pg_catalog.setval({}::pg_catalog.regclass, {}, {})",
                quote_literal(&name.sql()),
                backup.last_value,
                backup.is_called
            );
            let restored = match session.run("restore a sequence", &set).await {
                Ok(()) => sequence::read(&**session, &name).await,
                Err(error) => Err(error),
            };
            let problem = match restored {
                Ok(state) if (state.last, state.called) == (backup.last_value, backup.is_called) => {
                    continue;
                }
                Ok(_) => "its value differs from the backup's".to_owned(),
                Err(Error::Database { source, .. }) => source.to_string(),
                Err(error) => return Err(error),
            };
            let message = format!("The sequence could not be restored: {problem}");
            self.findings.push(blocker("SequenceNotRestored", &name.to_string(), message));
        }
        Ok(())
    }

    /// Foreign keys among them were checked by the server when it created them: they are the proof that references hold.
    async fn compare_facts(&mut self, session: &Session) -> Result<(), Error> {
        let restored: BTreeMap<_, SchemaFact> =
            dump::facts(&**session).await?.into_iter().map(|fact| (key_of(&fact), fact)).collect();
        // Another release may print the same definition differently.
        let same_release = self.manifest.server_version / 10_000 == session.server_version() / 10_000;
        let ours: Vec<TableName> = self.manifest.tables.iter().map(TableBackup::name).collect();
        for fact in &self.manifest.schema.facts {
            let problem = match restored.get(&key_of(fact)) {
                None => "is missing after the restore",
                Some(found) if fact.in_force && !found.in_force => "is not in force after the restore",
                Some(found) if same_release && found.definition != fact.definition => {
                    "has another definition after the restore"
                }
                Some(_) => continue,
            };
            let table = TableName::new(&fact.schema, &fact.table);
            let mut finding =
                blocker("SchemaNotRestored", &table.to_string(), format!("The {} {} {problem}.", fact.kind, fact.name));
            if !ours.contains(&table) {
                finding.severity = Severity::Warning;
            }
            self.findings.push(finding);
        }
        Ok(())
    }

    /// A sequence behind its keys is the source's own state, faithfully restored: worth a word, no reason to refuse.
    async fn look_at_sequences(&mut self, session: &mut Session) -> Result<(), Error> {
        let resolved = self.job.scope(session).await;
        let (catalog, scope) = match resolved {
            Ok(found) => found,
            Err(error) => {
                self.findings.extend(findings_of(error)?);
                return Ok(());
            }
        };
        let transaction = session.transaction().await.map_err(|error| Error::Database {
            attempted: "look at the restored sequences".into(),
            source: Fault::from(error),
        })?;
        let behind = soundness::sequences_behind(&transaction, (&scope, &catalog), &catalog).await?;
        self.findings.extend(behind.into_iter().map(|finding| Finding { severity: Severity::Warning, ..finding }));
        Ok(())
    }
}

fn not_restored(name: &TableName, error: Error) -> Result<Finding, Error> {
    let Error::Database { source, .. } = error else {
        return Err(error);
    };
    let message = format!("The sandbox did not take the table's rows: {source}");
    Ok(blocker("TableNotRestored", &name.to_string(), message))
}

fn key_of(fact: &SchemaFact) -> (String, String, String, String) {
    (fact.schema.clone(), fact.table.clone(), fact.kind.clone(), fact.name.clone())
}
