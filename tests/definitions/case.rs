//! A case of a definition: an object that differs from a valid one, and what the server must say to it.
//! The tables of the kinds hold cases; `assert_all` asks a real server, `client_side.rs` asks the rules without one.

use kube::Api;
use kube::Error;
use kube::api::{DynamicObject, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use crate::server::{Server, object};

/// One sentence of a definition.
#[derive(Clone)]
pub struct Case {
    pub what: &'static str,
    /// What the stored object has more than the kind's valid one, status included; absent for a case of creation.
    pub stored: Option<Value>,
    /// The change that is tried, as a merge patch.
    pub change: Value,
    pub answer: Answer,
}

#[derive(Clone)]
pub enum Answer {
    Accepted,
    Refused { field: &'static str, reason: &'static str, message: &'static str, by_rule: bool },
}

pub fn accepted(what: &'static str, change: Value) -> Case {
    Case { what, stored: None, change, answer: Answer::Accepted }
}

/// Refused by a bound, an enumeration or a pattern of the schema.
pub fn refused(what: &'static str, change: Value, field: &'static str, message: &'static str) -> Case {
    let answer = Answer::Refused { field, reason: "", message, by_rule: false };
    Case { what, stored: None, change, answer }
}

/// Refused by a CEL rule with this reason.
pub fn ruled_out(what: &'static str, change: Value, cause: [&'static str; 3]) -> Case {
    let [field, reason, message] = cause;
    let answer = Answer::Refused { field, reason, message, by_rule: true };
    Case { what, stored: None, change, answer }
}

impl Case {
    /// The change is tried on an object that is stored already.
    pub fn on(mut self, stored: Value) -> Self {
        self.stored = Some(stored);
        self
    }
}

/// RFC 7396: a null takes a field away.
pub fn merged(base: &Value, change: &Value) -> Value {
    let Value::Object(fields) = change else { return change.clone() };
    let mut result = if base.is_object() { base.clone() } else { json!({}) };
    for (key, value) in fields {
        if value.is_null() {
            result.as_object_mut().unwrap().remove(key);
        } else {
            result[key] = merged(&result[key].clone(), value);
        }
    }
    result
}

/// Tries every case and ends the test with all that were answered otherwise.
pub async fn assert_all(valid: &Value, namespace: &str, cases: Vec<Case>) {
    let server = Server::shared();
    let (group, _) = valid["apiVersion"].as_str().unwrap().split_once('/').unwrap();
    let api = server.api_of_group(group, valid["kind"].as_str().unwrap(), namespace).await;
    let mut wrong = Vec::new();
    for (number, case) in cases.iter().enumerate() {
        let outcome = match &case.stored {
            None => create(&api, merged(valid, &case.change)).await,
            Some(stored) => {
                let name = format!("case-{number}");
                store(&api, merged(&merged(valid, stored), &json!({"metadata": {"name": name}}))).await;
                change(&api, &name, &case.change).await
            }
        };
        if let Err(difference) = compare(&case.answer, outcome) {
            wrong.push(format!("- {}: {difference}", case.what));
        }
    }
    assert!(wrong.is_empty(), "{} of {} cases:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}

async fn create(api: &Api<DynamicObject>, value: Value) -> Result<(), Error> {
    let dry_run = PostParams { dry_run: true, ..PostParams::default() };
    api.create(&dry_run, &object(value)).await.map(|_| ())
}

/// Creates an object and writes its status as the operator does: through the subresource.
pub async fn store(api: &Api<DynamicObject>, value: Value) {
    let mut created = api.create(&PostParams::default(), &object(value.clone())).await.unwrap();
    if let Some(status) = value.get("status") {
        created.data["status"] = status.clone();
        let name = created.metadata.name.clone().unwrap();
        api.replace_status(&name, &PostParams::default(), &created).await.unwrap();
    }
}

async fn change(api: &Api<DynamicObject>, name: &str, change: &Value) -> Result<(), Error> {
    let params = PatchParams { dry_run: true, ..PatchParams::default() };
    if change.get("status").is_some() {
        return api.patch_status(name, &params, &Patch::Merge(change)).await.map(|_| ());
    }
    api.patch(name, &params, &Patch::Merge(change)).await.map(|_| ())
}

fn is_consequence(message: &str) -> bool {
    message.contains("some validation rules were not checked") || message.contains("type conversion error from")
}

fn compare(answer: &Answer, outcome: Result<(), Error>) -> Result<(), String> {
    let status = match (answer, outcome) {
        (Answer::Accepted, Ok(())) => return Ok(()),
        (Answer::Accepted, Err(error)) => return Err(format!("refused: {error}")),
        (Answer::Refused { .. }, Ok(())) => return Err("accepted".into()),
        (Answer::Refused { .. }, Err(Error::Api(status))) => status,
        (Answer::Refused { .. }, Err(error)) => return Err(format!("no answer: {error}")),
    };
    let Answer::Refused { field, reason, message, .. } = answer else { return Ok(()) };
    let causes = status.details.as_ref().map(|details| details.causes.clone()).unwrap_or_default();
    // Beside what is wrong the server says which rules it could not check because of it.
    let told: Vec<_> = causes.iter().filter(|cause| !is_consequence(&cause.message)).collect();
    let fits = told.len() == 1
        && told[0].field == *field
        && told[0].message.contains(message)
        && (reason.is_empty() || told[0].reason == *reason);
    if fits { Ok(()) } else { Err(format!("refused otherwise: {causes:?}")) }
}
