//! The program: one binary for the operator and for what runs inside its Jobs.
//! Parses the command line and dispatches. Must hold no logic of its own.

use std::process::ExitCode;

use clap::Parser;
use godwit::cli::Cli;

fn main() -> ExitCode {
    // Two TLS providers in one process panic at the first handshake: ours is chosen before anything can choose another.
    if rustls::crypto::ring::default_provider().install_default().is_err() {
        eprintln!("another TLS provider is installed already");
        return ExitCode::FAILURE;
    }
    Cli::parse().run().unwrap_or_else(|error| {
        eprintln!("godwit: {error:#}");
        ExitCode::FAILURE
    })
}
