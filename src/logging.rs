//! Logs to standard error.

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::format::FmtSpan;

use crate::args::LogFormat;
use crate::exit::Failure;

/// Starts logging for the rest of the process.
pub(crate) fn start(format: LogFormat, filter: &str) -> Result<(), Failure> {
    let filter = EnvFilter::builder().parse(filter).map_err(|error| {
        Failure::input(format!("--log-level {filter:?} is not a filter: {error}"))
            .with_hint(Some("try info, debug, or info,plumb_engine=debug".into()))
    })?;
    // This library logs whole answers when it cannot read them, and answers can hold Secrets. No
    // filter of the user's may bring that back.
    let filter = match "kube_client=off".parse() {
        Ok(directive) => filter.add_directive(directive),
        Err(_) => filter.add_directive(LevelFilter::OFF.into()),
    };
    let logs = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_span_events(FmtSpan::NONE);
    match format {
        LogFormat::Text => {
            use std::io::IsTerminal as _;
            logs.with_ansi(std::io::stderr().is_terminal()).init();
        }
        LogFormat::Json => logs.json().flatten_event(true).init(),
    }
    Ok(())
}
