//! COPY data that is landed in pieces, each a COPY of its own: one read, many transactions.
//! Used by a copy into bare tables. Must not hold more than one batch.

use bytes::Bytes;
use tokio_postgres::CopyInSink;

use super::framing::Framing;
use super::model::Table;
use super::relay::{Batches, Rows, Shape, head, tail};
use super::row::{Sum, row_hash};
use crate::worker::error::Error;

pub struct Pieces {
    rows: Rows,
    shape: Shape,
    framing: Framing,
    ended: bool,
}

impl Pieces {
    pub fn new(rows: Rows, shape: Shape) -> Self {
        Self { rows, shape, framing: Framing::new(shape.format, shape.columns), ended: false }
    }

    /// Whether everything was relayed.
    pub fn ended(&self) -> bool {
        self.ended
    }

    /// Copies rows into `sink` until it has had `bytes` of them or there are no more. Rows that `wanted` declines are passed over.
    pub async fn relay(
        &mut self,
        sink: CopyInSink<Bytes>,
        table: &Table,
        bytes: usize,
        mut wanted: impl FnMut(&[u8]) -> Result<bool, Error>,
    ) -> Result<Sum, Error> {
        let mut into = Batches::new(sink, table);
        let mut sum = Sum::default();
        let mut sent = 0;
        into.push(head(self.shape.format)).await?;
        while sent < bytes {
            let Some(piece) = self.rows.next().await? else {
                // Checked before the sink is finished: half a row must not become a short COPY that the server accepts.
                self.framing.finish()?;
                self.ended = true;
                break;
            };
            let mut full = false;
            self.framing.each_row(piece, |row| {
                if wanted(row)? {
                    sum.add(row_hash(row));
                    sent += row.len();
                    full |= into.put(row);
                }
                Ok::<_, Error>(())
            })?;
            if full {
                into.send().await?;
            }
        }
        into.push(tail(self.shape.format)).await?;
        let landed = into.finish().await?;
        if landed == sum.rows {
            return Ok(sum);
        }
        Err(Error::RowsLost { table: table.name.to_string(), sent: sum.rows, landed })
    }
}
