//! `passWhen`: a CEL expression over numbers, evaluated off the runtime's threads and bounded in every direction.
//! Used by `checks/mod.rs`. A thread cannot be stopped, so an expression that could run long is refused before it starts.

use std::sync::Arc;
use std::time::Duration;

use kube_cel::cel::common::ast::{EntryExpr, Expr, IdedExpr};
use kube_cel::cel::{Context, Program, Value};
use tokio::sync::Semaphore;

/// Longest expression, as the schema has it.
const MAX_SOURCE: usize = 2048;
/// Macros such as `all` and `map` inside one another: each level multiplies the work by the length of a list.
const MAX_NESTING: usize = 2;
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
    if nesting(program.expression()) > MAX_NESTING {
        return Err(format!("macros such as all and map are nested more than {MAX_NESTING} deep"));
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

/// Comprehensions (what macros become) inside one another.
fn nesting(expression: &IdedExpr) -> usize {
    let deepest = |parts: &[&IdedExpr]| parts.iter().map(|part| nesting(part)).max().unwrap_or(0);
    match &expression.expr {
        Expr::Unspecified | Expr::Ident(_) | Expr::Literal(_) => 0,
        Expr::Call(call) => {
            let args: Vec<&IdedExpr> = call.args.iter().chain(call.target.as_deref()).collect();
            deepest(&args)
        }
        Expr::Comprehension(inner) => {
            let body = deepest(&[&inner.accu_init, &inner.loop_cond, &inner.loop_step, &inner.result]);
            // The range is walked once, not once an element.
            (1 + body).max(nesting(&inner.iter_range))
        }
        Expr::List(list) => deepest(&list.elements.iter().collect::<Vec<_>>()),
        Expr::Select(select) => nesting(&select.operand),
        Expr::Map(map) => map.entries.iter().map(|entry| nesting_of_entry(&entry.expr)).max().unwrap_or(0),
        Expr::Struct(fields) => {
            let entries = fields.entries.iter();
            entries.map(|entry| nesting_of_entry(&entry.expr)).max().unwrap_or(0)
        }
    }
}

fn nesting_of_entry(entry: &EntryExpr) -> usize {
    match entry {
        EntryExpr::StructField(field) => nesting(&field.value),
        EntryExpr::MapEntry(entry) => nesting(&entry.key).max(nesting(&entry.value)),
    }
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
        assert!(asked(deep).await.unwrap_err().contains("nested"));
        let brackets = format!("{}1.0 < 2.0{}", "(".repeat(900), ")".repeat(900));
        assert!(asked(&brackets).await.unwrap_err().contains("nested"));
        let prefixes = format!("{}true", "!".repeat(1500));
        assert!(asked(&prefixes).await.unwrap_err().contains("nested"));
        assert!(asked(&"1".repeat(3000)).await.unwrap_err().contains("longer"));
        assert!(started.elapsed() < LIMIT);
    }

    #[tokio::test]
    async fn the_costliest_permitted_expression_ends_in_time() {
        let list = format!("[{}1.0]", "1.0,".repeat(380));
        let source = format!("{list}.all(a, values.all(b, a + b > 0.0))");
        assert_eq!(asked(&source).await, Ok(true));
    }
}
