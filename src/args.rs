//! The command line. The structs are its documentation: their comments are what `--help` prints.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand, ValueEnum};

/// Keeps a Kubernetes cluster true to Git.
#[derive(Debug, Parser)]
#[command(name = "plumb", version, after_help = crate::exit::TABLE, propagate_version = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the agent: watch Git repositories and keep the cluster like them
    Controller(Box<Controller>),
    /// Render a directory as the agent would, and print the objects. For a directory with a
    /// kustomization that is what `kustomize build` prints
    Build(Build),
    /// Say of live objects whether they work, as the agent would
    Health(Health),
    /// Print the custom resource definitions
    Crds,
    /// Print everything that a cluster needs, for `kubectl apply --server-side -f -`
    Install(Install),
    /// Print the version
    Version,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Controller {
    /// The kubeconfig to use; otherwise $KUBECONFIG, ~/.kube/config, or the pod's own account
    #[arg(long, env = "PLUMB_KUBECONFIG", value_name = "FILE")]
    pub(crate) kubeconfig: Option<PathBuf>,

    /// Where Git objects are kept; no other process may use this directory
    #[arg(long, env = "PLUMB_CACHE_DIR", value_name = "DIR", default_value = "/var/cache/plumb")]
    pub(crate) cache_dir: PathBuf,

    /// How much of the disk the Git objects may take, as 3Gi or 500M; `none` for as much as there is. The
    /// volume should be larger by the largest mirror: the old is there beside the new while it is made anew
    #[arg(long, env = "PLUMB_CACHE_LIMIT", value_name = "BYTES", default_value = "3Gi", value_parser = parse_bytes)]
    pub(crate) cache_limit: Bytes,

    /// Where /livez, /readyz and /metrics are served; `none` serves nothing
    #[arg(long, env = "PLUMB_METRICS_ADDR", value_name = "ADDR", default_value = "0.0.0.0:8080", value_parser = parse_addr)]
    pub(crate) metrics_addr: Listen,

    /// How many objects are worked on at once
    #[arg(long, env = "PLUMB_CONCURRENT", value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) concurrent: u16,

    /// How logs are written
    #[arg(long, env = "PLUMB_LOG_FORMAT", value_enum, default_value_t = LogFormat::Text)]
    pub(crate) log_format: LogFormat,

    /// What is logged: error, warn, info, debug, or a filter such as `info,plumb_engine=debug`
    #[arg(long, env = "PLUMB_LOG_LEVEL", value_name = "FILTER", default_value = "info")]
    pub(crate) log_level: String,

    /// Look after these namespaces only, comma separated; all when left out. Agents that look after
    /// different ones need a --namespace each: those in one share a Lease, and one of them works
    #[arg(long, env = "PLUMB_NAMESPACES", value_name = "NS", value_delimiter = ',')]
    pub(crate) namespaces: Vec<String>,

    /// The service account, of an Application's own namespace, that acts for Applications without
    /// spec.serviceAccountName. Without this they are applied as the agent's own account
    #[arg(long, env = "PLUMB_DEFAULT_SERVICE_ACCOUNT", value_name = "NAME", value_parser = parse_account)]
    pub(crate) default_service_account: Option<String>,

    /// Apply nothing as the agent's own account: an Application that names no service account, and has
    /// no default, is refused
    #[arg(long, env = "PLUMB_IMPERSONATE_ONLY")]
    pub(crate) impersonate_only: bool,

    /// Let an Application name only what is in its own namespace: refuse dependencies in others
    #[arg(long, env = "PLUMB_NO_CROSS_NAMESPACE_REFS")]
    pub(crate) no_cross_namespace_refs: bool,

    /// How long a leader may be silent before a standby takes over
    #[arg(long, env = "PLUMB_LEASE_DURATION", value_name = "DURATION", default_value = "15s", value_parser = parse_duration)]
    pub(crate) lease_duration: Duration,

    /// In this time each object is sent once to see whether it still is as in Git, although nothing
    /// shows that it changed: webhooks can change objects without a trace. Spread evenly; 0s never
    #[arg(long, env = "PLUMB_AUDIT_INTERVAL", value_name = "DURATION", default_value = "24h", value_parser = parse_duration)]
    pub(crate) audit_interval: Duration,

    /// How often all kinds are listed, one after the other and metadata only, for members that no
    /// record names any more, as after a restore of an Application from a backup; 0s never
    #[arg(long, env = "PLUMB_SURVEY_INTERVAL", value_name = "DURATION", default_value = "24h", value_parser = parse_duration)]
    pub(crate) survey_interval: Duration,

    /// Where webhooks of Git services are taken, at /hook/github and so on; `none` takes none
    #[arg(long, env = "PLUMB_RECEIVER_ADDR", value_name = "ADDR", default_value = "none", value_parser = parse_addr)]
    pub(crate) receiver_addr: Listen,

    /// The Secret, in the agent's own namespace, that webhooks are signed with: each of its values is
    /// accepted
    #[arg(long, env = "PLUMB_RECEIVER_SECRET", value_name = "NAME", default_value = "plumb-receiver", value_parser = parse_secret)]
    pub(crate) receiver_secret: String,

    /// The namespace that the agent runs in, where its Lease is
    #[arg(long, env = "POD_NAMESPACE", value_name = "NS", default_value = "plumb-system")]
    pub(crate) namespace: String,

    /// Who this process is among its replicas; the pod's uid, or random when left out
    #[arg(long, env = "POD_UID", value_name = "UID")]
    pub(crate) identity: Option<String>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Build {
    /// The directory or file to render
    pub(crate) path: PathBuf,

    /// The root of the repository, above which nothing is read; the nearest directory with a .git
    /// when left out, and without one the current directory or the one to render
    #[arg(long, value_name = "DIR")]
    pub(crate) root: Option<PathBuf>,

    /// Patterns to leave out, in gitignore syntax, as in spec.ignore of a GitRepository
    #[arg(long, value_name = "PATTERN")]
    pub(crate) ignore: Vec<String>,

    /// Files with private keys, age or OpenPGP, for files that SOPS encrypted
    #[arg(long, value_name = "FILE")]
    pub(crate) decryption_key: Vec<PathBuf>,

    /// The order of what a kustomization builds, when it does not say itself
    #[arg(long, value_enum, default_value_t = Reorder::Legacy)]
    pub(crate) reorder: Reorder,

    /// Which files a kustomization may use
    #[arg(long, value_enum, default_value_t = LoadRestrictor::RootOnly)]
    pub(crate) load_restrictor: LoadRestrictor,

    /// How objects are printed
    #[arg(short, long, value_enum, default_value_t = Output::Yaml)]
    pub(crate) output: Output,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Health {
    /// Files with objects as `kubectl get -o yaml` prints them; `-` is standard input
    #[arg(short = 'f', long = "filename", value_name = "FILE", required = true, num_args = 1..)]
    pub(crate) files: Vec<PathBuf>,

    /// How it is said
    #[arg(short, long, value_enum, default_value_t = HealthOutput::Text)]
    pub(crate) output: HealthOutput,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Install {
    /// The image to run
    #[arg(long, value_name = "IMAGE")]
    pub(crate) image: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// For people
    Text,
    /// One JSON object a line
    Json,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Reorder {
    /// Namespaces and definitions first, webhooks last
    Legacy,
    /// As they are listed, which is how the agent renders them
    None,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LoadRestrictor {
    /// Files in or below its directory
    #[value(name = "LoadRestrictionsRootOnly")]
    RootOnly,
    /// Any file in the repository, as the agent lets it
    #[value(name = "LoadRestrictionsNone")]
    None,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// YAML documents
    Yaml,
    /// One JSON list
    Json,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum HealthOutput {
    /// A line for people
    Text,
    /// A line of JSON: file, health and reason
    Json,
}

/// An address to listen on, if any.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Listen(pub(crate) Option<SocketAddr>);

fn parse_addr(text: &str) -> Result<Listen, String> {
    if text == "none" {
        return Ok(Listen(None));
    }
    text.parse()
        .map(|addr| Listen(Some(addr)))
        .map_err(|_| "give an IP address and a port, as in 127.0.0.1:8080, or `none`".to_owned())
}

/// A number of bytes, if there is one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bytes(pub(crate) Option<u64>);

/// As Kubernetes writes sizes, without fractions.
fn parse_bytes(text: &str) -> Result<Bytes, String> {
    if text == "none" {
        return Ok(Bytes(None));
    }
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let unit = match unit {
        "" => Some(1),
        "k" => Some(1_000),
        "M" => Some(1_000_000),
        "G" => Some(1_000_000_000),
        "T" => Some(1_000_000_000_000),
        "Ki" => Some(1 << 10),
        "Mi" => Some(1 << 20),
        "Gi" => Some(1 << 30),
        "Ti" => Some(1 << 40),
        _ => None,
    };
    let bytes = number.parse().ok().zip(unit).and_then(|(n, unit): (u64, u64)| n.checked_mul(unit));
    match bytes {
        Some(bytes) if bytes > 0 => Ok(Bytes(Some(bytes))),
        _ => Err("give a number of bytes, as in 3Gi or 500M, or `none`".to_owned()),
    }
}

/// A name as service accounts have; or none, as an empty variable gives it.
fn parse_account(text: &str) -> Result<String, String> {
    if text.is_empty() || is_name(text) {
        return Ok(text.to_owned());
    }
    Err("give the name of a service account, without its namespace".to_owned())
}

fn parse_secret(text: &str) -> Result<String, String> {
    if is_name(text) {
        return Ok(text.to_owned());
    }
    Err("give the name of a Secret, without its namespace".to_owned())
}

/// Whether an object can be called so.
fn is_name(text: &str) -> bool {
    let end = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let part = |part: &str| {
        part.starts_with(end) && part.ends_with(end) && part.chars().all(|c| end(c) || c == '-')
    };
    text.len() <= 253 && text.split('.').all(part)
}

fn parse_duration(text: &str) -> Result<Duration, String> {
    let duration: plumb_api::Duration = text.parse().map_err(|e| format!("{e}"))?;
    Ok(duration.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        use clap::CommandFactory as _;
        Args::command().debug_assert();
    }

    #[test]
    fn every_flag_of_the_controller_has_a_variable() {
        use clap::CommandFactory as _;
        let command = Args::command();
        let controller = command.find_subcommand("controller").unwrap();
        for arg in controller
            .get_arguments()
            .filter(|arg| !matches!(arg.get_id().as_str(), "help" | "version"))
        {
            assert!(arg.get_env().is_some(), "{} has none", arg.get_id());
        }
    }

    #[test]
    fn numbers_of_bytes() {
        for (text, bytes) in [
            ("none", Ok(Bytes(None))),
            ("1", Ok(Bytes(Some(1)))),
            ("3Gi", Ok(Bytes(Some(3 << 30)))),
            ("500M", Ok(Bytes(Some(500_000_000)))),
            ("2k", Ok(Bytes(Some(2000)))),
        ] {
            assert_eq!(parse_bytes(text), bytes, "{text}");
        }
        for text in ["", "0", "0Gi", "Gi", "-1", "1.5Gi", "3GB", "3 Gi", "99999999999Gi"] {
            assert!(parse_bytes(text).is_err(), "{text}");
        }
    }

    #[test]
    fn addresses_accounts_and_durations() {
        assert_eq!(parse_addr("none"), Ok(Listen(None)));
        assert!(parse_addr("127.0.0.1:0").is_ok());
        assert!(parse_addr("localhost").is_err());
        for (name, good) in
            [("", true), ("tenant", true), ("a.b-1", true), ("A", false), ("a/b", false)]
        {
            assert_eq!(parse_account(name).is_ok(), good, "{name}");
            assert_eq!(parse_secret(name).is_ok(), good && !name.is_empty(), "{name}");
        }
        assert_eq!(parse_duration("1m30s"), Ok(Duration::from_secs(90)));
        assert!(parse_duration("soon").is_err());
    }
}
