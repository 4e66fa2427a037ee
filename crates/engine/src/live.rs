//! What is kept of a live object: enough to see every change of what we own, nothing of its body.

/// A live object's fingerprint, taken from its metadata alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Live {
    /// The object's uid.
    pub uid: Box<str>,
    /// Its resource version; ordered, as the API server promises for one kind.
    pub resource_version: u64,
    /// `metadata.generation`, 0 for kinds without one.
    pub generation: i64,
    /// Whether it carries a deletion timestamp.
    pub terminating: bool,
    /// Whether somebody is its owner by `ownerReferences`.
    pub owned: bool,
    /// The value of the part-of label.
    pub part_of: Option<Box<str>>,
    /// The managedFields entries of managers whose name starts with [`crate::MANAGER_PREFIX`], with operation
    /// `Apply` and no subresource.
    pub entries: Vec<Entry>,
    /// Digest of all other entries but those of the `status` subresource.
    pub others: u64,
}

/// One of our own managers' entries in `managedFields`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The field manager.
    pub manager: Box<str>,
    /// Digest of the parsed field set (keys sorted) and the entry's `apiVersion`.
    pub fields: u64,
    /// The entry's time, in seconds since the epoch; 0 when absent.
    pub time: i64,
    /// Whether the entry owns the part-of label.
    pub owns_part_of: bool,
}

impl Live {
    /// The entry of one manager.
    pub fn entry(&self, manager: &str) -> Option<&Entry> {
        self.entries.iter().find(|entry| &*entry.manager == manager)
    }
}
