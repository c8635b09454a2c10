//! What people get wrong about databases: each case ends with the exit code that its repetition deserves, a finding that names the
//! side, and the remedy. The password of a URI is never repeated.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use godwit::contract::{Dataset, KeyStrategy, Owner, QueryPair, Report, Selection, Side, Task, exit};

use crate::base::{CRM, dataset};
use crate::job::Project;
use crate::server::Server;

const ASSESS: Task = Task::Assess {};

/// A folder that the server's user may read as well.
fn readable_folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    folder
}

/// What Assess says of a source with this URI.
async fn assessed(uri: String) -> (i32, Report) {
    let mut project = Project::new(CRM);
    project.pair.source_uri = uri;
    project.run(None, ASSESS).await
}

/// The only finding, and that it names the side and says what to do.
fn finding(report: &Report, code: &str, words: &[&str]) {
    let [found] = &report.findings[..] else { panic!("{:?}", report.findings) };
    assert_eq!((found.code.as_str(), found.object.as_str()), (code, "source"), "{found:?}");
    for word in words {
        assert!(found.message.contains(word), "{word} in {}", found.message);
    }
    assert!(!found.message.contains("hunter2"), "{}", found.message);
}

#[tokio::test]
async fn a_login_that_is_refused_names_what_to_correct_and_is_not_tried_again() {
    let folder = readable_folder();
    let hba = folder.path().join("hba.conf");
    let rules = "host all postgres 127.0.0.1/32 trust\nhost all keeper 127.0.0.1/32 scram-sha-256\nhostssl all secure 127.0.0.1/32 trust\n";
    std::fs::write(&hba, rules).unwrap();
    let server = Server::start(&[&format!("hba_file={}", hba.display())]);
    server.psql("postgres", "create role keeper login password 'right'; create role secure login");
    let uri = |user: &str, database: &str| {
        format!("postgresql://{user}@127.0.0.1:{}/{database}?sslmode=disable", server.port)
    };
    for (uri, code, name, words) in [
        (uri("keeper:hunter2", "postgres"), exit::NOT_PERMITTED, "LoginRefused", ["password", "Secret"]),
        (uri("keeper", "postgres"), exit::MISCONFIGURED, "UriUnusable", ["password", "Secret"]),
        (uri("secure:hunter2", "postgres"), exit::NOT_PERMITTED, "LoginRefused", ["pg_hba.conf", "sslmode=require"]),
        (uri("stranger:hunter2", "postgres"), exit::NOT_PERMITTED, "LoginRefused", ["stranger", "pg_hba.conf"]),
        (
            uri("keeper:right", "nowhere"),
            exit::MISCONFIGURED,
            "ConnectionFailed",
            ["nowhere", "correct the database's name"],
        ),
    ] {
        let (found, report) = assessed(uri.clone()).await;
        assert_eq!(found, code, "{uri}: {report:?}");
        finding(&report, name, &words);
    }
}

#[tokio::test]
async fn a_database_that_cannot_be_reached_is_tried_again_and_named_with_what_to_check() {
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    // Takes connections, and never says a word.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = silent.local_addr().unwrap().port();
    let held = tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok((connection, _)) = silent.accept().await {
            held.push(connection);
        }
    });
    for (uri, words) in [
        (format!("postgresql://u:hunter2@127.0.0.1:{closed}/crm?sslmode=disable"), ["refused", "check host and port"]),
        (
            "postgresql://u:hunter2@no-such-host.invalid/crm?connect_timeout=5".to_owned(),
            ["failed to connect", "Secret"],
        ),
        (
            format!("postgresql://u:hunter2@127.0.0.1:{port}/crm?sslmode=disable&connect_timeout=1"),
            ["did not answer within 1 s", "check host and port"],
        ),
        (
            format!("postgresql://u:hunter2@127.0.0.1:{port}/crm?sslmode=require&connect_timeout=1"),
            ["did not answer within 1 s", "check host and port"],
        ),
    ] {
        let (code, report) = assessed(uri.clone()).await;
        assert_eq!(code, exit::TRY_AGAIN, "{uri}: {report:?}");
        finding(&report, "ConnectionFailed", &words);
    }
    held.abort();
}

#[tokio::test]
async fn tls_that_is_asked_for_and_not_there_is_a_matter_of_configuration() {
    let project = Project::new(CRM);
    let uri = project.pair.source_uri.replace("sslmode=disable", "sslmode=require");
    let (code, report) = assessed(uri).await;
    assert_eq!(code, exit::MISCONFIGURED, "{report:?}");
    finding(&report, "TlsFailed", &["does not offer it", "switch TLS on", "Secret"]);
    let (code, report) = assessed("postgresql://u:hunter2@h/crm?sslmode=perhaps".into()).await;
    assert_eq!(code, exit::MISCONFIGURED);
    finding(&report, "UriUnusable", &["correct the URI in its Secret"]);
}

/// A server's key and a certificate for this name, signed by itself.
fn certificate(folder: &Path, name: &str) -> (PathBuf, PathBuf) {
    let (key, certificate) = (folder.join("server.key"), folder.join("server.crt"));
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj"])
        .arg(format!("/CN={name}"))
        .args([
            "-addext",
            &format!("subjectAltName={name}"),
            "-addext",
            "basicConstraints=critical,CA:FALSE",
            "-keyout",
        ])
        .arg(&key)
        .arg("-out")
        .arg(&certificate)
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
    // The server refuses a key that is not its own user's, or root's.
    let _ = Command::new("chown").arg("postgres").arg(&key).status();
    (key, certificate)
}

#[tokio::test]
async fn a_certificate_is_refused_by_name_or_authority_and_accepted_where_both_are_right() {
    let folder = readable_folder();
    let (key, certificate) = certificate(folder.path(), "IP:127.0.0.1");
    let server = Server::start(&[
        "ssl=on",
        &format!("ssl_key_file={}", key.display()),
        &format!("ssl_cert_file={}", certificate.display()),
    ]);
    server.psql("postgres", CRM);
    let uri = |host: &str, settings: &str| format!("postgresql://postgres@{host}:{}/postgres?{settings}", server.port);
    let root = format!("sslmode=verify-full&sslrootcert={}", certificate.display());
    let (code, report) = assessed(uri("127.0.0.1", "sslmode=verify-full")).await;
    assert_eq!(code, exit::MISCONFIGURED, "{report:?}");
    finding(&report, "TlsFailed", &["certificate is not accepted", "sslrootcert"]);
    let (code, report) = assessed(uri("localhost", &root)).await;
    assert_eq!(code, exit::MISCONFIGURED, "{report:?}");
    finding(&report, "TlsFailed", &["certificate is not accepted", "name the server"]);
    for settings in [root.as_str(), "sslmode=require"] {
        let (code, report) = assessed(uri("127.0.0.1", settings)).await;
        assert_eq!(code, exit::DONE, "{settings}: {report:?}");
    }
}

const PREPARED: &str =
    "select (state->>'boundary')::int8 from godwit.checkpoint where part = 'sequence public.account_id_seq'";

async fn prepared() -> (Project, i64) {
    let project = Project::with(CRM, Dataset { keys: KeyStrategy::Gap, ..dataset() });
    project.done(None, Task::Prepare {}).await;
    let selection = Selection::Where("id between 50 and 60".into());
    project.done(Some("canary"), Task::Select { selection }).await;
    let boundary = project.number(Side::Source, PREPARED).await;
    (project, boundary)
}

/// The finding's own words, carried out by somebody who reads them.
fn repair(project: &Project, message: &str) {
    let mut statements = message.split("select setval(").skip(1).map(|rest| {
        let (arguments, _) = rest.split_once(");").unwrap();
        format!("select setval({})", arguments.split_whitespace().collect::<Vec<_>>().join(" "))
    });
    project.pair.psql(Side::Target, &statements.next().unwrap());
    project.pair.psql(Side::Source, &statements.next().unwrap());
}

#[tokio::test]
async fn a_source_that_uses_up_its_keys_is_held_before_both_sides_draw_the_same_and_goes_on_after_the_remedy() {
    let validate = || Task::Validate { checks: Vec::<QueryPair>::new() };
    let cutover = || Task::Cutover { checks: Vec::<QueryPair>::new() };
    let (project, boundary) = prepared().await;
    // Nine tenths of the reserve are drawn: no key has met another yet.
    let drawn = |value: i64| project.pair.psql(Side::Source, &format!("select setval('account_id_seq', {value})"));
    drawn(boundary - 200_000);
    project.done(Some("canary"), Task::Copy {}).await;
    project.done(Some("canary"), validate()).await;
    drawn(boundary - 50_000);
    let mut said = String::new();
    for task in [Task::Copy {}, validate(), cutover()] {
        let (code, report) = project.run(Some("canary"), task.clone()).await;
        assert_eq!(code, exit::DATA_DIFFERS, "{task:?}");
        let [found] = &report.findings[..] else { panic!("{task:?}: {:?}", report.findings) };
        assert_eq!((found.code.as_str(), found.object.as_str()), ("SequenceReserveSpent", "public.account_id_seq"));
        if matches!(task, Task::Cutover { .. }) {
            assert_eq!(report.owner, Some(Owner::Source), "nobody is kept waiting");
        }
        said.clone_from(&found.message);
    }
    let application = project.pair.application(Side::Source, "postgres").await;
    application.batch_execute("update account set name = 'still free' where id = 55").await.unwrap();
    repair(&project, &said);
    application.batch_execute("insert into account (name) select 'new' from generate_series(1, 20)").await.unwrap();
    project.done(Some("canary"), validate()).await;
    project.done(Some("canary"), cutover()).await;
    let target = project.pair.application(Side::Target, "postgres").await;
    target.batch_execute("insert into contact (account_id, email) values (55, 'new@example.org')").await.unwrap();
    project.done(Some("rest"), Task::Select { selection: Selection::Remainder {} }).await;
    for task in [Task::Copy {}, validate(), cutover()] {
        project.done(Some("rest"), task).await;
    }
    let count = "select count(*) from public.account";
    assert_eq!(project.number(Side::Source, count).await, project.number(Side::Target, count).await);
}

#[tokio::test]
async fn keys_that_have_met_already_are_found_however_the_sequences_stand() {
    let (project, boundary) = prepared().await;
    let set = |side: Side, value: i64| project.pair.psql(side, &format!("select setval('account_id_seq', {value})"));
    let held = async || {
        let (code, report) = project.run(Some("canary"), Task::Copy {}).await;
        let codes: Vec<&str> = report.findings.iter().map(|found| found.code.as_str()).collect();
        (code == exit::DATA_DIFFERS && codes == ["SequenceReserveSpent"]) || {
            assert_eq!(code, exit::DONE, "{report:?}");
            false
        }
    };
    // The source ran over the boundary and has drawn the target's first keys.
    set(Side::Source, boundary - 3);
    project.pair.psql(Side::Source, "insert into account (name) select 'over' from generate_series(1, 10)");
    assert!(held().await);
    // Far beyond them, but its rows are still in the way of the target's next keys.
    set(Side::Source, boundary + 900_000);
    assert!(held().await);
    // The target was set above all of them, the source has room below it.
    set(Side::Target, boundary + 2_000_000);
    assert!(!held().await);
    // The target's own rows stand in the way of the source.
    project.pair.psql(
        Side::Target,
        &format!(
            "set session_replication_role = replica; alter table account disable trigger all;
         insert into account (id, name) values ({}, 'native'); alter table account enable trigger all",
            boundary + 900_100
        ),
    );
    assert!(held().await);
}
