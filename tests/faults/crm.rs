//! The small CRM that every case moves, what its users do meanwhile, and how its rows are read for a comparison.
//! Used by `life` and `prints`. Has what makes moving hard: a cycle, self-references, a junction between customers, shared rows,
//! rows three hops away, types that travel as text.

use godwit::contract::{Dataset, Identity, KeyStrategy, OwnerPath, Selection};

/// An account refers to its main contact, and the contact to its account: neither can be written first.
pub const TABLES: &str = "
    create type stage as enum ('open', 'won', 'lost');
    create table currency (code text primary key, name text not null unique);
    create table account (id bigint generated always as identity primary key, parent_id bigint references account,
      main_contact_id bigint, name text not null, currency text references currency, data jsonb);
    create table contact (id bigserial primary key, account_id bigint not null references account on delete cascade,
      email text unique, referred_by bigint references contact);
    alter table account add foreign key (main_contact_id) references contact;
    create table deal (id bigserial primary key, account_id bigint not null references account on delete cascade,
      amount numeric, stage stage not null, currency text references currency);
    create table deal_contact (deal_id bigint references deal on delete cascade, contact_id bigint references contact on delete cascade,
      role text, primary key (deal_id, contact_id));
    create table activity (id bigserial primary key, contact_id bigint not null references contact on delete cascade, body text, stages stage[]);
    create table note (id bigserial primary key, activity_id bigint not null references activity on delete cascade, body text);
";

/// 18 customers. 1 is the parent of 2 and 3, a contact of 5 is on a deal of 4, and so on for 11, 12, 13 and 14, 15.
pub const ROWS: &str = "
    insert into currency values ('EUR', 'euro'), ('USD', 'dollar'), ('GBP', 'pound');
    insert into account (parent_id, name, currency, data) select case when i % 10 in (2, 3) then i - i % 10 + 1 end, 'a' || i,
      case i % 3 when 0 then 'EUR' when 1 then 'USD' end, jsonb_build_object('n', i) from generate_series(1, 18) i;
    insert into contact (account_id, email) select 1 + i % 18, 'c' || i || '@example.org' from generate_series(1, 54) i;
    update contact set referred_by = (select min(c.id) from contact c where c.account_id = contact.account_id) where id % 3 = 0;
    update account set main_contact_id = (select max(c.id) from contact c where c.account_id = account.id);
    insert into deal (account_id, amount, stage, currency) select 1 + i % 18, i * 1.50, (array['open', 'won', 'lost'])[1 + i % 3]::stage, 'GBP' from generate_series(1, 36) i;
    insert into deal_contact select d.id, min(c.id), 'buyer' from deal d join contact c on c.account_id = d.account_id group by d.id;
    insert into deal_contact select (select min(id) from deal where account_id = n), (select min(id) from contact where account_id = n + 1), 'friend'
      from unnest(array[4, 14]) n;
    insert into activity (contact_id, body, stages) select 1 + i % 54, repeat('did ' || i, 40), array['open', 'won']::stage[] from generate_series(1, 108) i;
    insert into note (activity_id, body) select 1 + i % 108, E'line\\\\ttab ' || repeat('x', i) from generate_series(1, 162) i;
    analyze;
";

/// What the first cohort's users do on the source between Copy and Cutover, beside what others do.
pub const FIRST_LIVES: &str = "
    update account set name = 'renamed', data = '{\"n\": 1.00}' where id in (1, 4, 12);
    insert into currency values ('CHF', 'franc');
    insert into deal (account_id, amount, stage, currency) values (1, 7, 'won', 'CHF'), (16, 8, 'open', 'CHF');
    insert into contact (account_id, email) values (5, 'new@example.org');
    update account set main_contact_id = (select max(id) from contact where account_id = 5) where id = 5;
    delete from activity where id in (select min(v.id) from activity v join contact c on c.id = v.contact_id where c.account_id in (6, 17));
    update note set body = null where activity_id in (select v.id from activity v join contact c on c.id = v.contact_id where c.account_id = 7);
";

/// What the first cohort's users do on the target.
pub const FIRST_LIVES_ABROAD: &str = "
    update account set name = 'on the target' where id in (1, 6);
    insert into activity (contact_id, body) select min(id), 'called' from contact where account_id = 4;
    delete from note where activity_id in (select v.id from activity v join contact c on c.id = v.contact_id where c.account_id = 5);
";

/// What nobody should be able to do, on the source while the target owns the first cohort: Return has something to restore.
pub const TAMPERED: &str = "
    set session_replication_role = replica;
    select set_config('godwit.pass', entry || ':' || epoch, false) from godwit.ownership where name = 'first';
    update deal set amount = 0 where account_id = 4;
    delete from activity where contact_id in (select id from contact where account_id = 6);
";

/// What the last cohort's users do on the source; two customers are born.
pub const LAST_LIVES: &str = "
    update deal set amount = amount + 1 where account_id in (11, 14);
    insert into currency values ('NOK', 'krone');
    insert into account (name, currency) values ('born', 'NOK'), ('born too', null);
    insert into contact (account_id, email) select id, name || '@example.org' from account where name like 'born%';
    delete from deal_contact where deal_id in (select id from deal where account_id = 18);
";

pub const LAST_LIVES_ABROAD: &str = "
    insert into account (name, currency) values ('born on the target', 'EUR');
    update contact set email = 'moved-' || email where account_id = 11;
    insert into currency values ('SEK', 'krona');
";

/// The first cohort's customers.
pub const FIRST: &str = "1, 2, 3, 4, 5, 6, 7";

pub fn first() -> Selection {
    Selection::Where("customer.id in (2, 4, 6, 7)".into())
}

pub fn dataset() -> Dataset {
    Dataset {
        root_table: "public.account".into(),
        root_key: "id".into(),
        owners: vec![OwnerPath { table: "public.deal_contact".into(), via: vec!["deal_id".into()] }],
        keys: KeyStrategy::Gap,
        ..Dataset::default()
    }
}

pub fn migration() -> Identity {
    Identity { namespace: "sales".into(), name: "crm".into(), uid: "uid-crm".into() }
}

pub fn cohort(name: &str) -> Identity {
    Identity { namespace: "sales".into(), name: name.into(), uid: format!("uid-{name}") }
}

/// The owned tables, each with what joins a row `t` to its account `a`.
pub const OWNED: [(&str, &str); 6] = [
    ("account", "join public.account a on a.id = t.id"),
    ("contact", "join public.account a on a.id = t.account_id"),
    ("deal", "join public.account a on a.id = t.account_id"),
    ("deal_contact", "join public.deal d on d.id = t.deal_id join public.account a on a.id = d.account_id"),
    ("activity", "join public.contact c on c.id = t.contact_id join public.account a on a.id = c.account_id"),
    (
        "note",
        "join public.activity v on v.id = t.activity_id join public.contact c on c.id = v.contact_id join public.account a on a.id = c.account_id",
    ),
];

/// One of 24 equal customers with some weight, each a chunk of its own: for what a repeated piece of work costs.
pub const HEAVY_ROWS: &str = "
    insert into currency values ('EUR', 'euro');
    insert into account (name, currency) select 'a' || i, 'EUR' from generate_series(1, 24) i;
    insert into contact (account_id, email) select i, 'c' || i || '@example.org' from generate_series(1, 24) i;
    insert into activity (contact_id, body) select 1 + i % 24, 'did ' || i from generate_series(1, 240) i;
    insert into note (activity_id, body) select 1 + i % 240, repeat(md5(i::text), 12) from generate_series(1, 19200) i;
    analyze;
";
