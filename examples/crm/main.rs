//! A CRM whose customers move from an old system to a new one: seed, users' traffic, an injected fault, and the proof
//! that nothing was lost. Run by `make demo` and by the pods of `examples/crm/manifests`.
//! No part of Godwit: it uses Godwit only as a user would, through its kinds, its route table and its ledger's tables.

mod break_links;
mod database;
mod history;
mod record;
mod routes;
mod seed;
mod set_aside;
mod traffic;
mod verify;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "crm", about, version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Creates the schema in both databases, the data in the old one, and the application's role.
    Seed(seed::Options),
    /// Reads and writes as the CRM's users do, until it is told to stop.
    Traffic(traffic::Options),
    /// Removes links between deals and contacts of one cohort on the new CRM, as a broken integration would.
    BreakLinks(break_links::Options),
    /// Looks for every confirmed write on the side that owns its customer; prints the result as one line of JSON.
    Verify(verify::Options),
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    // Two crypto providers could be in the dependency graph; the choice must be made before the first TLS connection.
    rustls::crypto::ring::default_provider()
        .install_default()
        .map_err(|_| anyhow::anyhow!("a TLS provider was installed twice"))?;
    match Cli::parse().command {
        Command::Seed(options) => seed::run(&options).await,
        Command::Traffic(options) => traffic::run(options).await,
        Command::BreakLinks(options) => break_links::run(&options).await,
        Command::Verify(options) => verify::run(&options).await,
    }
}
