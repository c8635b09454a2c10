//! The reference CRM: six tables, up to three hops from the customer, children scattered over their parents. Deterministic.
//! Used by the rig; the peers' commands take the table names and the joins from here. Must not depend on anything random.

/// Parents before children, with how a row reaches its customer (alias `t`).
pub const TABLES: [Crm; 6] = [
    Crm { name: "customer", join: "", customer: "t.id" },
    Crm { name: "contact", join: "", customer: "t.customer_id" },
    Crm { name: "deal", join: "", customer: "t.customer_id" },
    Crm { name: "activity", join: " join contact p1 on p1.id = t.contact_id", customer: "p1.customer_id" },
    Crm { name: "line_item", join: " join deal p1 on p1.id = t.deal_id", customer: "p1.customer_id" },
    Crm {
        name: "note",
        join: " join activity p1 on p1.id = t.activity_id join contact p2 on p2.id = p1.contact_id",
        customer: "p2.customer_id",
    },
];

pub struct Crm {
    pub name: &'static str,
    join: &'static str,
    customer: &'static str,
}

impl Crm {
    /// The rows of the customers that fulfil a condition on `c`, the customer: a join for each table, as one writes it by hand.
    pub fn rows_of(&self, condition: &str) -> String {
        if self.name == "customer" {
            return format!("select t.* from customer t where {}", condition.replace("c.", "t."));
        }
        format!(
            "select t.* from {} t{} join customer c on c.id = {} where {condition}",
            self.name, self.join, self.customer
        )
    }
}

/// Twenty cohorts of the same size; `number` counts from 0.
pub fn cohort(number: usize) -> String {
    format!("c.tenant_id / 50 = {number}")
}

pub fn rows(table: &str, scale: f64) -> u64 {
    let full = match table {
        "customer" => 200_000.0,
        "contact" => 600_000.0,
        "deal" => 400_000.0,
        "activity" => 3_000_000.0,
        "line_item" => 1_600_000.0,
        _ => 1_500_000.0,
    };
    (full * scale) as u64
}

/// Tables, rows, keys, an index on each foreign key, five foreign keys.
pub fn sql(scale: f64) -> String {
    let count = |table| rows(table, scale);
    let parent = |table| format!("1 + (i * 2654435761) % {}", rows(table, scale));
    format!(
        "{TABLES_SQL}
        insert into customer select i, i % 1000, 'Customer ' || i,
          jsonb_build_object('plan', (array['free', 'team', 'large'])[1 + i % 3], 'seats', i % 97, 'since', 2000 + i % 25),
          '2020-01-01'::timestamptz + i * interval '1 minute' from generate_series(1, {}) i;
        insert into contact select i, {}, 'Contact ' || i, 'contact' || i || '@example.org' from generate_series(1, {}) i;
        insert into deal select i, {}, (i % 1000000) / 7.0, (array['open', 'won', 'lost'])[1 + i % 3], '2024-01-01'::date + (i % 700)::int
          from generate_series(1, {}) i;
        insert into activity select i, {}, repeat(md5(i::text), 6), (i % 9)::smallint, '2024-01-01'::timestamptz + i * interval '1 second'
          from generate_series(1, {}) i;
        insert into line_item select i, {}, 'Product ' || i % 5000, (i % 100000) / 3.0, (i % 40)::int from generate_series(1, {}) i;
        insert into note select i, {}, repeat(md5(i::text), 4) from generate_series(1, {}) i;
        {KEYS_SQL}",
        count("customer"),
        parent("customer"),
        count("contact"),
        parent("customer"),
        count("deal"),
        parent("contact"),
        count("activity"),
        parent("deal"),
        count("line_item"),
        parent("activity"),
        count("note"),
    )
}

pub const TABLES_SQL: &str = "
    create table customer (id bigint not null, tenant_id int not null, name text not null, data jsonb not null, created_at timestamptz not null);
    create table contact (id bigint not null, customer_id bigint not null, name text not null, email text not null);
    create table deal (id bigint not null, customer_id bigint not null, amount numeric(12,2) not null, stage text not null, closes_on date not null);
    create table activity (id bigint not null, contact_id bigint not null, body text not null, kind smallint not null, at timestamptz not null);
    create table line_item (id bigint not null, deal_id bigint not null, product text not null, price numeric(10,2) not null, quantity int not null);
    create table note (id bigint not null, activity_id bigint not null, body text not null);";

pub const KEYS_SQL: &str = "
    alter table customer add primary key (id);
    alter table contact add primary key (id);
    alter table deal add primary key (id);
    alter table activity add primary key (id);
    alter table line_item add primary key (id);
    alter table note add primary key (id);
    create index contact_customer on contact (customer_id);
    create index deal_customer on deal (customer_id);
    create index activity_contact on activity (contact_id);
    create index line_item_deal on line_item (deal_id);
    create index note_activity on note (activity_id);
    alter table contact add foreign key (customer_id) references customer;
    alter table deal add foreign key (customer_id) references customer;
    alter table activity add foreign key (contact_id) references contact;
    alter table line_item add foreign key (deal_id) references deal;
    alter table note add foreign key (activity_id) references activity;";
