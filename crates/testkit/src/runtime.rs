//! One runtime for the servers of a test process.

use std::sync::OnceLock;
use tokio::runtime::{Builder, Runtime};

/// The runtime that Git servers and proxies live on.
///
/// Every `#[tokio::test]` has a runtime of its own, most of them with one thread. A server on that
/// thread could not answer a test that waits for a child process, so servers get threads that no
/// test blocks.
pub fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| {
        Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("testkit")
            .enable_all()
            .build()
            .expect("a runtime for test servers")
    })
}
