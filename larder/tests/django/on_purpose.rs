//! The one list of what Larder answers otherwise than Django, `vectors/on_purpose.txt`, and the tests that
//! all of it is of use: each row names a vector, and each group of vectors is driven or set aside.

#![allow(dead_code, reason = "each test file uses a part")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use serde_json::Value;

const LIST: &str = include_str!("../vectors/on_purpose.txt");
const VECTORS: &str = include_str!("../vectors/django-vectors.json");
const DIFFERENCES: &str = include_str!("../vectors/django-vectors-6.1-diff.json");

/// The files that drive vectors; a group is driven where one of them names it in a call.
const DRIVERS: &[&str] = &[
    include_str!("../django_fragments.rs"),
    include_str!("../django_values.rs"),
    include_str!("../django_http/conditional.rs"),
    include_str!("../django_http/keys.rs"),
    include_str!("../django_http/pages.rs"),
    include_str!("../django_http/patches.rs"),
];

/// The rows by what they are about, with their reasons.
static ROWS: LazyLock<BTreeMap<&str, &str>> = LazyLock::new(|| parse(LIST));

fn parse(list: &str) -> BTreeMap<&str, &str> {
    let mut rows = BTreeMap::new();
    for line in list.lines().filter(|line| !line.starts_with('#')) {
        let row = line.split_once('\t');
        let (row, reason) = row.unwrap_or_else(|| panic!("`{line}` has no tab"));
        assert!(!reason.trim().is_empty(), "`{row}` has no reason");
        assert!(rows.insert(row, reason).is_none(), "`{row}` is there twice");
    }
    rows
}

/// Why Larder differs from what this vector says of this version of Django, if it does.
pub(crate) fn reason(id: &str, version: Option<&str>) -> Option<&'static str> {
    let of_version = version.and_then(|version| ROWS.get(&*format!("{id}@{version}")));
    ROWS.get(id).or(of_version).copied()
}

/// Whose answer Larder gives, where Django's backends disagree.
pub(crate) fn column(id: &str) -> &'static str {
    let mut rows = ROWS.keys().filter_map(|row| row.split_once('='));
    rows.find(|(row, _)| *row == id)
        .map_or("locmem", |(_, column)| column)
}

/// The groups that `source` drives.
pub(crate) fn driven(source: &str) -> BTreeSet<String> {
    let lines = source.lines().map(str::trim);
    let code = lines.filter(|line| !line.starts_with("//"));
    code.flat_map(|line| {
        let calls = ["check(\"", "vectors(\""].into_iter();
        calls.filter_map(move |call| line.split_once(call)?.1.split_once('"'))
    })
    .map(|(group, _)| group.to_owned())
    .collect()
}

fn list(json: &str) -> Vec<Value> {
    let file: Value = serde_json::from_str(json).expect("the vectors are JSON");
    file["vectors"]
        .as_array()
        .expect("a list of vectors")
        .clone()
}

fn text<'v>(vector: &'v Value, field: &str) -> &'v str {
    vector[field]
        .as_str()
        .expect("the vector has a string here")
}

/// What is wrong with a row, if something is.
fn fault(row: &str, vectors: &[Value], changed: &[Value]) -> Option<&'static str> {
    let group_of = |vector: &Value| text(vector, "group").to_owned();
    let set_aside = |group: &str| ROWS.contains_key(&*format!("group:{group}"));
    if let Some(group) = row.strip_prefix("group:") {
        let exists = vectors.iter().any(|vector| group_of(vector) == group);
        return (!exists).then_some("there is no such group");
    }
    let (of_column, column) = row.split_once('=').unzip();
    let (of_version, version) = row.split_once('@').unzip();
    let id = of_column.or(of_version).unwrap_or(row);
    let Some(vector) = vectors.iter().find(|vector| text(vector, "id") == id) else {
        return Some("there is no such vector");
    };
    if set_aside(&group_of(vector)) {
        return Some("its whole group is set aside");
    }
    if let Some(version) = version {
        let differs = changed.iter().any(|vector| text(vector, "id") == id);
        if !differs || !["5.2", "6.1"].contains(&version) || ROWS.contains_key(id) {
            return Some("the versions do not differ there");
        }
    }
    if let Some(column) = column {
        let expected = &vector["expected"];
        let is_of_use = expected
            .get(column)
            .is_some_and(|said| *said != expected["locmem"]);
        return (!is_of_use).then_some("the column is missing, or says what local memory says");
    }
    None
}

#[test]
fn every_row_of_the_list_is_of_use() {
    let (vectors, changed) = (list(VECTORS), list(DIFFERENCES));

    let faults: Vec<String> = ROWS
        .keys()
        .filter_map(|row| Some(format!("{row}: {}", fault(row, &vectors, &changed)?)))
        .collect();

    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

#[test]
fn rows_that_are_of_no_use_are_found() {
    let (vectors, changed) = (list(VECTORS), list(DIFFERENCES));

    for row in [
        "group:matrx",
        "matrx-001",
        "matrix-999",
        "matrix-007@5.2",
        "http_key-045@5.1",
        "matrix-020=no_such",
        "matrix-020=locmem",
        "db_cull-001",
    ] {
        assert!(fault(row, &vectors, &changed).is_some(), "{row}");
    }
    for list in ["matrix-007 no tab", "matrix-007\t ", "a-1\tb\na-1\tb"] {
        let parsed = std::panic::catch_unwind(|| parse(list).len());
        assert!(parsed.is_err(), "{list}");
    }
}

#[test]
fn every_group_of_vectors_is_driven_or_set_aside() {
    let groups: BTreeSet<String> = list(VECTORS)
        .iter()
        .map(|vector| text(vector, "group").to_owned())
        .collect();

    let aside: BTreeSet<String> = (ROWS.keys())
        .filter_map(|row| Some(row.strip_prefix("group:")?.to_owned()))
        .collect();
    let driven: BTreeSet<String> = DRIVERS.iter().flat_map(|source| driven(source)).collect();

    assert_eq!(driven.intersection(&aside).next(), None, "both");
    assert_eq!(&driven | &aside, groups);
}
