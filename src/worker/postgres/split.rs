//! Splits every sequence of the dataset between the two sides, and undoes it, with what was done kept in the ledgers.
//! Used by Prepare (split), Finalize (join), Reset (restore) and Cleanup (join what is left). The arithmetic is in `sequence`.
//! Must change a sequence and record it in one transaction: otherwise its first state would be lost with a crash.

use futures::future::BoxFuture;
use serde_json::Value;
use tokio_postgres::Transaction;

use super::ledger;
use super::model::Sequence;
use super::sequence::{self, Split};
use super::session::Session;
use super::token::{self, Token};
use crate::contract::KeyStrategy;
use crate::worker::error::Error;

/// What to split, and under which subject it is recorded.
pub struct Plan<'a> {
    pub sequences: Vec<&'a Sequence>,
    pub strategy: KeyStrategy,
    pub subject: &'a str,
}

const STEP: &str = "prepare";
const PART: &str = "sequence ";

/// Splits what is not split yet; returns how many sequences are split now.
pub async fn split(
    (source, source_token): (&mut Session, &Token),
    (target, target_token): (&mut Session, &Token),
    plan: Plan<'_>,
) -> Result<usize, Error> {
    if plan.strategy == KeyStrategy::None {
        return Ok(0);
    }
    for sequence in &plan.sequences {
        let part = format!("{PART}{}", sequence.name);
        let key = (plan.subject, STEP, part.as_str());
        let of_target = sequence::read(&**target, &sequence.name).await?;
        let transaction = begin(source, source_token).await?;
        let recorded = ledger::checkpoint(&transaction, key).await?;
        let split = if let Some(state) = recorded {
            decode(state)?
        } else {
            if plan.strategy == KeyStrategy::Parity {
                sequence::halve_source(&transaction, &sequence.name).await?;
            }
            let of_source = sequence::read(&transaction, &sequence.name).await?;
            sequence::plan(sequence, plan.strategy, (of_source, of_target))?
        };
        let Some(split) = split else { continue };
        let state = encode(&split)?;
        ledger::set_checkpoint(&transaction, key, &state).await?;
        commit(transaction).await?;
        let transaction = begin(target, target_token).await?;
        if ledger::checkpoint(&transaction, key).await?.is_none() {
            sequence::split_target(&transaction, &split).await?;
            ledger::set_checkpoint(&transaction, key, &state).await?;
            commit(transaction).await?;
        }
    }
    Ok(load(source, plan.subject).await?.len())
}

/// The splits that a ledger knows.
pub async fn load(session: &Session, subject: &str) -> Result<Vec<Split>, Error> {
    let mut splits = Vec::new();
    for (part, state) in ledger::checkpoints(&**session, (subject, STEP)).await? {
        if part.starts_with(PART) {
            splits.extend(decode(state)?);
        }
    }
    Ok(splits)
}

/// Runs `change` for every split of a ledger, each with the removal of its record in one transaction.
pub async fn undo<F>(session: &mut Session, subject: &str, change: F) -> Result<usize, Error>
where
    F: for<'t> Fn(&'t Transaction<'_>, &'t Split) -> BoxFuture<'t, Result<(), Error>>,
{
    let splits = load(session, subject).await?;
    for split in &splits {
        let transaction = session.transaction().await.map_err(Error::database("join a sequence"))?;
        let there = transaction
            .query_one("select pg_catalog.to_regclass($1) is not null", &[&split.sequence.sql()])
            .await
            .map_err(Error::database("look for a sequence"))?;
        if there.get(0) {
            change(&transaction, split).await?;
        }
        let part = format!("{PART}{}", split.sequence);
        transaction
            .execute(
                "delete from godwit.checkpoint where subject = $1 and step = $2 and part = $3",
                &[&subject, &STEP, &part],
            )
            .await
            .map_err(Error::database("forget a split sequence"))?;
        commit(transaction).await?;
    }
    Ok(splits.len())
}

fn decode(state: Value) -> Result<Option<Split>, Error> {
    serde_json::from_value(state)
        .map(Some)
        .map_err(|source| Error::Json { what: "the record of a split sequence", source })
}

fn encode(split: &Split) -> Result<Value, Error> {
    serde_json::to_value(split).map_err(|source| Error::Json { what: "the record of a split sequence", source })
}

async fn begin<'s>(session: &'s mut Session, token: &Token) -> Result<Transaction<'s>, Error> {
    let transaction = session.transaction().await.map_err(Error::database("begin a transaction"))?;
    token::hold(&transaction, token).await?;
    Ok(transaction)
}

async fn commit(transaction: Transaction<'_>) -> Result<(), Error> {
    transaction.commit().await.map_err(Error::database("record a split sequence"))
}
