//! Logs to standard error.

use std::any::Any;

use tracing::Subscriber;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::Layer as _;
use tracing_subscriber::filter::{FilterExt as _, filter_fn};
use tracing_subscriber::layer::{Filter, SubscriberExt as _};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::args::LogFormat;
use crate::exit::Failure;

/// Libraries that log what may hold Secrets: whole answers when they cannot be read, the state of an
/// exchange of keys, and headers of answers, in which a server can quote what it was sent.
const NEVER: [&str; 3] = ["kube_client", "russh", "ureq"];

/// Starts logging for the rest of the process, of panics too.
pub(crate) fn start(format: LogFormat, filter: &str) -> Result<(), Failure> {
    let filter = filter_of(filter)?;
    let logs = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let logs = match format {
        LogFormat::Text => {
            use std::io::IsTerminal as _;
            logs.with_ansi(std::io::stderr().is_terminal()).with_filter(filter).boxed()
        }
        LogFormat::Json => logs.json().flatten_event(true).with_filter(filter).boxed(),
    };
    tracing_subscriber::registry().with(logs).init();
    std::panic::set_hook(Box::new(|info| {
        let place = info.location().map(ToString::to_string).unwrap_or_default();
        tracing::error!(place, message = words_of(info.payload()), "panic");
    }));
    Ok(())
}

/// What the user wants to see, and never what could hold a Secret.
fn filter_of<S>(text: &str) -> Result<impl Filter<S> + use<S>, Failure>
where
    S: Subscriber + for<'s> LookupSpan<'s>,
{
    let wanted = EnvFilter::builder().parse(text).map_err(|error| {
        Failure::input(format!("--log-level {text:?} is not a filter: {error}"))
            .with_hint(Some("try info, debug, or info,plumb_engine=debug".into()))
    })?;
    // A filter of its own: of two directives in one the more exact counts, which is the user's.
    let never = |target: &str| NEVER.iter().any(|library| target.starts_with(library));
    Ok(wanted.and(filter_fn(move |metadata| !never(metadata.target()))))
}

/// What a panic says, unless it was put together from values: those may be a Secret's.
fn words_of(payload: &(dyn Any + Send)) -> &'static str {
    let words = payload.downcast_ref::<&'static str>().copied();
    words.unwrap_or("its message is kept back, because it may quote what was read")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn no_filter_of_a_user_brings_back_what_may_hold_a_secret() {
        for (filter, ours) in [
            ("trace", true),
            ("russh=trace", false),
            ("kube_client=trace", false),
            ("kube_client::client=trace,info", true),
        ] {
            let file = tempfile::NamedTempFile::new().unwrap();
            let writer = Arc::new(file.reopen().unwrap());
            let layer = tracing_subscriber::fmt::layer().with_ansi(false).with_writer(writer);
            let layer = layer.with_filter(filter_of(filter).unwrap());
            tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
                tracing::warn!(target: "kube_client::client", "the body");
                tracing::warn!(target: "kube_client", "the body");
                tracing::debug!(target: "russh::client", "the body");
                tracing::info!(target: "kube_client::client", "the body");
                tracing::info!(target: "ureq::run", "the body");
                tracing::info!(target: "ureq_proto::client", "the body");
                tracing::error!(target: "plumb", "ours");
            });
            let said = std::fs::read_to_string(file.path()).unwrap();
            assert!(!said.contains("the body"), "{filter}: {said}");
            assert_eq!(said.contains("ours"), ours, "{filter}: {said}");
        }
    }

    #[test]
    fn a_panic_that_was_put_together_from_values_keeps_its_words() {
        let secret = "hunter2";
        let literal = std::panic::catch_unwind(|| panic!("a mistake")).unwrap_err();
        assert_eq!(words_of(&*literal), "a mistake");
        let quoting = std::panic::catch_unwind(|| panic!("a mistake: {secret}")).unwrap_err();
        assert!(words_of(&*quoting).contains("kept back"));
    }
}
