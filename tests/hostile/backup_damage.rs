//! A damaged backup never passes its test restore: every file, at offsets and lengths drawn from a seed, exchanged, lengthened, missing.

use std::collections::BTreeSet;
use std::path::PathBuf;

use godwit::contract::{Report, ReportResult, Severity, Side, Task, exit};
use godwit::worker::postgres::manifest::Manifest;
use godwit::worker::{Error, steps};

use crate::base::rooted;
use crate::corruption::Random;
use crate::journey::{Journey, evidence};

const SCHEMA: &str = "
    create table currency (code text primary key, rate numeric);
    create table customer (id int primary key, currency text references currency);
    create table item (id bigserial primary key, customer int not null references customer, body text, moods text[]);
    create type mood as enum ('a', 'b'); create table odd (id uuid primary key, customer int not null references customer, moods mood[], body text);
    insert into currency values ('EUR', 1.00), ('USD', 1.1); insert into customer select i, 'EUR' from generate_series(1, 20) i;
    insert into item (customer, body, moods) select 1 + i % 20, repeat(md5(i::text), 1 + i % 9), array['x', null] from generate_series(1, 200) i;
    insert into odd select md5(i::text)::uuid, 1 + i % 20, array['a', null]::mood[], E'tab\\t' || i from generate_series(1, 60) i;";

/// Rounds with a sandbox, in each of which about half of the files are damaged, and rounds without.
const ROUNDS: u64 = 8;
const MANIFEST_ROUNDS: u64 = 200;

struct Taken {
    journey: Journey,
    report: Report,
    manifest: Manifest,
}

impl Taken {
    async fn new() -> Self {
        let journey = Journey::new(SCHEMA, rooted("public.customer", "id", &[]));
        let config = journey.include.path().join("config");
        std::fs::create_dir(&config).unwrap();
        std::fs::write(config.join("workflows.yaml"), "steps: [one, two]\n".repeat(40)).unwrap();
        let report = journey.back_up(&["config".into()]).await;
        let taken = Self { manifest: read(&journey, &report), journey, report };
        let verified = taken.verify().await.unwrap();
        assert_eq!(verified.result, ReportResult::Pass, "{:?}", verified.findings);
        taken
    }

    async fn verify(&self) -> Result<Report, Error> {
        let backup = evidence(&self.report);
        let job = self.journey.mounted(Task::VerifyBackup { backup: backup.clone() });
        steps::verify_backup::run(&job, &backup).await
    }

    fn path(&self, stored: &str) -> PathBuf {
        self.journey.project.storage.path().join(stored)
    }

    /// Every file that the manifest names.
    fn files(&self) -> Vec<String> {
        self.manifest.files().map(|file| file.path.clone()).collect()
    }
}

fn read(journey: &Journey, report: &Report) -> Manifest {
    let path = journey.project.storage.path().join(report.evidence_uri.as_ref().unwrap());
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// Something that is not the same file; the name is for the message.
fn damage(random: &mut Random, bytes: &mut Vec<u8>) -> String {
    let at = random.below(bytes.len());
    match random.below(5) {
        0 | 1 => {
            let bit = random.below(8);
            bytes[at] ^= 1 << bit;
            format!("bit {bit} of byte {at}")
        }
        2 => {
            bytes.truncate(at);
            format!("cut at {at}")
        }
        3 => {
            bytes.push(b'\n');
            "a byte more".into()
        }
        _ => {
            bytes.insert(at, bytes[at].wrapping_add(1));
            format!("a byte inserted at {at}")
        }
    }
}

/// The files that blockers name, in their object or in their message.
fn named(report: &Report, files: &[String]) -> BTreeSet<String> {
    let blockers: Vec<_> = report.findings.iter().filter(|finding| finding.severity == Severity::Blocker).collect();
    files
        .iter()
        .filter(|file| blockers.iter().any(|it| it.object == **file || it.message.contains(*file)))
        .cloned()
        .collect()
}

#[tokio::test]
async fn each_damaged_file_fails_the_test_restore_and_is_named_and_no_other_is() {
    let taken = Taken::new().await;
    let files = taken.files();
    assert!(files.len() >= 7, "{files:?}");
    let mut damages = 0;
    for round in 0..ROUNDS + 24 {
        let mut random = Random::of(round);
        // The schema's files alone make a round without a sandbox; in the other rounds they stay whole.
        let schema_round = round >= ROUNDS;
        let is_schema = |file: &str| file.contains("/schema/");
        let mut broken = BTreeSet::new();
        let mut kept = Vec::new();
        let mut how = Vec::new();
        for file in files.iter().filter(|file| is_schema(file) == schema_round) {
            if random.below(2) == 0 && !(broken.is_empty() && *file == files[files.len() - 1]) {
                continue;
            }
            let path = taken.path(file);
            let bytes = std::fs::read(&path).unwrap();
            let mut changed = bytes.clone();
            if random.below(6) == 0 {
                std::fs::remove_file(&path).unwrap();
                how.push(format!("{file} removed"));
            } else {
                how.push(format!("{file}: {}", damage(&mut random, &mut changed)));
                std::fs::write(&path, &changed).unwrap();
            }
            broken.insert(file.clone());
            kept.push((path, bytes));
        }
        if broken.is_empty() {
            continue;
        }
        damages += broken.len();
        let report = taken.verify().await.unwrap();
        assert_eq!(report.result, ReportResult::Fail, "round {round}: {how:?}");
        assert_eq!(named(&report, &files), broken, "round {round}: {how:?}: {:?}", report.findings);
        for (path, bytes) in kept {
            std::fs::write(path, bytes).unwrap();
        }
    }
    println!("{damages} files damaged, each found and named");
}

#[tokio::test]
async fn two_files_exchanged_are_both_named() {
    let taken = Taken::new().await;
    let files: Vec<String> = taken.files().into_iter().filter(|file| !file.contains("/schema/")).collect();
    for round in 0..3 {
        let mut random = Random::of(1000 + round);
        let one = random.below(files.len());
        let other = (one + 1 + random.below(files.len() - 1)) % files.len();
        let (here, there) = (taken.path(&files[one]), taken.path(&files[other]));
        let exchange = || {
            let (first, second) = (std::fs::read(&here).unwrap(), std::fs::read(&there).unwrap());
            std::fs::write(&here, second).unwrap();
            std::fs::write(&there, first).unwrap();
        };
        exchange();
        let report = taken.verify().await.unwrap();
        assert_eq!(report.result, ReportResult::Fail, "round {round}");
        assert_eq!(
            named(&report, &files),
            [files[one].clone(), files[other].clone()].into(),
            "round {round}: {:?}",
            report.findings
        );
        exchange();
    }
}

#[tokio::test]
async fn no_change_of_the_manifest_is_believed() {
    let taken = Taken::new().await;
    let path = taken.path(taken.report.evidence_uri.as_ref().unwrap());
    let bytes = std::fs::read(&path).unwrap();
    for round in 0..MANIFEST_ROUNDS {
        let mut random = Random::of(2000 + round);
        let mut changed = bytes.clone();
        let how = damage(&mut random, &mut changed);
        std::fs::write(&path, &changed).unwrap();
        let error = taken.verify().await.unwrap_err();
        assert_eq!(error.exit_code(), exit::DATA_DIFFERS, "round {round}: {how}");
        assert_eq!(error.findings()[0].code, "ManifestAltered", "round {round}: {how}");
        assert_eq!(error.findings()[0].object, taken.report.evidence_uri.clone().unwrap());
    }
    std::fs::remove_file(&path).unwrap();
    assert_eq!(taken.verify().await.unwrap_err().exit_code(), exit::INPUT_MISSING);
    // Nothing was written to either side by any of it.
    assert!(taken.journey.rows(Side::Target).await.is_empty());
}
