//! Durations as users write them: Go duration strings with hours, minutes and seconds.
//! Used in every spec. Must never be normalised in place: what the user wrote is what stays.

use std::borrow::Cow;

use jiff::SignedDuration;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// A Go duration such as `90s`, `15m` or `1h30m`; there is no unit for days, write `168h`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct DurationString(pub String);

/// The pattern that the schema enforces.
pub const PATTERN: &str = r"^(?:(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:s|m|h))+$";

impl DurationString {
    /// The duration; `None` for text that the schema would have refused (an object may be older than its schema).
    pub fn parse(&self) -> Option<SignedDuration> {
        let mut rest = self.0.as_str();
        let mut millis = 0_f64;
        if rest.is_empty() {
            return None;
        }
        while !rest.is_empty() {
            let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
            let number: f64 = rest.get(..digits)?.parse().ok()?;
            let unit = match rest.as_bytes().get(digits)? {
                b's' => 1_000.0,
                b'm' => 60_000.0,
                b'h' => 3_600_000.0,
                _ => return None,
            };
            millis += number * unit;
            rest = rest.get(digits + 1..)?;
        }
        // A century bounds every deadline, so that adding it to a timestamp cannot overflow.
        (millis <= 3.2e12).then(|| {
            #[expect(clippy::cast_possible_truncation, reason = "bounded just above")]
            SignedDuration::from_millis(millis as i64)
        })
    }

    /// The duration, or `default` for text that is none.
    pub fn or(&self, default: SignedDuration) -> SignedDuration {
        self.parse().unwrap_or(default)
    }
}

impl From<&str> for DurationString {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl JsonSchema for DurationString {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "Duration".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "maxLength": 32, "pattern": PATTERN})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_adds_its_parts_up() {
        assert_eq!(DurationString::from("1h30m").parse(), Some(SignedDuration::from_mins(90)));
        assert_eq!(DurationString::from("0.5s").parse(), Some(SignedDuration::from_millis(500)));
    }

    #[test]
    fn text_without_a_known_unit_is_no_duration() {
        for text in ["", "1d", "h", "10", "1h10", "-5m", "1.2.3s"] {
            assert_eq!(DurationString::from(text).parse(), None, "{text}");
        }
    }
}
