//! What is kept of a live object: enough to see every change of what we own, nothing of its body.

use std::sync::Arc;

use crate::marks::Marks;

/// A live object's fingerprint, taken from its metadata alone. Texts are shared where the index has them
/// already: members of one set have its id and its manager in common.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Live {
    /// The object's uid.
    pub uid: Arc<str>,
    /// Its resource version; ordered, as the API server promises for one kind.
    pub resource_version: u64,
    /// `metadata.generation`, 0 for kinds without one.
    pub generation: i64,
    /// Whether it carries a deletion timestamp.
    pub terminating: bool,
    /// How many owners it has by `ownerReferences`.
    pub owners: u32,
    /// The value of the part-of label.
    pub part_of: Option<Arc<str>>,
    /// The managedFields entries of managers whose name starts with [`crate::MANAGER_PREFIX`], with operation
    /// `Apply` and no subresource.
    pub entries: Box<[Entry]>,
    /// What people wrote on it about how it is to be dealt with.
    pub marks: Marks,
    /// Whether a controller wrote `spec.replicas` through the subresource `scale`.
    pub scaled: bool,
    /// Digest of all other entries but those of the `status` subresource.
    pub others: u64,
    /// The latest time of those entries, in seconds since the epoch.
    pub others_time: i64,
}

/// One of our own managers' entries in `managedFields`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The field manager.
    pub manager: Arc<str>,
    /// Digest of the parsed field set (keys sorted) and the entry's `apiVersion`.
    pub fields: u64,
    /// The entry's time, in seconds since the epoch; 0 when absent.
    pub time: i64,
    /// Whether the entry owns the part-of label.
    pub owns_part_of: bool,
    /// How many of the object's `ownerReferences` the entry owns.
    pub owners: u32,
}

impl Live {
    /// The entry of one manager.
    pub fn entry(&self, manager: &str) -> Option<&Entry> {
        self.entries.iter().find(|entry| &*entry.manager == manager)
    }

    /// Whether somebody else has written something of it since this manager last did, or in the same
    /// second.
    pub(crate) fn is_written_after(&self, manager: &str) -> bool {
        self.entry(manager).is_none_or(|entry| self.others_time >= entry.time)
    }

    /// Whether it has an owner that this manager did not give it: whoever gave it one decides when
    /// it goes.
    pub fn is_owned_beside(&self, manager: &str) -> bool {
        self.owners > self.entry(manager).map_or(0, |entry| entry.owners)
    }
}
