//! `passWhen`: a CEL expression over numbers, evaluated off the runtime's threads and bounded in every direction.
//! Used by `checks/mod.rs`. A thread cannot be stopped, so an expression that could run long is refused before it starts.

use std::sync::Arc;
use std::time::Duration;

use kube_cel::cel::{Context, Program, Value};
use tokio::sync::Semaphore;

use super::{MAX_VALUES, cost};
use crate::api::status::MAX_MEASUREMENTS;

/// Longest expression, as the schema has it.
const MAX_SOURCE: usize = 2048;
/// Brackets, parentheses and prefix operators inside one another: the parser recurses with each.
const MAX_BRACKETS: usize = 40;
const LIMIT: Duration = Duration::from_secs(2);
/// Expressions that are evaluated at the same time.
const AT_ONCE: usize = 4;

/// What an expression sees.
#[derive(Clone, Debug)]
pub struct Numbers {
    pub values: Vec<f64>,
    pub samples: Vec<f64>,
}

pub struct Evaluator {
    free: Arc<Semaphore>,
}

impl Default for Evaluator {
    fn default() -> Self {
        Self { free: Arc::new(Semaphore::new(AT_ONCE)) }
    }
}

impl Evaluator {
    /// Whether the measurement is good; the error is for people.
    pub async fn evaluate(&self, source: String, numbers: Numbers) -> Result<bool, String> {
        let evaluation = async {
            let permit = Arc::clone(&self.free).acquire_owned().await;
            let permit = permit.map_err(|_| "the operator is stopping".to_owned())?;
            let work = tokio::task::spawn_blocking(move || {
                // Held until the thread is free again, also when nobody waits for it any more.
                let _permit = permit;
                evaluate(&source, &numbers)
            });
            work.await.map_err(|_| "the evaluation broke off".to_owned())?
        };
        tokio::time::timeout(LIMIT, evaluation)
            .await
            .map_err(|_| format!("the evaluation took longer than {} s", LIMIT.as_secs()))?
    }
}

fn evaluate(source: &str, numbers: &Numbers) -> Result<bool, String> {
    if source.len() > MAX_SOURCE {
        return Err(format!("the expression is longer than {MAX_SOURCE} bytes"));
    }
    if brackets(source) > MAX_BRACKETS {
        return Err(format!("brackets are nested more than {MAX_BRACKETS} deep"));
    }
    let program = Program::compile(source).map_err(|error| format!("not an expression: {error}"))?;
    // For the longest lists, whatever they hold today: an expression must not become unusable as numbers come in.
    let steps = cost::most(program.expression(), (MAX_VALUES as u64, MAX_MEASUREMENTS as u64 + 1))?;
    if steps > cost::MOST {
        return Err(format!(
            "it could take {steps} steps, at most {} are taken: put macros such as all and map less deep into one another",
            cost::MOST
        ));
    }
    let mut context = Context::default();
    let list = |numbers: &[f64]| Value::from(numbers.to_vec());
    let first = numbers.values.first().copied();
    context.add_variable_from_value("value", first.map_or(Value::Null, Value::Float));
    context.add_variable_from_value("values", list(&numbers.values));
    context.add_variable_from_value("samples", list(&numbers.samples));
    match program.execute(&context) {
        Ok(Value::Bool(passed)) => Ok(passed),
        Ok(other) => Err(format!("the result is a {}, not a bool", other.type_of())),
        Err(error) => Err(error.to_string()),
    }
}

/// Deepest nesting, counted before parsing: strings are not told apart, which only makes the bound stricter.
fn brackets(source: &str) -> usize {
    let mut depth = 0_usize;
    let mut deepest = 0;
    let mut prefixes = 0_usize;
    for c in source.chars() {
        match c {
            '(' | '[' | '{' | '?' => depth += 1,
            ')' | ']' | '}' => depth = depth.saturating_sub(1),
            '!' | '-' => prefixes += 1,
            _ => prefixes = 0,
        }
        deepest = deepest.max(depth + prefixes);
    }
    deepest
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn asked(source: &str) -> Result<bool, String> {
        let numbers = Numbers { values: vec![4.0, 9.5], samples: vec![1.0, 2.0, 4.0] };
        Evaluator::default().evaluate(source.to_owned(), numbers).await
    }

    #[tokio::test]
    async fn an_expression_sees_value_values_and_samples_as_doubles() {
        for (source, wanted) in [
            ("value < 5.0", true),
            ("value == values[0]", true),
            ("values.all(v, v < 9.0)", false),
            ("samples.size() == 3 && samples[2] == value", true),
            ("values.filter(v, v > 5.0).size() == 1", true),
            ("samples.all(s, values.exists(v, v >= s))", true),
        ] {
            assert_eq!(asked(source).await, Ok(wanted), "{source}");
        }
    }

    #[tokio::test]
    async fn what_is_no_usable_expression_is_an_error_that_says_why() {
        for (source, why) in
            [("value <", "not an expression"), ("value + 1.0", "not a bool"), ("unknown < 5.0", "unknown")]
        {
            let error = asked(source).await.unwrap_err();
            assert!(error.contains(why), "{source}: {error}");
        }
    }

    #[tokio::test]
    async fn an_expression_that_could_run_for_ever_is_refused_before_it_starts() {
        let deep = "values.all(a, values.all(b, values.all(c, values.all(d, a + b + c + d > 0.0))))";
        let started = std::time::Instant::now();
        assert!(asked(deep).await.unwrap_err().contains("steps"));
        let brackets = format!("{}1.0 < 2.0{}", "(".repeat(900), ")".repeat(900));
        assert!(asked(&brackets).await.unwrap_err().contains("nested"));
        let prefixes = format!("{}true", "!".repeat(1500));
        assert!(asked(&prefixes).await.unwrap_err().contains("nested"));
        assert!(asked(&"1".repeat(3000)).await.unwrap_err().contains("longer"));
        assert!(started.elapsed() < LIMIT);
    }

    /// Numbers as many as an expression ever meets; without the time limit, which a busy machine may reach.
    fn asked_of_many(source: &str) -> Result<bool, String> {
        let numbers = Numbers { values: vec![1.5; MAX_VALUES], samples: vec![2.5; MAX_MEASUREMENTS + 1] };
        evaluate(source, &numbers)
    }

    #[test]
    fn an_expression_whose_result_doubles_with_each_macro_is_refused_before_it_takes_memory() {
        for (first, again) in [
            ("['x']", ".map(a,a+a)"),
            ("[values]", ".map(a,a+a)"),
            ("[1]", ".map(a,[a,a])"),
            ("[b'x']", ".map(a,a+a)"),
            ("['x']", ".filter(a,true).map(a,a+a)"),
        ] {
            let rounds = (MAX_SOURCE - 60) / again.len();
            let source = format!("{first}{}.size() > 0", again.repeat(rounds));
            let refused = asked_of_many(&source).unwrap_err();
            assert!(refused.contains("steps"), "{first}{again}: {refused}");
            let compared = format!("{first}{0} == {first}{0}", again.repeat(rounds / 2));
            assert!(asked_of_many(&compared).unwrap_err().contains("steps"), "{first}{again}");
        }
    }

    #[test]
    fn two_kilobytes_of_expression_are_merely_slow_or_refused_and_never_late() {
        let pair = "values.all(a,values.all(b,a<=b))";
        let list = format!("[{}1]", "1,".repeat(440));
        for (source, taken) in [
            (pair.to_owned(), true),
            (format!("{pair}&&{pair}&&{pair}"), true),
            (vec![pair; MAX_SOURCE / (pair.len() + 2)].join("&&"), false),
            (format!("{list}.all(a, samples.all(b, a <= 2))"), true),
            (format!("{list}.all(a, {list}.all(b, a <= b))"), false),
            (format!("(values{}).all(a, a > 0.0)", "+values".repeat(280)), false),
            (vec!["samples.all(a,a>0.0)"; MAX_SOURCE / 22].join("&&"), true),
            ("values.map(v, v * 2.0).filter(w, w > 1.0).size() == 100".to_owned(), true),
            ("samples.all(s, values.exists(v, v >= s) && values.exists_one(v, v == s) || true)".to_owned(), true),
            ("samples.all(s, values.exists(v, values.exists(w, w == v) || v <= s))".to_owned(), false),
            (format!("{} > 1.0", vec!["value"; 330].join(" + ")), true),
        ] {
            assert!(source.len() <= MAX_SOURCE, "{source}");
            let answer = asked_of_many(&source);
            match answer {
                Ok(_) => assert!(taken, "{source}"),
                Err(why) => assert!(!taken && why.contains("steps"), "{why}: {source}"),
            }
        }
    }

    #[tokio::test]
    async fn what_has_no_use_among_numbers_is_refused_and_nothing_breaks_off() {
        for source in ["{'a': 1}.size() == 1", "Message{field: 1} == value"] {
            assert!(asked(source).await.unwrap_err().contains("only numbers"), "{source}");
        }
    }
}
