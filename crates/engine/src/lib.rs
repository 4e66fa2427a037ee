//! Makes a cluster match a list of objects, and says truthfully how far it got.
