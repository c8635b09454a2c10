//! Creates the CRM: databases, schema, the application's role, and the old CRM's data.
//! Run once as a Job; a second run changes nothing. Must leave the new CRM without a single row.

use std::time::Duration;

use anyhow::Context;
use clap::Args;
use tokio_postgres::{Client, Config};

use crate::database::{self, Databases};

const SCHEMA: &str = include_str!("sql/schema.sql");
const DATA: &str = include_str!("sql/data.sql");
const CONSTRAINTS: &str = include_str!("sql/constraints.sql");
const RECORD: &str = include_str!("sql/record.sql");

const READY_LIMIT: Duration = Duration::from_secs(300);

#[derive(Args)]
pub struct Options {
    #[command(flatten)]
    databases: Databases,
    /// The old CRM, as the role that owns everything in it.
    #[arg(long, env = "CRM_SOURCE_ADMIN_URI", hide_env_values = true)]
    source_admin_uri: String,
    /// The new CRM, as the role that owns everything in it.
    #[arg(long, env = "CRM_TARGET_ADMIN_URI", hide_env_values = true)]
    target_admin_uri: String,
    /// Customers in the old CRM, a multiple of 40; each has about 34 rows.
    #[arg(long, env = "CRM_ACCOUNTS", default_value_t = 20_000, value_parser = accounts)]
    accounts: i32,
}

fn accounts(text: &str) -> Result<i32, String> {
    let number: i32 = text.parse().map_err(|_| "not a number".to_owned())?;
    if (40..=1_000_000).contains(&number) && number % 40 == 0 {
        Ok(number)
    } else {
        Err("must be a multiple of 40, from 40 to 1000000".to_owned())
    }
}

pub async fn run(options: &Options) -> anyhow::Result<()> {
    let data = DATA.replace("ACCOUNTS", &options.accounts.to_string());
    let app: Config = options.databases.source_uri.parse()?;
    build_crm(&options.source_admin_uri, &app, Some(&data)).await?;
    let app: Config = options.databases.target_uri.parse()?;
    build_crm(&options.target_admin_uri, &app, None).await?;
    build_record(&options.source_admin_uri, &options.databases.record_uri).await
}

/// One CRM: everything in one transaction, so that a run that was interrupted leaves nothing behind.
async fn build_crm(admin_uri: &str, app: &Config, data: Option<&str>) -> anyhow::Result<()> {
    let admin: Config = admin_uri.parse().context("failed to read a database URI")?;
    let server = ensure_database(&admin).await?;
    ensure_role(&server, app).await?;
    let mut client = database::connect_with(&admin).await?;
    let seeded: bool = client.query_one("select to_regclass('public.account') is not null", &[]).await?.get(0);
    if seeded {
        return Ok(());
    }
    let transaction = client.transaction().await?;
    for part in [SCHEMA, data.unwrap_or_default(), CONSTRAINTS] {
        transaction.batch_execute(part).await.context("failed to create the CRM")?;
    }
    transaction.batch_execute(&grants(role_of(app)?)).await?;
    transaction.commit().await?;
    client.batch_execute("vacuum analyze").await?;
    Ok(())
}

/// What the application may do; the defaults let it read which cohort a customer is in from Godwit's ledger.
fn grants(role: &str) -> String {
    format!(
        "grant usage on schema public to {role};
         grant select, insert, update, delete on all tables in schema public to {role};
         grant usage on all sequences in schema public to {role};
         alter default privileges grant usage on schemas to {role};
         alter default privileges grant select on tables to {role};"
    )
}

async fn build_record(admin_uri: &str, record_uri: &str) -> anyhow::Result<()> {
    let record: Config = record_uri.parse().context("failed to read a database URI")?;
    let mut admin: Config = admin_uri.parse().context("failed to read a database URI")?;
    admin.dbname(record.get_dbname().context("the record's URI names no database")?);
    ensure_database(&admin).await?;
    let role = role_of(&record)?;
    let client = database::connect_with(&admin).await?;
    client.batch_execute(RECORD).await?;
    client
        .batch_execute(&format!(
            "grant usage on schema traffic to {role};
             grant select, insert, update on all tables in schema traffic to {role};
             grant usage on all sequences in schema traffic to {role};"
        ))
        .await
        .context("failed to create the record")
}

async fn ensure_database(config: &Config) -> anyhow::Result<Client> {
    let name = config.get_dbname().context("a URI names no database")?.to_owned();
    let mut server = config.clone();
    server.dbname("postgres");
    let client = database::connect_when_ready(&server, READY_LIMIT).await?;
    let there = client.query_opt("select 1 from pg_database where datname = $1", &[&name]).await?.is_some();
    if !there {
        client
            .batch_execute(&format!("create database {}", identifier(&name)?))
            .await
            .context("failed to create a database")?;
    }
    Ok(client)
}

async fn ensure_role(server: &Client, app: &Config) -> anyhow::Result<()> {
    let role = role_of(app)?;
    let there = server.query_opt("select 1 from pg_roles where rolname = $1", &[&role]).await?.is_some();
    let verb = if there { "alter" } else { "create" };
    let password = match app.get_password() {
        Some(password) => format!(
            "password '{}'",
            std::str::from_utf8(password).context("the application's password is no text")?.replace('\'', "''")
        ),
        None => String::new(),
    };
    server
        .batch_execute(&format!("{verb} role {role} login {password}"))
        .await
        .context("failed to create the application's role")
}

fn role_of(config: &Config) -> anyhow::Result<&str> {
    identifier(config.get_user().context("a URI names no user")?)
}

/// Names here are ours and plain; anything else is a mistake in the manifests.
fn identifier(name: &str) -> anyhow::Result<&str> {
    let plain = !name.is_empty() && name.chars().all(|c| c.is_ascii_lowercase() || c == '_');
    anyhow::ensure!(plain, "{name:?} is no plain name of lower-case letters");
    Ok(name)
}
