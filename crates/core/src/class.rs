//! What an error asks of its reader.

/// Decides, in one place, what happens after an error: whether it is tried again by itself, which
/// condition it becomes and which exit code a command line ends with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ErrorClass {
    /// The cause can pass without anybody's help: try again with back-off.
    Retry,
    /// Only a change of the spec, the repository or the cluster's rights helps. It is still tried
    /// again, slowly, because that change may be made where nothing tells us.
    WaitForUser,
    /// Our own mistake: report it as such.
    Bug,
}
