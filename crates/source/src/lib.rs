//! Turns a URL and a ref into a commit whose tree is read straight from the object database.
