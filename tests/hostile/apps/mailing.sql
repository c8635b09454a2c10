-- An e-mail marketing tool: one sequence for the keys of every table, arrays, jsonb, hstore, many-to-many in both directions.
create extension hstore;
create extension citext;
create sequence global_id start 1000 increment 1;
create table "Region" (code text primary key, "Name" text not null, hosts cidr[] not null default '{}');
create table blocked_domain (domain citext primary key, since date not null);
create table "Account" (id bigint primary key default nextval('global_id'), "Name" text not null, region text not null references "Region", settings jsonb not null, senders text[][]);
create table "Mail List" (id bigint primary key default nextval('global_id'), "accountId" bigint not null references "Account", "Title" text not null, rules jsonb[] not null default '{}');
create table contact (id bigint primary key default nextval('global_id'), account bigint not null references "Account", email citext not null, attributes hstore not null,
  tags text[], consent inet, "order" int, domain citext references blocked_domain, unique (account, email));
create table "Subscription" ("list" bigint references "Mail List", contact bigint references contact, state text not null default 'on', since timestamptz not null,
  primary key ("list", contact));
create table template (id bigint primary key default nextval('global_id'), account bigint not null references "Account", "Überschrift" text not null, html text not null,
  variables text[] not null default array[]::text[], parent bigint references template);
create table campaign (id bigint primary key default nextval('global_id'), account bigint not null references "Account", template bigint not null references template,
  window_open tstzrange not null, filters jsonb, flags bit(4) not null default b'0101');
create table "campaign.list" (campaign bigint references campaign, "list" bigint references "Mail List", primary key (campaign, "list"));
create table send (id bigserial primary key, campaign bigint not null references campaign, contact bigint not null references contact, at timestamptz(3) not null, bounce varbit);
create table "click ""link""" (send bigint references send on delete cascade, n smallint, url text not null, place point, agent xml, primary key (send, n));
create index contact_attributes on contact using gist (attributes);
create index on contact (lower(email::text)) where consent is not null;

create table outbox (id bigserial primary key, contact bigint not null);
create function mail() returns trigger language plpgsql as $$ begin insert into public.outbox (contact) values (new.contact); return new; end $$;
create trigger mail after insert or update on send for each row execute function mail();
create materialized view reach as select campaign, count(*) from send group by 1;
alter table contact enable row level security;
create policy own_contacts on contact using (account = nullif(current_setting('app.account', true), '')::bigint);

insert into "Region" values ('eu', 'Europe', '{10.0.0.0/8}'), ('us', 'States', '{}');
insert into blocked_domain values ('Example.ORG', '2024-01-01'), ('spam.test', '-infinity');
insert into "Account" ("Name", region, settings, senders) select 'Account ' || i, (array['eu', 'us'])[1 + i % 2], jsonb_build_object('rate', 1.0, 'i', i, 'u', U&'\2603'),
  array[['a' || i, null], ['"', '\']] from generate_series(1, 30) i;
insert into "Mail List" ("accountId", "Title", rules) select a.id, 'List ' || n, array['{"a": 1}', 'null', null]::jsonb[] from "Account" a, generate_series(1, 3) n;
insert into contact (account, email, attributes, tags, consent, "order", domain) select a.id, 'C' || n || '@Example.org', hstore(array['k', 'n', 'empty', 'nil'], array['v', n::text, '', null]),
  case when n % 2 = 0 then array['x', 'NULL', null, ''] end, case when n % 3 = 0 then '10.1.2.3/24'::inet end, n, case n % 3 when 0 then 'EXAMPLE.org' when 1 then 'example.ORG' end
  from "Account" a, generate_series(1, 12) n;
insert into "Subscription" select l.id, c.id, 'on', '2024-03-31 02:30+01'::timestamptz from "Mail List" l join contact c on c.account = l."accountId" where (l.id + c.id) % 3 > 0;
insert into template (account, "Überschrift", html, variables) select id, 'Grüße 👋', '<b>' || repeat('x', 3000) || '</b>', array['first name', 'x,y'] from "Account";
insert into template (account, "Überschrift", html, parent) select account, 'child', '', id from template;
insert into campaign (account, template, window_open, filters) select t.account, t.id, tstzrange('2024-01-01', null, '(]'), case when t.parent is null then '{"any": [1.10, null]}'::jsonb end from template t;
insert into "campaign.list" select c.id, l.id from campaign c join "Mail List" l on l."accountId" = c.account;
insert into send (campaign, contact, at, bounce) select c.id, k.id, '2024-05-05 05:05:05.5555+00', case when k."order" = 1 then b'101' end from campaign c join contact k on k.account = c.account;
insert into "click ""link""" select id, n, 'https://example.org/?a=' || n || '&b=%20', point(id, n / 3.0), case n when 1 then '<a> 1 </a>'::xml end from send, generate_series(1, 2) n where id % 2 = 0;
-- An agency sends to a customer's list.
insert into "campaign.list" select (select min(id) from campaign), (select max(id) from "Mail List");
refresh materialized view reach;
