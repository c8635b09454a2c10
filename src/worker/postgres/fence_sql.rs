//! The SQL text of the fence: functions and triggers of each table.
//! Used by `fence` alone, which runs it. Pure.
//! Must quote every name, must use no operator or function that a caller's search path could replace, must raise no value.
//!
//! The protocol that the functions follow, and why it leaves no gap:
//! - A writer finds its entry, takes the entry's advisory lock shared, and reads membership and owner *after* the lock: whoever
//!   closes an entry or changes membership takes that lock exclusively, so it waits for writers in flight, and later writers see the change.
//! - In repeatable read and above, reads come from an old snapshot: the rows are locked `for share`, which fails to serialize when they
//!   changed. Changing membership touches the ownership row for that reason.
//! - A row two or more hops away finds its customer through parents that may move between customers meanwhile. Such writers hold
//!   the lock [`MOVES`] shared; whoever moves a parent to another entry takes it exclusively, before the move and until its end.
//! - A row whose parent is not there may wait for one that another transaction has not committed, under any customer: its writer holds
//!   every entry's lock and looks once more, so that closing any of them waits for it.

use super::identifier::{TableName, quote_identifier, quote_literal};
use super::ledger::side_column;
use super::model::{OwnedTable, Scope, entry};
use crate::contract::Side;

/// Class of Godwit's advisory locks: "GODW".
pub const LOCK_CLASS: i32 = 0x474f_4457;
/// The advisory lock of rows that move between entries; entries are never negative.
pub const MOVES: i32 = -1;

/// Sorted after an application's own triggers (they fire in the order of their names), so that the fence sees the final row.
pub const ROW_TRIGGER: &str = "~godwit_fence_row";
/// Rows that are new, judged once they are in: a trigger before each insert would make the server land rows one by one. Sorted
/// before the server's own triggers, so that whoever writes on the wrong side learns that, and not that a parent is missing.
pub const INSERT_TRIGGER: &str = "!godwit_fence_insert";
pub const PASS_TRIGGER: &str = "~godwit_fence_pass";
pub const TRUNCATE_TRIGGER: &str = "~godwit_fence_truncate";
pub const TRIGGERS: [&str; 4] = [ROW_TRIGGER, INSERT_TRIGGER, PASS_TRIGGER, TRUNCATE_TRIGGER];

/// SQLSTATE of a write to rows that no side owns at the moment. Applications know it: it is part of the contract.
const MOVING: &str = "'GW001'";
/// SQLSTATE of a write to rows that the other side owns: it would be accepted there.
const ELSEWHERE: &str = "'GW004'";

const NO_PASS: &str = "coalesce(pg_catalog.current_setting('godwit.pass', true), '') = ''";
const READ_COMMITTED: &str =
    "pg_catalog.current_setting('transaction_isolation') in ('read committed', 'read uncommitted')";

const NO_CASCADE: &str = "(tg_op = 'INSERT' or pg_catalog.pg_trigger_depth() <= 1)";

/// Functions that every table's trigger uses.
pub fn shared_functions(side: Side, root_key_type: &str) -> String {
    let side = quote_literal(side_column(side));
    let admissions = [admit_entry(&side), admit_customer(root_key_type), admit_reference(), admit_truncate()];
    [admissions.join("\n"), hold_every_entry(), verify_pass()].join("\n")
}

fn function(signature: &str, returns: &str, attributes: &str, body: &str) -> String {
    format!(
        "create or replace function godwit.{signature} returns {returns} language plpgsql volatile {attributes} as {};\n\
         revoke all on function godwit.{signature} from public;",
        quote_literal(body)
    )
}

/// Trigger functions run as the ledger's owner, so applications need no right on schema godwit.
///
/// `pg_temp` is named, and last: left out it is searched first, and a temporary domain called `text` would run its check as that owner.
const TRIGGER_ATTRIBUTES: &str = "security definer set search_path = pg_catalog, pg_temp";

/// Raises unless this side owns the entry, under the entry's lock. `false`: the customer's entry changed before the lock was
/// granted. The inner functions have no search path of their own: they are called by ours only, which pin it.
fn admit_entry(side: &str) -> String {
    let query =
        |lock: &str| format!("select o.owner into v_owner from godwit.ownership o where o.entry = p_entry{lock};");
    function(
        "admit_entry(p_entry int)",
        "void",
        "",
        &format!(
            "declare v_owner pg_catalog.text;
             begin
               perform pg_catalog.pg_advisory_xact_lock_shared({LOCK_CLASS}, p_entry);
               if {READ_COMMITTED} then {} else {} end if;
               if v_owner = {side} then return; end if;
               if v_owner = 'None' then
                 raise exception 'these rows are switching to the other side and cannot be written now' using errcode = {MOVING},
                   hint = 'Repeat the transaction in a moment, on the side that the route table names.';
               end if;
               raise exception 'these rows are owned by the other side' using errcode = {ELSEWHERE},
                 hint = 'Repeat the transaction on the other side; the route table names it too, a moment later.';
             end",
            query(""),
            query(" for share"),
        ),
    )
}

/// The entry of a customer, admitted.
fn admit_customer(root_key_type: &str) -> String {
    let member = "select m.entry from godwit.member m where m.customer = p_customer";
    function(
        &format!("admit_customer(p_customer {root_key_type})"),
        "int",
        "",
        &format!(
            "declare v_entry int;
             begin
               loop
                 v_entry := coalesce(({member}), {unassigned});
                 perform pg_catalog.pg_advisory_xact_lock_shared({LOCK_CLASS}, v_entry);
                 exit when v_entry = coalesce(({member}), {unassigned});
               end loop;
               perform godwit.admit_entry(v_entry);
               return v_entry;
             end",
            unassigned = entry::UNASSIGNED,
        ),
    )
}

fn admit_reference() -> String {
    function(
        "fence_reference()",
        "trigger",
        TRIGGER_ATTRIBUTES,
        &format!(
            "begin
               perform godwit.admit_entry({});
               if tg_op = 'DELETE' then return old; end if;
               return new;
             end",
            entry::REFERENCE
        ),
    )
}

/// A table is emptied only by the side that owns every customer in its ledger (shared tables: the reference entry).
fn admit_truncate() -> String {
    function(
        "fence_truncate()",
        "trigger",
        TRIGGER_ATTRIBUTES,
        &format!(
            "declare v_entry int;
             begin
               if tg_argv[0] = 'reference' then
                 perform godwit.admit_entry({reference});
               else
                 for v_entry in select o.entry from godwit.ownership o where o.entry = {unassigned}
                     or exists (select from godwit.member m where m.entry = o.entry) order by o.entry loop
                   perform godwit.admit_entry(v_entry);
                 end loop;
               end if;
               return null;
             end",
            reference = entry::REFERENCE,
            unassigned = entry::UNASSIGNED,
        ),
    )
}

/// Keeps every entry as it is until the writer's end, whoever owns it.
fn hold_every_entry() -> String {
    function(
        "hold_every_entry()",
        "void",
        "",
        &format!(
            "declare v_entry int;
             begin
               -- First, and before the list is read: no new entry gets customers without it.
               perform pg_catalog.pg_advisory_xact_lock_shared({LOCK_CLASS}, {unassigned});
               for v_entry in select o.entry from godwit.ownership o order by o.entry loop
                 perform pg_catalog.pg_advisory_xact_lock_shared({LOCK_CLASS}, v_entry);
               end loop;
               if not {READ_COMMITTED} then perform 1 from godwit.ownership o for share; end if;
             end",
            unassigned = entry::UNASSIGNED,
        ),
    )
}

/// A pass is `entry:epoch`, current, and shown by a role that may act as the ledger's owner.
fn verify_pass() -> String {
    function(
        "verify_pass()",
        "trigger",
        TRIGGER_ATTRIBUTES,
        "declare v_pass pg_catalog.text := pg_catalog.current_setting('godwit.pass', true);
         begin
           if not pg_catalog.pg_has_role(session_user, (select n.nspowner from pg_catalog.pg_namespace n where n.nspname = 'godwit'), 'MEMBER') then
             raise exception 'this role may not pass the fence' using errcode = 'GW003';
           end if;
           if v_pass !~ '^[0-9]{1,9}:[0-9]{1,18}$' then
             raise exception 'the pass has an unknown form' using errcode = 'GW003';
           end if;
           perform 1 from godwit.ownership o where o.entry = pg_catalog.split_part(v_pass, ':', 1)::pg_catalog.int4
             and o.epoch = pg_catalog.split_part(v_pass, ':', 2)::pg_catalog.int8 for share;
           if not found then
             raise exception 'the pass is of an older epoch' using errcode = 'GW002';
           end if;
           return null;
         end",
    )
}

/// The trigger function of an owned table.
pub fn row_function(owned: &OwnedTable, scope: &Scope) -> String {
    let moves = if owned.path.len() > 1 {
        format!("perform pg_catalog.pg_advisory_xact_lock_shared({LOCK_CLASS}, {MOVES});")
    } else {
        String::new()
    };
    let is_parent = !owned.path.is_empty()
        && scope.owned.iter().any(|child| child.path.first().is_some_and(|key| key.referenced == owned.table.name));
    let keep_writers_below_out = if is_parent {
        format!(
            "if tg_op = 'UPDATE' and v_old_entry is distinct from v_new_entry then
               perform pg_catalog.pg_advisory_xact_lock({LOCK_CLASS}, {MOVES});
             end if;"
        )
    } else {
        String::new()
    };
    let body = format!(
        "declare v_customer {key_type}; v_old_entry int; v_new_entry int;
         begin
           {moves}
           if tg_op <> 'INSERT' then
             {of_old}
             {admit_old}
           end if;
           if tg_op = 'INSERT' then
             {of_new}
             {admit_new}
           elsif tg_op = 'UPDATE' then
             if {unchanged} then
               v_new_entry := v_old_entry;
             else
               {of_new}
               {admit_new}
             end if;
           end if;
           {keep_writers_below_out}
           if tg_op = 'DELETE' then return old; end if;
           return new;
         end",
        key_type = scope.root_key_type,
        of_old = find_customer(owned, "old"),
        of_new = find_customer(owned, "new"),
        admit_old = admit_found(owned, "old"),
        admit_new = admit_found(owned, "new"),
        unchanged = owner_unchanged(owned),
    );
    function(
        &format!("{}()", quote_identifier(&function_name(&owned.table.name))),
        "trigger",
        TRIGGER_ATTRIBUTES,
        &body,
    )
}

/// A name of fixed length: a table's own name may leave no room for a prefix.
fn function_name(table: &TableName) -> String {
    format!("fence_{:016x}", xxhash_rust::xxh3::xxh3_64(table.sql().as_bytes()))
}

/// Sets `v_customer` from the row `old` or `new`; null where no path leads to a customer.
fn find_customer(owned: &OwnedTable, row: &str) -> String {
    let join = owned.customer_join(row, "p");
    let Some(first) = owned.path.first().filter(|_| !join.joins.is_empty()) else {
        return format!("v_customer := {};", join.customer);
    };
    // The first join becomes the FROM, so that the row itself stays a variable.
    let start = format!(" join {} as p1 on {}", first.referenced.sql(), first.condition(row, "p1"));
    let rest = join.joins.strip_prefix(&start).unwrap_or(&join.joins);
    let query = |lock: &str| {
        format!(
            "v_customer := (select {} from {} as p1{rest} where {}{lock});",
            join.customer,
            first.referenced.sql(),
            first.condition(row, "p1")
        )
    };
    format!("if {READ_COMMITTED} then {} else {} end if;", query(""), query(" for share"))
}

/// A cascade finds its parent gone already; the parent was checked. Anything else without a customer is unassigned.
fn admit_found(owned: &OwnedTable, row: &str) -> String {
    format!(
        "{look_again}
         if v_customer is not null then
           v_{row}_entry := godwit.admit_customer(v_customer);
         elsif {NO_CASCADE} then
           perform godwit.admit_entry({unassigned});
           v_{row}_entry := {unassigned};
         end if;",
        look_again = find_customer_of_late_parent(owned, row),
        unassigned = entry::UNASSIGNED
    )
}

/// Where the row names a parent that was not found: another transaction may be about to commit it.
fn find_customer_of_late_parent(owned: &OwnedTable, row: &str) -> String {
    let Some(first) = owned.path.first().filter(|_| !owned.customer_join(row, "p").joins.is_empty()) else {
        return String::new();
    };
    let named: Vec<_> =
        first.columns.iter().map(|column| format!("{row}.{} is not null", quote_identifier(column))).collect();
    format!(
        "if v_customer is null and {NO_CASCADE} and {} then
           perform godwit.hold_every_entry();
           {}
         end if;",
        named.join(" and "),
        find_customer(owned, row)
    )
}

/// Whether an update leaves the row with its parent.
fn owner_unchanged(owned: &OwnedTable) -> String {
    let columns: Vec<&str> = match owned.path.first() {
        Some(key) => key.columns.iter().map(String::as_str).collect(),
        None => vec![owned.root_key.as_str()],
    };
    columns
        .iter()
        .map(|column| {
            let column = quote_identifier(column);
            format!("old.{column} is not distinct from new.{column}")
        })
        .collect::<Vec<_>>()
        .join(" and ")
}

/// What a table's triggers are for.
#[derive(Clone, Copy, Debug)]
pub enum Fenced<'a> {
    Owned(&'a OwnedTable),
    Reference(&'a TableName),
}

impl Fenced<'_> {
    pub fn table(&self) -> &TableName {
        match self {
            Self::Owned(owned) => &owned.table.name,
            Self::Reference(name) => name,
        }
    }

    /// The row triggers, always enabled: sessions in replica mode meet them too. On a partitioned table the server clones them.
    pub fn row_triggers(&self) -> String {
        let function = match self {
            Self::Owned(owned) => quote_identifier(&function_name(&owned.table.name)),
            Self::Reference(_) => "fence_reference".to_owned(),
        };
        format!(
            "create trigger {row} before update or delete on {on} for each row when ({NO_PASS}) execute function godwit.{function}();
             create trigger {insert} after insert on {on} for each row when ({NO_PASS}) execute function godwit.{function}();",
            row = quote_identifier(ROW_TRIGGER),
            insert = quote_identifier(INSERT_TRIGGER),
            on = self.table().sql()
        )
    }

    /// The statement triggers of the table, or of one of its partitions, which statements may name directly.
    pub fn statement_triggers(&self, on: &TableName) -> String {
        let kind = match self {
            Self::Owned(_) => "owned",
            Self::Reference(_) => "reference",
        };
        format!(
            "create trigger {pass} before insert or update or delete or truncate on {on} for each statement \
               when (not ({NO_PASS})) execute function godwit.verify_pass();
             create trigger {truncate} before truncate on {on} for each statement when ({NO_PASS}) \
               execute function godwit.fence_truncate('{kind}');",
            pass = quote_identifier(PASS_TRIGGER),
            truncate = quote_identifier(TRUNCATE_TRIGGER),
            on = on.sql(),
        )
    }
}
