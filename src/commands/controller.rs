//! `plumb controller`: the daemon, from flags to exit code.

use kube::config::KubeConfigOptions;
use plumb_controller::{ReceiverSettings, Settings};
use plumb_core::{Digest, ErrorClass};

use crate::args::Controller;
use crate::exit::Failure;

/// Runs until SIGTERM or SIGINT.
pub(crate) fn run(args: Controller) -> Result<(), Failure> {
    crate::logging::start(args.log_format, &args.log_level)?;
    let threads = plumb_controller::blocking_threads(args.concurrent.into());
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .max_blocking_threads(threads)
        .build()
        .map_err(|error| Failure::new(ErrorClass::Retry, &error))?;
    let result = runtime.block_on(serve(args));
    // Git requests that did not heed the stop must not keep the process.
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    result
}

async fn serve(args: Controller) -> Result<(), Failure> {
    // Before anything is begun that would have to be ended in good order.
    let stop = stopped();
    let mut config = match &args.kubeconfig {
        Some(file) => {
            let kubeconfig = kube::config::Kubeconfig::read_from(file)
                .map_err(|error| Failure::new(ErrorClass::WaitForUser, &error))?;
            kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
                .await
                .map_err(|error| Failure::new(ErrorClass::WaitForUser, &error))?
        }
        None => kube::Config::infer().await.map_err(|error| {
            Failure::new(ErrorClass::WaitForUser, &error).with_hint(Some(
                "give --kubeconfig, set KUBECONFIG, or run inside a cluster".into(),
            ))
        })?,
    };
    // Requests are retried by the engine, which knows their deadlines.
    config.default_retry = false;
    let client = kube::Client::try_from(config)
        .map_err(|error| Failure::new(ErrorClass::WaitForUser, &error))?;
    let identity =
        args.identity.filter(|identity| !identity.is_empty()).unwrap_or_else(random_identity);
    let settings = Settings {
        cache_dir: args.cache_dir,
        cache_limit: args.cache_limit.0,
        metrics_addr: args.metrics_addr.0,
        concurrent: args.concurrent.into(),
        namespaces: args.namespaces.into_iter().filter(|ns| !ns.is_empty()).collect(),
        lease_duration: args.lease_duration,
        namespace: args.namespace,
        default_service_account: args.default_service_account.filter(|name| !name.is_empty()),
        impersonate_only: args.impersonate_only,
        no_cross_namespace_refs: args.no_cross_namespace_refs,
        audit_interval: args.audit_interval,
        survey_interval: args.survey_interval,
        receiver: args
            .receiver_addr
            .0
            .map(|addr| ReceiverSettings { addr, secret: args.receiver_secret }),
        seed: Digest::of(identity.as_bytes()).short(),
        identity,
        build: option_env!("PLUMB_BUILD").unwrap_or("").to_owned(),
    };
    tracing::info!(version = env!("CARGO_PKG_VERSION"), identity = settings.identity, "starting");
    plumb_controller::run(client, settings, stop)
        .await
        .map_err(|error| Failure::new(error.class(), &error).with_hint(error.hint()))
}

/// Ends at the first SIGTERM or SIGINT after this call.
fn stopped() -> impl Future<Output = ()> {
    use tokio::signal::unix::{SignalKind, signal};
    let signals = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()));
    async {
        let (Ok(mut term), Ok(mut int)) = signals else {
            // Without handlers the signals end the process by themselves.
            return std::future::pending().await;
        };
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
    }
}

/// For processes that are no pods.
fn random_identity() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/uuid")
        .map_or_else(|_| format!("pid-{}", std::process::id()), |uuid| uuid.trim().to_owned())
}
