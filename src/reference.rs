//! The reference pages of `docs/reference/`, made from the constants and functions that the operator itself uses.
//! Called by a test that writes them or compares them byte for byte. Must not repeat what a constant already says.
//!
//! Beside the rooms and not in `api/`: the pages tell what `plan` decides and what `contract` asks, which `api` may not know.

use std::fmt::Write as _;

use crate::api::condition::{kind, reason};
use crate::api::names::{self, Verb};
use crate::api::status::{MAX_FINDINGS, MAX_HISTORY, MAX_MEASUREMENTS, MAX_MESSAGE};
use crate::contract::{self, Finding, Identity, Owner, Progress, ProgressLine, Report, ReportResult, Severity, exit};
use crate::plan::conditions::{Situation, Why, standard};

const HEADER: &str =
    "<!-- Generated from the sources. Do not edit: GODWIT_BLESS=1 cargo test --test generated_files -->\n";

/// File name and content of every page.
pub fn pages() -> Vec<(&'static str, String)> {
    vec![("conditions.md", conditions()), ("exit-codes.md", exit_codes()), ("labels.md", labels())]
}

/// A table of names and meanings.
fn table(head: [&str; 2], rows: &[(&str, &str)]) -> String {
    let mut text = format!("| {} | {} |\n| --- | --- |\n", head[0], head[1]);
    for (name, meaning) in rows {
        let _ = writeln!(text, "| `{name}` | {meaning} |");
    }
    text
}

/// A table of reasons with what to do about each.
fn answers(rows: &[(&str, &str, &str)]) -> String {
    let mut text = "| reason | meaning | what to do |\n| --- | --- | --- |\n".to_owned();
    for (name, meaning, remedy) in rows {
        let _ = writeln!(text, "| `{name}` | {meaning} | {remedy} |");
    }
    text
}

fn conditions() -> String {
    let mut page = format!(
        "{HEADER}\
# Conditions and reasons

`status.conditions` of a Migration and of a Cohort. Types, statuses and reasons are stable: wait for them, alert on them.
A reason may be added, none is renamed. `status.phase` is for people only and may gain values.

## Types

{}
## Situations

The same for both kinds. The reason that tells the situation stands on `Progressing`, and on `Stalled`, `Ready`, `Succeeded` and
`Paused` where it decides them.

",
        table(["type", "meaning"], kind::ALL)
    );
    page += &situations();
    page += "
Before the operator has seen an object there is no condition, and `status.observedGeneration` is -1: tools that follow the
kstatus convention (Flux, Helm `--wait`, cli-utils) show it as in progress, as they do while the spec is being looked at. With
`Stalled` True they show it as failed, else as current, so that no GitOps sync hangs for weeks. Who wants the outcome waits for it:

```sh
kubectl wait migrations.godwit.dev/crm --for=condition=Ready
kubectl wait migrations.godwit.dev/crm --for=condition=Succeeded --timeout=72h
kubectl wait migrations.godwit.dev/crm --for=condition=Stalled
kubectl wait cohorts.godwit.dev/canary --for=jsonpath='{.status.phase}'=Soaking
```
";
    let _ = write!(
        page,
        "\n## Reasons: A step is under way\n\n{}
## Reasons: Something is waited for\n\n{}
## Reasons: A person is needed\n
What you see, what it means, what to do. The condition's message names the object, the field or the database concerned. `retry` is the
command of that name, see [labels.md](labels.md#commands).\n\n{}
## Reasons: Ends, and nothing to tell\n\n{}",
        table(["reason", "meaning"], reason::RUNNING_STEPS),
        answers(reason::HOLDS),
        answers(reason::PROBLEMS),
        table(["reason", "meaning"], reason::OUTCOMES),
    );
    let _ = write!(
        page,
        "\nStatus is bounded: {MAX_HISTORY} entries of history, {MAX_MEASUREMENTS} measurements a check, {MAX_FINDINGS} findings, \
         {MAX_MESSAGE} characters a message.\nThe rest is in the evidence files. No customer data ever stands in it.\n"
    );
    page
}

/// The published truth table, as the code has it.
fn situations() -> String {
    let why = || Why::new("", "");
    let rows = [
        ("the spec is being looked at", Situation::Digesting(why())),
        ("a step runs", Situation::Running(why())),
        ("holding: a turn, a gate, a person or time is waited for", Situation::Holding(why())),
        ("paused", Situation::Paused(why())),
        ("needs a person", Situation::NeedsHuman(why())),
        ("rolled back or aborted", Situation::RolledBack(why())),
        ("complete", Situation::Complete(why())),
    ];
    let types: Vec<&str> = standard(&rows[0].1).iter().map(|fact| fact.kind).collect();
    let mut text = format!("| situation | {} |\n|{}\n", types.join(" | "), " --- |".repeat(types.len() + 1));
    for (name, situation) in &rows {
        let statuses: Vec<&str> = standard(situation).iter().map(|fact| fact.status).collect();
        let _ = writeln!(text, "| {name} | {} |", statuses.join(" | "));
    }
    text
}

fn exit_codes() -> String {
    let codes = [
        (exit::DONE, "done; the report is durable", "goes on"),
        (exit::DATA_DIFFERS, "the data differs from what it must be", ""),
        (exit::INPUT_MISSING, "an input is missing: a table, a file, evidence", ""),
        (exit::TRY_AGAIN, "try again: a connection broke, a lock was not granted, a newer attempt took over", ""),
        (exit::NOT_PERMITTED, "the database or the storage refused permission", ""),
        (exit::MISCONFIGURED, "the input is unusable: a bad URI, bad SQL, bad configuration", ""),
    ];
    let mut page = format!(
        "{HEADER}\
# The contract with Jobs

What passes between the operator and the pods of its Jobs, which run `godwit worker`; what holds for a check's own container instead has a
section of its own below. Pods run restricted and without a service-account token. The same program may be started twice: Kubernetes
promises no less.

## Exit codes

| code | meaning | the operator |
| --- | --- | --- |
"
    );
    for (code, meaning, answer) in codes {
        let answer = match code {
            _ if exit::PERMANENT.contains(&code) => "stops: the same input would fail again",
            _ if answer.is_empty() => "tries again, until the step's attempts are used up",
            _ => answer,
        };
        let _ = writeln!(page, "| {code} | {meaning} | {answer} |");
    }
    page += "| any other, or killed | not known | tries again, until the step's attempts are used up |\n";
    page += &environment();
    page += &messages();
    page += &own_container();
    page
}

fn environment() -> String {
    let step = contract::STEP_ENV;
    let variables = [
        (step, "JSON: what to do."),
        (
            contract::SOURCE_URI_ENV,
            "Connection URI of the source, from its Secret; only in the operator's own Jobs that need it.",
        ),
        (contract::TARGET_URI_ENV, "Connection URI of the target, likewise."),
        (contract::TERMINATION_PATH_ENV, "Where the report is written, if elsewhere; Godwit's own Jobs do not set it."),
    ];
    let mounts = [
        (contract::TERMINATION_PATH, "The report, unless the variable names another path."),
        (
            contract::STORAGE_MOUNT,
            "The backup storage, when it is a volume; in the Jobs of steps, not in those of checks.",
        ),
        (contract::INCLUDE_MOUNT, "One folder per entry of `backup.include`; in the Job of Backup."),
        (contract::SCRATCH_MOUNT, "Scratch space, gone with the pod."),
        ("/tmp", "The same, for programs that expect it. Everything else is read-only."),
    ];
    format!("\n## Input\n\n{}\n{}", table(["variable", "meaning"], &variables), table(["path", "meaning"], &mounts))
}

fn own_container() -> String {
    let input = contract::CheckInput {
        v: contract::VERSION,
        migration: sample("crm", "9f1c…"),
        cohort: Some(sample("canary", "41d7…")),
        attempt: 12,
        epoch: 2,
        check: "orders".to_owned(),
    };
    let measured = Report { values: vec![0.25], ..Report::new(ReportResult::Pass) };
    format!(
        "
## A check's own container

For checks of source `job`. It is your image, with `command`, `args` and `env` of the check, in a pod that is restricted as all are:

- not as root: the image must name a user other than 0, by number, since `worker.user` of the chart concerns Godwit's own pods only;
- the root file system is read-only; `/tmp` is the one place to write, gone with the pod;
- no capabilities, no service-account token, no volume of the migration, and no URI of a database: what it needs of Secrets its `env` names;
- resources, pull secrets and priority are those of Godwit's own Jobs; it is ended after 15 minutes.

It finds this in `{step}`; `cohort` is absent for a check of the migration itself.

{}
It needs to leave no more than its numbers, at `{path}`; the first of them is `value` in `passWhen`:

{}
| exit code | the measurement |
| --- | --- |
| {done} | its `values`, judged by `passWhen`; without a report or without a number there is no data, and `onNoData` decides |
| {differs} | with `values`: the same; without: it does not pass |
| any other, or killed | an error, told with the first finding's message if there is one; the next measurement comes after the check's `interval` |

No code stops a check for good, and a failed measurement is not repeated before the interval. One error may be enough to hold a gate; a
trigger acts on Fail alone. `result` of the report is not looked at.
",
        json(&input),
        json(&measured),
        step = contract::STEP_ENV,
        path = contract::TERMINATION_PATH,
        done = exit::DONE,
        differs = exit::DATA_DIFFERS,
    )
}

fn messages() -> String {
    let report = Report {
        counts: [("rows".to_owned(), 1204), ("differences".to_owned(), 1)].into(),
        digest: Some("sha256:4b0e…".to_owned()),
        evidence_uri: Some("crm/canary/validate-13.json".to_owned()),
        timings: [("compare".to_owned(), 5310)].into(),
        findings: vec![Finding {
            severity: Severity::Blocker,
            code: "RowsDiffer".to_owned(),
            object: "public.deal".to_owned(),
            message: "1 row differs; the evidence file names it.".to_owned(),
        }],
        owner: Some(Owner::Source),
        epoch: Some(2),
        ..Report::new(ReportResult::Fail)
    };
    let progress = ProgressLine { progress: Progress { unit: "rows".to_owned(), done: 600, total: 1204 } };
    format!(
        "
## Report

At the termination path, at most {} bytes of JSON. `result` is `pass`, `fail` or `error`; everything but `v` and `result` may be
absent. What does not fit goes to the evidence file. Names of schema objects and numbers only: no customer data, no keys, no values.

{}
## Progress

Lines of standard output, shown in `status.progress` with rate and expected end while the Job runs. `total` may change and is 0
while it is not known.

{}",
        contract::MAX_REPORT_BYTES,
        json(&report),
        json(&progress),
    )
}

fn sample(name: &str, uid: &str) -> Identity {
    Identity { namespace: "crm".to_owned(), name: name.to_owned(), uid: uid.to_owned() }
}

/// A value as a code block.
fn json(value: &impl serde::Serialize) -> String {
    format!("```json\n{}\n```\n", serde_json::to_string(value).unwrap_or_default())
}

fn labels() -> String {
    let commands: Vec<(String, &str)> = Verb::ALL.iter().map(|verb| (verb.annotation(), verb.meaning())).collect();
    let commands: Vec<(&str, &str)> = commands.iter().map(|(key, meaning)| (key.as_str(), *meaning)).collect();
    let head = ["name", "meaning"];
    format!(
        "{HEADER}\
# Labels, annotations, commands

Names that begin with `{}/` are ours; a name never changes its meaning.

## Commands

Annotations on a Migration or Cohort. The text is a time such as `2026-11-21T13:00:00Z`; each distinct text is handled once, and
`status.lastHandled` shows it then. They survive a GitOps sync that does not mention them. Suspension, gates and approvals do not
hold back a rollback.

{}
```sh
kubectl annotate cohorts.godwit.dev/canary --overwrite godwit.dev/rollback-requested-at=\"$(date -u +%FT%TZ)\"
```

## Annotations

{}
## Labels

On Jobs and their pods, and where it says so on the route table. `kubectl logs -f -l godwit.dev/cohort=canary,godwit.dev/step=copy`
follows a copy.

{}
## Finalizers

{}
Before you delete a Migration that is under way read [operations.md](../operations.md#deleting): its deletion removes the fences, and leaves
customers on both sides.

## Field managers

Stable, for `managedFields` and for tools that ignore differences by manager.

{}",
        names::GROUP,
        table(head, &commands),
        table(head, names::ANNOTATIONS),
        table(head, names::LABELS),
        table(head, names::FINALIZERS),
        table(head, names::MANAGERS),
    )
}
