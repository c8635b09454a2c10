//! The sieve: lets an entry's rows pass while whole tables are read. Where an entry has most of the customers this costs a fraction of
//! the joins that would lead the server from each row to its customer.
//! Used by `sides` to compare a large cohort. Must let pass exactly what the joins would find, and must give way to them where its maps
//! of keys would take much memory.

use bytes::{BufMut, BytesMut};
use tokio_postgres::Transaction;

use super::framing::Framing;
use super::identifier::{TableName, quote_identifier, quote_literal};
use super::key_map::KeyMap;
use super::model::{OwnedTable, Scope, Table};
use super::partition::{Routed, Router, parent_keys};
use super::relay::{Rows, Shape, head, read_keys, tail};
use super::routing_key::KeyType;
use crate::worker::error::Error;
use crate::worker::storage::Writer;

/// Slots of all maps together, two bytes each: 128 MiB, of the gibibyte that a Job has as shipped.
const MOST_SLOTS: u64 = 64 << 20;
/// What is kept goes on in batches of this size.
const BATCH_BYTES: usize = 64 << 10;

#[derive(Debug)]
pub struct Sieve {
    router: Router,
    tables: Vec<TableName>,
    /// The table whose turn it is: a child's rows are known by its parents' that passed before.
    next: usize,
}

impl Sieve {
    /// `None` where the joins are the better way: for a small part of the customers, and for keys that are no numbers close together.
    pub async fn of_entry(transaction: &Transaction<'_>, scope: &Scope, entry: i32) -> Result<Option<Self>, Error> {
        let tables = Routed::of_scope(scope);
        let stays = |(owned, routed): (&OwnedTable, &Routed)| owned.format == routed.format;
        let (Some(root), true) = (scope.root_table(), scope.owned.iter().zip(&tables).all(stays)) else {
            return Ok(None);
        };
        let Some(worthwhile) = worthwhile(scope, &tables, entry) else {
            return Ok(None);
        };
        let judged = transaction.query_one(&worthwhile, &[]).await.map_err(Error::database("count the customers"))?;
        if !judged.get::<_, bool>(0) {
            return Ok(None);
        }
        let customers = customers(transaction, (scope, root), entry).await?;
        let router = Router::only(&tables, &scope.root_key, customers);
        let names = scope.owned.iter().map(|owned| owned.table.name.clone()).collect();
        Ok(Some(Self { router, tables: names, next: 0 }))
    }

    /// Whether it is the table's turn. Whoever comes out of turn is found by joins.
    pub fn is_ready_for(&self, table: &Table) -> bool {
        self.tables.get(self.next) == Some(&table.name)
    }

    /// Reads all rows of the table whose turn it is and shows those that pass. `keep`, when given, receives them as a COPY file.
    pub async fn read(
        &mut self,
        mut rows: Rows,
        shape: Shape,
        keep: Option<&mut Writer>,
        mut see: impl FnMut(&[u8]) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let mut framing = Framing::new(shape.format, shape.columns);
        let mut kept = Kept::new(keep);
        kept.put(head(shape.format));
        while let Some(piece) = rows.next().await? {
            framing.each_row(piece, |row| {
                if self.router.route(self.next, row)? != 0 {
                    return Ok(());
                }
                kept.put(row);
                see(row)
            })?;
            kept.write_full().await?;
        }
        framing.finish()?;
        kept.put(tail(shape.format));
        kept.write().await?;
        self.router.finish_table(self.next);
        self.next += 1;
        Ok(())
    }
}

/// The question whether the entry has most of the customers and the maps would be small; `None` where a key is no whole number.
/// Asked inside the write pause too: the server's estimate of the customers will do, and where it has none they are counted.
fn worthwhile(scope: &Scope, routed: &[Routed], entry: i32) -> Option<String> {
    let root = routed.first()?;
    let root_key = [scope.root_key.clone()];
    let of_root = root.integer_key(&root_key).map(|key| (root, key));
    let of_parents = parent_keys(routed).into_iter().map(|((name, columns), _)| {
        let parent = routed.iter().find(|table| table.name == *name)?;
        parent.integer_key(columns).map(|key| (parent, key))
    });
    let keys: Vec<(&Routed, &str)> = std::iter::once(of_root).chain(of_parents).collect::<Option<_>>()?;
    let slots: Vec<String> = keys
        .iter()
        .map(|(table, key)| {
            let (key, table) = (quote_identifier(key), TableName::from(&table.name).sql());
            format!("select max({key})::numeric - min({key}) + 1 as slots from {table}")
        })
        .collect();
    let root = scope.root.sql();
    Some(format!(
        "select 2 * (select count(*) from godwit.member where entry = {entry}) \
             > case when r.reltuples > 0 then r.reltuples else (select count(*) from {root}) end \
           and (select coalesce(sum(slots), 0) <= {MOST_SLOTS} from ({}) as maps) \
         from pg_catalog.pg_class as r where r.oid = {}::pg_catalog.regclass",
        slots.join(" union all "),
        quote_literal(&root)
    ))
}

async fn customers(
    transaction: &Transaction<'_>,
    (scope, root): (&Scope, &OwnedTable),
    entry: i32,
) -> Result<KeyMap, Error> {
    let select = format!("select customer from godwit.member where entry = {entry}");
    let of_type = KeyType::of(&scope.root_key_type);
    read_keys(transaction, &select, (&[of_type], root.format), "the cohort's customers").await
}

/// What passed, on its way into a file, if there is one.
struct Kept<'w> {
    writer: Option<&'w mut Writer>,
    batch: BytesMut,
}

impl<'w> Kept<'w> {
    fn new(writer: Option<&'w mut Writer>) -> Self {
        Self { writer, batch: BytesMut::new() }
    }

    fn put(&mut self, bytes: &[u8]) {
        if self.writer.is_some() {
            self.batch.put_slice(bytes);
        }
    }

    async fn write_full(&mut self) -> Result<(), Error> {
        if self.batch.len() >= BATCH_BYTES { self.write().await } else { Ok(()) }
    }

    async fn write(&mut self) -> Result<(), Error> {
        if let Some(writer) = self.writer.as_deref_mut() {
            writer.write(&self.batch).await?;
            self.batch.clear();
        }
        Ok(())
    }
}
