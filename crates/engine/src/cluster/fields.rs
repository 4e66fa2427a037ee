//! Digests of field sets, the `fieldsV1` of `managedFields`.
//!
//! A field set is a tree of JSON objects whose keys are unordered, so equal sets must give equal
//! digests in whatever order their keys come. Parsing into sorted maps would do, but a field set is
//! most of what a LIST of metadata holds and every restart reads them all. So the tree is hashed
//! while it is read, without keeping anything: a node's digest is the wrapping sum over its
//! children of a mix of key and child digest, and a sum has no order.
//!
//! The digests are compared with ones that an earlier process stored, so the function is written
//! out here instead of taken from the standard library, whose hashes may change between releases.
//! It has no key and does not resist somebody who searches for collisions; it need not, because
//! all that others can do to our entry is to take fields of ours out of it.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::PART_OF;
use crate::edges::DEPENDS_ON;
use crate::marks::Marks;

/// What is kept of one field set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct FieldSet {
    /// Equal for equal sets.
    pub(super) digest: u64,
    /// Whether it holds the part-of label.
    pub(super) part_of: bool,
    /// How many owner references it holds.
    pub(super) owners: u32,
    /// Whether it holds `spec.replicas`.
    pub(super) replicas: bool,
}

impl FieldSet {
    /// Digests a field set. One that is nested deeper than the JSON reader goes (a custom resource
    /// can be) is digested as text: the server writes keys in order, so that this only costs
    /// comparability with servers that would not.
    pub(super) fn read(raw: &RawValue) -> Self {
        let mut reader = serde_json::Deserializer::from_str(raw.get());
        Node(Level::Root).deserialize(&mut reader).unwrap_or_else(|_| Self {
            digest: text(raw.get()),
            part_of: raw.get().contains("\"f:applyset.kubernetes.io/part-of\":{}"),
            owners: 0,
            replicas: false,
        })
    }
}

/// The digest of a text.
pub(super) fn text(text: &str) -> u64 {
    // FNV-1a, then mixed, because its high bits alone are poor.
    let mut state = 0xcbf2_9ce4_8422_2325_u64;
    for byte in text.bytes() {
        state = (state ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    mix(state)
}

/// The digest of several texts in order.
pub(crate) fn digest_of(texts: &[&str]) -> u64 {
    let digests: Vec<u64> = texts.iter().map(|one| text(one)).collect();
    combine(&digests)
}

/// The digest of several digests in order.
pub(super) fn combine(parts: &[u64]) -> u64 {
    parts.iter().fold(0x9e37_79b9_7f4a_7c15, |state, part| mix(state.rotate_left(23) ^ part))
}

/// The last step of MurmurHash3: every bit of the input reaches every bit of the output.
fn mix(mut x: u64) -> u64 {
    x ^= x >> 33;
    x = x.wrapping_mul(0xff51_afd7_ed55_8ccd);
    x ^= x >> 33;
    x = x.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    x ^ (x >> 33)
}

/// How far a node is on the way to the part-of label, the owner references or the replicas.
#[derive(Clone, Copy)]
enum Level {
    Root,
    Metadata,
    Labels,
    Owners,
    Spec,
    Elsewhere,
}

impl Level {
    fn below(self, key: &str) -> Self {
        match (self, key) {
            (Self::Root, "f:metadata") => Self::Metadata,
            (Self::Root, "f:spec") => Self::Spec,
            (Self::Metadata, "f:labels") => Self::Labels,
            (Self::Metadata, "f:ownerReferences") => Self::Owners,
            _ => Self::Elsewhere,
        }
    }
}

struct Node(Level);

/// A key, borrowed where it holds no escapes.
#[derive(Deserialize)]
#[serde(transparent)]
struct Key<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'de> DeserializeSeed<'de> for Node {
    type Value = FieldSet;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<FieldSet, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Node {
    type Value = FieldSet;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a field set")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<FieldSet, A::Error> {
        let mut all = FieldSet::default();
        while let Some(Key(key)) = map.next_key()? {
            let child = map.next_value_seed(Node(self.0.below(&key)))?;
            all.digest =
                all.digest.wrapping_add(mix(text(&key).wrapping_add(child.digest.rotate_left(17))));
            let is_owner = matches!(self.0, Level::Owners) && key.starts_with("k:");
            all.owners += child.owners + u32::from(is_owner);
            all.replicas |= child.replicas || matches!(self.0, Level::Spec) && key == "f:replicas";
            all.part_of |= child.part_of
                || matches!(self.0, Level::Labels)
                    && key.strip_prefix("f:").is_some_and(|key| key == PART_OF);
        }
        Ok(all)
    }
}

/// What is kept of an object's labels or annotations.
#[derive(Debug, Default)]
pub(super) struct Words {
    /// The value of the part-of label.
    pub(super) part_of: Option<Arc<str>>,
    pub(super) marks: Marks,
    /// What the object comes after.
    pub(super) after: Option<Box<str>>,
}

/// Reads only the part-of label, the marks and the order out of an object's labels or annotations.
pub(super) fn words<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Words, D::Error> {
    struct Map;

    impl<'de> Visitor<'de> for Map {
        type Value = Words;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("labels or annotations")
        }

        fn visit_unit<E: serde::de::Error>(self) -> Result<Self::Value, E> {
            Ok(Words::default())
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut found = Words::default();
            while let Some(Key(key)) = map.next_key()? {
                if key == PART_OF {
                    let value: Cow<'de, str> = map.next_value()?;
                    if found.part_of.replace(value.into()).is_some() {
                        return Err(A::Error::custom("the part-of label comes twice"));
                    }
                } else if Marks::is_mark(&key) {
                    let value: Cow<'de, str> = map.next_value()?;
                    found.marks.take(&key, &value);
                } else if key == DEPENDS_ON {
                    let value: Cow<'de, str> = map.next_value()?;
                    found.after = Some(value.into());
                } else {
                    map.next_value::<IgnoredAny>()?;
                }
            }
            Ok(found)
        }
    }

    deserializer.deserialize_any(Map)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> FieldSet {
        FieldSet::read(serde_json::from_str(json).unwrap())
    }

    #[test]
    fn order_does_not_matter_but_everything_else_does() {
        let one = r#"{"f:data":{"f:a":{},"f:b":{}},"f:metadata":{"f:labels":{"f:x":{}}}}"#;
        let same = r#"{ "f:metadata":{"f:labels":{"f:x":{}}}, "f:data":{"f:b":{},"f:a":{}} }"#;
        assert_eq!(read(one), read(same));
        let others = [
            r"{}",
            r#"{"f:data":{}}"#,
            r#"{"f:data":{"f:a":{}}}"#,
            r#"{"f:data":{"f:a":{},"f:b":{}}}"#,
            r#"{"f:data":{"f:a":{"f:b":{}}}}"#,
            r#"{"f:data":{".":{},"f:a":{},"f:b":{}}}"#,
            // The same keys hung up elsewhere.
            r#"{"f:data":{"f:b":{}},"f:metadata":{"f:labels":{"f:x":{},"f:a":{}}}}"#,
            r#"{"f:metadata":{"f:a":{},"f:b":{}},"f:data":{"f:labels":{"f:x":{}}}}"#,
            r#"{"f:spec":{"k:{\"name\":\"a\"}":{".":{},"f:image":{}}}}"#,
            r#"{"f:spec":{"k:{\"name\":\"b\"}":{".":{},"f:image":{}}}}"#,
        ];
        let mut digests: Vec<u64> = others.iter().map(|json| read(json).digest).collect();
        digests.push(read(one).digest);
        let count = digests.len();
        digests.sort_unstable();
        digests.dedup();
        assert_eq!(digests.len(), count);
    }

    #[test]
    fn the_function_never_changes() {
        // Stored digests are compared with new ones across releases.
        assert_eq!(text(""), mix(0xcbf2_9ce4_8422_2325));
        assert_eq!(
            read(r#"{"f:data":{"f:a":{}}}"#).digest,
            0xb1f3_e397_8b70_a2a9,
            "stored digests of all applications would be void"
        );
    }

    #[test]
    fn the_part_of_label_counts_only_in_its_place() {
        for (json, expected) in [
            (r#"{"f:metadata":{"f:labels":{"f:applyset.kubernetes.io/part-of":{}}}}"#, true),
            (r#"{"f:metadata":{"f:annotations":{"f:applyset.kubernetes.io/part-of":{}}}}"#, false),
            (
                r#"{"f:spec":{"f:metadata":{"f:labels":{"f:applyset.kubernetes.io/part-of":{}}}}}"#,
                false,
            ),
            (r#"{"f:metadata":{"f:labels":{"f:x":{}}}}"#, false),
        ] {
            assert_eq!(read(json).part_of, expected, "{json}");
        }
    }

    #[test]
    fn owner_references_are_counted_in_their_place() {
        let owners = r#"{".":{},"k:{\"uid\":\"u\"}":{},"k:{\"uid\":\"v\"}":{".":{},"f:uid":{}}}"#;
        for (json, expected) in [
            (format!(r#"{{"f:metadata":{{"f:ownerReferences":{owners}}}}}"#), 2),
            (format!(r#"{{"f:spec":{{"f:ownerReferences":{owners}}}}}"#), 0),
            (format!(r#"{{"f:metadata":{{"f:labels":{owners}}}}}"#), 0),
        ] {
            assert_eq!(read(&json).owners, expected, "{json}");
        }
    }

    #[test]
    fn the_number_of_replicas_counts_only_in_its_place() {
        for (json, expected) in [
            (r#"{"f:spec":{"f:replicas":{}}}"#, true),
            (r#"{"f:status":{"f:replicas":{}}}"#, false),
            (r#"{"f:spec":{"f:template":{"f:replicas":{}}}}"#, false),
        ] {
            assert_eq!(read(json).replicas, expected, "{json}");
        }
    }

    #[test]
    fn sets_that_are_too_deep_still_compare() {
        let deep = |leaf: &str| format!("{}{}{}", "{\"f:a\":".repeat(300), leaf, "}".repeat(300));
        let (one, other) = (deep(r#"{"f:x":{}}"#), deep(r#"{"f:y":{}}"#));
        assert_eq!(read(&one), read(&one));
        assert_ne!(read(&one), read(&other));
    }
}
