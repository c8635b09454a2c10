//! What every step of a cohort needs: both sessions, both tokens, the scope and the cohort's place in the ledger.
//! Opened first thing by the steps that move rows.
//! Must not believe what an earlier step or attempt had in memory: all of it is read anew.

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::reporting::blocker;
use crate::contract::{Finding, Identity, Owner, Report, ReportResult, code, exit};
use crate::worker::postgres::ledger::{self, Ownership};
use crate::worker::postgres::model::{Catalog, Scope, Table, entry};
use crate::worker::postgres::restore_point::Reference;
use crate::worker::postgres::row::Sum;
use crate::worker::postgres::session::Session;
use crate::worker::postgres::token::{self, Token};
use crate::worker::postgres::{bare, catalog, fence, rights, sequence, split};
use crate::worker::{Error, Job};

/// Both databases, each with the token of this attempt.
pub struct Sides {
    pub source: Session,
    pub target: Session,
    pub source_token: Token,
    pub target_token: Token,
}

/// What does not change while a step runs.
pub struct Cohort<'j> {
    pub job: &'j Job,
    pub identity: &'j Identity,
    pub entry: i32,
    /// The last cohort: new customers and reference rows go over with it.
    pub remainder: bool,
    pub scope: Scope,
    pub source_catalog: Catalog,
    pub target_catalog: Catalog,
}

/// The restore point that Cutover left in the target's ledger.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RestoreState {
    pub manifest: Reference,
    /// The target's epoch of the cohort's entry when both sides were closed.
    pub closed_epoch: i64,
}

/// The part under which Cutover records its restore point.
pub const RESTORE_PART: &str = "restore-point";
/// The part under which whoever brought a difference records the sums of the whole cohort; newer than the chunks' sums.
pub const TOTAL_PART: &str = "total";
/// Customers taken in after Select: one chunk of their own, after all others.
pub const NEWBORN_CHUNK: i32 = i32::MAX;

impl<'j> Cohort<'j> {
    /// Opens both sides, checks the ledgers and takes the tokens.
    pub async fn open(job: &'j Job) -> Result<(Self, Sides), Error> {
        let identity = job.cohort()?;
        Self::find(job).await?.ok_or_else(|| ledger::unknown_cohort(identity))
    }

    /// The same; `None` for a cohort that neither ledger knows, because its Select ended before it recorded anything. The tokens are
    /// taken all the same, so it will not record anything later either.
    pub async fn find(job: &'j Job) -> Result<Option<(Self, Sides)>, Error> {
        let identity = job.cohort()?;
        let (source, target) = futures::try_join!(job.source(), job.target())?;
        ledger::require(&target, &job.input.migration).await?;
        ledger::require(&source, &job.input.migration).await?;
        let attempt = job.input.attempt;
        let target_token = token::take(&target, &identity.uid, attempt).await?;
        let source_token = token::follow(&source, &target_token).await?;
        let (source_catalog, scope) = job.scope(&source).await?;
        let mut target_catalog = catalog::read_catalog(&target).await?;
        bare::complete(&*target, &identity.uid, &mut target_catalog).await?;
        let Some(ownership) = ledger::cohort(&*target, identity).await? else {
            let on_source = ledger::cohort(&*source, identity).await?;
            refuse_lost((job, identity), on_source.as_ref())?;
            return Ok(None);
        };
        let remainder = is_remainder(&target, identity).await?;
        let cohort = Self { job, identity, entry: ownership.entry, remainder, scope, source_catalog, target_catalog };
        let sides = Sides { source, target, source_token, target_token };
        cohort.refuse_older_ledger(&ownership)?;
        Ok(Some((cohort, sides)))
    }

    /// An acknowledged change of owner that is gone means that a database was set back: nothing may be built on it.
    fn refuse_older_ledger(&self, ownership: &Ownership) -> Result<(), Error> {
        if ownership.epoch >= self.job.input.epoch {
            return Ok(());
        }
        Err(Error::refused(
            exit::DATA_DIFFERS,
            blocker(
                "LedgerBehind",
                "godwit.ownership",
                format!(
                    "The target's ledger is at epoch {} and was at {} before: the database was set back. \
                     Find out what else is missing before you retry.",
                    ownership.epoch, self.job.input.epoch
                ),
            ),
        ))
    }

    /// Assess has looked for them, but a trigger that fires while rows land can be made at any time.
    pub async fn refuse_firing(&self, target: &Session) -> Result<(), Error> {
        let tables: Vec<&Table> = self.scope.tables().collect();
        super::validate::refuse(rights::firing(target, &tables).await?)
    }

    /// Every entry that changes hands with this cohort, the one that admits new customers first.
    pub fn entries(&self) -> Vec<i32> {
        if self.remainder { vec![entry::UNASSIGNED, self.entry, entry::REFERENCE] } else { vec![self.entry] }
    }

    pub fn subject(&self) -> &str {
        &self.identity.uid
    }

    /// The restore point, when Cutover came so far.
    pub async fn restore_state(&self, sides: &Sides) -> Result<Option<RestoreState>, Error> {
        let key = (self.subject(), "cutover", RESTORE_PART);
        let Some(state) = ledger::checkpoint(&*sides.target, key).await? else {
            return Ok(None);
        };
        serde_json::from_value(state)
            .map(Some)
            .map_err(|source| Error::Json { what: "the record of a restore point", source })
    }

    /// The restore point, when the target was the cohort's owner after it: only then can the target have written.
    pub async fn handed_over(&self, sides: &Sides) -> Result<Option<RestoreState>, Error> {
        let ownership = ledger::ownership(&*sides.target, self.entry).await?;
        let state = self.restore_state(sides).await?;
        Ok(state.filter(|state| ownership.epoch > state.closed_epoch))
    }

    /// How many customers the cohort has.
    pub async fn customers(&self, session: &Session) -> Result<i64, Error> {
        let count = format!("select count(*) from godwit.member where entry = {}", self.entry);
        session.number("count the cohort's customers", &count).await
    }

    /// A finding for each sequence from which both sides are about to draw the same keys: then nothing more is moved.
    pub async fn keys_about_to_meet(&self, sides: &Sides) -> Result<Vec<Finding>, Error> {
        let splits = split::load(&sides.target, &self.job.input.migration.uid).await?;
        sequence::watch(&sides.source, &sides.target, &splits).await
    }

    /// A report with the cohort's ownership as the ledgers have it now.
    pub async fn report(&self, sides: &Sides, result: ReportResult) -> Result<Report, Error> {
        let ownership = ledger::ownership(&*sides.target, self.entry).await?;
        let mut report = Report::new(result);
        report.owner = Some(ownership.owner);
        report.epoch = Some(ownership.epoch);
        let customers = self.customers(&sides.target).await?;
        report.counts.insert("customers".into(), customers);
        Ok(report)
    }

    /// Writes a bounded fact into the target's journal.
    pub async fn note(&self, sides: &Sides, event: &str, detail: serde_json::Value) -> Result<(), Error> {
        ledger::note(&*sides.target, self.job.attempt_key(), event, &detail).await
    }
}

/// Select writes the target's ledger first: a cohort that the source or the operator knows was there, and is lost.
fn refuse_lost((job, identity): (&Job, &Identity), on_source: Option<&Ownership>) -> Result<(), Error> {
    if on_source.is_none() && job.input.epoch == 0 {
        return Ok(());
    }
    Err(ledger::unknown_cohort(identity))
}

/// Select records what it was asked for; only the remainder takes the entries of everybody with it.
async fn is_remainder(target: &Session, identity: &Identity) -> Result<bool, Error> {
    let key = (identity.uid.as_str(), "select", "selection");
    let state = ledger::checkpoint(&**target, key).await?;
    Ok(state.is_some_and(|state| state["remainder"] == json!(true)))
}

impl Sides {
    /// Brings both sides to the same owner and epoch: a change made on one side and lost before the other is completed.
    ///
    /// Each change is made on one side first and then on the other, so the two are at most one step apart and the later one holds.
    pub async fn settle(&mut self, entry: i32) -> Result<Ownership, Error> {
        let source = ledger::ownership(&*self.source, entry).await?;
        let target = ledger::ownership(&*self.target, entry).await?;
        if source.epoch == target.epoch && source.owner == target.owner {
            return Ok(target);
        }
        let (ahead, session, token) = if source.epoch > target.epoch {
            (source, &mut self.target, &self.target_token)
        } else {
            (target, &mut self.source, &self.source_token)
        };
        let followed = match ahead.owner {
            Owner::None => fence::close(session, token, entry).await.map(drop),
            owner => fence::open(session, token, entry, (owner, ahead.epoch)).await,
        };
        match followed {
            // More than one step apart: not a change that was lost on its way.
            Ok(()) | Err(Error::EpochMoved { .. }) => {}
            Err(error) => return Err(error),
        }
        let settled = ledger::ownership(&**session, entry).await?;
        if (settled.owner, settled.epoch) == (ahead.owner, ahead.epoch) {
            return Ok(settled);
        }
        Err(Error::refused(
            exit::DATA_DIFFERS,
            blocker(
                code::LEDGERS_DISAGREE,
                "godwit.ownership",
                format!(
                    "Entry {entry} is at epoch {} on one side and {} on the other; a database was set back or its ledger was changed.",
                    ahead.epoch, settled.epoch
                ),
            ),
        ))
    }

    /// Closes an entry on both sides, the side that may have writers first. Returns the longest wait for writers.
    pub async fn close(&mut self, entry: i32) -> Result<std::time::Duration, Error> {
        let settled = self.settle(entry).await?;
        if settled.owner == Owner::Target {
            let closed = fence::close(&mut self.target, &self.target_token, entry).await?;
            fence::close(&mut self.source, &self.source_token, entry).await?;
            return Ok(closed.drain);
        }
        let closed = fence::close(&mut self.source, &self.source_token, entry).await?;
        fence::close(&mut self.target, &self.target_token, entry).await?;
        Ok(closed.drain)
    }

    /// Gives a closed entry to an owner, in the target's ledger first: what that says is the decision.
    pub async fn open(&mut self, entry: i32, owner: Owner) -> Result<(), Error> {
        let settled = self.settle(entry).await?;
        if settled.owner == owner {
            return Ok(());
        }
        let next = (owner, settled.epoch + 1);
        fence::open(&mut self.target, &self.target_token, entry, next).await?;
        fence::open(&mut self.source, &self.source_token, entry, next).await
    }
}

/// Adds one table's sum to a map of sums.
pub fn merge_sum(sums: &mut std::collections::BTreeMap<String, Sum>, table: String, sum: Sum) {
    sums.entry(table).or_default().merge(sum);
}
