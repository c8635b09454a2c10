-- The traffic program's own record, in a database of its own that Godwit never sees. Append-only: an intent before each
-- write, then what the database answered.
create schema if not exists traffic;
create table if not exists traffic.record (
    seq bigserial primary key,
    at timestamptz not null default clock_timestamp(),
    intent bigint,                  -- null: this is an intent
    event text not null check (event in ('intent', 'confirmed', 'refused')),
    side text not null check (side in ('Source', 'Target')),
    operation text check (operation in ('insert', 'update', 'delete')),
    table_name text,
    key text,
    account integer,
    cohort text not null,
    hash text                       -- of the whole row as the database returned it
);
create index if not exists record_intent_idx on traffic.record (intent);
create table if not exists traffic.pause (
    cohort text not null,
    side text not null,             -- of the write that ended it
    began_at timestamptz not null,
    millis bigint not null,
    attempts bigint not null
);
create table if not exists traffic.tally (name text primary key, value bigint not null);
