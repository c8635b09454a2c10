-- A ticketing system: text keys that come from a sequence, an agent's login that ignores case, replies to replies to replies.
create extension citext;
create schema desk;
create type desk.priority as enum ('low', 'normal', 'high', 'urgent');
create domain desk.ticket_key as text check (value ~ '^[A-Z]{2,6}-[0-9]+$');
create sequence desk.ticket_number;

create table desk.agent (login citext primary key, name text not null, languages text[] not null default '{}');
create table desk.sla (code text primary key, response interval not null, calendar jsonb not null);
create table desk.organisation (code text primary key, parent_code text references desk.organisation deferrable initially deferred,
  name text not null, sla text not null references desk.sla, settings jsonb not null default '{}', created timestamptz not null);
create table desk.person (id uuid primary key default gen_random_uuid(), organisation text not null references desk.organisation on update cascade,
  email citext not null, unique (organisation, email));
create table desk.ticket (key desk.ticket_key primary key default 'HD-' || nextval('desk.ticket_number'),
  organisation text not null references desk.organisation, reporter uuid references desk.person, agent citext references desk.agent,
  parent desk.ticket_key references desk.ticket, priority desk.priority not null default 'normal', raised desk.priority[] not null default '{}',
  subject text not null, body text, due timestamptz,
  search tsvector generated always as (to_tsvector('simple'::regconfig, subject || ' ' || coalesce(body, ''))) stored);
create table desk.comment (ticket desk.ticket_key not null references desk.ticket on delete cascade, number int not null, reply_to int,
  author uuid references desk.person, body text not null, at timestamptz not null,
  primary key (ticket, number), foreign key (ticket, reply_to) references desk.comment (ticket, number));
create table desk.watcher (ticket desk.ticket_key references desk.ticket on delete cascade, person uuid references desk.person, primary key (ticket, person));
create table desk.attachment (id bigint generated always as identity primary key, ticket desk.ticket_key not null, number int not null,
  name text not null, content bytea not null, foreign key (ticket, number) references desk.comment (ticket, number) on delete cascade);
create index ticket_search on desk.ticket using gin (search);
create unique index one_urgent on desk.ticket (organisation) where priority = 'urgent';

create table desk.audit (id bigserial primary key, ticket text not null, what text not null);
create function desk.note() returns trigger language plpgsql as $$
begin insert into desk.audit (ticket, what) values (coalesce(new.key, old.key), tg_op); return coalesce(new, old); end $$;
create trigger note after insert or update or delete on desk.ticket for each row execute function desk.note();
create view desk.open_ticket as select key, subject from desk.ticket where due is null;

insert into desk.agent select 'Agent' || i || '@Desk', 'agent ' || i, array['de', null, 'en "uk"'] from generate_series(1, 5) i;
insert into desk.sla values ('gold', '1 hour', '{"days": [1, 2.50]}'), ('none', '1 mon 2 days -00:00:01.5', 'null');
insert into desk.organisation select 'org/' || i, case when i between 2 and 6 then 'org/' || i - 1 end, E'Org \\ ' || i || E'\ttab', (array['gold', 'none'])[1 + i % 2],
  jsonb_build_object('n', i::numeric / 4, 'empty', ''), '2024-02-29'::timestamptz + i * interval '1 day 1 microsecond' from generate_series(1, 40) i;
insert into desk.person select md5('p' || i)::uuid, 'org/' || 1 + i % 40, 'P' || i || '@Example.org' from generate_series(1, 120) i;
insert into desk.ticket (organisation, reporter, agent, priority, raised, subject, body)
  select 'org/' || 1 + i % 40, (select p.id from desk.person p where p.organisation = 'org/' || 1 + i % 40 order by p.id limit 1),
    case i % 3 when 0 then 'AGENT' || 1 + i % 5 || '@desk' when 1 then 'agent1@DESK' end, (array['low', 'normal', 'high'])[1 + i % 3]::desk.priority,
    array['low', 'urgent']::desk.priority[], 'Subject ' || i, case when i % 4 > 0 then repeat('text ', i % 7) end from generate_series(1, 400) i;
-- The reporter of some tickets works elsewhere, and one organisation's tickets hang on each other two hundred deep.
update desk.ticket set reporter = md5('p7')::uuid where key in ('HD-20', 'HD-21');
insert into desk.ticket (key, organisation, parent, subject) select 'DEEP-' || i, 'org/9', case when i > 1 then 'DEEP-' || i - 1 end, 'level ' || i from generate_series(1, 200) i;
insert into desk.comment select t.key, n, case when n > 1 then n - 1 end, t.reporter, E'line\nbreak ' || n, '2025-01-01 12:00+00'::timestamptz + n * interval '1 s'
  from desk.ticket t cross join generate_series(1, 4) n where t.key like 'HD-%';
insert into desk.comment select 'HD-1', n, n - 1, null, 'thread ' || n, '2025-01-02' from generate_series(5, 150) n;
insert into desk.watcher select t.key, p.id from desk.ticket t join desk.person p on p.organisation = t.organisation;
insert into desk.attachment (ticket, number, name, content) select key, 1, 'Bild ' || key || '.png', decode(repeat('00ff5c0a', 50), 'hex') from desk.ticket where key like 'HD-1%';
insert into desk.attachment (ticket, number, name, content) values ('HD-3', 2, 'large', decode(repeat('deadbeef', 700000), 'hex'));
