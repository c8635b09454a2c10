//! The pod of a Job: what it runs, which secrets and volumes it gets, and how little it may do.
//! Used by `job.rs`. A pod gets only what its task needs; it never gets a service-account token or a writable root.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Capabilities, ConfigMapVolumeSource, Container, EmptyDirVolumeSource, EnvVar, EnvVarSource, LocalObjectReference,
    PersistentVolumeClaimVolumeSource, PodSecurityContext, PodSpec, PodTemplateSpec, SeccompProfile, SecretKeySelector,
    SecurityContext, Volume, VolumeMount,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::job::JobOrder;
use super::step_input::step_input_json;
use super::{Error, PodSettings, labels};
use crate::api::MigrationSpec;
use crate::api::check::{JobSource, SecretKeyRef};
use crate::contract::{
    INCLUDE_MOUNT, SCRATCH_MOUNT, SOURCE_URI_ENV, STEP_ENV, STORAGE_MOUNT, Side, TARGET_URI_ENV, TERMINATION_PATH, Task,
};
use crate::plan::decision::Work;

/// Name of the one container; `kubectl logs` shows it.
pub const CONTAINER: &str = "step";

const STORAGE: &str = "storage";
const SCRATCH: &str = "scratch";
const TMP: &str = "tmp";

/// What a task gets beside its input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "four independent questions about one task")]
struct Needs {
    source: bool,
    target: bool,
    storage: bool,
    includes: bool,
}

/// A measurement runs beside a step, perhaps on another node: it gets no volume, which might be writable by one node only.
fn needs_of(task: &Task) -> Needs {
    let (source, target, storage, includes) = match task {
        Task::Backup { .. } => (true, false, true, true),
        Task::VerifyBackup { .. } => (false, false, true, false),
        Task::SqlCheck { side, .. } => (*side == Side::Source, *side == Side::Target, false, false),
        Task::IntegrityCheck {} => (true, true, false, false),
        Task::Assess {}
        | Task::Prepare {}
        | Task::Finalize {}
        | Task::Reset {}
        | Task::Cleanup {}
        | Task::Select { .. }
        | Task::Copy {}
        | Task::Validate { .. }
        | Task::Cutover { .. }
        | Task::Discard {}
        | Task::Freeze {}
        | Task::Return {}
        | Task::Verify {}
        | Task::Reopen {} => (true, true, true, false),
    };
    Needs { source, target, storage, includes }
}

/// The pod of an attempt.
pub fn build_pod(order: &JobOrder) -> Result<PodTemplateSpec, Error> {
    let input = EnvVar {
        name: STEP_ENV.to_owned(),
        value: Some(step_input_json(order.request, order.spec)?),
        value_from: None,
    };
    let (container, volumes) = match &order.request.work {
        Work::Worker(task) => worker(order, task, input)?,
        Work::Container { check } => {
            (own_container(order.settings, job_source(order, check)?, input), vec![empty_dir(TMP)])
        }
    };
    let worker_user = matches!(order.request.work, Work::Worker(_)).then_some(order.settings.user_id).flatten();
    Ok(template(order, container, volumes, worker_user))
}

fn template(order: &JobOrder, container: Container, volumes: Vec<Volume>, user: Option<i64>) -> PodTemplateSpec {
    let settings = order.settings;
    let secrets = settings.pull_secrets.iter();
    let pull_secrets: Vec<_> = secrets.map(|name| LocalObjectReference { name: name.clone() }).collect();
    PodTemplateSpec {
        metadata: Some(ObjectMeta {
            labels: Some(labels::of_job(order.request)),
            annotations: labels::plan_annotation(order.plan_digest),
            ..ObjectMeta::default()
        }),
        spec: Some(PodSpec {
            containers: vec![container],
            volumes: Some(volumes),
            restart_policy: Some("Never".into()),
            automount_service_account_token: Some(false),
            enable_service_links: Some(false),
            security_context: Some(restricted_pod(user)),
            image_pull_secrets: (!pull_secrets.is_empty()).then_some(pull_secrets),
            priority_class_name: settings.priority_class.clone(),
            ..PodSpec::default()
        }),
    }
}

fn worker(order: &JobOrder, task: &Task, input: EnvVar) -> Result<(Container, Vec<Volume>), Error> {
    let needs = needs_of(task);
    let mut env = vec![input];
    env.extend(database_env(order, needs)?);
    let mut volumes = vec![empty_dir(SCRATCH), empty_dir(TMP)];
    let mut mounts = vec![mount(SCRATCH, SCRATCH_MOUNT), mount(TMP, "/tmp")];
    if needs.storage {
        let (storage_env, storage_volume) = storage(order.spec);
        env.extend(storage_env);
        mounts.extend(storage_volume.iter().map(|_| mount(STORAGE, STORAGE_MOUNT)));
        volumes.extend(storage_volume);
    }
    if needs.includes {
        for include in &order.spec.backup.include {
            let volume = format!("include-{}", include.name);
            mounts.push(VolumeMount {
                read_only: Some(true),
                ..mount(&volume, &format!("{INCLUDE_MOUNT}/{}", include.name))
            });
            volumes.push(config_map(&volume, &include.config_map_ref.name));
        }
    }
    let container = Container {
        image: Some(order.settings.image.clone()),
        image_pull_policy: order.settings.pull_policy.clone(),
        args: Some(vec!["worker".into(), task.name().into()]),
        resources: Some(order.settings.resources.clone()),
        volume_mounts: Some(mounts),
        ..restricted_container(env)
    };
    Ok((container, volumes))
}

/// A user's own measurement: their image, their variables, nothing of ours but the input.
fn own_container(settings: &PodSettings, source: &JobSource, input: EnvVar) -> Container {
    let mut env = vec![input];
    env.extend(source.env.iter().map(|variable| EnvVar {
        name: variable.name.clone(),
        value: variable.value.clone(),
        value_from: variable.secret_key_ref.as_ref().map(from_secret),
    }));
    let filled = |list: &Vec<String>| (!list.is_empty()).then(|| list.clone());
    Container {
        image: Some(source.image.clone()),
        command: filled(&source.command),
        args: filled(&source.args),
        resources: Some(settings.resources.clone()),
        volume_mounts: Some(vec![mount(TMP, "/tmp")]),
        ..restricted_container(env)
    }
}

fn job_source<'a>(order: &'a JobOrder, check: &str) -> Result<&'a JobSource, Error> {
    let mut checks = order.spec.checks.iter();
    checks
        .find(|candidate| candidate.name == check)
        .and_then(|found| found.job.as_ref())
        .ok_or_else(|| Error::NoCheck { job: order.request.name.clone(), check: check.to_owned() })
}

fn database_env(order: &JobOrder, needs: Needs) -> Result<Vec<EnvVar>, Error> {
    let engine = order.spec.engine.postgres.as_ref();
    let engine = engine.ok_or_else(|| Error::NoEngine { job: order.request.name.clone() })?;
    let sides = [(needs.source, SOURCE_URI_ENV, &engine.source), (needs.target, TARGET_URI_ENV, &engine.target)];
    Ok(sides
        .into_iter()
        .filter(|(needed, _, _)| *needed)
        .map(|(_, name, database)| EnvVar {
            name: name.to_owned(),
            value: None,
            value_from: Some(from_secret(&database.uri_from.secret_key_ref)),
        })
        .collect())
}

fn storage(spec: &MigrationSpec) -> (Vec<EnvVar>, Option<Volume>) {
    let storage = &spec.backup.storage;
    if let Some(claim) = &storage.persistent_volume_claim {
        let volume = Volume {
            name: STORAGE.to_owned(),
            persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
                claim_name: claim.claim_name.clone(),
                read_only: None,
            }),
            ..Volume::default()
        };
        return (Vec::new(), Some(volume));
    }
    let credentials = storage.s3.as_ref().map(|s3| &s3.credentials_secret_name);
    let env = credentials.into_iter().flat_map(|secret| {
        ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"].map(|key| EnvVar {
            name: key.to_owned(),
            value: None,
            value_from: Some(from_secret(&SecretKeyRef { name: secret.clone(), key: key.to_owned() })),
        })
    });
    (env.collect(), None)
}

fn from_secret(key: &SecretKeyRef) -> EnvVarSource {
    EnvVarSource { secret_key_ref: Some(SecretKeySelector::from(key)), ..EnvVarSource::default() }
}

fn empty_dir(name: &str) -> Volume {
    Volume { name: name.to_owned(), empty_dir: Some(EmptyDirVolumeSource::default()), ..Volume::default() }
}

fn config_map(volume: &str, name: &str) -> Volume {
    Volume {
        name: volume.to_owned(),
        config_map: Some(ConfigMapVolumeSource {
            name: name.to_owned(),
            // A missing include must show as a pod that cannot start, never as an empty backup.
            optional: Some(false),
            ..ConfigMapVolumeSource::default()
        }),
        ..Volume::default()
    }
}

fn mount(name: &str, path: &str) -> VolumeMount {
    VolumeMount { name: name.to_owned(), mount_path: path.to_owned(), ..VolumeMount::default() }
}

/// The restricted Pod Security Standard.
fn restricted_pod(user: Option<i64>) -> PodSecurityContext {
    PodSecurityContext {
        run_as_non_root: Some(true),
        run_as_user: user,
        run_as_group: user,
        fs_group: user,
        // A backup volume may hold millions of files: their group is changed once, not at every mount.
        fs_group_change_policy: user.map(|_| "OnRootMismatch".to_owned()),
        seccomp_profile: Some(SeccompProfile { type_: "RuntimeDefault".into(), localhost_profile: None }),
        ..PodSecurityContext::default()
    }
}

fn restricted_container(env: Vec<EnvVar>) -> Container {
    Container {
        name: CONTAINER.to_owned(),
        env: Some(env),
        termination_message_path: Some(TERMINATION_PATH.to_owned()),
        // FallbackToLogsOnError would copy log lines, and with them perhaps customer data, into pod status.
        termination_message_policy: Some("File".into()),
        security_context: Some(SecurityContext {
            allow_privilege_escalation: Some(false),
            read_only_root_filesystem: Some(true),
            run_as_non_root: Some(true),
            capabilities: Some(Capabilities { drop: Some(vec!["ALL".into()]), add: None }),
            ..SecurityContext::default()
        }),
        ..Container::default()
    }
}

/// A pod that never runs: for the Job that occupies a name.
pub fn build_idle_pod(settings: &PodSettings, labels: BTreeMap<String, String>) -> PodTemplateSpec {
    PodTemplateSpec {
        metadata: Some(ObjectMeta { labels: Some(labels), ..ObjectMeta::default() }),
        spec: Some(PodSpec {
            containers: vec![Container {
                image: Some(settings.image.clone()),
                args: Some(vec!["--version".into()]),
                ..restricted_container(Vec::new())
            }],
            restart_policy: Some("Never".into()),
            automount_service_account_token: Some(false),
            security_context: Some(restricted_pod(None)),
            ..PodSpec::default()
        }),
    }
}
