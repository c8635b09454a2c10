//! Return: sets aside what the target wrote since cutover, and restores the source where it is not the restore point.
//! Run by the operator after Freeze; RestoreOnly is the one mode there is.
//! Must lose nothing silently: what will not be on the source is in files, counted by table and class.

use std::collections::BTreeMap;
use std::time::Instant;

use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio_postgres::{GenericClient, Transaction};

use super::cohort::{Cohort, RestoreState, Sides};
use super::reporting::{blocker, milliseconds, signed};
use super::{newborn, resume, snapshot};
use crate::contract::{Owner, Report, ReportResult, Side, exit};
use crate::worker::postgres::compare::Class;
use crate::worker::postgres::keys::{Counts, KeyTable};
use crate::worker::postgres::landing::Landing;
use crate::worker::postgres::model::entry;
use crate::worker::postgres::relay::{Rows, Shape, read};
use crate::worker::postgres::restore_point::{Manifest, file_path};
use crate::worker::postgres::sides::{Origin, Portion, Sides as Compared};
use crate::worker::postgres::{closure, ledger};
use crate::worker::storage::{Storage, Stored};
use crate::worker::{Error, Job};

/// The part under which Return records on the source what it set aside there.
const SOURCE_ASIDE_PART: &str = "source-set-aside";
const SOURCE_ASIDE: &str = "the record of what was set aside of the source";

/// What the target wrote in one table since cutover, or a stranger on the source.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SetAside {
    pub table: String,
    pub inserted: u64,
    pub updated: u64,
    pub deleted: u64,
    /// Of the source: how many of the deleted are there under another customer, or under none.
    #[serde(default)]
    pub elsewhere: u64,
    /// Rows inserted and rows updated as they are on that side, keys of rows deleted; COPY files.
    pub files: BTreeMap<String, Stored>,
}

pub async fn run(job: &Job) -> Result<Report, Error> {
    resume::run(job, attempt).await
}

async fn attempt(job: &Job) -> Result<Report, Error> {
    let started = Instant::now();
    let storage = job.storage()?;
    let (cohort, mut sides) = Cohort::open(job).await?;
    for entry in cohort.entries() {
        sides.settle(entry).await?;
    }
    let Some(state) = cohort.handed_over(&sides).await? else {
        // The target never was the owner: there is nothing to set aside, and the source's rows were never anybody else's.
        return cohort.report(&sides, ReportResult::Pass).await;
    };
    refuse_unless_frozen(&cohort, &sides).await?;
    if cohort.remainder {
        newborn::take_in(&cohort, &mut sides, Side::Target).await?;
    }
    let manifest = Manifest::load(&storage, &state.manifest).await?;
    manifest.verify(&storage).await?;
    let folder = format!("set-aside/{}/{}", cohort.subject(), sides.target_token.worker());
    let keeping = Keeping { manifest: &manifest, storage: &storage, folder: &folder };
    let aside = set_aside(&cohort, &mut sides, &keeping).await?;
    let restored = restore(&cohort, &mut sides, &keeping).await?;
    let of_source = recorded_of_source(&cohort, &*sides.source).await?;
    let mut report = cohort.report(&sides, ReportResult::Pass).await?;
    tell(&mut report, &aside, &of_source);
    report.counts.insert("tablesRestored".into(), restored);
    let stored = store_manifest(&cohort, &state, &keeping, (&aside, &of_source)).await?;
    report.evidence_uri = Some(stored.path);
    report.digest = Some(stored.digest);
    report.timings.insert("return".into(), milliseconds(started));
    let detail = json!({"setAside": report.counts, "tablesRestored": restored});
    cohort.note(&sides, "returned", detail).await?;
    Ok(report)
}

async fn refuse_unless_frozen(cohort: &Cohort<'_>, sides: &Sides) -> Result<(), Error> {
    let ownership = ledger::ownership(&*sides.target, cohort.entry).await?;
    if ownership.owner == Owner::None {
        return Ok(());
    }
    Err(Error::refused(
        exit::DATA_DIFFERS,
        blocker("NotFrozen", "godwit.ownership", "The cohort may still be written; Freeze comes first."),
    ))
}

/// Everything that a restore point can cover.
pub fn portions<'a>(cohort: &'a Cohort<'_>, manifest: &Manifest) -> Vec<Portion<'a>> {
    let mut portions = Portion::of_references(&cohort.scope);
    portions.extend(Portion::of_entry(&cohort.scope, cohort.entry));
    manifest.covered(portions)
}

/// The restore point that both sides are compared with, and where what they have else is kept.
struct Keeping<'a> {
    manifest: &'a Manifest,
    storage: &'a Storage,
    /// Of this worker alone.
    folder: &'a str,
}

async fn set_aside(cohort: &Cohort<'_>, sides: &mut Sides, keeping: &Keeping<'_>) -> Result<Vec<SetAside>, Error> {
    let Keeping { manifest, storage, folder } = *keeping;
    let target = snapshot::of(&mut sides.target).await?;
    let copy = Origin::of_entry(&target, &cohort.scope, cohort.entry).await?;
    let compared = Compared { original: manifest.origin(storage), copy };
    export(cohort, compared, (Side::Target, &target, &portions(cohort, manifest)), (storage, folder)).await
}

/// What a side has else than the restore point, table by table.
async fn export(
    cohort: &Cohort<'_>,
    mut compared: Compared<'_>,
    (at, side, portions): (Side, &Transaction<'_>, &[Portion<'_>]),
    (storage, folder): (&Storage, &str),
) -> Result<Vec<SetAside>, Error> {
    let mut aside = Vec::new();
    for (number, portion) in portions.iter().enumerate() {
        let digests = compared.compare(portion, None).await?;
        cohort.job.progress.advance(digests.1.total().rows);
        if digests.0.agrees_with(&digests.1) {
            continue;
        }
        let keys = KeyTable::create(side, portion.table, portion.shape, number).await?;
        let counts = compared.note(portion, &digests, &[(side, &keys)]).await?;
        let files = Export { transaction: side, storage, keys: &keys, folder, number };
        let mut table = files.write(counts).await?;
        if at == Side::Source {
            files.write_elsewhere(&mut table).await?;
        }
        aside.push(table);
    }
    Ok(aside)
}

/// The files of one table.
struct Export<'a> {
    transaction: &'a Transaction<'a>,
    storage: &'a Storage,
    keys: &'a KeyTable,
    folder: &'a str,
    number: usize,
}

impl Export<'_> {
    async fn write(&self, counts: Counts) -> Result<SetAside, Error> {
        let mut aside = SetAside {
            table: self.keys.table().name.to_string(),
            inserted: counts.extra,
            updated: counts.different,
            deleted: counts.missing,
            elsewhere: 0,
            files: BTreeMap::new(),
        };
        let shape = self.keys.shape();
        let only_keys = Shape { columns: shape.keys, ..shape };
        for (name, rows, select, shape) in [
            ("inserted", counts.extra, self.keys.select_rows(&[Class::Extra]), shape),
            ("updated", counts.different, self.keys.select_rows(&[Class::Different]), shape),
            ("deleted", counts.missing, self.keys.select_keys(&[Class::Missing]), only_keys),
        ] {
            if rows > 0 {
                let (file, written) = self.file(name, &select, shape).await?;
                if written != rows {
                    return Err(Error::RowsLost { table: aside.table, sent: rows, landed: written });
                }
                aside.files.insert(name.into(), file);
            }
        }
        Ok(aside)
    }

    /// Rows that have a missing row's key and hang on another customer, or on none: the missing row takes their place.
    async fn write_elsewhere(&self, aside: &mut SetAside) -> Result<(), Error> {
        if aside.deleted == 0 {
            return Ok(());
        }
        let select = self.keys.select_rows(&[Class::Missing]);
        let (file, written) = self.file("elsewhere", &select, self.keys.shape()).await?;
        if written > 0 {
            aside.elsewhere = written;
            aside.files.insert("elsewhere".into(), file);
        }
        Ok(())
    }

    /// The file, and how many rows it has.
    async fn file(&self, name: &str, select: &str, shape: Shape) -> Result<(Stored, u64), Error> {
        let path = file_path(self.folder, self.number, &format!("{name}.copy"));
        let mut writer = self.storage.writer(&path, 0)?;
        let table = self.keys.table().name.to_string();
        let mut rows = Rows::select(self.transaction, select, shape.format, &table).await?;
        let mut written = 0;
        read(&mut rows, shape, Some(&mut writer), |_| {
            written += 1;
            Ok(())
        })
        .await?;
        Ok((writer.finish().await?, written))
    }
}

/// Puts the source back to the restore point, table by table where it is not; returns how many tables that were.
async fn restore(cohort: &Cohort<'_>, sides: &mut Sides, keeping: &Keeping<'_>) -> Result<i64, Error> {
    let Keeping { manifest, storage, .. } = *keeping;
    let portions = portions(cohort, manifest);
    let mut changed = Vec::new();
    {
        let source = Origin::Database(&snapshot::of(&mut sides.source).await?);
        for portion in portions {
            let sum = source.sum(&portion).await?;
            if manifest.table(&portion.name()).map(|table| table.sum) != Some(sum) {
                changed.push(portion);
            }
        }
    }
    if changed.is_empty() {
        return Ok(0);
    }
    let own = ledger::ownership(&*sides.source, cohort.entry).await?;
    let shared = ledger::ownership(&*sides.source, entry::REFERENCE).await?;
    // In one snapshot: what is set aside and what goes are the same rows.
    let landing = Landing::begin_in_snapshot(&mut sides.source, &sides.source_token).await?;
    set_aside_of_source(cohort, (&landing, &changed), keeping).await?;
    let pass = async |portion: &Portion<'_>| {
        let is_owned = cohort.scope.owned_table(&portion.table.name).is_some();
        landing.pass(if is_owned { &own } else { &shared }).await
    };
    for portion in changed.iter().rev() {
        pass(portion).await?;
        let delete = super::removal::delete_portion(cohort, portion);
        landing.remove(&portion.table.name, &delete).await?;
    }
    for portion in &changed {
        pass(portion).await?;
        let mut rows = manifest.origin(storage).open(portion).await?;
        let landed = landing.replace(&mut rows, (portion.table, portion.shape)).await?;
        let found = Origin::Database(&landing).sum(portion).await?;
        if landed != found {
            return Err(Error::CopyDiffers { table: portion.name() });
        }
    }
    let catalogue = (&cohort.scope, &cohort.source_catalog);
    closure::hold_parents(&landing, catalogue, cohort.entry, None).await?;
    closure::refuse(&closure::of_entry(&landing, catalogue, cohort.entry, None).await?)?;
    landing.commit().await?;
    Ok(i64::try_from(changed.len()).unwrap_or(i64::MAX))
}

/// Somebody wrote past the fence, and what the restore point does not have is about to go. Recorded with the restoration: an attempt
/// that comes after it finds nothing to restore.
async fn set_aside_of_source(
    cohort: &Cohort<'_>,
    (landing, changed): (&Landing<'_>, &[Portion<'_>]),
    keeping: &Keeping<'_>,
) -> Result<(), Error> {
    let Keeping { manifest, storage, folder } = *keeping;
    let mut aside = recorded_of_source(cohort, &**landing).await?;
    let compared = Compared { original: manifest.origin(storage), copy: Origin::Database(landing) };
    let folder = format!("{folder}/source");
    aside.extend(export(cohort, compared, (Side::Source, landing, changed), (storage, &folder)).await?);
    let state = serde_json::to_value(&aside).map_err(|source| Error::Json { what: SOURCE_ASIDE, source })?;
    ledger::set_checkpoint(&**landing, (cohort.subject(), "return", SOURCE_ASIDE_PART), &state).await
}

async fn recorded_of_source(cohort: &Cohort<'_>, source: &impl GenericClient) -> Result<Vec<SetAside>, Error> {
    match ledger::checkpoint(source, (cohort.subject(), "return", SOURCE_ASIDE_PART)).await? {
        Some(state) => serde_json::from_value(state).map_err(|source| Error::Json { what: SOURCE_ASIDE, source }),
        None => Ok(Vec::new()),
    }
}

fn tell(report: &mut Report, aside: &[SetAside], of_source: &[SetAside]) {
    let total = of_source.iter().map(|table| table.inserted + table.updated + table.deleted).sum::<u64>();
    report.counts.insert("sourceSetAside".into(), signed(total));
    let sum = |count: fn(&SetAside) -> u64| signed(aside.iter().map(count).sum::<u64>());
    for (name, count) in [
        ("setAsideInserted", sum(|table| table.inserted)),
        ("setAsideUpdated", sum(|table| table.updated)),
        ("setAsideDeleted", sum(|table| table.deleted)),
        ("setAside", sum(|table| table.inserted + table.updated + table.deleted)),
    ] {
        report.counts.insert(name.into(), count);
    }
}

async fn store_manifest(
    cohort: &Cohort<'_>,
    state: &RestoreState,
    keeping: &Keeping<'_>,
    (aside, of_source): (&[SetAside], &[SetAside]),
) -> Result<Stored, Error> {
    let manifest = json!({
        "v": 1,
        "cohort": cohort.subject(),
        "since": state.manifest,
        "tables": aside,
        "source": of_source,
    });
    let path = format!("{}/manifest.json", keeping.folder);
    let bytes = serde_json::to_vec_pretty(&manifest)
        .map_err(|source| Error::Json { what: "the manifest of what was set aside", source })?;
    Ok(keeping.storage.put_bytes(&path, bytes).await?)
}
