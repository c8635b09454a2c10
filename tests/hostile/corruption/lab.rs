//! Two databases with a copied cohort, to be corrupted: a table that travels in binary with every such type, one that travels as text,
//! a junction, a table whose constraints the server does not enforce for strangers in replica mode, and three kinds of sequences.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::process::Command;

use godwit::contract::{Report, ReportResult, Selection, Side, Task, exit};
use godwit::worker::steps::cohort::{Cohort, Sides};
use godwit::worker::steps::validate;
use tokio::sync::Mutex;
use tokio_postgres::Client;

use super::Case;
use super::cells::{BINARY, Cell, TEXT};
use crate::base::rooted;
use crate::job::{Project, cohort_named};

/// Table and key of a line in an evidence file.
pub type Line = (String, Vec<String>);

/// As somebody would write who knows how to get past every guard.
const STRANGER: &str = "set session_replication_role = replica; set godwit.pass = '2:0'; set synchronous_commit = off";

const TABLES: &str = "
    create extension hstore; create extension citext;
    create type stage as enum ('open', 'won', 'lost');
    create type pair as (n numeric, s text, e stage);
    create domain positive as numeric(12,4) check (value > 0);
    create domain weekdays as text[];
    create sequence leaf_code; create sequence shared_serial;
    create table currency (code text primary key, name text not null);
    create table customer (id bigint generated always as identity (start 7340000001) primary key, name text not null, note text, rank int);
    create table specimen (id bigserial primary key, customer bigint not null references customer, BINARY);
    create table oddity (id uuid primary key, customer bigint not null references customer, serial bigint not null default nextval('shared_serial'), TEXT);
    create table pairing (specimen bigint references specimen, oddity uuid references oddity, serial bigint not null default nextval('shared_serial'), role text, weight numeric,
      primary key (specimen, oddity));
    create table leaf (code text primary key deferrable default 'leaf-' || lpad(nextval('leaf_code')::text, 9, '0'), specimen bigint not null references specimen,
      body text, currency text references currency, place int, unique (specimen, place) deferrable initially deferred, constraint short check (length(body) < 1000));
    create index leaf_body on leaf (body);
";

const ROWS: &str = "
    select setval('specimen_id_seq', 8640000000), setval('shared_serial', 9050000000);
    insert into currency select 'C' || i, 'currency ' || i from generate_series(1, 40) i;
    insert into customer (name, note, rank) select 'name ' || i, case when i % 2 = 0 then '' end, i from generate_series(1, 6) i;
    insert into specimen (customer, BINARY_COLUMNS) select id, BINARY_VALUES from customer, generate_series(1, 2);
    insert into oddity (id, customer, TEXT_COLUMNS) select md5(id::text || n)::uuid, id, TEXT_VALUES from customer, generate_series(1, 2) n;
    insert into pairing (specimen, oddity, role, weight) select s.id, o.id, 'role ' || s.id, 1.50 from specimen s join oddity o on o.customer = s.customer;
    insert into leaf (specimen, body, place) select s.id, 'body of ' || s.id || ' ' || n, n from specimen s, generate_series(1, 3) n;
    update leaf set currency = 'C' || substr(code, 6)::int;
";

pub struct Lab {
    project: Project,
    target: Client,
    /// Validate of cohort one with its sessions open: what it reads it reads anew, and opening costs more than all of that.
    opened: (Cohort<'static>, Mutex<Sides>),
    /// Keys of cohort one's rows, as text, in their order.
    pub customers: Vec<String>,
    pub specimens: Vec<String>,
    pub oddities: Vec<String>,
    /// (specimen, oddity)
    pub pairings: Vec<(String, String)>,
    /// (code, specimen, currency)
    pub leaves: Vec<(String, String, String)>,
    /// The fence's triggers.
    pub fence: Vec<String>,
    /// A customer of the other cohort.
    pub stranger: String,
}

/// What a run of Validate told, and where.
pub struct Told {
    pub code: i32,
    pub report: Report,
    pub lines: BTreeSet<Line>,
    /// Everything that leaves the Job: termination message, and what the program printed.
    pub output: String,
}

fn with_columns(sql: &str) -> String {
    let columns = |cells: &[Cell]| {
        cells.iter().map(|cell| format!("{} {}", cell.column, cell.kind)).collect::<Vec<_>>().join(", ")
    };
    let names = |cells: &[Cell]| cells.iter().map(|cell| cell.column).collect::<Vec<_>>().join(", ");
    let values = |cells: &[Cell]| {
        cells.iter().map(|cell| format!("({})::{}", cell.value, cell.kind)).collect::<Vec<_>>().join(", ")
    };
    sql.replace("BINARY_COLUMNS", &names(BINARY))
        .replace("BINARY_VALUES", &values(BINARY))
        .replace("TEXT_COLUMNS", &names(TEXT))
        .replace("TEXT_VALUES", &values(TEXT))
        .replace("BINARY", &columns(BINARY))
        .replace("TEXT", &columns(TEXT))
}

impl Lab {
    pub async fn new() -> Self {
        let schema = with_columns(TABLES);
        let dataset = rooted("public.customer", "id", &[("public.pairing", &["specimen"])]);
        let project = Project::with(&format!("{schema}{}", with_columns(ROWS)), dataset);
        project.done(None, Task::Prepare {}).await;
        for (cohort, condition) in [("one", "rank <= 3"), ("other", "rank > 3")] {
            let selection = Selection::Where(condition.into());
            project.done(Some(cohort), Task::Select { selection }).await;
            project.done(Some(cohort), Task::Copy {}).await;
            project.done(Some(cohort), Task::Validate { checks: Vec::new() }).await;
        }
        let job = Box::leak(Box::new(project.job(Some(cohort_named("one")), Task::Validate { checks: Vec::new() })));
        let (cohort, sides) = Cohort::open(job).await.unwrap();
        let target = project.pair.application(Side::Target, "postgres").await;
        target.batch_execute(STRANGER).await.unwrap();
        for table in ["currency", "customer", "specimen", "oddity", "pairing", "leaf"] {
            // Temporary tables are nobody's tables: Validate does not see them.
            target.batch_execute(&format!("create temporary table keep_{table} as table {table}")).await.unwrap();
        }
        let column = async |sql: &str| -> Vec<Vec<String>> {
            let rows = target.query(sql, &[]).await.unwrap();
            rows.iter().map(|row| (0..row.len()).map(|at| row.get(at)).collect()).collect()
        };
        let ours = "join customer c on c.id = x.customer where c.rank <= 3 order by 1";
        let first = |rows: Vec<Vec<String>>| rows.into_iter().map(|mut row| row.remove(0)).collect::<Vec<_>>();
        let customers = first(column("select id::text from customer where rank <= 3 order by id").await);
        let specimens = first(column(&format!("select x.id::text from specimen x {ours}")).await);
        let oddities = first(column(&format!("select x.id::text from oddity x {ours}")).await);
        let of_specimen =
            "join specimen s on s.id = x.specimen join customer c on c.id = s.customer where c.rank <= 3 order by 1, 2";
        let pairings = column(&format!("select x.specimen::text, x.oddity::text from pairing x {of_specimen}")).await;
        let leaves = column(&format!("select x.code, x.specimen::text, x.currency from leaf x {of_specimen}")).await;
        let fence = column(
            "select tgname::text from pg_trigger where tgrelid = 'leaf'::regclass and tgname ~ '^[~!]godwit_fence_' order by 1",
        );
        let fence = first(fence.await);
        let stranger = first(column("select id::text from customer where rank = 5").await).remove(0);
        Self {
            customers,
            specimens,
            oddities,
            pairings: pairings.into_iter().map(|row| (row[0].clone(), row[1].clone())).collect(),
            leaves: leaves.into_iter().map(|row| (row[0].clone(), row[1].clone(), row[2].clone())).collect(),
            stranger,
            fence,
            opened: (cohort, Mutex::new(sides)),
            project,
            target,
        }
    }

    pub async fn stranger(&self, sql: &str, name: &str) {
        self.target.batch_execute(sql).await.unwrap_or_else(|error| panic!("{name}: {error:?}\n{sql}"));
    }

    pub fn source(&self, sql: &str) {
        self.project.pair.psql(Side::Source, sql);
    }

    pub async fn number(&self, sql: &str) -> i64 {
        self.target.query_one(sql, &[]).await.unwrap().get(0)
    }

    pub async fn run(&self, cohort: &str, task: Task) -> (i32, Report) {
        self.project.run(Some(cohort), task).await
    }

    /// The rows that the lines name come back from the pristine copy.
    pub async fn repair(&self, case: &Case, name: &str) {
        let mut sql = format!("begin; {};", case.repairs);
        for (table, key) in &case.lines {
            let bare = table.strip_prefix("public.").unwrap();
            let columns: &[&str] = match bare {
                "leaf" | "currency" => &["code"],
                "pairing" => &["specimen", "oddity"],
                _ => &["id"],
            };
            let same: Vec<String> =
                columns.iter().zip(key).map(|(column, value)| format!("{column} = '{value}'")).collect();
            let same = same.join(" and ");
            let _ = write!(
                sql,
                "delete from {bare} where {same}; insert into {bare} overriding system value select * from keep_{bare} where {same};"
            );
        }
        sql.push_str("commit");
        self.stranger(&sql, name).await;
    }

    /// Validate through the worker's own entry.
    pub async fn validate(&self, cohort: &str) -> Told {
        let (code, report) = self.run(cohort, Task::Validate { checks: Vec::new() }).await;
        let output = report.to_termination_message();
        self.told(code, report, output)
    }

    /// Validate of cohort one without opening it again: the same function, the same reads.
    pub async fn judge(&self) -> Told {
        let report = validate::judge(&self.opened.0, &mut *self.opened.1.lock().await, &[]).await.unwrap();
        let code = if report.result == ReportResult::Pass { exit::DONE } else { exit::DATA_DIFFERS };
        let output = report.to_termination_message();
        self.told(code, report, output)
    }

    /// Validate of cohort one as a Job's container would run it.
    pub fn validate_as_program(&self) -> Told {
        let attempt = self.project.next_attempt();
        let task = Task::Validate { checks: Vec::new() };
        let settings = self.project.settings(Some(cohort_named("one")), task, attempt);
        let output = Command::new(env!("CARGO_BIN_EXE_godwit"))
            .args(["worker", "validate"])
            .env_clear()
            .env("GODWIT_STEP", serde_json::to_string(&settings.input).unwrap())
            .env("GODWIT_SOURCE_URI", settings.source_uri.unwrap())
            .env("GODWIT_TARGET_URI", settings.target_uri.unwrap())
            .env("GODWIT_TERMINATION_PATH", &settings.termination_path)
            .env("RUST_LOG", "debug")
            .output()
            .unwrap();
        let message = std::fs::read_to_string(&settings.termination_path).unwrap();
        let report = Report::from_termination_message(&message).unwrap();
        let printed =
            [output.stdout.as_slice(), &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned());
        self.told(output.status.code().unwrap(), report, format!("{message}{}", printed.concat()))
    }

    fn told(&self, code: i32, report: Report, output: String) -> Told {
        let mut lines = BTreeSet::new();
        if let Some(uri) = &report.evidence_uri {
            let path = self.project.storage.path().join(uri);
            let text = std::fs::read_to_string(&path).unwrap();
            for line in text.lines() {
                let line: serde_json::Value = serde_json::from_str(line).unwrap();
                let key =
                    line["key"].as_array().unwrap().iter().map(|part| part.as_str().unwrap().to_owned()).collect();
                lines.insert((line["table"].as_str().unwrap().to_owned(), key));
            }
            std::fs::remove_file(path).unwrap();
        }
        Told { code, report, lines, output }
    }
}
