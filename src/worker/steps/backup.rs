//! Backup: every table of the dataset read once in one snapshot, each row into the partition of its customer; with schema,
//! sequences and includes. Run by the migration before anything else touches a row.
//! Must not write to a database, and must not leave anything that looks complete before it is: the manifest comes last.

use std::time::Instant;

use futures::TryStreamExt;
use tokio::task::JoinSet;

use super::backup_include::{Include, find_includes, include_error};
use super::backup_place::{Place, manifest_path, part_name, table_folder};
use super::reporting::{milliseconds, signed};
use crate::contract::{Finding, Report, ReportResult, Severity, Side};
use crate::worker::postgres::framing::Framing;
use crate::worker::postgres::manifest::{
    self, IncludeBackup, Manifest, PartitionFile, SchemaBackup, SequenceBackup, TableBackup,
};
use crate::worker::postgres::model::{Catalog, Scope, Table, TableKind};
use crate::worker::postgres::partition::{Routed, Router, partition_count};
use crate::worker::postgres::restore::copy_target;
use crate::worker::postgres::row::{RowError, Sum};
use crate::worker::postgres::session::Session;
use crate::worker::postgres::spool::Spool;
use crate::worker::postgres::{dump, sequence};
use crate::worker::storage::Stored;
use crate::worker::{Error, Job};

/// How often a table may be created or dropped between looking and locking before the attempt is given up.
const LOCK_TRIES: usize = 5;

pub async fn run(job: &Job, includes: &[String]) -> Result<Report, Error> {
    run_into(job, includes, None).await
}

/// The same with a number of partitions in the place of the one that the tables' size asks for.
pub async fn run_into(job: &Job, includes: &[String], partitions: Option<u16>) -> Result<Report, Error> {
    let started = Instant::now();
    let storage = job.storage()?;
    let path = manifest_path(&job.input.migration, job.input.attempt);
    if let Some(found) = Manifest::find(&storage, &path).await? {
        return Ok(report(path, &found));
    }
    let includes = find_includes(&job.mounts.include, includes)?;
    let session = job.reader(Side::Source).await?;
    let snapshot = Snapshot::take(job, &session).await?;
    let backup = Backup { job, session, place: Place::new(storage, &job.input, &snapshot.run), partitions };
    let found = match backup.make(snapshot, includes).await {
        Ok(found) => found,
        // The run that came first has removed this one's files; what it made is this attempt's backup.
        Err(error) => Manifest::find(&backup.place.storage, &path).await?.ok_or(error)?,
    };
    let mut report = report(path, &found);
    report.timings.insert("backup".into(), milliseconds(started));
    Ok(report)
}

/// What is read, and the moment at which.
struct Snapshot {
    catalog: Catalog,
    scope: Scope,
    /// For `pg_dump`.
    id: String,
    taken_at: String,
    /// Keeps two pods that run the same attempt apart.
    run: String,
}

impl Snapshot {
    /// Locked before the snapshot is taken: a TRUNCATE or a rewrite in between would show empty tables to it.
    async fn take(job: &Job, session: &Session) -> Result<Self, Error> {
        for _ in 0..LOCK_TRIES {
            let (_, expected) = job.scope(session).await?;
            session.run("begin the snapshot", "begin isolation level repeatable read read only").await?;
            let names: Vec<String> = expected.tables().map(|table| table.name.sql()).collect();
            let lock = format!("lock table {} in access share mode", names.join(", "));
            match session.run("lock the tables of the dataset", &lock).await {
                Ok(()) => {}
                Err(Error::Database { source, .. }) if source.sqlstate.as_deref() == Some("42P01") => {
                    session.run("give the snapshot up", "rollback").await?;
                    continue;
                }
                Err(error) => return Err(error),
            }
            let snapshot = Self::export(job, session).await?;
            if same_tables(&snapshot.scope, &expected) {
                return Ok(snapshot);
            }
            session.run("give the snapshot up", "rollback").await?;
        }
        Err(Error::LockNotGranted { what: "the tables of the dataset, which keep changing".into() })
    }

    async fn export(job: &Job, session: &Session) -> Result<Self, Error> {
        let row = session
            .query_one(
                "select pg_catalog.pg_export_snapshot(), \
                   pg_catalog.to_char(pg_catalog.now() at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.MS\"Z\"'), \
                   pg_catalog.left(pg_catalog.gen_random_uuid()::text, 8)",
                &[],
            )
            .await
            .map_err(Error::database("take a snapshot of the source"))?;
        let (catalog, scope) = job.scope(session).await?;
        Ok(Self { catalog, scope, id: row.get(0), taken_at: row.get(1), run: row.get(2) })
    }
}

fn same_tables(one: &Scope, other: &Scope) -> bool {
    let shape = |scope: &Scope| -> Vec<_> {
        scope.tables().map(|table| (table.name.clone(), table.columns.clone(), table.partitions.clone())).collect()
    };
    shape(one) == shape(other)
}

struct Backup<'j> {
    job: &'j Job,
    session: Session,
    place: Place,
    partitions: Option<u16>,
}

impl Backup<'_> {
    async fn make(&self, snapshot: Snapshot, includes: Vec<Include>) -> Result<(Manifest, String), Error> {
        let manifest = self.write(snapshot, includes).await?;
        let found = self.place.publish(manifest).await?;
        self.place.remove_leftovers(&found.0).await;
        Ok(found)
    }

    async fn write(&self, snapshot: Snapshot, includes: Vec<Include>) -> Result<Manifest, Error> {
        let schema = self.write_schema(&snapshot).await?;
        let scope = &snapshot.scope;
        self.job.progress.set_total(scope.tables().map(|table| table.estimated_rows).sum());
        let largest = scope.owned.iter().map(|owned| owned.table.bytes).max();
        let partitions = self.partitions.unwrap_or_else(|| partition_count(largest.unwrap_or(0)));
        let mut tables = self.write_owned(scope, partitions).await?;
        tables.extend(self.write_references(scope).await?);
        // Sequences know no snapshot: read behind the data, they are never behind it.
        let sequences = self.read_sequences(scope, &snapshot.catalog).await?;
        Ok(Manifest {
            v: manifest::VERSION,
            migration: self.job.input.migration.clone(),
            attempt: self.job.input.attempt,
            taken_at: snapshot.taken_at,
            server_version: snapshot.catalog.server_version,
            partitions,
            root_key: scope.root_key.clone(),
            tables,
            schema,
            sequences,
            includes: self.write_includes(includes).await?,
        })
    }

    async fn write_schema(&self, snapshot: &Snapshot) -> Result<SchemaBackup, Error> {
        let uri = self.job.uri(Side::Source)?;
        let dump = dump::whole_schema(uri, &snapshot.id, &self.job.mounts.scratch).await?;
        let roles = self
            .session
            .query("select rolname::text from pg_catalog.pg_roles where rolname !~ '^pg_' order by 1", &[])
            .await
            .map_err(Error::database("read the names of roles"))?;
        Ok(SchemaBackup {
            pre_data: self.put("schema/pre-data.sql", dump.pre_data).await?,
            post_data: self.put("schema/post-data.sql", dump.post_data).await?,
            roles: roles.iter().map(|row| row.get(0)).collect(),
            facts: dump::facts(&*self.session).await?,
        })
    }

    async fn put(&self, path: &str, bytes: Vec<u8>) -> Result<Stored, Error> {
        let path = self.place.path(path);
        Ok(self.place.storage.put_bytes(&path, bytes).await?)
    }

    async fn write_owned(&self, scope: &Scope, partitions: u16) -> Result<Vec<TableBackup>, Error> {
        let shapes = Routed::of_scope(scope);
        let mut router = Router::new(&shapes, &scope.root_key, partitions);
        let mut tables = Vec::new();
        // While a table is read the one before it is stored: the one waits for the server, the other for the storage.
        let mut storing = Storing::new();
        for (at, (owned, routed)) in scope.owned.iter().zip(shapes).enumerate() {
            let source = (&owned.table, &routed);
            // One more, for the rows that reach no customer: they are kept too.
            let spool = self.read_table(source, partitions + 1, |row| router.route(at, row)).await?;
            router.finish_table(at);
            tables.extend(storing.finish().await?);
            storing.begin(self.store(spool, &owned.table, partitions + 1), (routed, Some(partitions)));
        }
        tables.extend(storing.finish().await?);
        Ok(tables)
    }

    async fn write_references(&self, scope: &Scope) -> Result<Vec<TableBackup>, Error> {
        let mut tables = Vec::new();
        for reference in &scope.reference {
            let routed = Routed::of_table(&reference.table, reference.format);
            let spool = self.read_table((&reference.table, &routed), 1, |_| Ok(0)).await?;
            let files = self.store(spool, &reference.table, 1).await?;
            tables.push(table_backup(routed, files, None));
        }
        Ok(tables)
    }

    /// Reads a table once, each row to where `place` puts it.
    async fn read_table(
        &self,
        (table, routed): (&Table, &Routed),
        parts: u16,
        mut place: impl FnMut(&[u8]) -> Result<u16, RowError>,
    ) -> Result<Spool, Error> {
        let reading = || Error::database(format!("read {}", table.name));
        let rows = |source: RowError| Error::Rows { source };
        let statement = copy_statement(table, routed);
        let stream = self.session.copy_out(&statement).await.map_err(reading())?;
        let mut stream = std::pin::pin!(stream);
        let mut framing = Framing::new(routed.format, routed.columns.len());
        let mut spool = Spool::new(&self.job.mounts.scratch, parts, routed.format);
        while let Some(piece) = stream.try_next().await.map_err(reading())? {
            framing.feed(piece);
            let before = framing.rows();
            while let Some(row) = framing.next_row().map_err(rows)? {
                if spool.push(place(&row).map_err(rows)?, &row) {
                    spool.spill().await?;
                }
            }
            self.job.progress.advance(framing.rows() - before);
        }
        framing.finish().map_err(rows)?;
        // Two tables are under way at a time; only one of them may hold its rows in memory.
        spool.let_go().await?;
        Ok(spool)
    }

    fn store(
        &self,
        spool: Spool,
        table: &Table,
        parts: u16,
    ) -> impl Future<Output = Result<Vec<PartitionFile>, Error>> + Send + 'static {
        let folder = self.place.path(&table_folder(&table.name));
        let storage = self.place.storage.clone();
        async move {
            let named = |partition: u16| format!("{folder}/{}.copy", part_name(partition, parts));
            let stored = spool.store(&storage, named).await?;
            Ok(stored
                .into_iter()
                .map(|part| PartitionFile { partition: part.partition, sum: part.sum, file: part.file })
                .collect())
        }
    }

    async fn read_sequences(&self, scope: &Scope, catalog: &Catalog) -> Result<Vec<SequenceBackup>, Error> {
        let mut sequences = Vec::new();
        for sequence in scope.sequences(catalog) {
            let state = sequence::read(&*self.session, &sequence.name).await?;
            sequences.push(SequenceBackup {
                schema: sequence.name.schema.clone(),
                name: sequence.name.name.clone(),
                last_value: state.last,
                is_called: state.called,
            });
        }
        Ok(sequences)
    }

    async fn write_includes(&self, includes: Vec<Include>) -> Result<Vec<IncludeBackup>, Error> {
        let mut stored = Vec::new();
        for (name, paths) in includes {
            let mut files = Vec::new();
            for path in paths {
                let bytes = std::fs::read(&path).map_err(include_error(&name))?;
                let file = path.file_name().unwrap_or_default().to_string_lossy();
                files.push(self.put(&format!("include/{name}/{file}"), bytes).await?);
            }
            stored.push(IncludeBackup { name, files });
        }
        Ok(stored)
    }
}

/// The table whose rows are being stored, if there is one; given up when dropped.
struct Storing {
    task: JoinSet<Result<Vec<PartitionFile>, Error>>,
    of: Option<(Routed, Option<u16>)>,
}

impl Storing {
    fn new() -> Self {
        Self { task: JoinSet::new(), of: None }
    }

    fn begin(
        &mut self,
        store: impl Future<Output = Result<Vec<PartitionFile>, Error>> + Send + 'static,
        of: (Routed, Option<u16>),
    ) {
        self.task.spawn(store);
        self.of = Some(of);
    }

    async fn finish(&mut self) -> Result<Option<TableBackup>, Error> {
        let (Some(ended), Some((routed, unowned))) = (self.task.join_next().await, self.of.take()) else {
            return Ok(None);
        };
        let failed =
            |error| Error::File { attempted: "store the rows of a table".into(), source: std::io::Error::other(error) };
        Ok(Some(table_backup(routed, ended.map_err(failed)??, unowned)))
    }
}

fn table_backup(routed: Routed, files: Vec<PartitionFile>, unowned: Option<u16>) -> TableBackup {
    let mut sum = Sum::default();
    let mut without_customer = 0;
    for file in &files {
        sum.merge(file.sum);
        if Some(file.partition) == unowned {
            without_customer = file.sum.rows;
        }
    }
    TableBackup { routed, owned: unowned.is_some(), sum, without_customer, files }
}

fn copy_statement(table: &Table, routed: &Routed) -> String {
    let options = routed.format.copy_options();
    match table.kind {
        TableKind::Ordinary => format!("{} to stdout {options}", copy_target(routed)),
        // COPY refuses a partitioned table itself.
        TableKind::Partitioned => format!("copy ({}) to stdout {options}", table.select_all()),
    }
}

fn report(path: String, (manifest, digest): &(Manifest, String)) -> Report {
    let mut report = Report::new(ReportResult::Pass);
    report.evidence_uri = Some(path);
    report.digest = Some(digest.clone());
    let tables = &manifest.tables;
    for (name, count) in [
        ("tables", tables.len() as u64),
        ("rows", tables.iter().map(|table| table.sum.rows).sum()),
        ("rowsWithoutCustomer", tables.iter().map(|table| table.without_customer).sum()),
        ("partitions", u64::from(manifest.partitions)),
        ("files", manifest.files().count() as u64),
        ("bytes", manifest.files().map(|file| file.bytes).sum()),
        ("includes", manifest.includes.len() as u64),
    ] {
        report.counts.insert(name.into(), signed(count));
    }
    report.findings = tables
        .iter()
        .filter(|table| table.without_customer > 0)
        .map(|table| Finding {
            severity: Severity::Warning,
            code: "RowsWithoutCustomer".into(),
            object: table.name().to_string(),
            message: format!(
                "{} rows reach no customer. They are in the backup, in a partition of their own, but no cohort will move them.",
                table.without_customer
            ),
        })
        .collect();
    report
}
