//! One TOML table into one struct, entry by entry: a bad entry is reported and left out, and the rest is still read, so that
//! all errors are found at once.

use std::collections::BTreeMap;
use std::ops::Range;

use serde::Deserialize;
use serde::de::value::Error as NoError;
use serde::de::{DeserializeOwned, IntoDeserializer, Visitor};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::{Offset, Report};

/// A table that was read.
pub(super) struct Section<T> {
    /// Its entries; a refused one is as if absent.
    pub(super) values: T,
    /// Where it stands.
    pub(super) at: Offset,
    /// The keys that it had, refused ones too, and where.
    keys: BTreeMap<String, Offset>,
}

impl<T> Section<T> {
    /// Whether the file sets `key`, be it to a good value or not.
    pub(super) fn has(&self, key: &str) -> bool {
        self.keys.contains_key(key)
    }

    /// Where the file sets `key`, if it does.
    pub(super) fn place_of(&self, key: &str) -> Option<Offset> {
        self.keys.get(key).copied()
    }
}

/// A struct that a table is read into: all its fields are optional, and unknown keys are errors.
pub(super) trait Entries: DeserializeOwned + Default {
    /// The keys of this table's own tables, which are taken out before.
    const TABLES: &'static [&'static str] = &[];

    /// Every key that the table may have.
    fn keys() -> Vec<&'static str> {
        let fields = field_names::<Self>().iter().copied();
        fields.chain(Self::TABLES.iter().copied()).collect()
    }
}

/// Reads `table` as `T`. `name` is the table's name for messages.
pub(super) fn read<T: Entries>(
    name: &str,
    table: DeTable<'_>,
    at: Offset,
    report: &mut Report,
) -> Section<T> {
    let known = T::keys();
    let mut keys = BTreeMap::new();
    let mut good = DeTable::new();
    for (key, value) in table {
        let text = key.get_ref().as_ref();
        if !known.contains(&text) {
            unknown_key(name, &key, &known, report);
            continue;
        }
        keys.insert(text.to_owned(), key.span().start);
        let mut alone = DeTable::new();
        alone.insert(key.clone(), value.clone());
        match deserialize::<T>(alone) {
            Ok(_) => {
                good.insert(key, value);
            }
            Err(error) => {
                let span = error.span().unwrap_or_else(|| value.span());
                let (what, mend) = refusal(text, error.message());
                report.error(span.start, what, mend);
            }
        }
    }
    // Each entry was read by itself, and fields don't depend on each other.
    let values = deserialize(good).unwrap_or_default();
    Section { values, at, keys }
}

fn deserialize<T: DeserializeOwned>(table: DeTable<'_>) -> Result<T, toml::de::Error> {
    T::deserialize(Spanned::new(0..0, table).into_deserializer())
}

/// Takes the table at `key` out of `table`; absent: an empty one at `at`; anything else is reported.
pub(super) fn take_table<'i>(
    table: &mut DeTable<'i>,
    key: &str,
    at: Offset,
    report: &mut Report,
) -> (DeTable<'i>, Offset) {
    match table.remove(key) {
        None => (DeTable::new(), at),
        Some(value) => as_table(&format!("[{key}]"), value, report),
    }
}

/// `value` as a table; anything else is reported, and an empty one returned.
pub(super) fn as_table<'i>(
    name: &str,
    value: Spanned<DeValue<'i>>,
    report: &mut Report,
) -> (DeTable<'i>, Offset) {
    let at = value.span().start;
    match value.into_inner() {
        DeValue::Table(table) => (table, at),
        other => {
            let what = format!("{name} is a table, not {}", kind(&other));
            report.error(at, what, format!("write {name} on a line of its own"));
            (DeTable::new(), at)
        }
    }
}

/// What kind of value it is, with its article.
pub(super) fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "text",
        DeValue::Integer(_) | DeValue::Float(_) => "a number",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date or time",
        DeValue::Array(_) => "an array",
        DeValue::Table(_) => "a table",
    }
}

/// `value` as a list of tables; anything else is reported.
pub(super) fn as_list<'i>(
    name: &str,
    value: Spanned<DeValue<'i>>,
    report: &mut Report,
) -> Option<Vec<Spanned<DeValue<'i>>>> {
    let at = value.span().start;
    match value.into_inner() {
        DeValue::Array(items) => Some(items.into_iter().collect()),
        other => {
            let what = format!("renditions is a list of tables, not {}", kind(&other));
            let mend = format!("write {name} with two brackets, once for each");
            report.error(at, what, mend);
            None
        }
    }
}

/// Reports `key`, which `table` doesn't know, with the known one that looks most like it.
pub(super) fn unknown_key(
    table: &str,
    key: &Spanned<toml::de::DeString<'_>>,
    known: &[&str],
    report: &mut Report,
) {
    let Range { start, .. } = key.span();
    let text: String = key.get_ref().chars().take(64).collect();
    let mend = match (!report.is_full()).then(|| nearest(&text, known)).flatten() {
        Some(near) => format!("did you mean {near}?"),
        None => format!("remove it; known here: {}", known.join(", ")),
    };
    let what = format!("{table} has no key {:?}", text);
    report.error(start, what, mend);
}

/// The word of `known` that is most like `text`, if any is like it.
pub(super) fn nearest<'a>(text: &str, known: &[&'a str]) -> Option<&'a str> {
    let likeness = |word: &'a str| (distance(&text.to_lowercase(), word), word);
    let (distance, word) = known.iter().copied().map(likeness).min()?;
    let longer = word.len().max(text.len());
    (distance * 5 <= longer * 2 || (text.len() > 2 && word.starts_with(text))).then_some(word)
}

/// How many letters have to be changed, added, removed or swapped with their neighbour (optimal string alignment).
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows = vec![vec![0; b.len() + 1]; a.len() + 1];
    for i in 0..=a.len() {
        for j in 0..=b.len() {
            rows[i][j] = if i == 0 || j == 0 {
                i + j
            } else {
                let same = usize::from(a[i - 1] != b[j - 1]);
                let mut best = (rows[i - 1][j - 1] + same)
                    .min(rows[i - 1][j] + 1)
                    .min(rows[i][j - 1] + 1);
                if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                    best = best.min(rows[i - 2][j - 2] + 1);
                }
                best
            };
        }
    }
    rows[a.len()][b.len()]
}

/// Turns serde's "invalid value: X, expected Y" into what is wrong with `key` and what to write.
fn refusal(key: &str, message: &str) -> (String, String) {
    let (what, expected) = message.rsplit_once(", expected ").unwrap_or((message, ""));
    let given = what
        .strip_prefix("invalid type: ")
        .or_else(|| what.strip_prefix("invalid value: "));
    match given {
        Some(given) if expected == "a boolean" => (
            format!("{key} can't be {given}"),
            "write true or false, without quotes".into(),
        ),
        Some(given) if !expected.is_empty() => (
            format!("{key} can't be {given}"),
            format!("write {expected}"),
        ),
        _ => (
            format!("{key}: {}", message.escape_debug()),
            "see docs/config.md for what it takes".into(),
        ),
    }
}

/// The names of `T`'s fields, as its `Deserialize` asks for them.
fn field_names<'de, T: Deserialize<'de>>() -> &'static [&'static str] {
    struct Probe<'a>(&'a mut &'static [&'static str]);

    impl<'de> serde::Deserializer<'de> for Probe<'_> {
        type Error = NoError;

        fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, NoError> {
            Err(serde::de::Error::custom("only structs have fields"))
        }

        fn deserialize_struct<V: Visitor<'de>>(
            self,
            _: &'static str,
            fields: &'static [&'static str],
            _: V,
        ) -> Result<V::Value, NoError> {
            *self.0 = fields;
            Err(serde::de::Error::custom("only the names are wanted"))
        }

        serde::forward_to_deserialize_any! {
            bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit
            unit_struct newtype_struct seq tuple tuple_struct map enum identifier ignored_any
        }
    }

    let mut names: &'static [&'static str] = &[];
    // Always an error: the names are what is wanted.
    let _ = T::deserialize(Probe(&mut names));
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_key_finds_its_likeness_and_a_strange_one_none() {
        let known = ["framerate", "segment", "part", "window", "stale_after"];
        for (text, near) in [
            ("frame_rate", Some("framerate")),
            ("segmnet", Some("segment")),
            ("Window", Some("window")),
            ("parts", Some("part")),
            ("colour", None),
            ("", None),
        ] {
            assert_eq!(nearest(text, &known), near, "{text}");
        }
    }
}
