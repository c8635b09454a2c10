//! Tables of unusual shape that move: constraints that wait for the commit, partitions in partitions, cycles, generated columns,
//! keys of customers that are no primary key, and what stands around the tables.

use godwit::contract::{Side, Task};

use crate::base::rooted;
use crate::journey::{Journey, percent, remainder, validate};

/// With the users' triggers the server switches off deferrable unique constraints and primary keys: the worker has to keep them.
#[tokio::test]
async fn deferrable_constraints_are_kept_though_the_server_does_not_enforce_them_while_rows_land() {
    let journey = Journey::new(
        "create table customer (id int primary key deferrable initially deferred, rank int unique deferrable, parent int);
         create table seat (customer int not null, number int, place int not null, next int, primary key (customer, number) deferrable,
           unique nulls not distinct (customer, next) deferrable, unique (place) deferrable initially deferred);
         alter table customer add constraint customer_id_plain unique (id);
         alter table seat add foreign key (customer) references customer (id) deferrable initially deferred;
         insert into customer select i, 100 - i from generate_series(1, 20) i;
         insert into seat select c.id, n, c.id * 10 + n, nullif(n + 1, 4) from customer c, generate_series(1, 3) n;",
        rooted("public.customer", "id", &[]),
    );
    journey
        .there_and_back(
            &[],
            "update seat set place = 1000 - place where customer = 20; update customer set rank = 161 - rank where id in (19, 20)",
        )
        .await;
}

#[tokio::test]
async fn a_double_that_only_a_switched_off_constraint_would_see_is_not_landed() {
    let schema = "create table customer (id int primary key);
        create table seat (id int primary key, customer int not null references customer, place int unique deferrable, next int,
          unique nulls not distinct (next) deferrable);";
    let journey = Journey::new(
        &format!(
            "{schema} insert into customer select generate_series(1, 4); insert into seat values (1, 1, 7, null), (2, 2, 8, 8)"
        ),
        rooted("public.customer", "id", &[]),
    );
    journey.target(schema);
    journey.project.done(None, Task::Assess {}).await;
    journey.project.done(None, Task::Prepare {}).await;
    for (stranger, constraint) in [("(9, 90, 7, 5)", "seat_place_key"), ("(9, 90, 70, null)", "seat_next_key")] {
        let forged = "set session_replication_role = replica; set godwit.pass = '2:0';";
        journey.target(&format!(
            "{forged} insert into customer values (90) on conflict do nothing; delete from seat where id = 9; insert into seat values {stranger}"
        ));
        let selection = godwit::contract::Selection::KeysFrom("select 1".into());
        journey.project.done(Some("first"), Task::Select { selection }).await;
        let (code, report) = journey.project.run(Some("first"), Task::Copy {}).await;
        assert_eq!(code, 65, "{report:?}");
        assert_eq!(report.findings[0].code, "DoubleRows", "{report:?}");
        assert!(report.findings[0].message.contains(constraint), "{report:?}");
        assert!(!journey.rows(Side::Target).await["public.seat"].iter().any(|row| row.starts_with("(1,1,")));
    }
}

#[tokio::test]
async fn partitions_in_partitions_move_row_by_row_to_where_they_belong() {
    let journey = Journey::new(
        "create table customer (id bigint generated always as identity primary key);
         create table event (id bigserial, customer bigint not null references customer, at date, kind text default 'x', up bigint, up_at date, up_kind text,
           primary key (at, id, kind), foreign key (up_at, up, up_kind) references event (at, id, kind) on update cascade) partition by range (at);
         create table event_old partition of event for values from (minvalue) to ('2020-01-01');
         create table event_new partition of event for values from ('2020-01-01') to (maxvalue) partition by list (kind);
         create table event_new_x partition of event_new for values in ('x') partition by hash (id);
         create table event_new_x0 partition of event_new_x for values with (modulus 2, remainder 0);
         create table event_new_w (extra int, kind text not null, id bigint not null, up_kind text, at date not null, up bigint, customer bigint not null, up_at date);
         alter table event_new_w drop column extra;
         alter table event_new attach partition event_new_w for values in ('w');
         create table event_new_rest partition of event_new default;
         create table event_new_x1 partition of event_new_x for values with (modulus 2, remainder 1);
         create table mark (event bigint, at date, kind text, n int, primary key (at, event, kind, n),
           foreign key (at, event, kind) references event on delete cascade on update cascade) partition by hash (event);
         create table mark_0 partition of mark for values with (modulus 1, remainder 0);
         insert into customer select from generate_series(1, 15);
         insert into event (customer, at, kind) select c.id, '2019-12-30'::date + n, (array['x', 'y', 'w'])[1 + n % 3] from customer c, generate_series(1, 9) n;
         update event e set up = o.id, up_at = o.at, up_kind = o.kind from event o where o.customer = e.customer and o.at = e.at - 1;
         insert into mark select id, at, kind, n from event, generate_series(1, 2) n;",
        rooted("public.customer", "id", &[("public.event", &["customer"]), ("public.mark", &["at", "event", "kind"])]),
    );
    journey
        .there_and_back(
            &[],
            "insert into event (customer, at, kind) values (14, '2024-01-01', 'w'); delete from mark where n = 2 and event in (select id from event where customer = 14);
             update event set up = null, up_at = null, up_kind = null where customer = 15; delete from mark where event in (select id from event where customer = 15);
             update event set kind = case kind when 'x' then 'y' else 'x' end where customer = 15",
        )
        .await;
}

#[tokio::test]
async fn cycles_between_tables_and_customers_known_by_another_unique_key_move() {
    let journey = Journey::new(
        "create table customer (id int primary key, code text not null unique, main_contact int, currency text);
         create table contact (id int primary key, customer text not null references customer (code) on update cascade, boss int references contact deferrable,
           name text, shout text generated always as (upper(name)) stored);
         alter table customer add foreign key (main_contact) references contact deferrable initially deferred;
         create table currency (code text primary key, base text references currency, anchor int);
         create table country (id int primary key, currency text references currency);
         alter table currency add foreign key (anchor) references country deferrable initially deferred;
         alter table customer add foreign key (currency) references currency;
         begin; insert into currency values ('EUR', 'EUR', 1), ('CHF', 'EUR', null); insert into country values (1, 'EUR'), (2, 'CHF');
         insert into customer select i, 'C' || i, i * 2, (array['EUR', 'CHF'])[1 + i % 2] from generate_series(1, 20) i;
         insert into contact select i, 'C' || (i + 1) / 2, case when i % 2 = 0 then i - 1 end, case when i % 3 > 0 then 'n' || i end from generate_series(1, 40) i; commit;",
        rooted("public.customer", "id", &[]),
    );
    journey
        .there_and_back(
            &[],
            "update customer set main_contact = 39 where id = 20; update contact set name = 'new', boss = 40 where id = 39; update currency set anchor = 2 where code = 'CHF'",
        )
        .await;
}

#[tokio::test]
async fn what_stands_around_the_tables_is_neither_copied_nor_in_the_way() {
    let journey = Journey::new(
        "create function twice(int) returns int language sql immutable return $1 * 2;
         create function mine(bigint) returns boolean language sql stable as 'select true';
         create role tenant_ROLE; create schema reports;
         create table customer (id bigint generated always as identity primary key, n int check (twice(n) > 0) default twice(2), m int generated always as (public.twice(n)) stored);
         create table item (id serial primary key, customer bigint not null references customer, body text);
         create view big as select * from customer where n > 1;
         create materialized view reports.per_customer as select customer, count(*) from item group by 1;
         create statistics item_stats on customer, body from item;
         comment on table item is 'it''s'; cluster item using item_pkey; alter table item set (fillfactor = 70); alter table item alter body set storage external;
         alter table item enable row level security; create policy own on item to tenant_ROLE using (mine(customer));
         insert into customer select from generate_series(1, 10); insert into item (customer, body) select id, repeat('b', 5000) from customer;"
            .replace("tenant_ROLE", &format!("tenant_{}", std::process::id()))
            .as_str(),
        rooted("public.customer", "id", &[]),
    );
    // Its own database, but the same server has roles of its own: the policy's must be there first, and Assess says so.
    let role = format!("tenant_{}", std::process::id());
    let found = journey.findings().await;
    let missing = found.iter().find(|finding| finding.object == role).unwrap_or_else(|| panic!("{found:?}"));
    assert_eq!(missing.code, "DependencyUnsupported");
    assert!(missing.message.contains("create it on the target"), "{}", missing.message);
    journey.target(&format!("create role {role}"));
    journey.there_and_back(&[], "insert into item (customer, body) select id, 'x' from customer where id = 9").await;
}

/// A key that begins at the customer's own: found by the router and by the joins alike, also where the customer is the child of another.
#[tokio::test]
async fn an_empty_table_and_a_customer_without_rows_are_moved_like_any_other() {
    let journey = Journey::new(
        "create table customer (id int primary key); create table empty (id int primary key, customer int not null references customer);
         insert into customer values (1), (2), (3)",
        rooted("public.customer", "id", &[]),
    );
    journey.prepared(&[]).await;
    journey.copied("one", percent(1.0)).await;
    let moved = journey.rows(Side::Target).await;
    assert_eq!((moved["public.customer"].len(), moved["public.empty"].len()), (1, 0));
    journey.target("set session_replication_role = replica; set godwit.pass = '2:0'; delete from customer");
    let (code, report) = journey.project.run(Some("one"), validate()).await;
    assert_eq!((code, report.findings[0].code.as_str()), (65, "RowsDiffer"));
    let (code, _) = journey.project.run(Some("rest"), Task::Select { selection: remainder() }).await;
    assert_eq!(code, 0);
}
