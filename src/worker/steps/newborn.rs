//! Customers that were born after Select: the remainder takes them in, on the way over and on the way back.
//! Called by Cutover (born on the source) and Return (born on the target).
//! Must know that none is born meanwhile: the last call comes when creation is closed on the side that had it.

use bytes::Bytes;
use tokio_postgres::Transaction;

use super::cohort::{Cohort, NEWBORN_CHUNK, Sides};
use crate::contract::Side;
use crate::worker::Error;
use crate::worker::postgres::fence;
use crate::worker::postgres::identifier::quote_identifier;
use crate::worker::postgres::model::{RowFormat, entry};
use crate::worker::postgres::relay::{Batches, Rows};

/// Enters every customer of `born` that is in no entry into the cohort, in both ledgers. Repeating it adds nothing.
pub async fn take_in(cohort: &Cohort<'_>, sides: &mut Sides, born: Side) -> Result<u64, Error> {
    let entries = [entry::UNASSIGNED, cohort.entry];
    let (here, there) = match born {
        Side::Source => ((&mut sides.source, &sides.source_token), (&mut sides.target, &sides.target_token)),
        Side::Target => ((&mut sides.target, &sides.target_token), (&mut sides.source, &sides.source_token)),
    };
    let taking = fence::change_members(here.0, here.1, &entries).await?;
    let added = enter(cohort, &taking).await?;
    taking.commit().await.map_err(Error::database("enter new customers"))?;
    // Not only those just added: an attempt that ended between the two ledgers left the other one behind.
    let reading = super::snapshot::of(here.0).await?;
    let telling = fence::change_members(there.0, there.1, &entries).await?;
    tell(cohort, &reading, &telling).await?;
    telling.commit().await.map_err(Error::database("enter new customers"))?;
    Ok(added)
}

async fn enter(cohort: &Cohort<'_>, transaction: &Transaction<'_>) -> Result<u64, Error> {
    let key = quote_identifier(&cohort.scope.root_key);
    let sql = format!(
        "insert into godwit.member (customer, entry, chunk) select c.{key}, {}, {NEWBORN_CHUNK} from {} as c \
         where not exists (select from godwit.member as m where m.customer = c.{key})",
        cohort.entry,
        cohort.scope.root.sql()
    );
    transaction.execute(&sql, &[]).await.map_err(Error::database("enter new customers"))
}

async fn tell(cohort: &Cohort<'_>, from: &Transaction<'_>, to: &Transaction<'_>) -> Result<(), Error> {
    let failed = || Error::database("enter new customers in the other ledger");
    let Some(root) = cohort.scope.root_table() else {
        return Ok(());
    };
    to.batch_execute(
        "create temporary table godwit_newborn on commit drop as select customer from godwit.member with no data",
    )
    .await
    .map_err(failed())?;
    let select =
        format!("select customer from godwit.member where entry = {} and chunk = {NEWBORN_CHUNK}", cohort.entry);
    // Text: the key's type need not be one whose binary form travels.
    let mut rows = Rows::select(from, &select, RowFormat::Text, "godwit.member").await?;
    let sink = to.copy_in::<_, Bytes>("copy pg_temp.godwit_newborn (customer) from stdin").await.map_err(failed())?;
    let mut batches = Batches::new(sink, &root.table);
    rows.forward(&mut batches).await?;
    batches.finish().await?;
    let merge = format!(
        "insert into godwit.member (customer, entry, chunk) select customer, {}, {NEWBORN_CHUNK} from pg_temp.godwit_newborn \
         on conflict (customer) do nothing",
        cohort.entry
    );
    to.batch_execute(&merge).await.map_err(failed())
}
