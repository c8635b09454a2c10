//! What Finalize, Reset and Cleanup share: the ways in which Godwit leaves a database.
//! Used by those three steps. Each part tolerates that it was done before, half done, or never needed.
//! Must not touch a row of a customer.

use serde_json::{Map, Value, json};

use crate::contract::{Identity, MAX_REPORT_BYTES, Report};
use crate::worker::postgres::catalog::read_catalog;
use crate::worker::postgres::ledger;
use crate::worker::postgres::model::Scope;
use crate::worker::postgres::session::Session;
use crate::worker::postgres::token::{self, Token};
use crate::worker::postgres::{fence, scope, sequence, split};
use crate::worker::storage::StorageError;
use crate::worker::{Error, Job};

/// The ledger's tables whose rows are worth keeping; members are customers' keys and stay out.
const ARCHIVED: [&str; 5] = ["migration", "ownership", "checkpoint", "report", "journal"];

/// Whether this migration has a ledger here. Another's is left alone, as an error.
pub async fn has_ledger(session: &Session, migration: &Identity) -> Result<bool, Error> {
    ledger::refuse_foreign(session, migration).await?;
    Ok(ledger::owner_of(session).await?.is_some())
}

/// The scope from the source; when its catalogue changed since, from the target. `None`: the tables are gone.
pub async fn scope_of_either(job: &Job, source: &Session, target: &Session) -> Result<Option<Scope>, Error> {
    for session in [source, target] {
        let catalog = read_catalog(session).await?;
        if let Ok(scope) = scope::resolve(&job.input.dataset, &catalog) {
            return Ok(Some(scope));
        }
    }
    Ok(None)
}

/// Takes the token of the migration, and takes theirs from all cohorts: a pod that still works on one of them writes nothing from
/// here on. Their attempts stay as they are, so that a cohort's next attempt can go on if this step is refused.
pub async fn take_over(session: &Session, subject: &str, attempt: i64) -> Result<Token, Error> {
    let token = token::take(session, subject, attempt).await?;
    session
        .execute("update godwit.fencing_token set turn = turn + 1 where subject <> $1", &[&subject])
        .await
        .map_err(Error::database("end the cohorts' attempts"))?;
    Ok(token)
}

/// Keeps the ledgers' story as a file, and names it in the report.
pub async fn store_archive(
    job: &Job,
    (source, target): (Option<&Session>, &Session),
    report: &mut Report,
) -> Result<(), Error> {
    let of_source = match source {
        Some(source) => archive(source).await?,
        None => json!(null),
    };
    let archive = json!({ "v": 1, "source": of_source, "target": archive(target).await? });
    let text =
        serde_json::to_vec_pretty(&archive).map_err(|source| Error::Json { what: "the ledger's archive", source })?;
    let path = format!("{}/{}/{}/ledger.json", job.step(), job.subject(), job.input.attempt);
    let stored = job.storage()?.put_bytes(&path, text).await?;
    report.digest = Some(stored.digest);
    report.evidence_uri = Some(stored.path);
    Ok(())
}

/// Where a step that drops the ledger keeps its report: a repeated attempt finds none in the ledger.
fn last_word_path(job: &Job) -> String {
    format!("{}/{}/report.json", job.step(), job.subject())
}

/// Stored before the first ledger goes.
pub async fn store_last_word(job: &Job, report: &Report) -> Result<(), Error> {
    let text = serde_json::to_vec(report).map_err(|source| Error::Json { what: "the last report", source })?;
    job.storage()?.put_bytes(&last_word_path(job), text).await?;
    Ok(())
}

/// What an earlier attempt of this step had to tell before it left the ledgers.
pub async fn last_word(job: &Job) -> Result<Option<Report>, Error> {
    match job.storage()?.get_bytes(&last_word_path(job), MAX_REPORT_BYTES as u64).await {
        Ok(text) => {
            serde_json::from_slice(&text).map(Some).map_err(|source| Error::Json { what: "the last report", source })
        }
        Err(StorageError::Missing { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// The ledger's rows as JSON, for the record.
async fn archive(session: &Session) -> Result<Value, Error> {
    let mut archive = Map::new();
    for table in ARCHIVED {
        let sql = format!("select coalesce(jsonb_agg(to_jsonb(t)), '[]') from godwit.{table} as t");
        let rows: Value = session
            .query_one(&sql, &[])
            .await
            .map(|row| row.get(0))
            .map_err(Error::database(format!("archive the ledger's {table}")))?;
        archive.insert(table.to_owned(), rows);
    }
    let members = session.number("count the members", "select count(*) from godwit.member").await?;
    archive.insert("members".to_owned(), json!(members));
    Ok(Value::Object(archive))
}

/// Both sides draw by their original increments; the target above everything that either drew.
pub async fn join_sequences(
    source: Option<&mut Session>,
    target: Option<&mut Session>,
    subject: &str,
) -> Result<usize, Error> {
    let mut joined = 0;
    if let Some(target) = target {
        let mut states = std::collections::BTreeMap::new();
        if let Some(source) = &source {
            for one in split::load(target, subject).await? {
                // The source's table may be gone already.
                if let Ok(state) = sequence::read(&***source, &one.sequence).await {
                    states.insert(one.sequence, state);
                }
            }
        }
        joined = split::undo(target, subject, |transaction, one| {
            let of_source = states.get(&one.sequence).copied();
            Box::pin(async move { sequence::join_target(transaction, one, of_source).await })
        })
        .await?;
    }
    if let Some(source) = source {
        let done =
            split::undo(source, subject, |transaction, one| Box::pin(sequence::join_source(transaction, one))).await?;
        joined = joined.max(done);
    }
    Ok(joined)
}

/// Triggers first, each with a short lock; then the schema with functions, tokens and members at once.
pub async fn leave(session: &mut Session) -> Result<(), Error> {
    fence::remove(session).await?;
    let schema = "drop schema if exists godwit cascade";
    fence::with_short_locks(session, "the ledger", schema).await
}
