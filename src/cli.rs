//! Flags and environment: `godwit controller`, `godwit worker <step>`, `godwit crds`.
//! Called by `main`. The only reader of the environment; everything else gets settings.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Parser, Subcommand};

use crate::api;

#[derive(Debug, Parser)]
#[command(
    name = "godwit",
    version,
    about = "Moves customer data from one system to another, cohort by cohort, and can go back."
)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Write the CustomResourceDefinitions to a folder, or to standard output.
    Crds(CrdArgs),
}

#[derive(Debug, clap::Args)]
struct CrdArgs {
    /// Folder to write the files into; standard output when absent.
    #[arg(long)]
    out: Option<PathBuf>,
}

impl Cli {
    /// Carries the command out; the process ends with the returned code.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        match self.command {
            Command::Crds(args) => write_crds(args.out.as_deref()).map(|()| ExitCode::SUCCESS),
        }
    }
}

fn write_crds(folder: Option<&Path>) -> anyhow::Result<()> {
    use std::io::Write as _;
    let files = api::crd::files().context("failed to write the definitions as YAML")?;
    let Some(folder) = folder else {
        let texts: Vec<_> = files.into_iter().map(|(_, text)| text).collect();
        return std::io::stdout()
            .write_all(texts.join("---\n").as_bytes())
            .context("failed to write to standard output");
    };
    std::fs::create_dir_all(folder).with_context(|| format!("failed to create {}", folder.display()))?;
    for (name, text) in files {
        let path = folder.join(name);
        std::fs::write(&path, text).with_context(|| format!("failed to write {}", path.display()))?;
    }
    Ok(())
}
