//! Fingerprints of both databases: rows by table and cohort as multisets, what the ledgers say, fences, sequences.
//! Taken before and after every case and compared. Read by SQL of its own, past everything that the product uses to compare.

use std::collections::{BTreeMap, BTreeSet};

use godwit::contract::Side;
use tokio_postgres::{Client, SimpleQueryMessage};

use crate::crm::{FIRST, OWNED};

/// Facts by name; equal prints, equal databases.
pub type Facts = BTreeMap<String, String>;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Print {
    /// Per side and table, of the first cohort's customers, of the others, and of shared tables.
    pub rows: Facts,
    /// Ledgers, fences, sequences.
    pub ledger: Facts,
    /// Constraints and indexes, and whether they are in force: a copy may have taken them away for a while.
    pub schema: Facts,
}

impl Print {
    pub async fn take(clients: &BTreeMap<Side, Client>) -> Self {
        let mut print = Self::default();
        for (side, client) in clients {
            let tell = |into: &mut Facts, facts: Facts| {
                into.extend(facts.into_iter().map(|(name, value)| (format!("{side:?} {name}"), value)));
            };
            tell(&mut print.rows, ask(client, &rows_sql(client).await).await);
            tell(&mut print.ledger, ask(client, &ledger_sql(client).await).await);
            tell(&mut print.ledger, ask(client, TRACES).await);
            tell(&mut print.schema, ask(client, SCHEMA).await);
            let sequences = sequences(client).await;
            tell(&mut print.ledger, sequences);
        }
        print
    }

    /// The rows whose name has all of these parts.
    pub fn rows_of(&self, parts: &[&str]) -> Facts {
        let has = |name: &String| parts.iter().all(|part| name.contains(part));
        self.rows.iter().filter(|(name, _)| has(name)).map(|(name, value)| (name.clone(), value.clone())).collect()
    }
}

/// What differs, for a message.
pub fn differences(found: &Facts, expected: &Facts) -> Vec<String> {
    let names = found.keys().chain(expected.keys()).collect::<std::collections::BTreeSet<_>>();
    names
        .into_iter()
        .filter(|name| found.get(*name) != expected.get(*name))
        .map(|name| format!("{name}: {:?}, expected {:?}", found.get(name), expected.get(name)))
        .collect()
}

async fn ask(client: &Client, sql: &str) -> Facts {
    let mut facts = Facts::new();
    if sql.is_empty() {
        return facts;
    }
    for message in client.simple_query(sql).await.unwrap() {
        if let SimpleQueryMessage::Row(row) = message {
            facts.insert(row.get(0).unwrap().to_owned(), row.get(1).unwrap_or("null").to_owned());
        }
    }
    facts
}

async fn exists(client: &Client, relation: &str) -> bool {
    client.query_one("select to_regclass($1) is not null", &[&relation]).await.unwrap().get(0)
}

/// A multiset of rows: the sorted list of all of them.
const MULTISET: &str = "count(*) || ' ' || coalesce(md5(string_agg(t::text, e'\\n' order by t::text)), '')";

async fn rows_sql(client: &Client) -> String {
    if !exists(client, "public.account").await {
        return String::new();
    }
    let mut queries = vec![format!("select 'currency (shared)', {MULTISET} from public.currency t")];
    for (table, joins) in OWNED {
        for (cohort, condition) in [("first", format!("a.id in ({FIRST})")), ("last", format!("a.id not in ({FIRST})"))]
        {
            queries.push(format!(
                "select '{table} ({cohort})', {MULTISET} from public.{table} t {joins} where {condition}"
            ));
        }
        // A row that reaches no customer is in neither; it would be an orphan.
        queries.push(format!("select '{table} (all)', count(*)::text from public.{table}"));
    }
    queries.join(" union all ")
}

/// Epochs may differ between two ways to the same end, but never between the two sides: see `owners`.
async fn ledger_sql(client: &Client) -> String {
    if !exists(client, "godwit.ownership").await {
        return String::new();
    }
    "select 'owner of ' || name, owner from godwit.ownership
     union all select 'member ' || customer, entry || ' ' || chunk from godwit.member
     union all select 'prepared', (prepared_at is not null)::text || ' ' || coalesce(baseline::text, '') from godwit.migration
     union all select format('checkpoint %s %s %s', subject, step, part), case
         when step = 'copy' and part = 'total' then (state -> 'tables')::text
         when step = 'select' or step = 'copy' then state::text else '' end from godwit.checkpoint"
        .to_owned()
}

const TRACES: &str = "select 'fence on ' || t.tgrelid::regclass::text, string_agg(t.tgname || t.tgenabled::text, ' ' order by t.tgname) from pg_trigger t
       where t.tgname like '~godwit%' group by 1
     union all select 'godwit''s schema', count(*)::text from pg_namespace where nspname = 'godwit'";

const SCHEMA: &str = "select 'constraint ' || conrelid::regclass::text || ' ' || conname, pg_get_constraintdef(oid) || ' ' || convalidated::text
       from pg_constraint where connamespace = 'public'::regnamespace and contype <> 't'
     union all select 'index ' || x.indexrelid::regclass::text, pg_get_indexdef(x.indexrelid) || ' ' || x.indisvalid::text
       from pg_index x join pg_class c on c.oid = x.indexrelid where c.relnamespace = 'public'::regnamespace";

async fn sequences(client: &Client) -> Facts {
    let names = client
        .query(
            "select c.relname::text from pg_class c where c.relkind = 'S' and c.relnamespace = 'public'::regnamespace",
            &[],
        )
        .await
        .unwrap();
    let mut facts = Facts::new();
    for name in names.iter().map(|row| row.get::<_, String>(0)) {
        let sql = format!(
            "select 'sequence {name}', v.last_value || ' ' || v.is_called || ' ' || s.seqincrement from public.{name} v, pg_sequence s
             where s.seqrelid = 'public.{name}'::regclass"
        );
        facts.extend(ask(client, &sql).await);
    }
    facts
}

/// Owner and epoch of each entry in one ledger; empty without a ledger.
pub async fn owners(client: &Client) -> BTreeMap<String, (String, i64)> {
    if !exists(client, "godwit.ownership").await {
        return BTreeMap::new();
    }
    let rows = client.query("select name, owner, epoch from godwit.ownership", &[]).await.unwrap();
    rows.iter().map(|row| (row.get(0), (row.get(1), row.get(2)))).collect()
}

/// The chunks that a copy has recorded.
pub async fn finished_chunks(client: &Client, subject: &str) -> usize {
    let sql = "select count(*) from godwit.checkpoint where subject = $1 and step = 'copy' and part ~ '^[0-9]+$'";
    let row = client.query_one(sql, &[&subject]).await.unwrap();
    usize::try_from(row.get::<_, i64>(0)).unwrap()
}

/// Place and birth of every row: what landed for good must keep both.
pub async fn row_versions(client: &Client) -> BTreeSet<String> {
    let mut queries = Vec::new();
    for (table, _) in OWNED {
        queries.push(format!("select '{table} ' || ctid::text || ' ' || xmin::text, '' from public.{table}"));
    }
    ask(client, &queries.join(" union all ")).await.into_keys().collect()
}
