//! Django's own outcomes, and the list of those that Larder differs from on purpose.
//!
//! `vectors/django-vectors.json` holds what Django 5.2 did, `vectors/django-vectors-6.1-diff.json` where 6.1 does otherwise,
//! and `vectors/on_purpose.txt` a row per difference. A listed vector that passes is as much a failure as an unlisted one
//! that does not.

mod on_purpose;

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::Value;

const VECTORS: &str = include_str!("../vectors/django-vectors.json");
const DIFFERENCES: &str = include_str!("../vectors/django-vectors-6.1-diff.json");

/// A version of Django that the outcomes are from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Version {
    V52,
    V61,
}

impl fmt::Display for Version {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(if *self == Self::V52 { "5.2" } else { "6.1" })
    }
}

/// One vector, with its outcome in one version.
pub(crate) struct Vector {
    pub(crate) id: String,
    pub(crate) input: Value,
    /// The input's `kwargs`, in the order in which they are written.
    pub(crate) kwargs: Vec<(String, Value)>,
    pub(crate) version: Version,
    pub(crate) expected: Value,
}

/// Runs `answer` on every vector of a group, in both versions, and compares what it returns with the outcome.
pub(crate) fn check(group: &str, answer: impl Fn(&Vector) -> Value) {
    let vectors = vectors(group);
    assert!(!vectors.is_empty(), "there is no group `{group}`");

    let wrong: Vec<String> = vectors
        .iter()
        .filter_map(|vector| complaint(vector, &answer(vector)))
        .collect();

    assert!(
        wrong.is_empty(),
        "{} of {}:\n{}",
        wrong.len(),
        vectors.len(),
        wrong.join("\n")
    );
}

fn complaint(vector: &Vector, answer: &Value) -> Option<String> {
    let Vector {
        id,
        version,
        expected,
        ..
    } = vector;
    let listed = on_purpose::reason(id, Some(&version.to_string()));
    match (same(expected, answer), listed) {
        (true, None) | (false, Some(_)) => None,
        (false, None) => Some(format!(
            "{id}@{version}: Django says {expected}, Larder {answer}"
        )),
        (true, Some(reason)) => Some(format!(
            "{id}@{version}: passes, but is listed as different on purpose: {reason}"
        )),
    }
}

/// Compares two outcomes; `{"set": […]}` is a list whose order does not matter.
fn same(expected: &Value, answer: &Value) -> bool {
    let Some(set) = expected.get("set").and_then(Value::as_array) else {
        return expected == answer;
    };
    let Some(list) = answer.as_array() else {
        return false;
    };
    set.len() == list.len() && set.iter().all(|member| list.contains(member))
}

fn vectors(group: &str) -> Vec<Vector> {
    let mut kwargs = kwargs();
    let differences: BTreeMap<String, Value> = list(DIFFERENCES)
        .into_iter()
        .map(|mut row| (text(&row["id"]), row["expected_6_1_3"].take()))
        .collect();
    let rows = list(VECTORS)
        .into_iter()
        .filter(|row| row["group"] == group);
    rows.flat_map(|row| {
        let id = text(&row["id"]);
        let kwargs = kwargs.remove(&id).unwrap_or_default();
        let newer = differences.get(&id).unwrap_or(&row["expected"]).clone();
        [
            (Version::V52, row["expected"].clone()),
            (Version::V61, newer),
        ]
        .map(|(version, expected)| Vector {
            id: id.clone(),
            input: row["input"].clone(),
            kwargs: kwargs.clone(),
            version,
            expected,
        })
    })
    .collect()
}

fn list(json: &str) -> Vec<Value> {
    let mut file: Value = serde_json::from_str(json).expect("the vectors are JSON");
    let Value::Array(rows) = file["vectors"].take() else {
        panic!("the file holds a list of vectors")
    };
    rows
}

/// Returns a JSON string without its quotes.
pub(crate) fn text(value: &Value) -> String {
    value
        .as_str()
        .expect("the vector has a string here")
        .to_owned()
}

fn kwargs() -> BTreeMap<String, Vec<(String, Value)>> {
    #[derive(serde::Deserialize)]
    struct File {
        vectors: Vec<Row>,
    }
    #[derive(serde::Deserialize)]
    struct Row {
        id: String,
        input: Input,
    }
    #[derive(serde::Deserialize)]
    struct Input {
        #[serde(default)]
        kwargs: InOrder,
    }
    let file: File = serde_json::from_str(VECTORS).expect("the vectors are JSON");
    file.vectors
        .into_iter()
        .map(|row| (row.id, row.input.kwargs.0))
        .collect()
}

/// A JSON object whose members keep their order.
#[derive(Default)]
struct InOrder(Vec<(String, Value)>);

impl<'de> Deserialize<'de> for InOrder {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = InOrder;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<InOrder, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(InOrder(members))
            }
        }
        from.deserialize_map(Members)
    }
}
