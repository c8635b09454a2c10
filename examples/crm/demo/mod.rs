//! The demo itself: sets the CRM up on a cluster that has Godwit, lets Godwit move it, and judges what came of it.
//! Run by `make demo`, `make demo-rollback` and the node tests. Must use Godwit as a user would: by its kinds alone.

mod cluster;
mod facts;
mod ground;
mod manifests;
mod promises;
mod screen;
mod summary;
mod view;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Args;
use tokio::time::{MissedTickBehavior, interval};

use cluster::Cluster;
use facts::Facts;
use ground::GroundOptions;
use screen::Screen;
use view::View;

/// How often the objects are looked at and the screen is drawn.
const LOOK_EVERY: Duration = Duration::from_millis(500);

#[derive(Args)]
pub struct Options {
    #[command(flatten)]
    ground: GroundOptions,
    /// Image of the two databases: any with PostgreSQL's programs on its PATH and the user 999.
    #[arg(long, env = "CRM_POSTGRES_IMAGE", default_value = manifests::POSTGRES_IMAGE)]
    postgres_image: String,
    /// Image with this program.
    #[arg(long, env = "CRM_IMAGE", default_value = manifests::CRM_IMAGE)]
    crm_image: String,
    /// Customers in the old CRM, a multiple of 40.
    #[arg(long, default_value_t = 20_000)]
    accounts: u32,
    /// Minutes after which the demo gives up.
    #[arg(long, default_value_t = 30)]
    limit_minutes: u64,
    /// Where the summary is written as JSON, beside being printed.
    #[arg(long)]
    summary_file: Option<PathBuf>,
}

#[derive(Args)]
pub struct DownOptions {
    #[command(flatten)]
    ground: GroundOptions,
}

/// What is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Story {
    /// Three cohorts move, and the migration is finalised.
    Forward,
    /// The second cohort's links break after its cutover, and Godwit takes it back.
    Rollback,
}

/// The cohort that goes back in [`Story::Rollback`].
const UNLUCKY: &str = "early";

pub async fn run(options: &Options, story: Story) -> anyhow::Result<()> {
    let limit = Duration::from_secs(options.limit_minutes * 60);
    tokio::time::timeout(limit, Box::pin(tell(options, story)))
        .await
        .with_context(|| format!("the demo did not end within {} minutes", options.limit_minutes))?
}

pub async fn down(options: &DownOptions) -> anyhow::Result<()> {
    if options.ground.remove().await? {
        return Ok(());
    }
    let mut screen = Screen::new("Removing the demo");
    clear_away(&Cluster::new(options.ground.find().await?), &mut screen).await
}

async fn tell(options: &Options, story: Story) -> anyhow::Result<()> {
    let mut screen = Screen::new(match story {
        Story::Forward => "Godwit moves a CRM to a new system, cohort by cohort",
        Story::Rollback => "Godwit takes a cohort back by itself when its links break",
    });
    let ground = options.ground.prepare(&mut screen).await?;
    let cluster = Cluster::new(ground.client);
    // What the summary tells is the migration, not how long a cluster takes to come up.
    let started = Instant::now();
    clear_away(&cluster, &mut screen).await?;
    set_up(options, story, &cluster, &mut screen).await?;
    let last = follow(options, story, (&cluster, &mut screen)).await?;
    screen.say("The users stop working, and every write that a database confirmed is looked for.");
    cluster.stop_traffic().await?;
    let findings = cluster.verify(&manifests::verify(options, &last.set_aside_manifests())?).await?;
    let facts = Facts::new(&last, findings, started.elapsed());
    let promises = promises::judge(story, &facts);
    screen.leave();
    summary::print(story, &facts, &promises)?;
    if let Some(path) = &options.summary_file {
        summary::store(path, story, &facts, &promises).await?;
    }
    if let Some(kubeconfig) = &ground.kubeconfig {
        screen.say(&format!("To look around: export KUBECONFIG={}; kubectl get godwit -A", kubeconfig.display()));
    }
    let broken = promises.iter().filter(|promise| !promise.kept).count();
    anyhow::ensure!(broken == 0, "{broken} of {} promises were broken", promises.len());
    Ok(())
}

/// The Migration goes first: its deletion takes fences and ledger out of the databases, for which they must be there.
async fn clear_away(cluster: &Cluster, screen: &mut Screen) -> anyhow::Result<()> {
    if cluster.namespace_exists().await? {
        screen.say("Removing what an earlier demo left.");
        cluster.remove_everything().await?;
    }
    Ok(())
}

async fn set_up(options: &Options, story: Story, cluster: &Cluster, screen: &mut Screen) -> anyhow::Result<()> {
    screen.say("Starting the databases of the old and the new CRM.");
    cluster.apply(&manifests::namespace()?).await?;
    cluster.apply(&manifests::secrets().await?).await?;
    cluster.apply(&manifests::databases(options)?).await?;
    cluster.databases_ready().await?;
    screen.say(&format!("Filling the old CRM with {} customers.", options.accounts));
    cluster.apply(&manifests::seed(options)?).await?;
    cluster.job_done("crm-seed").await?;
    screen.say("The users begin to work.");
    cluster.apply(&manifests::traffic(options)?).await?;
    cluster.traffic_available().await?;
    screen.say("The Migration and its three Cohorts are applied.");
    cluster.apply(&manifests::migration(story)?).await
}

/// Watches until the story has come to its end, and does what its people do.
async fn follow(options: &Options, story: Story, (cluster, screen): (&Cluster, &mut Screen)) -> anyhow::Result<View> {
    let mut tick = interval(LOOK_EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut acted = false;
    loop {
        tick.tick().await;
        let view = cluster.look().await?;
        screen.draw(&view);
        if let Some(trouble) = view.trouble(story) {
            anyhow::bail!("the migration needs a person: {trouble}");
        }
        match story {
            Story::Forward if view.succeeded() => return Ok(view),
            Story::Rollback if view.went_back(UNLUCKY) => return Ok(view),
            Story::Forward if !acted => {
                if let Some(digest) = view.digest_to_approve() {
                    screen.say("A person looks at it and approves Finalize.");
                    cluster.apply(&manifests::approval(&digest)).await?;
                    acted = true;
                }
            }
            Story::Rollback if !acted && view.soaks(UNLUCKY) => {
                screen.say("An integration of the new CRM begins to drop links of cohort early.");
                cluster.apply(&manifests::fault(options)?).await?;
                acted = true;
            }
            Story::Forward | Story::Rollback => {}
        }
    }
}
