//! Backup, its test restore, and the restore of one customer, with every kind of damage.

use std::collections::{BTreeMap, HashSet};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use godwit::contract::{
    self, Dataset, EvidenceRef, Finding, OwnerPath, Report, ReportResult, Severity, Side, StepInput, Storage, Task,
    exit,
};
use godwit::worker::postgres::manifest::Manifest;
use godwit::worker::postgres::restore;
use godwit::worker::storage::{self, Credentials};
use godwit::worker::{Error, Job, Mounts, Settings, steps};

use crate::base::{CRM, migration};
use crate::server::Pair;

/// What real schemas have beside plain tables; the note without a contact and its attachment reach no customer.
const HOSTILE: &str = "
    create type mood as enum ('glad', 'sad');
    create table note (id uuid primary key, contact_id bigint references contact, body jsonb, moods mood[], written timestamptz,
      size int generated always as (octet_length(body::text)) stored);
    create table attachment (id int generated always as identity primary key, note_id uuid not null references note, content bytea);
    create table \"Activity Log\" (id bigint not null, account_id bigint not null references account, what text, primary key (id))
      partition by range (id);
    create table log_low partition of \"Activity Log\" for values from (0) to (100);
    create table log_high partition of \"Activity Log\" for values from (100) to (100000);
    insert into note select md5(i::text)::uuid, case when i % 10 > 0 then 1 + i % 300 end, jsonb_build_object('n', i, 'tab', E'a\\tb\\\\N'),
      array['glad', 'sad']::mood[], timestamptz '2026-01-01' + i * interval '1 hour' from generate_series(1, 100) i;
    insert into attachment (note_id, content) select id, decode('00ff0a5c09', 'hex') from note;
    insert into \"Activity Log\" select i, 1 + i % 100, E'line\\none' from generate_series(1, 200) i;
    create function touch() returns trigger language plpgsql as 'begin return new; end';
    create trigger touch before update on account for each row execute function touch();
    create index contact_email_lower on contact (lower(email));
    create role backup_reader_DATABASE;
    grant select on account to backup_reader_DATABASE;
";

fn dataset() -> Dataset {
    Dataset {
        root_table: "public.account".into(),
        root_key: "id".into(),
        owners: vec![OwnerPath { table: "public.deal_contact".into(), via: vec!["deal_id".into()] }],
        ..Dataset::default()
    }
}

struct World {
    pair: Pair,
    storage: tempfile::TempDir,
    scratch: tempfile::TempDir,
    include: tempfile::TempDir,
}

impl World {
    fn new(schema: &str) -> Self {
        let folder = tempfile::tempdir;
        let world = Self {
            pair: Pair::new(schema),
            storage: folder().unwrap(),
            scratch: folder().unwrap(),
            include: folder().unwrap(),
        };
        // The sandbox runs as another user when the test is root.
        std::fs::set_permissions(world.scratch.path(), std::fs::Permissions::from_mode(0o711)).unwrap();
        world
    }

    fn hostile() -> Self {
        let world = Self::new(CRM);
        let schema = HOSTILE.replace("DATABASE", &world.pair.database);
        world.pair.psql(Side::Source, &schema);
        world
    }

    fn job(&self, task: Task, attempt: i64) -> Job {
        job(&self.pair.source_uri, self.storage.path(), (self.scratch.path(), self.include.path()), (task, attempt))
    }

    async fn back_up(&self, attempt: i64) -> Result<Report, Error> {
        let job = self.job(Task::Backup { includes: vec![] }, attempt);
        steps::backup::run(&job, &[]).await
    }

    async fn verify(&self, report: &Report) -> Result<Report, Error> {
        let backup = evidence(report);
        let job = self.job(Task::VerifyBackup { backup: backup.clone() }, 1);
        steps::verify_backup::run(&job, &backup).await
    }

    fn path(&self, stored: &str) -> PathBuf {
        self.storage.path().join(stored)
    }

    fn manifest(&self, report: &Report) -> Manifest {
        let path = self.path(report.evidence_uri.as_ref().unwrap());
        serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
    }

    fn stored_files(&self) -> Vec<String> {
        let mut files = Vec::new();
        let mut folders = vec![self.storage.path().to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap().flatten() {
                if entry.path().is_dir() {
                    folders.push(entry.path());
                } else {
                    let path = entry.path();
                    let path = path.strip_prefix(self.storage.path()).unwrap();
                    files.push(path.to_str().unwrap().to_owned());
                }
            }
        }
        files.sort();
        files
    }
}

fn job(source: &str, storage: &Path, (scratch, include): (&Path, &Path), (task, attempt): (Task, i64)) -> Job {
    let mut job = Job::new(&Settings {
        input: StepInput {
            v: contract::VERSION,
            migration: migration(),
            cohort: None,
            attempt,
            epoch: 0,
            dataset: dataset(),
            storage: Storage::Path(storage.to_str().unwrap().into()),
            task,
        },
        source_uri: Some(source.to_owned()),
        target_uri: None,
        storage_credentials: Credentials::default(),
        termination_path: "/dev/null".into(),
    });
    job.mounts = Mounts { include: include.to_owned(), scratch: scratch.to_owned() };
    job
}

fn evidence(report: &Report) -> EvidenceRef {
    EvidenceRef { uri: report.evidence_uri.clone().unwrap(), digest: report.digest.clone().unwrap() }
}

fn blockers(report: &Report) -> Vec<&Finding> {
    report.findings.iter().filter(|finding| finding.severity == Severity::Blocker).collect()
}

#[tokio::test]
async fn a_backup_of_every_kind_of_table_passes_its_test_restore() {
    let world = World::hostile();
    let before = world.pair.session(Side::Source).await;
    let written = "select sum(n_tup_ins + n_tup_upd + n_tup_del)::bigint from pg_catalog.pg_stat_user_tables";
    let writes = before.number("count writes", written).await.unwrap();
    let report = world.back_up(1).await.unwrap();
    assert_eq!(report.result, ReportResult::Pass);
    let manifest = world.manifest(&report);
    let rows: BTreeMap<String, u64> =
        manifest.tables.iter().map(|table| (table.name().to_string(), table.sum.rows)).collect();
    assert_eq!(rows["public.account"], 100);
    assert_eq!(rows["public.currency"], 2);
    assert_eq!(rows["public.Activity Log"], 200);
    assert_eq!(rows["public.attachment"], 100);
    assert_eq!(rows.len(), 9);
    let verified = world.verify(&report).await.unwrap();
    assert_eq!(blockers(&verified), Vec::<&Finding>::new());
    assert_eq!(verified.result, ReportResult::Pass);
    assert_eq!(verified.findings, [], "not even a warning");
    assert_eq!(verified.counts["rows"], report.counts["rows"]);
    assert_eq!(std::fs::read_dir(world.scratch.path()).unwrap().count(), 0);
    assert_eq!(before.number("count writes", written).await.unwrap(), writes);
}

#[tokio::test]
async fn rows_that_reach_no_customer_are_kept_apart_and_reported() {
    let world = World::hostile();
    let report = world.back_up(1).await.unwrap();
    let warned: Vec<(&str, &str)> =
        report.findings.iter().map(|finding| (finding.code.as_str(), finding.object.as_str())).collect();
    assert_eq!(warned, [("RowsWithoutCustomer", "public.note"), ("RowsWithoutCustomer", "public.attachment")]);
    assert_eq!(report.counts["rowsWithoutCustomer"], 20);
    let manifest = world.manifest(&report);
    let note = manifest.tables.iter().find(|table| table.name().name == "note").unwrap();
    assert_eq!((note.sum.rows, note.without_customer), (100, 10));
    let unowned = note.files.last().unwrap();
    assert!(unowned.file.path.ends_with("/public.note/unowned.copy"));
    assert_eq!(unowned.sum.rows, 10);
}

/// Damages one file of a fresh backup and returns what VerifyBackup says.
async fn verdict_after(damage: impl Fn(&mut Vec<u8>), table: &str) -> (String, Report) {
    let world = World::new(CRM);
    let report = world.back_up(1).await.unwrap();
    let manifest = world.manifest(&report);
    let backup = manifest.tables.iter().find(|it| it.name().to_string() == table).unwrap();
    let stored = backup.files[0].file.path.clone();
    let path = world.path(&stored);
    let mut bytes = std::fs::read(&path).unwrap();
    damage(&mut bytes);
    std::fs::write(&path, bytes).unwrap();
    (stored, world.verify(&report).await.unwrap())
}

fn names_table_and_file(report: &Report, table: &str, file: &str) {
    assert_eq!(report.result, ReportResult::Fail);
    let found = blockers(report);
    let damaged =
        found.iter().find(|finding| finding.code == "BackupFileDamaged" || finding.code == "BackupFileMissing");
    let finding = damaged.unwrap_or_else(|| panic!("{found:?}"));
    assert_eq!(finding.object, table);
    assert!(finding.message.contains(file), "{}", finding.message);
}

#[tokio::test]
async fn one_changed_byte_in_a_value_fails_the_test_restore() {
    // The last byte of the last row's last value: framing cannot see it, nor can the server.
    let (file, report) = verdict_after(
        |bytes| {
            let at = bytes.len() - 3;
            bytes[at] ^= 1;
        },
        "public.account",
    )
    .await;
    names_table_and_file(&report, "public.account", &file);
}

#[tokio::test]
async fn one_changed_byte_in_a_length_fails_the_test_restore() {
    let (file, report) = verdict_after(|bytes| bytes[21] ^= 0x40, "public.contact").await;
    names_table_and_file(&report, "public.contact", &file);
}

#[tokio::test]
async fn a_truncated_file_fails_the_test_restore() {
    let (file, report) = verdict_after(|bytes| bytes.truncate(bytes.len() / 2), "public.deal").await;
    names_table_and_file(&report, "public.deal", &file);
}

#[tokio::test]
async fn two_files_with_their_contents_exchanged_fail_the_test_restore() {
    let world = World::new(CRM);
    let report = world.back_up(1).await.unwrap();
    let manifest = world.manifest(&report);
    let path = |table: &str| {
        let found = manifest.tables.iter().find(|it| it.name().name == table);
        world.path(&found.unwrap().files[0].file.path)
    };
    let (one, two) = (path("deal"), path("line_item"));
    let aside = world.path("aside");
    std::fs::rename(&one, &aside).unwrap();
    std::fs::rename(&two, &one).unwrap();
    std::fs::rename(&aside, &two).unwrap();
    let report = world.verify(&report).await.unwrap();
    let objects: HashSet<&str> = blockers(&report).iter().map(|finding| finding.object.as_str()).collect();
    assert!(objects.contains("public.deal") && objects.contains("public.line_item"));
}

#[tokio::test]
async fn missing_files_fail_the_test_restore_and_are_all_named() {
    let world = World::new(CRM);
    let report = world.back_up(1).await.unwrap();
    let manifest = world.manifest(&report);
    let mut removed = HashSet::new();
    for table in &manifest.tables {
        if ["account", "currency"].contains(&table.name().name.as_str()) {
            std::fs::remove_file(world.path(&table.files[0].file.path)).unwrap();
            removed.insert((table.name().to_string(), "BackupFileMissing".to_owned()));
        }
    }
    let report = world.verify(&report).await.unwrap();
    assert_eq!(report.result, ReportResult::Fail);
    let found: HashSet<(String, String)> = report
        .findings
        .iter()
        .filter(|finding| finding.code == "BackupFileMissing")
        .map(|finding| (finding.object.clone(), finding.code.clone()))
        .collect();
    assert_eq!(found, removed);
}

#[tokio::test]
async fn an_altered_manifest_is_refused_and_a_missing_one_is_missing_input() {
    let world = World::new(CRM);
    let report = world.back_up(1).await.unwrap();
    let path = world.path(report.evidence_uri.as_ref().unwrap());
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replacen("\"rows\": 100", "\"rows\": 101", 1)).unwrap();
    let error = world.verify(&report).await.unwrap_err();
    assert_eq!(error.exit_code(), exit::DATA_DIFFERS);
    assert_eq!(error.findings()[0].code, "ManifestAltered");
    assert_eq!(error.findings()[0].object, report.evidence_uri.clone().unwrap());
    std::fs::remove_file(&path).unwrap();
    let error = world.verify(&report).await.unwrap_err();
    assert_eq!(error.exit_code(), exit::INPUT_MISSING);
}

#[tokio::test]
async fn a_damaged_schema_file_is_named_together_with_damaged_data() {
    let world = World::new(CRM);
    let report = world.back_up(1).await.unwrap();
    let manifest = world.manifest(&report);
    let schema = manifest.schema.post_data.path.clone();
    std::fs::write(world.path(&schema), "-- nothing").unwrap();
    std::fs::remove_file(world.path(&manifest.tables[0].files[0].file.path)).unwrap();
    let report = world.verify(&report).await.unwrap();
    assert_eq!(report.result, ReportResult::Fail);
    let found: HashSet<&str> = blockers(&report).iter().map(|finding| finding.object.as_str()).collect();
    assert_eq!(found, HashSet::from([schema.as_str(), "public.account"]));
}

#[tokio::test]
async fn a_constraint_that_the_restored_rows_break_fails_the_test_restore() {
    let world = World::new(CRM);
    // What a bulk load under replica rights leaves: a reference marked valid that does not hold.
    world.pair.psql(
        Side::Source,
        "set session_replication_role = replica; insert into line_item (deal_id, product) values (9999, 'p')",
    );
    let report = world.back_up(1).await.unwrap();
    assert_eq!(report.counts["rowsWithoutCustomer"], 1);
    let report = world.verify(&report).await.unwrap();
    assert_eq!(report.result, ReportResult::Fail);
    let found = blockers(&report);
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0].object, "public.line_item");
    assert!(found[0].message.contains("line_item_deal_id_fkey"));
}

#[tokio::test]
async fn writes_during_the_backup_do_not_break_its_consistency() {
    let world = World::new(CRM);
    world
        .pair
        .psql(Side::Source, "insert into contact (account_id) select 1 + i % 100 from generate_series(1, 30000) i");
    let writer = world.pair.application(Side::Source, "postgres").await;
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    let writing = tokio::spawn(async move {
        let mut written = 0;
        while !stopped.load(Ordering::Relaxed) {
            writer
                .batch_execute(
                    "with a as (insert into account (name) values ('new') returning id),
                       d as (insert into deal (account_id, stage) select id, 'new' from a returning id),
                       c as (insert into contact (account_id) select id from a returning id)
                     insert into deal_contact select d.id, c.id, null from d, c;
                     delete from line_item where id = (select min(id) from line_item);
                     update account set name = name || '!' where id = 1",
                )
                .await
                .unwrap();
            written += 1;
        }
        written
    });
    let report = world.back_up(1).await.unwrap();
    stop.store(true, Ordering::Relaxed);
    assert!(writing.await.unwrap() > 20, "the writer hardly wrote");
    assert_eq!(report.findings, [], "no row lost its customer between two reads");
    let verified = world.verify(&report).await.unwrap();
    assert_eq!(blockers(&verified), Vec::<&Finding>::new());
}

#[tokio::test]
async fn the_same_attempt_reports_the_same_backup_again_and_writes_nothing() {
    let world = World::new(CRM);
    let first = world.back_up(3).await.unwrap();
    let files = world.stored_files();
    world.pair.psql(Side::Source, "insert into account (name) values ('later')");
    // It does not even need the source.
    let mut job = world.job(Task::Backup { includes: vec![] }, 3);
    job.source_uri = None;
    let again = steps::backup::run(&job, &[]).await.unwrap();
    assert_eq!((again.digest, again.counts), (first.digest, first.counts));
    assert_eq!(world.stored_files(), files);
}

#[tokio::test]
async fn two_pods_of_one_attempt_make_one_backup_that_verifies() {
    let world = World::new(CRM);
    let (one, two) = tokio::join!(world.back_up(1), world.back_up(1));
    let (one, two) = (one.unwrap(), two.unwrap());
    assert_eq!(one.digest, two.digest);
    let verified = world.verify(&one).await.unwrap();
    assert_eq!(verified.result, ReportResult::Pass);
}

#[tokio::test]
async fn includes_are_copied_and_a_missing_one_is_missing_input() {
    let world = World::new(CRM);
    let config = world.include.path().join("config");
    std::fs::create_dir_all(config.join("..2026_data")).unwrap();
    std::fs::write(config.join("..2026_data/app.yaml"), "a: 1").unwrap();
    std::os::unix::fs::symlink("..2026_data/app.yaml", config.join("app.yaml")).unwrap();
    let includes = vec!["config".to_owned()];
    let job = world.job(Task::Backup { includes: includes.clone() }, 1);
    let report = steps::backup::run(&job, &includes).await.unwrap();
    let include = &world.manifest(&report).includes[0];
    assert_eq!(include.files.len(), 1);
    assert_eq!(std::fs::read_to_string(world.path(&include.files[0].path)).unwrap(), "a: 1");
    std::fs::write(world.path(&include.files[0].path), "a: 2").unwrap();
    let verified = world.verify(&report).await.unwrap();
    assert_eq!(blockers(&verified)[0].object, include.files[0].path);

    for (name, code) in [("workflows", exit::INPUT_MISSING), ("../config", exit::MISCONFIGURED)] {
        let error =
            steps::backup::run(&world.job(Task::Backup { includes: vec![] }, 2), &[name.to_owned()]).await.unwrap_err();
        assert_eq!(error.exit_code(), code);
    }
}

/// What is run as a process of its own by the test below, to be killed.
#[tokio::test]
async fn child_that_backs_up() {
    let Some(plan) = std::env::var_os("GODWIT_TEST_BACKUP") else {
        return;
    };
    let plan = plan.into_string().unwrap();
    let [source, storage, scratch] = plan.split('|').collect::<Vec<_>>()[..] else {
        panic!("source|storage|scratch");
    };
    let (storage, scratch) = (Path::new(storage), Path::new(scratch));
    let job = job(source, storage, (scratch, scratch), (Task::Backup { includes: vec![] }, 1));
    steps::backup::run(&job, &[]).await.unwrap();
}

#[tokio::test]
async fn a_backup_killed_in_the_middle_leaves_nothing_that_looks_complete() {
    let world = World::new(CRM);
    world.pair.psql(
        Side::Source,
        "insert into line_item (deal_id, product) select 1 + i % 200, repeat('p', 100) from generate_series(1, 200000) i",
    );
    let (storage, scratch) = (world.storage.path().display(), world.scratch.path().display());
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "backup::child_that_backs_up"])
        .env("GODWIT_TEST_BACKUP", format!("{}|{storage}|{scratch}", world.pair.source_uri))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    let is_deal = |path: &String| path.contains("public.deal/");
    while !world.stored_files().iter().any(is_deal) {
        assert!(Instant::now() < deadline && child.try_wait().unwrap().is_none());
        std::thread::sleep(Duration::from_millis(2));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let left = world.stored_files();
    assert!(!left.is_empty() && !left.iter().any(|path| path.contains("manifest")), "{left:?}");

    let report = world.back_up(2).await.unwrap();
    let verified = world.verify(&report).await.unwrap();
    assert_eq!(verified.result, ReportResult::Pass);
    let of_first: Vec<String> = world.stored_files().into_iter().filter(|path| path.contains("/1/")).collect();
    assert_eq!(of_first, Vec::<String>::new(), "the killed attempt's files are removed");
}

#[tokio::test]
async fn one_customers_rows_are_restored_from_its_own_partition_alone() {
    let world = World::new(CRM);
    world.pair.psql(
        Side::Source,
        "insert into line_item (deal_id, product) select 1 + i % 200, repeat(md5(i::text), 18) from generate_series(1, 70000) i;
         analyze",
    );
    let report = world.back_up(1).await.unwrap();
    let manifest = world.manifest(&report);
    assert!(manifest.partitions > 2, "{}", manifest.partitions);
    let storage =
        storage::Storage::open(&Storage::Path(world.storage.path().to_str().unwrap().into()), &Credentials::default())
            .unwrap();
    let mut session = world.pair.session(Side::Source).await;
    let contents = "select md5(string_agg(t, ',' order by t)) from (
        select 'a' || a::text as t from public.account a where id = 42
        union all select 'c' || c::text from public.contact c where account_id = 42
        union all select 'd' || d::text from public.deal d where account_id = 42
        union all select 'l' || l::text from public.line_item l join public.deal d on d.id = l.deal_id where d.account_id = 42) x";
    let before: String = session.query_one(contents, &[]).await.unwrap().get(0);
    let lines = "select count(*) from public.line_item";
    let all = session.number("count", lines).await.unwrap();

    let transaction = session.transaction().await.unwrap();
    let keys = restore::customers(&transaction, &manifest, "select 42::bigint").await.unwrap();
    let partition = keys.iter().next().unwrap().partition(manifest.partitions);
    // Whatever the restore does not need is gone.
    for table in &manifest.tables {
        for file in table.files.iter().filter(|file| !table.owned || file.partition != partition) {
            std::fs::remove_file(world.path(&file.file.path)).unwrap();
        }
    }
    transaction
        .batch_execute(
            "delete from public.account where id = 42; update public.account set name = 'kept' where id = 43",
        )
        .await
        .unwrap();
    let restored = restore::restore_customers(&transaction, (&storage, &manifest), keys).await.unwrap();
    transaction.commit().await.unwrap();
    let rows: BTreeMap<String, u64> = restored.iter().map(|(table, sum)| (table.name.clone(), sum.rows)).collect();
    assert_eq!((rows["account"], rows["contact"], rows["deal"]), (1, 3, 2));
    let after: String = session.query_one(contents, &[]).await.unwrap().get(0);
    assert_eq!(after, before);
    assert_eq!(session.number("count", lines).await.unwrap(), all);
    let kept = "select count(*) from public.account where name = 'kept'";
    assert_eq!(session.number("count", kept).await.unwrap(), 1);
}

#[tokio::test]
async fn a_restore_from_a_damaged_partition_is_refused() {
    let world = World::new(CRM);
    let report = world.back_up(1).await.unwrap();
    let manifest = world.manifest(&report);
    let table = manifest.tables.iter().find(|table| table.name().name == "deal").unwrap();
    let path = world.path(&table.files[0].file.path);
    let mut bytes = std::fs::read(&path).unwrap();
    let at = bytes.len() - 3;
    bytes[at] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let place = Storage::Path(world.storage.path().to_str().unwrap().into());
    let storage = storage::Storage::open(&place, &Credentials::default()).unwrap();
    let mut session = world.pair.session(Side::Source).await;
    let transaction = session.transaction().await.unwrap();
    let keys = restore::customers(&transaction, &manifest, "select 7::bigint").await.unwrap();
    transaction.batch_execute("delete from public.account where id = 7").await.unwrap();
    let error = restore::restore_customers(&transaction, (&storage, &manifest), keys).await.unwrap_err();
    assert_eq!(error.exit_code(), exit::DATA_DIFFERS);
    assert_eq!(error.findings()[0].object, "public.deal");
}

#[tokio::test]
async fn a_source_with_ledger_and_fences_is_restored_without_them() {
    let fenced = crate::moving::World::new().await;
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o711)).unwrap();
    let (storage, source) = (folder.path(), fenced.pair.source_uri.as_str());
    let mounts = (folder.path(), folder.path());
    let backup = job(source, storage, mounts, (Task::Backup { includes: vec![] }, 1));
    let report = steps::backup::run(&backup, &[]).await.unwrap();
    let manifest = std::fs::read_to_string(storage.join(report.evidence_uri.as_ref().unwrap()));
    let manifest: Manifest = serde_json::from_str(&manifest.unwrap()).unwrap();
    for file in [&manifest.schema.pre_data, &manifest.schema.post_data] {
        let sql = std::fs::read_to_string(storage.join(&file.path)).unwrap();
        assert!(!sql.contains("godwit"), "{sql}");
    }
    let backup = evidence(&report);
    let verify = job(source, storage, mounts, (Task::VerifyBackup { backup: backup.clone() }, 1));
    let verified = steps::verify_backup::run(&verify, &backup).await.unwrap();
    assert_eq!(verified.findings, []);
    assert_eq!(verified.result, ReportResult::Pass);
}
