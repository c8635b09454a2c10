-- The old CRM's data: the same rows on every run, computed by the server. About 35 rows an account.
--
-- Linked customers stay among eight neighbours, (id - 1) / 8. Of five neighbourhoods, two have no links, one has pairs
-- of parent and child, one a family of five, and one is tied together by contacts on a neighbour's deals.
-- ACCOUNTS is replaced by their number, a multiple of 40.

insert into public.currency (code, name, minor_units, rate)
select code, 'Currency ' || code, case code when 'JPY' then 0 else 2 end, 1 + (n * 37 % 900) / 700.0
from unnest(array['EUR', 'USD', 'GBP', 'CHF', 'SEK', 'NOK', 'DKK', 'PLN', 'CZK', 'JPY']) with ordinality as c (code, n);

insert into public.campaign (id, name, channels, settings, started_at)
select n, 'Campaign ' || n, case n % 3 when 0 then '{mail}' when 1 then '{mail,phone}' else '{letter}' end::text[],
       jsonb_build_object('budget', n * 1000, 'themes', jsonb_build_array('spring', n % 4)),
       timestamptz '2022-01-10 08:00+00' + n * interval '25 days'
from generate_series(1, 40) as n;

insert into public.account (id, parent_id, name, segment, country, currency_code, credit_limit, tags, attributes, created_at, updated_at)
select n,
       case
           when (n - 1) / 8 % 5 = 2 and (n - 1) % 2 = 1 then n - 1
           when (n - 1) / 8 % 5 = 3 and (n - 1) % 8 between 1 and 4 then n - (n - 1) % 8
       end,
       'Account ' || n || case n % 7 when 0 then ' & Söhne' when 1 then ' d''Or' when 2 then E'\tTab' else '' end,
       (array['small', 'small', 'medium', 'large'])[1 + n % 4]::public.segment,
       (array['DE', 'FR', 'PT', 'SE', 'PL', 'CH', 'US', 'JP'])[1 + n * 13 % 8],
       (array['EUR', 'EUR', 'EUR', 'SEK', 'PLN', 'CHF', 'USD', 'JPY'])[1 + n * 13 % 8],
       (n * 7919 % 100000)::numeric / 4,
       case n % 5 when 0 then '{}' when 1 then '{vip}' else array['region ' || n % 12, 'a,"b"'] end::text[],
       jsonb_build_object('employees', n * 31 % 5000, 'score', n % 100 / 8.0, 'source', case n % 3 when 0 then null else 'web' end),
       timestamptz '2020-01-01 00:00+00' + n * interval '97 minutes',
       timestamptz '2024-01-01 00:00+00' + n * interval '11 seconds'
from generate_series(1, ACCOUNTS) as n;

-- Three contacts an account; contact c belongs to account (c - 1) / 3 + 1.
insert into public.contact (id, account_id, first_name, last_name, email, consents, created_at)
select c, (c - 1) / 3 + 1,
       (array['Ana', 'Björn', 'Chloé', 'Dörte', 'Emil', 'Fatima', 'Göran'])[1 + c % 7],
       (array['Silva', 'Nowak', 'Müller', 'Dubois', 'Sato'])[1 + c % 5] || ' ' || c,
       'contact' || c || '@customer' || (c - 1) / 3 + 1 || '.example',
       jsonb_build_object('mail', c % 2 = 0, 'phone', c % 3 = 0),
       timestamptz '2021-01-01 00:00+00' + c * interval '31 minutes'
from generate_series(1, ACCOUNTS * 3) as c;

-- Three deals an account; deal d belongs to account (d - 1) / 3 + 1.
insert into public.deal (id, account_id, title, stage, amount, currency_code, expected_close, created_at, updated_at)
select d, a.id, 'Deal ' || d, (enum_range(null::public.deal_stage))[1 + d * 5 % 6], (d::bigint * 104729 % 5000000)::numeric / 100, a.currency_code,
       case d % 4 when 0 then null else date '2025-01-01' + (d % 700)::integer end,
       timestamptz '2023-01-01 00:00+00' + d * interval '17 minutes',
       timestamptz '2024-02-01 00:00+00' + d * interval '3 seconds'
from generate_series(1, ACCOUNTS * 3) as d join public.account a on a.id = (d - 1) / 3 + 1;

-- Every deal has a contact of its own account; every second one has another; and where neighbours are tied together,
-- an account's first deal has a contact of the next account of the neighbourhood.
insert into public.deal_contact (deal_id, contact_id, role, since)
select d, d, 'buyer', timestamptz '2023-03-01 00:00+00' + d * interval '19 minutes'
from generate_series(1, ACCOUNTS * 3) as d
union all
select d, (d - 1) / 3 * 3 + d % 3 + 1, 'user', timestamptz '2023-04-01 00:00+00' + d * interval '19 minutes'
from generate_series(1, ACCOUNTS * 3) as d where d % 2 = 0
union all
select (a - 1) * 3 + 1, a * 3 + 1, 'adviser', timestamptz '2023-05-01 00:00+00' + a * interval '1 hour'
from generate_series(1, ACCOUNTS) as a where (a - 1) / 8 % 5 = 4 and (a - 1) % 8 < 7;

-- Twelve activities an account, on its deals and with its contacts or neither.
insert into public.activity (id, account_id, deal_id, contact_id, kind, subject, duration, happened_at)
overriding system value
select v, (v - 1) / 12 + 1,
       case v % 3 when 0 then null else (v - 1) / 12 * 3 + v % 3 end,
       case v % 4 when 0 then null else (v - 1) / 12 * 3 + v % 4 % 3 + 1 end,
       (enum_range(null::public.activity_kind))[1 + v % 4],
       'Activity ' || v, case v % 4 when 1 then (v % 120) * interval '1 minute' end,
       timestamptz '2023-06-01 00:00+00' + v * interval '2 minutes'
from generate_series(1, ACCOUNTS * 12) as v;

-- Three notes for two deals.
insert into public.note (id, deal_id, author, body, created_at)
select n, (n - 1) * 2 / 3 + 1, 'seller' || n % 50,
       'Note ' || n || E' on line one\nline two with \\ and "quotes"; ' || repeat('detail ', (n % 9)::integer),
       timestamptz '2023-07-01 00:00+00' + n * interval '7 minutes'
from generate_series(1, ACCOUNTS * 9 / 2) as n;

-- Two sends a contact.
insert into public.campaign_send (id, campaign_id, contact_id, status, sent_at)
select s, 1 + s * 7 % 40, (s - 1) / 2 + 1, (enum_range(null::public.send_status))[1 + s % 4],
       timestamptz '2023-09-01 00:00+00' + s * interval '3 minutes'
from generate_series(1, ACCOUNTS * 6) as s;

select setval(pg_get_serial_sequence('public.campaign', 'id'), 40);
select setval(pg_get_serial_sequence('public.account', 'id'), ACCOUNTS);
select setval(pg_get_serial_sequence('public.contact', 'id'), ACCOUNTS * 3);
select setval(pg_get_serial_sequence('public.deal', 'id'), ACCOUNTS * 3);
select setval(pg_get_serial_sequence('public.activity', 'id'), ACCOUNTS * 12);
select setval(pg_get_serial_sequence('public.note', 'id'), ACCOUNTS * 9 / 2);
select setval(pg_get_serial_sequence('public.campaign_send', 'id'), ACCOUNTS * 6);
