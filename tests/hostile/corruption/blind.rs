//! What Validate does not see: measured, so that the documentation's list of blind spots is one of facts.

use godwit::contract::{Task, exit};

use super::lab::Lab;

/// Name in docs/validation.md, what is done to the target, what undoes it.
const BLIND: &[(&str, &str, &str)] = &[
    ("a shared row changed", "update currency set name = 'forged' where code = 'C1'", ""),
    (
        "a check constraint absent",
        "alter table leaf drop constraint short",
        "alter table leaf add constraint short check (length(body) < 1000)",
    ),
    (
        "a user's trigger disabled or absent",
        "create function f() returns trigger language plpgsql as 'begin return new; end'; create trigger mine before insert on leaf for each row execute function f(); alter table leaf disable trigger mine",
        "drop trigger mine on leaf; drop function f()",
    ),
    (
        "a default changed",
        "alter table leaf alter code drop default",
        "alter table leaf alter code set default 'leaf-' || lpad(nextval('leaf_code')::text, 9, '0')",
    ),
    (
        "a write that was undone later",
        "update leaf set body = body || 'x'; update leaf set body = rtrim(body, 'x')",
        "",
    ),
    (
        "a row of another cohort",
        "update oddity set t_text = 'forged' where customer = (select id from customer where rank = 5)",
        "",
    ),
    ("a table outside the dataset", "create table beside (id int); insert into beside values (1)", "drop table beside"),
    ("an index absent that is not unique", "drop index leaf_body", "create index leaf_body on leaf (body)"),
];

#[tokio::test]
async fn the_blind_spots_are_those_that_the_documentation_names() {
    let lab = Lab::new().await;
    let text = include_str!("../../../docs/validation.md");
    for (name, breaks, repairs) in BLIND {
        lab.stranger(breaks, name).await;
        let told = lab.validate("one").await;
        assert_eq!(told.code, exit::DONE, "{name} is seen by now: move it out of the blind spots: {:?}", told.report);
        assert!(text.contains(&format!("| {name} |")), "docs/validation.md does not name the blind spot: {name}");
        lab.stranger(repairs, name).await;
    }
    // The other cohort's Validate sees its row, and the cutover brings the shared rows as the source has them.
    assert_eq!(lab.validate("other").await.code, exit::DATA_DIFFERS);
    let (code, report) = lab.run("one", Task::Cutover { checks: Vec::new() }).await;
    assert_eq!(code, exit::DONE, "{report:?}");
    assert_eq!(lab.number("select count(*) from currency where name = 'forged'").await, 0);
}

/// A corruption of the source after the copy is a change of the source: drift, and brought by the cutover.
#[tokio::test]
async fn a_change_of_the_source_is_drift_and_the_same_change_by_a_stranger_stops_the_cutover() {
    let lab = Lab::new().await;
    let change = "update customer set name = 'changed' where rank = 1";
    lab.source(change);
    let told = lab.validate("one").await;
    assert_eq!((told.code, told.report.counts["drift"]), (exit::DONE, 1));
    lab.stranger(change, "alike").await;
    // Both sides hold the same rows, so Validate passes; Cutover also asks who wrote them.
    assert_eq!(lab.validate("one").await.code, exit::DONE);
    let (code, report) = lab.run("one", Task::Cutover { checks: Vec::new() }).await;
    assert_eq!((code, report.findings[0].code.as_str()), (exit::DATA_DIFFERS, "CopyDiffers"), "{report:?}");
}
