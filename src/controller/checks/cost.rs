//! What a `passWhen` expression can cost at most, from its syntax alone and for the longest lists that it may meet.
//! Asked by `cel.rs` before it evaluates: a thread cannot be stopped, and memory that was taken is not given back in time.
//! Must overestimate where it does not know.

use kube_cel::cel::common::ast::{CallExpr, ComprehensionExpr, Expr, IdedExpr, LiteralValue, operators};

/// Steps that an expression may take at most: far below a second of work.
pub const MOST: u64 = 1_000_000;

/// How large a value can become.
#[derive(Clone, Debug, PartialEq)]
enum Shape {
    /// A number, a truth value, or a text of about so many characters.
    Plain(u64),
    List {
        length: u64,
        item: Box<Shape>,
    },
}

impl Shape {
    fn list(length: u64, item: Shape) -> Self {
        Self::List { length, item: Box::new(item) }
    }

    /// What it costs to copy or compare the value once.
    fn weight(&self) -> u64 {
        match self {
            Self::Plain(weight) => *weight,
            Self::List { length, item } => length.saturating_mul(item.weight()).saturating_add(1),
        }
    }

    /// Either of two.
    fn or(self, other: Self) -> Self {
        match (self, other) {
            (Self::Plain(one), Self::Plain(other)) => Self::Plain(one.max(other)),
            (Self::List { length, item }, Self::List { length: longer, item: other }) => {
                Self::list(length.max(longer), item.or(*other))
            }
            (Self::List { length, item }, plain) | (plain, Self::List { length, item }) => {
                Self::list(length, item.or(plain))
            }
        }
    }

    /// Both of two, one behind the other.
    fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::List { length, item }, Self::List { length: more, item: other }) => {
                Self::list(length.saturating_add(more), item.or(*other))
            }
            // Two numbers are one number; a text weighs more than one.
            (Self::Plain(1), Self::Plain(1)) => Self::Plain(1),
            (one, other) => Self::Plain(one.weight().saturating_add(other.weight())),
        }
    }

    /// How often a macro goes round, and what it meets each time.
    fn into_items(self) -> (u64, Self) {
        match self {
            Self::List { length, item } => (length, *item),
            Self::Plain(weight) => (weight, Self::Plain(1)),
        }
    }

    /// After so many rounds of growing from `first` to `self`.
    fn after(self, rounds: u64, first: &Self) -> Self {
        match (self, first) {
            (Self::List { length, item }, Self::List { length: before, .. }) => {
                let grown = length.saturating_sub(*before).saturating_mul(rounds);
                Self::list(before.saturating_add(grown), *item)
            }
            (other, first) => {
                let grown = other.weight().saturating_sub(first.weight()).saturating_mul(rounds);
                Self::Plain(first.weight().saturating_add(grown))
            }
        }
    }
}

/// A value's shape and the steps to it.
type Bill = (Shape, u64);

/// Names in force, the innermost last.
struct Scope<'e>(Vec<(&'e str, Shape)>);

/// The most steps that the expression can take with lists of these lengths; the error is for people.
pub fn most(expression: &IdedExpr, (values, samples): (u64, u64)) -> Result<u64, String> {
    let mut scope = Scope(vec![
        ("value", Shape::Plain(1)),
        ("values", Shape::list(values, Shape::Plain(1))),
        ("samples", Shape::list(samples, Shape::Plain(1))),
    ]);
    scope.visit(expression).map(|(_, steps)| steps)
}

impl<'e> Scope<'e> {
    fn visit(&mut self, expression: &'e IdedExpr) -> Result<Bill, String> {
        match &expression.expr {
            Expr::Ident(name) => {
                let known = self.0.iter().rev().find(|(known, _)| known == name);
                // An unknown name is an error of the evaluation, which says so better.
                let shape = known.map_or(Shape::Plain(1), |(_, shape)| shape.clone());
                let steps = shape.weight();
                Ok((shape, steps.saturating_add(1)))
            }
            Expr::Literal(LiteralValue::String(text)) => Ok((Shape::Plain(text.inner().len() as u64 + 1), 1)),
            Expr::Literal(LiteralValue::Bytes(bytes)) => Ok((Shape::Plain(bytes.inner().len() as u64 + 1), 1)),
            Expr::Literal(_) => Ok((Shape::Plain(1), 1)),
            Expr::List(list) => {
                let (item, steps) = self.visit_all(&list.elements, Shape::or)?;
                Ok((Shape::list(list.elements.len() as u64, item), steps))
            }
            Expr::Select(select) => {
                let (shape, steps) = self.visit(&select.operand)?;
                Ok((Shape::Plain(shape.weight()), steps.saturating_add(1)))
            }
            Expr::Call(call) => self.call(call),
            Expr::Comprehension(comprehension) => self.comprehension(comprehension),
            Expr::Map(_) | Expr::Struct(_) | Expr::Unspecified => {
                Err("maps and messages have no use here: there are only numbers and lists of them".to_owned())
            }
        }
    }

    /// All of several, with their shapes put together by `join`.
    fn visit_all(
        &mut self,
        expressions: impl IntoIterator<Item = &'e IdedExpr>,
        join: impl Fn(Shape, Shape) -> Shape,
    ) -> Result<Bill, String> {
        let mut whole: Option<Shape> = None;
        let mut steps = 1_u64;
        for expression in expressions {
            let (shape, more) = self.visit(expression)?;
            steps = steps.saturating_add(more).saturating_add(shape.weight());
            whole = Some(match whole {
                Some(before) => join(before, shape),
                None => shape,
            });
        }
        Ok((whole.unwrap_or(Shape::Plain(1)), steps))
    }

    fn call(&mut self, call: &'e CallExpr) -> Result<Bill, String> {
        let parts = call.target.as_deref().into_iter().chain(&call.args);
        match call.func_name.as_str() {
            operators::ADD => self.visit_all(parts, Shape::and),
            // The question is no part of the answer.
            operators::CONDITIONAL => {
                let (_, asking) = self.visit_all(call.args.first(), Shape::or)?;
                let (shape, steps) = self.visit_all(call.args.iter().skip(1), Shape::or)?;
                Ok((shape, steps.saturating_add(asking)))
            }
            operators::INDEX | operators::OPT_INDEX | "max" | "min" => {
                let (shape, steps) = self.visit_all(parts, Shape::or)?;
                Ok((shape.into_items().1, steps))
            }
            operators::LOGICAL_AND
            | operators::LOGICAL_OR
            | operators::LOGICAL_NOT
            | operators::NOT_STRICTLY_FALSE
            | operators::EQUALS
            | operators::NOT_EQUALS
            | operators::GREATER
            | operators::GREATER_EQUALS
            | operators::LESS
            | operators::LESS_EQUALS
            | operators::IN
            | operators::SUBSTRACT
            | operators::MULTIPLY
            | operators::DIVIDE
            | operators::MODULO
            | operators::NEGATE
            | "size"
            | "double"
            | "int"
            | "uint"
            | "contains"
            | "startsWith"
            | "endsWith" => self.visit_all(parts, Shape::or).map(|(_, steps)| (Shape::Plain(1), steps)),
            // No function makes more of its arguments than a few words, as `string` does.
            _ => self.visit_all(parts, Shape::or).map(|(shape, steps)| (shape.or(Shape::Plain(64)), steps)),
        }
    }

    /// What `all`, `exists`, `exists_one`, `map` and `filter` become.
    fn comprehension(&mut self, fold: &'e ComprehensionExpr) -> Result<Bill, String> {
        let (range, ranging) = self.visit(&fold.iter_range)?;
        let (first, beginning) = self.visit(&fold.accu_init)?;
        let (rounds, item) = range.into_items();
        // A first round shows by how much the result grows in each; the others then meet it at its largest.
        let (once, _) = self.round(fold, &first, &item)?;
        let grown = once.after(rounds, &first).or(first);
        let (_, each) = self.round(fold, &grown, &item)?;
        self.0.push((&fold.accu_var, grown));
        let result = self.visit(&fold.result);
        self.0.pop();
        let (shape, ending) = result?;
        let turning = each.saturating_add(item.weight()).saturating_mul(rounds);
        Ok((shape, [ranging, beginning, turning, ending].into_iter().fold(1, u64::saturating_add)))
    }

    fn round(&mut self, fold: &'e ComprehensionExpr, so_far: &Shape, item: &Shape) -> Result<Bill, String> {
        self.0.push((&fold.accu_var, so_far.clone()));
        self.0.push((&fold.iter_var, item.clone()));
        let condition = self.visit(&fold.loop_cond);
        let step = self.visit(&fold.loop_step);
        self.0.truncate(self.0.len() - 2);
        let ((_, asking), (shape, steps)) = (condition?, step?);
        Ok((shape, steps.saturating_add(asking)))
    }
}
