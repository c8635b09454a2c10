//! Rows that came without what they refer to, because a copy into bare tables was interrupted: their parents were written to the source
//! after the snapshot from which the parents' table was read, or were gone in the next one.
//! Called by `rebuild` when a foreign key cannot be built. Cutover's difference brings such rows again, with their parents.
//! Must take each row that goes off what has landed, in the same transaction.

use super::cohort::{Cohort, Sides};
use super::filled::FilledTables;
use crate::worker::Error;
use crate::worker::postgres::closure;
use crate::worker::postgres::landing::Landing;
use crate::worker::postgres::ledger::Ownership;
use crate::worker::postgres::model::{ForeignKey, OwnedTable};
use crate::worker::postgres::relay::{Rows, Shape};
use crate::worker::postgres::row::Sum;

/// Removes them until none is left: what goes may be a parent itself, of rows in its own table too.
pub async fn remove(
    cohort: &Cohort<'_>,
    sides: &mut Sides,
    ownership: &Ownership,
    (keys, filled): (&[&ForeignKey], &mut FilledTables),
) -> Result<u64, Error> {
    let landing = Landing::begin(&mut sides.target, &sides.target_token).await?;
    landing.pass(ownership).await?;
    let mut all = 0;
    loop {
        let mut gone = 0;
        for key in keys {
            let Some(owned) = cohort.scope.owned_table(&key.table) else { continue };
            let strays = take_out(&landing, owned, key).await?;
            if strays.rows > 0 {
                gone += strays.rows;
                filled.of(&key.table).sum.take_off(strays);
                filled.store(&*landing, &key.table).await?;
            }
        }
        all += gone;
        if gone == 0 {
            landing.commit().await?;
            return Ok(all);
        }
    }
}

/// Count and sum of what the server removed, as it removed it.
async fn take_out(landing: &Landing<'_>, owned: &OwnedTable, key: &ForeignKey) -> Result<Sum, Error> {
    let (table, shape) = (&owned.table, Shape::from(owned));
    let delete = format!(
        "delete from {} as t where {} returning {}",
        table.name.sql(),
        closure::is_orphan(key),
        table.select_list("t")
    );
    Rows::select(landing, &delete, shape.format, &table.name.to_string()).await?.sum(shape).await
}
