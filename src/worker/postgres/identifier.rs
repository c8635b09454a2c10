//! The only place that quotes: identifiers and literals become SQL text here and nowhere else.
//! Used wherever SQL is built, since `search_path` is empty and names come from the catalogue as they are.
//! Must not guess a schema: a name without one is refused.

use std::fmt;

use serde::{Deserialize, Serialize};

/// `name` as a quoted identifier, whatever characters it has.
pub fn quote_identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Several quoted identifiers, separated by commas.
pub fn quote_identifiers<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    names.into_iter().map(quote_identifier).collect::<Vec<_>>().join(", ")
}

/// `text` as a string literal that reads the same under either setting of `standard_conforming_strings`.
pub fn quote_literal(text: &str) -> String {
    let quoted = text.replace('\'', "''");
    if quoted.contains('\\') { format!("E'{}'", quoted.replace('\\', "\\\\")) } else { format!("'{quoted}'") }
}

/// A table, or another relation, with its schema.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TableName {
    pub schema: String,
    pub name: String,
}

impl TableName {
    pub fn new(schema: impl Into<String>, name: impl Into<String>) -> Self {
        Self { schema: schema.into(), name: name.into() }
    }

    /// `schema.table` as users write it: the first dot separates; further ones belong to the table's name.
    pub fn parse(text: &str) -> Option<Self> {
        let (schema, name) = text.split_once('.')?;
        (!schema.is_empty() && !name.is_empty()).then(|| Self::new(schema, name))
    }

    /// Quoted, for SQL.
    pub fn sql(&self) -> String {
        format!("{}.{}", quote_identifier(&self.schema), quote_identifier(&self.name))
    }
}

/// For people; not quoted.
impl fmt::Display for TableName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}.{}", self.schema, self.name)
    }
}

/// As a string, so that it can be a key in JSON; read back by [`TableName::parse`].
impl Serialize for TableName {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for TableName {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| serde::de::Error::custom("a table is `schema.table`"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_and_backslashes_cannot_end_a_name_or_a_literal() {
        assert_eq!(quote_identifier("a\"b"), "\"a\"\"b\"");
        assert_eq!(quote_literal("it's"), "'it''s'");
        assert_eq!(quote_literal("\\' or 1=1"), "E'\\\\'' or 1=1'");
        assert_eq!(TableName::new("Sales \"EU\"", "Straße").sql(), "\"Sales \"\"EU\"\"\".\"Straße\"");
    }

    #[test]
    fn a_name_needs_a_schema() {
        assert_eq!(TableName::parse("account"), None);
        assert_eq!(TableName::parse(".account"), None);
        assert_eq!(TableName::parse("public.account"), Some(TableName::new("public", "account")));
        assert_eq!(TableName::parse("public.a.b"), Some(TableName::new("public", "a.b")));
    }
}
