//! A CRM whose customers move from an old system to a new one: seed, users' traffic, an injected fault, and the proof
//! that nothing was lost. Run by `make demo` and by the pods of `examples/crm/manifests`.
//! No part of Godwit: it uses Godwit only as a user would, through its kinds, its route table and its ledger's tables.

mod break_links;
mod database;
mod demo;
mod history;
mod record;
mod routes;
mod seed;
mod set_aside;
mod traffic;
mod verify;

use std::process::ExitCode;

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
    /// Moves the whole CRM on a cluster that has Godwit installed, and prints a summary.
    Demo(demo::Options),
    /// As `demo`, until the second cohort is on the new CRM: then its links break, and Godwit takes it back.
    DemoRollback(demo::Options),
    /// Removes the cluster that the demo made, or its namespace from a cluster of yours.
    DemoDown(demo::DownOptions),
}

#[tokio::main]
async fn main() -> ExitCode {
    // Boxed: the demo's future is a large one.
    match Box::pin(run(Cli::parse().command)).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(command: Command) -> anyhow::Result<()> {
    // Two crypto providers could be in the dependency graph; the choice must be made before the first TLS connection.
    rustls::crypto::ring::default_provider()
        .install_default()
        .map_err(|_| anyhow::anyhow!("a TLS provider was installed twice"))?;
    match command {
        Command::Seed(options) => seed::run(&options).await,
        Command::Traffic(options) => traffic::run(options).await,
        Command::BreakLinks(options) => break_links::run(&options).await,
        Command::Verify(options) => verify::run(&options).await,
        Command::Demo(options) => demo::run(&options, demo::Story::Forward).await,
        Command::DemoRollback(options) => demo::run(&options, demo::Story::Rollback).await,
        Command::DemoDown(options) => demo::down(&options).await,
    }
}
