//! Shared rows: brings the target's reference tables to the source's state while the source owns them.
//! Called by Copy before the first chunk, by Cutover inside the pause, by Reopen when they come back.
//! Must not take away what the target uses: a row that something there refers to stays, and is counted.

use crate::contract::Owner;
use crate::worker::Error;
use crate::worker::postgres::difference::{Bringing, Brought, Extra};
use crate::worker::postgres::landing::Landing;
use crate::worker::postgres::model::entry;
use crate::worker::postgres::restore_point::RestoreWriter;
use crate::worker::postgres::sides::Portion;
use crate::worker::postgres::{ledger, remnant};

use super::cohort::{Cohort, Sides};
use super::snapshot;

/// Brings the difference. `restore`, when given, receives the source's rows in the same read.
pub async fn bring(
    cohort: &Cohort<'_>,
    sides: &mut Sides,
    restore: Option<&mut RestoreWriter<'_>>,
) -> Result<Brought, Error> {
    let portions = Portion::of_references(&cohort.scope);
    let ownership = ledger::ownership(&*sides.target, entry::REFERENCE).await?;
    // After the last cutover the target's own changes are the truth; a later cohort's step leaves them alone.
    if portions.is_empty() || ownership.owner == Owner::Target {
        return Ok(Brought::default());
    }
    let own = remnant::tables_with_own_rows(&*sides.target).await?;
    let landing = Landing::begin(&mut sides.target, &sides.target_token).await?;
    // Before the source is read: a cohort with an older view of it would take away what another one has just brought.
    landing.take_turn().await?;
    let source = snapshot::of(&mut sides.source).await?;
    landing.pass(&ownership).await?;
    let bringing = Bringing {
        source: &source,
        landing: &landing,
        scope: &cohort.scope,
        entry: None,
        catalog: &cohort.target_catalog,
        extra: Extra::KeepUsed { own },
        expected: None,
    };
    let brought = bringing.bring(&portions, restore).await?;
    landing.commit().await?;
    Ok(brought)
}
