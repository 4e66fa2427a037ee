//! The CRDs and their conditions, nothing that acts.
