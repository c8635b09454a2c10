//! What users do with the CRM, as SQL: one transaction each, whose rows are hashed as the database returns them.
//! Called by `worker.rs`. Must write no row of another customer: each customer has one writer, so that the record has one order.

use anyhow::Context;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Error, Row, Transaction};

use crate::history::{Operation, RowKey};
use crate::record::Written;

/// What a user does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    Look,
    LogActivity,
    AddNote,
    MoveDeal,
    EditAccount,
    AddContact,
    AddDeal,
    OpenAccount,
}

impl Act {
    /// Chosen by a number from 0 to 99; how often each is done.
    pub fn drawn(number: u64) -> Self {
        match number {
            0..40 => Self::Look,
            40..62 => Self::LogActivity,
            62..72 => Self::AddNote,
            72..84 => Self::MoveDeal,
            84..90 => Self::EditAccount,
            90..94 => Self::AddContact,
            94..98 => Self::AddDeal,
            _ => Self::OpenAccount,
        }
    }
}

/// A write that is to be done: unchanged however often it is tried.
#[derive(Clone, Debug)]
pub struct Write {
    pub act: Act,
    /// None when the account is only being opened.
    pub account: Option<i32>,
    /// Unique over all runs; part of names and e-mail addresses.
    pub mark: String,
    pub number: i32,
}

/// What became of a write.
pub enum Done {
    Written(Vec<Written>),
    /// The customer is not on this side.
    NotHere,
}

/// Does it in one transaction. The answer comes after COMMIT; an error means what `database::meaning` says.
pub async fn perform(client: &mut Client, write: &Write) -> Result<Done, Error> {
    let transaction = client.transaction().await?;
    let rows = Rows { transaction: &transaction, written: Vec::new() };
    let Some(written) = rows.of(write).await? else {
        return Ok(Done::NotHere);
    };
    transaction.commit().await?;
    Ok(Done::Written(written))
}

/// What a user sees who opens an account: false when there is no such account on this side.
pub async fn look(client: &Client, account: i32) -> Result<bool, Error> {
    let row = client
        .query_opt(
            "select a.name, count(d.id), sum(d.amount) from public.account a \
             left join public.deal d on d.account_id = a.id where a.id = $1 group by a.id",
            &[&account],
        )
        .await?;
    Ok(row.is_some())
}

/// Every account that a database knows.
pub async fn accounts(client: &Client) -> anyhow::Result<Vec<i32>> {
    let rows = client.query("select id from public.account", &[]).await.context("failed to list the accounts")?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

struct Rows<'a> {
    transaction: &'a Transaction<'a>,
    written: Vec<Written>,
}

impl Rows<'_> {
    async fn of(mut self, write: &Write) -> Result<Option<Vec<Written>>, Error> {
        let account = match write.account {
            Some(account) if !self.is_here(account).await? => return Ok(None),
            Some(account) => account,
            None => self.open_account(write).await?,
        };
        match write.act {
            Act::Look => {}
            Act::LogActivity => self.log_activity(account, write).await?,
            Act::AddNote => self.add_note(account, write).await?,
            Act::MoveDeal => self.move_deal(account, write).await?,
            Act::EditAccount => self.edit_account(account, write).await?,
            Act::AddContact => self.add_contact(account, write).await?,
            Act::AddDeal => self.add_deal(account, write).await?,
            Act::OpenAccount => {
                self.add_contact(account, write).await?;
                self.add_deal(account, write).await?;
            }
        }
        Ok(Some(self.written))
    }

    async fn is_here(&self, account: i32) -> Result<bool, Error> {
        let row = self.transaction.query_opt("select 1 from public.account where id = $1", &[&account]).await?;
        Ok(row.is_some())
    }

    async fn open_account(&mut self, write: &Write) -> Result<i32, Error> {
        let row = self
            .transaction
            .query_one(
                "insert into public.account as t (name, segment, country, currency_code, credit_limit, tags) \
                 values ('New account ' || $1::text, 'small', 'PT', 'EUR', $2::integer, array['new']) \
                 returning t.id::text, md5(t::text), t.id",
                &[&write.mark, &write.number],
            )
            .await?;
        let account: i32 = row.get(2);
        self.keep(Operation::Insert, "account", account, &row);
        Ok(account)
    }

    async fn log_activity(&mut self, account: i32, write: &Write) -> Result<(), Error> {
        self.write(
            (Operation::Insert, "activity", account),
            "insert into public.activity as t (account_id, deal_id, contact_id, kind, subject, duration) values ($1, \
             (select max(id) from public.deal where account_id = $1), (select min(id) from public.contact where account_id = $1), \
             'call', 'Called about ' || $2::text, interval '5 minutes') returning t.id::text, md5(t::text)",
            &[&account, &write.mark],
        )
        .await
    }

    async fn add_note(&mut self, account: i32, write: &Write) -> Result<(), Error> {
        self.write(
            (Operation::Insert, "note", account),
            "insert into public.note as t (deal_id, author, body) select max(id), 'seller', 'Noted: ' || $2::text \
             from public.deal where account_id = $1 returning t.id::text, md5(t::text)",
            &[&account, &write.mark],
        )
        .await
    }

    async fn move_deal(&mut self, account: i32, write: &Write) -> Result<(), Error> {
        self.write(
            (Operation::Update, "deal", account),
            "update public.deal as t set stage = (enum_range(null::public.deal_stage))[1 + $2::integer % 6], \
             amount = t.amount + 1, updated_at = clock_timestamp() \
             where id = (select id from public.deal where account_id = $1 order by updated_at, id limit 1) \
             returning t.id::text, md5(t::text)",
            &[&account, &write.number],
        )
        .await
    }

    async fn edit_account(&mut self, account: i32, write: &Write) -> Result<(), Error> {
        self.write(
            (Operation::Update, "account", account),
            "update public.account as t set attributes = t.attributes || jsonb_build_object('visit', $2::text), \
             updated_at = clock_timestamp() where id = $1 returning t.id::text, md5(t::text)",
            &[&account, &write.mark],
        )
        .await
    }

    async fn add_contact(&mut self, account: i32, write: &Write) -> Result<(), Error> {
        self.write(
            (Operation::Insert, "contact", account),
            "insert into public.contact as t (account_id, first_name, last_name, email) \
             values ($1, 'New', 'Contact', $2::text || '@customer.example') returning t.id::text, md5(t::text)",
            &[&account, &write.mark],
        )
        .await
    }

    /// A deal never stands without a contact: the rule that the demo's check watches.
    async fn add_deal(&mut self, account: i32, write: &Write) -> Result<(), Error> {
        let row = self
            .transaction
            .query_one(
                "insert into public.deal as t (account_id, title, amount, currency_code) \
                 select a.id, 'New deal ' || $2::text, $3::integer, a.currency_code from public.account a where a.id = $1 \
                 returning t.id::text, md5(t::text), t.id",
                &[&account, &write.mark, &write.number],
            )
            .await?;
        self.keep(Operation::Insert, "deal", account, &row);
        let deal: i64 = row.get(2);
        self.write(
            (Operation::Insert, "deal_contact", account),
            "insert into public.deal_contact as t (deal_id, contact_id, role) \
             select $2, min(id), 'buyer' from public.contact where account_id = $1 \
             returning t.deal_id || ':' || t.contact_id, md5(t::text)",
            &[&account, &deal],
        )
        .await
    }

    async fn write(
        &mut self,
        (operation, table, account): (Operation, &str, i32),
        statement: &str,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<(), Error> {
        for row in self.transaction.query(statement, parameters).await? {
            self.keep(operation, table, account, &row);
        }
        Ok(())
    }

    fn keep(&mut self, operation: Operation, table: &str, account: i32, row: &Row) {
        self.written.push(Written {
            operation,
            row: RowKey { table: table.to_owned(), key: row.get(0) },
            account,
            hash: Some(row.get(1)),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_do_everything_there_is_to_do() {
        let acts: Vec<Act> = (0..100).map(Act::drawn).collect();
        for act in [
            Act::Look,
            Act::LogActivity,
            Act::AddNote,
            Act::MoveDeal,
            Act::EditAccount,
            Act::AddContact,
            Act::AddDeal,
            Act::OpenAccount,
        ] {
            assert!(acts.contains(&act), "{act:?}");
        }
    }
}
