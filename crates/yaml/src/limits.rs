//! How much one file may ask for.

/// Bounds on one call of [`crate::read`]. They hold after aliases are expanded, so a small file
/// cannot ask for a large value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of the file, and bytes of all keys and scalars once aliases are expanded.
    pub bytes: usize,
    /// Maps and lists inside each other.
    pub depth: usize,
    /// Maps, lists and scalars of one document once aliases are expanded.
    pub nodes: usize,
    /// Documents in one file.
    pub documents: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            // The largest bundles of custom resource definitions known to be published are below
            // 10 MB, and the API server takes no single object above 3 MB.
            bytes: 16 << 20,
            // The deepest published schemas nest about 60 levels. What Go would take (10,000)
            // overflows a thread's stack when the value is dropped.
            depth: 250,
            // A bundle of 10 MB has about 500,000 nodes; a node costs about 100 bytes.
            nodes: 1_000_000,
            // One object a document, and no cluster member set comes near this.
            documents: 10_000,
        }
    }
}
