//! Builds what waits while a copy fills bare tables: keys and indexes as soon as a table is full, foreign keys when all are.
//! Called by `fill`. Two builds at a time.
//! Must pass over no refusal of the server's: what it would not build is a finding, or is mended where two snapshots explain it.

use tokio::sync::{Mutex, mpsc};
use tokio_postgres::Transaction;

use super::cohort::{Cohort, Sides};
use super::filled::FilledTables;
use super::reporting::blocker;
use super::{references, snapshot, strays};
use crate::contract::exit;
use crate::worker::Error;
use crate::worker::postgres::bare::{self, Waiting};
use crate::worker::postgres::closure;
use crate::worker::postgres::identifier::TableName;
use crate::worker::postgres::ledger::Ownership;
use crate::worker::postgres::model::ForeignKey;
use crate::worker::postgres::session::Session;
use crate::worker::postgres::token::Token;

/// A shared row that appeared on the source after the last look is no reason to give up.
const TRIES: usize = 3;

/// What is done for a table once its rows are in.
pub enum Work {
    /// Before anybody asks the planner about it; the foreign keys' checks do.
    Analyze(TableName),
    Build(Box<Waiting>),
}

/// A session that takes work from a queue until there is none and will be none.
pub struct Lane<'a> {
    pub queue: &'a Mutex<mpsc::UnboundedReceiver<Work>>,
    pub token: &'a Token,
    /// Unique keys that the rows do not obey.
    pub refused: &'a Mutex<Vec<Waiting>>,
}

impl Lane<'_> {
    pub async fn work(&self, session: &mut Session) -> Result<(), Error> {
        loop {
            let next = self.queue.lock().await.recv().await;
            match next {
                None => return Ok(()),
                Some(Work::Analyze(table)) => {
                    // The other lane may build on the same table, however long.
                    let analyze = format!("set local lock_timeout = 0; analyze {}", table.sql());
                    session.run("analyse the copied tables", &analyze).await?;
                }
                Some(Work::Build(waiting)) => match bare::build(session, self.token, &waiting).await {
                    Err(error) if bare::are_doubles(&error) => self.refused.lock().await.push(*waiting),
                    outcome => outcome?,
                },
            }
        }
    }
}

/// The foreign keys, with what is to be done about rows that stand against them.
pub async fn references(
    cohort: &Cohort<'_>,
    (sides, builder): (&mut Sides, &mut Session),
    ownership: &Ownership,
    (waiting, filled): (&[Waiting], &mut FilledTables),
) -> Result<(), Error> {
    let keys: Vec<&ForeignKey> = waiting.iter().filter_map(|one| one.foreign_key.as_ref()).collect();
    for attempt in 1.. {
        let refused = build_two_by_two(waiting, sides, builder).await?;
        if refused.is_empty() {
            break;
        }
        let shared = |one: &&Waiting| one.tables().any(|table| cohort.scope.owned_table(table).is_none());
        let can_be_mended = filled.are_mixed() || refused.iter().all(shared);
        if attempt == TRIES || !can_be_mended {
            return Err(orphans(cohort, sides, &refused).await?);
        }
        references::bring(cohort, sides, None).await?;
        if filled.are_mixed() {
            let rows = strays::remove(cohort, sides, ownership, (&keys, filled)).await?;
            tracing::info!(rows, "rows of an interrupted copy came without what they refer to; Cutover brings them");
        }
    }
    Ok(())
}

/// Two at a time, of different tables: each locks both of its own. Returns those that a row stands against.
async fn build_two_by_two<'w>(
    waiting: &'w [Waiting],
    sides: &mut Sides,
    builder: &mut Session,
) -> Result<Vec<&'w Waiting>, Error> {
    let mut left: Vec<&Waiting> = waiting.iter().collect();
    let mut refused = Vec::new();
    while let Some(first) = left.pop() {
        let apart = |it: &&Waiting| !it.tables().any(|table| first.tables().any(|taken| taken == table));
        let second = left.iter().rposition(apart).map(|at| left.remove(at));
        let token = &sides.target_token;
        let build_second = async {
            match second {
                Some(second) => bare::build(builder, token, second).await,
                None => Ok(()),
            }
        };
        // Both to their end, whatever becomes of the other: what still builds would hold its tables.
        let (one, other) = futures::join!(bare::build(&mut sides.target, token, first), build_second);
        for (outcome, waiting) in [(one, Some(first)), (other, second)] {
            match outcome {
                Err(error) if bare::are_orphans(&error) => refused.extend(waiting),
                outcome => outcome?,
            }
        }
    }
    Ok(refused)
}

/// The same answer that a chunk's landing gives.
async fn orphans(cohort: &Cohort<'_>, sides: &mut Sides, refused: &[&Waiting]) -> Result<Error, Error> {
    let reading: Transaction<'_> = snapshot::of(&mut sides.target).await?;
    let mut findings = Vec::new();
    for key in refused.iter().filter_map(|one| one.foreign_key.as_ref()) {
        if let Some(owned) = cohort.scope.owned_table(&key.table) {
            let violation = closure::of_key(&reading, (key, &owned.table)).await?;
            findings.extend(violation.map(|violation| violation.finding()));
        }
    }
    // MATCH FULL knows more than orphans.
    if findings.is_empty() {
        findings.extend(refused.iter().map(|one| violated(one)));
    }
    Ok(Error::Refused { exit: exit::DATA_DIFFERS, findings })
}

/// Rows that do not obey a key which only the target has, or which the source does not enforce.
pub fn violated(waiting: &Waiting) -> crate::contract::Finding {
    blocker(
        "ConstraintViolated",
        &waiting.table,
        format!(
            "The copied rows do not obey {}, which the target has; correct them on the source, then retry.",
            waiting.name
        ),
    )
}
