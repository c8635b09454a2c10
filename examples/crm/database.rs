//! Connections to the databases, and what an error from one means for whoever wrote.
//! Used by every subcommand that speaks SQL. Must not retry writes: only the writer knows what a repetition would do.

use std::time::Duration;

use anyhow::Context;
use clap::Args;
use tokio::time::{Instant, sleep};
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Config, NoTls};

/// A fence's refusal: the customer is switching and can be written nowhere.
const MOVING: &str = "GW001";
/// A fence's refusal: the other side owns the customer.
const ELSEWHERE: &str = "GW004";

/// The CRM's databases as its application reaches them.
#[expect(clippy::struct_field_names, reason = "the fields are the names of the flags")]
#[derive(Args, Clone)]
pub struct Databases {
    /// The old CRM, as the application's role.
    #[arg(long, env = "CRM_SOURCE_URI", hide_env_values = true)]
    pub source_uri: String,
    /// The new CRM, as the application's role.
    #[arg(long, env = "CRM_TARGET_URI", hide_env_values = true)]
    pub target_uri: String,
    /// The record of confirmed writes.
    #[arg(long, env = "CRM_RECORD_URI", hide_env_values = true)]
    pub record_uri: String,
}

/// What an error means for a write that met it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meaning {
    /// The database refused because the customer is switching: wait a moment.
    Moving,
    /// The database refused because the other side owns the customer: the same is accepted there.
    Elsewhere,
    /// Nothing was written and the same may work now: a deadlock, a serialization failure, a cancelled lock wait.
    Again,
    /// The connection broke: the write may or may not have happened.
    Lost,
    /// Something is wrong with the statement.
    Wrong,
}

pub fn meaning(error: &tokio_postgres::Error) -> Meaning {
    let Some(state) = error.code() else {
        return Meaning::Lost;
    };
    match state {
        _ if state.code() == MOVING => Meaning::Moving,
        _ if state.code() == ELSEWHERE => Meaning::Elsewhere,
        &SqlState::T_R_SERIALIZATION_FAILURE
        | &SqlState::T_R_DEADLOCK_DETECTED
        | &SqlState::LOCK_NOT_AVAILABLE
        | &SqlState::QUERY_CANCELED => Meaning::Again,
        _ if state.code().starts_with("08") || state.code().starts_with("57P") => Meaning::Lost,
        _ => Meaning::Wrong,
    }
}

/// True when the error says that the schema or table is not there: before Prepare and after Finalize.
pub fn is_absent(error: &tokio_postgres::Error) -> bool {
    matches!(error.code(), Some(&SqlState::UNDEFINED_TABLE | &SqlState::INVALID_SCHEMA_NAME))
}

/// A session in which a row has one text form, whatever the server's settings are: row hashes are taken of it.
pub async fn connect(uri: &str) -> anyhow::Result<Client> {
    let config: Config = uri.parse().context("failed to read a database URI")?;
    connect_with(&config).await
}

pub async fn connect_with(config: &Config) -> anyhow::Result<Client> {
    let (client, connection) = config
        .connect(NoTls)
        .await
        .with_context(|| format!("failed to connect to database {:?}", config.get_dbname()))?;
    tokio::spawn(connection);
    client
        .batch_execute(
            "set timezone = 'UTC'; set datestyle = 'ISO'; set intervalstyle = 'postgres'; set extra_float_digits = 1; \
             set bytea_output = 'hex'; set lock_timeout = '30s'",
        )
        .await
        .context("failed to set up a session")?;
    Ok(client)
}

/// As `connect_with`, for a server that may still be starting.
pub async fn connect_when_ready(config: &Config, limit: Duration) -> anyhow::Result<Client> {
    let deadline = Instant::now() + limit;
    loop {
        match connect_with(config).await {
            Ok(client) => return Ok(client),
            Err(error) if Instant::now() >= deadline => return Err(error),
            // There is no event to wait for while a server does not accept connections.
            Err(_) => sleep(Duration::from_millis(500)).await,
        }
    }
}
