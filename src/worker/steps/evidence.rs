//! The evidence file: keys of every row that is not as it must be, one JSON object a line.
//! Written by the steps that prove something, when the proof fails.
//! Must be the only place where keys go: reports and logs name tables and constraints.

use tokio_postgres::Transaction;

use crate::contract::Report;
use crate::worker::postgres::closure::Violation;
use crate::worker::postgres::keys::KeyTable;
use crate::worker::postgres::token::Token;
use crate::worker::storage::Writer;
use crate::worker::{Error, Job};

/// A file that begins with its first line.
pub struct Evidence<'j> {
    job: &'j Job,
    path: String,
    writer: Option<Writer>,
}

impl<'j> Evidence<'j> {
    pub fn new(job: &'j Job, token: &Token) -> Self {
        let path = format!("evidence/{}/{}-{}.jsonl", token.subject, job.step(), token.worker());
        Self { job, path, writer: None }
    }

    fn writer(&mut self) -> Result<&mut Writer, Error> {
        if self.writer.is_none() {
            self.writer = Some(self.job.storage()?.writer(&self.path, 0)?);
        }
        self.writer.as_mut().ok_or_else(|| Error::Input { reason: "the evidence file was closed".into() })
    }

    /// Every noted key of a table, with its class.
    pub async fn keys(&mut self, transaction: &Transaction<'_>, keys: &KeyTable) -> Result<(), Error> {
        let writer = self.writer()?;
        keys.write_evidence(transaction, writer).await
    }

    /// The keys of the rows that break a constraint.
    pub async fn violation(&mut self, transaction: &Transaction<'_>, violation: &Violation) -> Result<(), Error> {
        let writer = self.writer()?;
        violation.write_evidence(transaction, writer).await
    }

    /// Completes the file, if there is one, and names it in the report.
    pub async fn finish(self, report: &mut Report) -> Result<(), Error> {
        if let Some(writer) = self.writer {
            let stored = writer.finish().await?;
            report.evidence_uri = Some(stored.path);
            report.digest = Some(stored.digest);
        }
        Ok(())
    }
}
