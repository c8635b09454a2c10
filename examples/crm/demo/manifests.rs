//! The demo's objects: the files in `manifests/`, with images, passwords and a few settings put in.
//! Called by `demo/`. Must hold nothing that a reader could not apply with kubectl.

use std::fmt::Write as _;

use anyhow::Context;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::AsyncReadExt as _;

use super::{Options, Story, UNLUCKY};

/// As the files name them.
pub const POSTGRES_IMAGE: &str = "godwit-base:dev";
pub const CRM_IMAGE: &str = "godwit-crm:dev";

pub const NAMESPACE: &str = "crm";

/// Long enough for the trigger to act before the soak is over.
const UNLUCKY_SOAK: &str = "10m";

pub fn namespace() -> anyhow::Result<Vec<Value>> {
    parse(include_str!("../manifests/00-namespace.yaml"))
}

pub fn databases(options: &Options) -> anyhow::Result<Vec<Value>> {
    with_images(include_str!("../manifests/10-databases.yaml"), options)
}

pub fn seed(options: &Options) -> anyhow::Result<Vec<Value>> {
    let mut objects = with_images(include_str!("../manifests/20-seed.yaml"), options)?;
    add_arguments(&mut objects, &[format!("--accounts={}", options.accounts)])?;
    Ok(objects)
}

pub fn traffic(options: &Options) -> anyhow::Result<Vec<Value>> {
    with_images(include_str!("../manifests/30-traffic.yaml"), options)
}

pub fn migration(story: Story) -> anyhow::Result<Vec<Value>> {
    let mut objects = parse(include_str!("../manifests/40-migration.yaml"))?;
    for object in &mut objects {
        if story == Story::Rollback && object["kind"] == "Cohort" && object["metadata"]["name"] == UNLUCKY {
            object["spec"]["soak"] = json!(UNLUCKY_SOAK);
        }
    }
    Ok(objects)
}

pub fn fault(options: &Options) -> anyhow::Result<Vec<Value>> {
    with_images(include_str!("../manifests/fault.yaml"), options)
}

/// The search for confirmed writes, and for what was set aside according to these manifests in the backup storage.
pub fn verify(options: &Options, set_aside: &[String]) -> anyhow::Result<Vec<Value>> {
    let mut objects = with_images(include_str!("../manifests/verify.yaml"), options)?;
    let arguments: Vec<String> = set_aside.iter().map(|path| format!("--set-aside={path}")).collect();
    add_arguments(&mut objects, &arguments)?;
    Ok(objects)
}

pub fn approval(digest: &str) -> Vec<Value> {
    vec![json!({
        "apiVersion": "godwit.dev/v1alpha1",
        "kind": "Approval",
        "metadata": {"name": "finalize", "namespace": NAMESPACE},
        "spec": {
            "subject": {"kind": "Migration", "name": "crm"},
            "before": "Finalize",
            "digest": digest,
            "decision": "Approve",
            "by": "the person at the terminal",
            "comment": "All cohorts ran on the new CRM without a failed check.",
        },
    })]
}

/// Passwords made here and now, and the URIs that need them.
pub async fn secrets() -> anyhow::Result<Vec<Value>> {
    let (old, new, app) = (password().await?, password().await?, password().await?);
    let uri = |user: &str, password: &str, host: &str, database: &str| {
        format!("postgresql://{user}:{password}@{host}:5432/{database}")
    };
    Ok(vec![
        secret("crm-source", &json!({"password": old, "uri": uri("postgres", &old, "crm-old", "crm")})),
        secret("crm-target", &json!({"password": new, "uri": uri("postgres", &new, "crm-new", "crm")})),
        secret(
            "crm-app",
            &json!({
                "source-uri": uri("crm_app", &app, "crm-old", "crm"),
                "target-uri": uri("crm_app", &app, "crm-new", "crm"),
                // The record lies beside the old CRM, in a database that the migration does not know.
                "record-uri": uri("crm_app", &app, "crm-old", "traffic"),
            }),
        ),
    ])
}

fn secret(name: &str, values: &Value) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "type": "Opaque",
        "stringData": values,
    })
}

async fn password() -> anyhow::Result<String> {
    let mut bytes = [0_u8; 20];
    let mut random = tokio::fs::File::open("/dev/urandom").await.context("failed to open the source of randomness")?;
    random.read_exact(&mut bytes).await.context("failed to read random bytes")?;
    Ok(bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a String cannot fail.
        let _infallible = write!(text, "{byte:02x}");
        text
    }))
}

fn parse(text: &str) -> anyhow::Result<Vec<Value>> {
    serde_yaml::Deserializer::from_str(text)
        .map(|document| Value::deserialize(document).context("failed to read a manifest"))
        .collect()
}

fn with_images(text: &str, options: &Options) -> anyhow::Result<Vec<Value>> {
    let mut objects = parse(text)?;
    for container in objects.iter_mut().filter_map(container) {
        if container["image"] == POSTGRES_IMAGE {
            container["image"] = json!(options.postgres_image);
        } else if container["image"] == CRM_IMAGE {
            container["image"] = json!(options.crm_image);
        }
    }
    Ok(objects)
}

fn add_arguments(objects: &mut [Value], arguments: &[String]) -> anyhow::Result<()> {
    let container = objects.iter_mut().find_map(container);
    let known = container.and_then(|container| container["args"].as_array_mut());
    known
        .context("the manifest has no container with arguments")?
        .extend(arguments.iter().map(|argument| json!(argument)));
    Ok(())
}

fn container(object: &mut Value) -> Option<&mut Value> {
    object.pointer_mut("/spec/template/spec/containers/0")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        options: Options,
    }

    fn options() -> Options {
        let line = ["demo", "--postgres-image=example/postgres:15", "--crm-image=example/crm:1", "--accounts=400"];
        <Line as clap::Parser>::parse_from(line).options
    }

    #[test]
    fn every_pod_runs_an_image_that_the_options_name() {
        let mut objects = databases(&options()).unwrap();
        for more in [seed(&options()), traffic(&options()), fault(&options()), verify(&options(), &[])] {
            objects.extend(more.unwrap());
        }
        let images: Vec<String> = objects
            .iter_mut()
            .filter_map(container)
            .map(|container| container["image"].as_str().unwrap().to_owned())
            .collect();
        assert_eq!(images.len(), 6);
        assert!(images.iter().all(|image| image.starts_with("example/")), "{images:?}");
    }

    #[test]
    fn only_in_the_rollback_story_does_the_unlucky_cohort_soak_long() {
        for (story, expected) in [(Story::Rollback, json!(UNLUCKY_SOAK)), (Story::Forward, Value::Null)] {
            let objects = migration(story).unwrap();
            let cohort = objects.iter().find(|object| object["metadata"]["name"] == UNLUCKY).unwrap();
            assert_eq!(cohort["spec"]["soak"], expected);
        }
    }

    #[tokio::test]
    async fn passwords_are_new_each_time() {
        assert_ne!(password().await.unwrap(), password().await.unwrap());
    }
}
