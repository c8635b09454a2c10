//! Database sessions with everything pinned that changes what rows look like or how long statements may take.
//! Opened through `Job::source` and `Job::target`; tests open them directly.
//! Must not hand out a connection through a transaction-pooling proxy: locks and settings would be someone else's.

use std::fmt::Write;
use std::ops::{Deref, DerefMut};
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_postgres::config::SslMode;
use tokio_postgres::{Client, Config};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::tls;
use crate::contract::Side;
use crate::worker::error::{Error, Fault};

/// The oldest server that Godwit works with.
const MIN_SERVER_VERSION: i32 = 130_000;
/// How long a statement of ours waits for a lock unless it says otherwise: a queued lock of ours stops the application behind it.
const LOCK_TIMEOUT: &str = "5s";

/// How long a server may take to let us in, unless the URI has a `connect_timeout`.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// A quiet connection is asked for a sign of life after this: a server that vanished is noticed in minutes, not in two hours.
const KEEPALIVE: Duration = Duration::from_secs(30);

/// How a server asks in turn, in seconds: the locks of a worker whose node is gone are not held for two hours either.
const SERVER_KEEPALIVE: [(&str, &str); 3] =
    [("tcp_keepalives_idle", "30"), ("tcp_keepalives_interval", "10"), ("tcp_keepalives_count", "3")];
/// How long what was sent may wait to be taken; without a bound it is sent again for a quarter of an hour. Linux lets this overrule
/// how often a quiet connection is asked. Two minutes: it also ends a connection whose other end lives but takes nothing, and whoever
/// reads a stream takes nothing while the stream's writer is held up, by a busy disk for example.
const UNTAKEN: Duration = Duration::from_secs(120);

/// What a session is for: whose database, what the database's own views show, and whether it may write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Purpose {
    pub side: &'static str,
    /// Shown as `application_name`.
    pub name: String,
    pub read_only: bool,
}

impl Purpose {
    pub fn new(side: Side, step: &str) -> Self {
        Self { side: side_name(side), name: format!("godwit {step}"), read_only: false }
    }

    /// Every transaction of the session is read-only: the server refuses writes.
    #[must_use]
    pub fn read_only(mut self) -> Self {
        self.read_only = true;
        self
    }
}

pub fn side_name(side: Side) -> &'static str {
    match side {
        Side::Source => "source",
        Side::Target => "target",
    }
}

/// A connection of our own; it ends when dropped.
#[derive(Debug)]
pub struct Session {
    client: Client,
    connection: JoinHandle<()>,
    side: &'static str,
    server_version: i32,
    backend: i32,
}

impl Deref for Session {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

impl DerefMut for Session {
    fn deref_mut(&mut self) -> &mut Client {
        &mut self.client
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // A running statement of a dropped session ends with its socket instead of going on unseen.
        self.connection.abort();
    }
}

impl Session {
    /// `server_version_num`, such as `150020`.
    pub fn server_version(&self) -> i32 {
        self.server_version
    }

    pub fn side(&self) -> &'static str {
        self.side
    }

    /// The server process that serves this session.
    pub fn backend(&self) -> i32 {
        self.backend
    }

    /// Runs statements without parameters; `attempted` completes "failed to …".
    pub async fn run(&self, attempted: &str, sql: &str) -> Result<(), Error> {
        self.client.batch_execute(sql).await.map_err(Error::database(format!("{attempted} on the {}", self.side)))
    }

    /// The first column of the only row of a query without parameters.
    pub async fn number(&self, attempted: &str, sql: &str) -> Result<i64, Error> {
        self.client
            .query_one(sql, &[])
            .await
            .and_then(|row| row.try_get(0))
            .map_err(Error::database(format!("{attempted} on the {}", self.side)))
    }
}

/// Opens a session, pins its settings and makes sure that it is really ours.
pub async fn connect(uri: &str, purpose: Purpose) -> Result<Session, Error> {
    let side = purpose.side;
    let session = open(uri, purpose).await?;
    if session.server_version < MIN_SERVER_VERSION {
        return Err(Error::ServerTooOld { side, version: session.server_version });
    }
    refuse_pooling(uri, &session).await?;
    Ok(session)
}

async fn open(uri: &str, purpose: Purpose) -> Result<Session, Error> {
    let side = purpose.side;
    let unusable = |reason: String| Error::Uri { side, reason };
    let request = tls::split_uri(uri);
    // The library's message may quote the URI's parts, and with them the password.
    let mut config: Config =
        request.uri.parse().map_err(|_| unusable("it is not a connection URI of PostgreSQL".into()))?;
    config.application_name(&purpose.name);
    if config.get_keepalives_idle() > KEEPALIVE {
        config.keepalives_idle(KEEPALIVE).keepalives_interval(KEEPALIVE / 3).keepalives_retries(3);
    }
    if config.get_tcp_user_timeout().is_none() {
        config.tcp_user_timeout(UNTAKEN);
    }
    let limit = config.get_connect_timeout().copied().unwrap_or(ANSWER_TIMEOUT);
    let failed = |error: tokio_postgres::Error| match tls::failure(&error) {
        Some(reason) => Error::Tls { side, reason },
        // Found by the library, such as a password that the server asks for and the URI does not have.
        None if error.to_string().starts_with("invalid configuration") => unusable(Fault::from(error).to_string()),
        None => Error::Connect { side, source: Fault::from(error) },
    };
    // Over the whole conversation: a server, or what stands in its place, may take a connection and never say a word.
    let silent = |_| {
        let text = format!("the server did not answer within {} s", limit.as_secs());
        Error::Connect { side, source: Fault::new(text) }
    };
    let (client, connection) = if config.get_ssl_mode() == SslMode::Disable {
        let connecting = timeout(limit, config.connect(tokio_postgres::NoTls));
        let (client, connection) = connecting.await.map_err(silent)?.map_err(failed)?;
        (client, tokio::spawn(drive(connection)))
    } else {
        let tls = MakeRustlsConnect::new(tls::client_config(&request).map_err(unusable)?);
        let connecting = timeout(limit, config.connect(tls));
        let (client, connection) = connecting.await.map_err(silent)?.map_err(failed)?;
        (client, tokio::spawn(drive(connection)))
    };
    client.batch_execute(&format!("{}; {}", settings(&purpose), keepalive())).await.map_err(failed)?;
    let row = client
        .query_one(
            "select pg_catalog.current_setting('server_version_num')::pg_catalog.int4, pg_catalog.pg_backend_pid()",
            &[],
        )
        .await
        .map_err(failed)?;
    Ok(Session { server_version: row.get(0), backend: row.get(1), client, connection, side })
}

async fn drive<C>(connection: C)
where
    C: Future<Output = Result<(), tokio_postgres::Error>>,
{
    if let Err(error) = connection.await {
        // The statement in flight reports the failure to its step; this line is for the log's reader.
        tracing::debug!(fault = %Fault::from(error), "a database connection ended");
    }
}

/// Scans begin at the beginning, wherever another one is: keys that come in order take two bytes each in a map, others many more.
/// A cohort's rows are found by hash joins, which spill to disk at the four megabytes that a server grants unless told otherwise.
/// Notices are text by users' functions, which may quote rows.
fn settings(purpose: &Purpose) -> String {
    let read_only = if purpose.read_only { "on" } else { "off" };
    format!(
        "set search_path = ''; set row_security = off; set client_encoding = 'UTF8'; set timezone = 'UTC'; \
         set datestyle = 'ISO, YMD'; set intervalstyle = 'postgres'; set extra_float_digits = 1; set bytea_output = 'hex'; \
         set lc_monetary = 'C'; set xmloption = 'content'; set standard_conforming_strings = on; set synchronous_commit = on; set quote_all_identifiers = off; \
         set client_min_messages = error; \
         set statement_timeout = 0; set idle_in_transaction_session_timeout = 0; set lock_timeout = '{LOCK_TIMEOUT}'; \
         set default_transaction_isolation = 'read committed'; set default_transaction_deferrable = off; \
         set default_transaction_read_only = {read_only}; set synchronize_seqscans = off; \
         select pg_catalog.set_config(name, '64MB', false) from pg_catalog.pg_settings where name = 'work_mem' and setting::int8 < 65536; \
         select pg_catalog.set_config(name, '0', false) from pg_catalog.pg_settings where name in ('idle_session_timeout', 'transaction_timeout')"
    )
}

/// So that the server notices a client that vanished, while it waits for it and (from 14 on) while it works for it. Over a unix
/// socket these stay 0; a server on a system that cannot look after its client refuses the last of them.
fn keepalive() -> String {
    let mut sql: String = SERVER_KEEPALIVE.iter().map(|(name, value)| format!("set {name} = {value}; ")).collect();
    let untaken = UNTAKEN.as_millis();
    let _ = write!(
        sql,
        "set tcp_user_timeout = {untaken}; \
         do $$ begin perform pg_catalog.set_config(name, '10s', false) from pg_catalog.pg_settings where name = 'client_connection_check_interval'; \
         exception when invalid_parameter_value then null; end $$"
    );
    sql
}

/// Behind a transaction-pooling proxy a second connection meets the first one's server process, or its settings.
async fn refuse_pooling(uri: &str, session: &Session) -> Result<(), Error> {
    let side = session.side;
    let failed = || Error::database(format!("probe the {side} connection for a pooling proxy"));
    session.client.batch_execute("set godwit.probe = 'set'").await.map_err(failed())?;
    let purpose = Purpose { side, name: "godwit probe".into(), read_only: true };
    let state = "select pg_catalog.pg_backend_pid(), coalesce(pg_catalog.current_setting('godwit.probe', true), '')";
    let probe = open(uri, purpose).await?;
    probe.batch_execute("begin").await.map_err(failed())?;
    let seen = probe.query_one(state, &[]).await.map_err(failed())?;
    if seen.get::<_, i32>(0) == session.backend || seen.get::<_, &str>(1) == "set" {
        return Err(Error::Pooled { side });
    }
    // The probe's transaction holds its server process, so a pool has to give the first connection another one.
    let own = session.query_one(state, &[]).await.map_err(failed())?;
    if own.get::<_, i32>(0) != session.backend || own.get::<_, &str>(1) != "set" {
        return Err(Error::Pooled { side });
    }
    session.client.batch_execute("reset godwit.probe").await.map_err(failed())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_unusable_uri_is_refused_without_repeating_it() {
        let purpose = Purpose::new(Side::Source, "test");
        let error = connect("postgresql://user:hunter2@host/db?bogus=1", purpose).await.unwrap_err();
        let text = crate::worker::error::spoken_chain_unbounded(&error);
        assert!(!text.contains("hunter2") && !text.contains("bogus"), "{text}");
        assert_eq!(error.exit_code(), crate::contract::exit::MISCONFIGURED);
    }
}
