//! What a render may be told.

/// How to render.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RenderOptions {
    /// Patterns in gitignore syntax, relative to the root of the tree. They count after all ignore
    /// files, so `!name` takes back in what those exclude.
    pub ignore: Option<String>,
    /// How much one render may take.
    pub limits: RenderLimits,
}

/// Bounds on one render, so that a hostile repository delays nobody else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RenderLimits {
    /// Bytes of all files read together.
    pub bytes: u64,
    /// Names looked at in all directories together; a directory counts each time that a symbolic
    /// link leads to it.
    pub entries: usize,
    /// Directories inside each other.
    pub depth: usize,
    /// Objects.
    pub objects: usize,
    /// Bounds on each file.
    pub file: plumb_yaml::Limits,
}

impl Default for RenderLimits {
    fn default() -> Self {
        Self {
            // Four times the largest single bundle; in memory it becomes about six times as much.
            bytes: 64 << 20,
            // A monorepo of several clusters has some ten thousand.
            entries: 100_000,
            // Each level is a level of the stack.
            depth: 64,
            // The largest applications in the open have a few thousand.
            objects: 50_000,
            file: plumb_yaml::Limits::default(),
        }
    }
}
