//! What a Migration's conditions say, asked the way a person reads them.
//! Used by the tests on an API server and by those on a node.

use godwit::api::Migration;

pub fn condition<'a>(migration: &'a Migration, kind: &str) -> Option<(&'a str, &'a str)> {
    let status = migration.status.as_ref()?;
    let found = status.conditions.iter().find(|condition| condition.type_ == kind)?;
    Some((&found.status, &found.reason))
}

/// The message of a condition.
pub fn message<'a>(migration: &'a Migration, kind: &str) -> &'a str {
    let conditions = migration.status.iter().flat_map(|status| &status.conditions);
    conditions.into_iter().find(|condition| condition.type_ == kind).map_or("", |condition| &condition.message)
}

/// True when a Migration is stalled for this reason, with all these words in its message.
pub fn stalled_for(reason: &'static str, words: &'static [&'static str]) -> impl Fn(&Migration) -> bool + Clone {
    move |migration| {
        let told = message(migration, "Stalled");
        condition(migration, "Stalled") == Some(("True", reason)) && words.iter().all(|word| told.contains(word))
    }
}

/// True when a Migration holds for this reason, with all these words in its message.
pub fn holds_for(reason: &'static str, words: &'static [&'static str]) -> impl Fn(&Migration) -> bool + Clone {
    move |migration| {
        let told = message(migration, "Progressing");
        condition(migration, "Progressing") == Some(("False", reason)) && words.iter().all(|word| told.contains(word))
    }
}

pub fn is_completed(migration: &Migration) -> bool {
    condition(migration, "Succeeded").is_some_and(|(status, _)| status == "True")
}
