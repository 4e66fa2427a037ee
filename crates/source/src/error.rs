//! What can go wrong between a URL and a readable commit.

use std::path::PathBuf;
use std::sync::Arc;

use jiff::Timestamp;
use plumb_core::ErrorClass;

use crate::{CommitId, Refusal};

/// The error below one of ours. Shared, because callers that waited for one listing all get its
/// error.
pub type Cause = Arc<dyn std::error::Error + Send + Sync>;

/// Why a source could not be resolved, fetched, read or kept. No variant holds a credential, and
/// URLs in it carry none.
#[derive(Debug, Clone, thiserror::Error)]
pub enum SourceError {
    /// The URL cannot be parsed or lacks a part.
    #[error("url {url:?} is not usable: {why}")]
    InvalidUrl {
        /// The URL, without any credentials in it.
        url: String,
        /// What is wrong with it.
        why: String,
    },
    /// The URL's scheme is not one that Plumb speaks.
    #[error("scheme {scheme:?} is not supported")]
    UnsupportedScheme {
        /// The scheme.
        scheme: String,
    },
    /// The URL carries a user name or a password.
    #[error("url {url:?} carries credentials")]
    CredentialsInUrl {
        /// The URL without them.
        url: String,
    },
    /// The given CA bundle holds no certificate or cannot be read.
    #[error("the CA bundle is not usable: {why}")]
    InvalidCertificates {
        /// What is wrong with it.
        why: String,
    },
    /// The client certificate or its key cannot be used.
    #[error("the client certificate is not usable: {why}")]
    InvalidClientCertificate {
        /// What is wrong with it.
        why: String,
    },
    /// The credentials cannot be sent.
    #[error("the credentials are not usable: {why}")]
    InvalidCredentials {
        /// What is wrong with them.
        why: String,
    },
    /// The proxy cannot be used.
    #[error("proxy {address:?} is not usable: {why}")]
    InvalidProxy {
        /// Its address, without any credentials in it.
        address: String,
        /// What is wrong with it.
        why: String,
    },
    /// The reference is not one that Git could have.
    #[error("reference {reference:?} is not valid: {why}")]
    InvalidReference {
        /// As it was given.
        reference: String,
        /// What is wrong with it.
        why: String,
    },
    /// A commit is named by less than its whole id.
    #[error("commit {id:?} is not a full commit id")]
    ShortCommit {
        /// As it was given.
        id: String,
    },
    /// The version range cannot be parsed.
    #[error("version range {range:?} cannot be read")]
    InvalidRange {
        /// As it was given.
        range: String,
    },
    /// The host name does not resolve.
    #[error("host {host:?} cannot be resolved")]
    UnknownHost {
        /// The host name.
        host: String,
    },
    /// The host answered that nothing listens there.
    #[error("{host} refused the connection")]
    ConnectionRefused {
        /// Host and port.
        host: String,
    },
    /// The connection could not be made for another reason.
    #[error("cannot connect to {host}")]
    Connect {
        /// Host and port.
        host: String,
        /// The operating system's error.
        #[source]
        source: Cause,
    },
    /// The proxy could not be connected to.
    #[error("cannot connect to the proxy {proxy}")]
    ProxyUnreachable {
        /// Its host and port.
        proxy: String,
        /// The operating system's error.
        #[source]
        source: Cause,
    },
    /// The proxy wants credentials, or other ones.
    #[error("the proxy {proxy} {}", if *.sent { "did not accept its username and password" } else { "wants a username and a password" })]
    ProxyUnauthorized {
        /// Its host and port.
        proxy: String,
        /// Whether credentials were sent.
        sent: bool,
    },
    /// The proxy did not connect to the server.
    #[error("the proxy {proxy} does not connect to {host}: {why}")]
    ProxyRefused {
        /// Its host and port.
        proxy: String,
        /// Host and port of the server.
        host: String,
        /// What it answered.
        why: String,
    },
    /// The server's certificate or the TLS handshake was not accepted.
    #[error("no trusted TLS connection to {host}")]
    Tls {
        /// Host and port.
        host: String,
        /// The TLS library's error.
        #[source]
        source: Cause,
    },
    /// Time ran out.
    #[error("timed out while {doing}")]
    Timeout {
        /// What was waited for, in words that follow "while".
        doing: &'static str,
    },
    /// The server wants credentials, or other ones (401 or 403).
    #[error("{url} answered {status}: {}", if *.sent { "the credentials were not accepted" } else { "credentials are needed" })]
    Unauthorized {
        /// The repository.
        url: String,
        /// The HTTP status.
        status: u16,
        /// Whether credentials were sent.
        sent: bool,
    },
    /// The server wants a client certificate, or another one.
    #[error("{host} {}", if *.sent { "did not accept the client certificate" } else { "wants a client certificate" })]
    ClientCertificate {
        /// Host and port.
        host: String,
        /// Whether one was sent.
        sent: bool,
    },
    /// A GitHub App was given no token.
    #[error("no token for the GitHub App from {api}: {why}")]
    NoAppToken {
        /// Who was asked.
        api: String,
        /// Why not.
        why: String,
        /// Whether it may be given one the next time.
        retry: bool,
    },
    /// The server has no such repository (404 or 410).
    #[error("repository {url} was not found")]
    RepositoryNotFound {
        /// The repository.
        url: String,
    },
    /// The server answered with another HTTP error.
    #[error("{url} answered with HTTP status {status}")]
    HttpStatus {
        /// The repository.
        url: String,
        /// The HTTP status.
        status: u16,
    },
    /// The server asks to be left alone for a while (403, 429 or 503, with `Retry-After`).
    #[error("{host} answered with HTTP status {status} and asks to wait until {until}")]
    Busy {
        /// Host and port.
        host: String,
        /// The HTTP status.
        status: u16,
        /// When it may be asked again, within an hour.
        until: Timestamp,
        /// Whether credentials were sent.
        sent: bool,
    },
    /// The server sends us somewhere that is not followed.
    #[error("{url} redirects in a way that is not followed: {why}")]
    Redirect {
        /// The repository.
        url: String,
        /// Where to and why not.
        why: String,
    },
    /// The SSH server, the key or the known hosts are not as they must be.
    #[error(transparent)]
    Ssh(plumb_ssh::SshError),
    /// The command of Git on an SSH server ended without an answer.
    #[error("{url} gives no answer: {message}")]
    CommandFailed {
        /// The repository.
        url: String,
        /// What the command said, cleaned of control characters, or how it ended.
        message: String,
        /// Whether that is that there is no such repository, for this key at least.
        missing: bool,
    },
    /// What answers is not a Git repository over smart HTTP.
    #[error("{url} does not answer as a Git repository: {why}")]
    NotGit {
        /// The repository.
        url: String,
        /// What it answered instead.
        why: String,
    },
    /// The repository has no such reference or commit.
    #[error("{reference} was not found in the repository")]
    RefNotFound {
        /// What was looked for: "branch main", "commit 1234…".
        reference: String,
        /// What is there instead, or what to do.
        hint: Option<String>,
    },
    /// The reference leads to something that is no commit.
    #[error("{reference} does not lead to a commit")]
    NotACommit {
        /// What was looked for.
        reference: String,
    },
    /// The repository has no commit at all.
    #[error("the repository is empty")]
    EmptyRepository,
    /// The pattern of the versions' tags is no regular expression.
    #[error("the pattern {pattern:?} is not valid: {why}")]
    InvalidPattern {
        /// The pattern.
        pattern: String,
        /// What is wrong with it.
        why: String,
    },
    /// No tag is a version inside the range.
    #[error("no tag matches the version range {range:?} ({versions} of {tags} tags are versions)")]
    NoSemverMatch {
        /// The range.
        range: String,
        /// How many tags there are.
        tags: usize,
        /// How many of them are versions.
        versions: usize,
        /// The highest version there is.
        highest: Option<String>,
    },
    /// The repository uses SHA-256 object ids.
    #[error("the repository uses SHA-256 object ids, which are not supported")]
    Sha256Repository,
    /// The file that names the submodules cannot be used.
    #[error("{file} is not usable: {why}")]
    InvalidModules {
        /// Its path.
        file: String,
        /// What is wrong with it.
        why: String,
    },
    /// A submodule cannot be had.
    #[error("submodule {path} cannot be fetched from {url}")]
    Submodule {
        /// Where it stands in the repository.
        path: String,
        /// Its URL, without any credentials in it.
        url: String,
        /// Why not.
        #[source]
        source: Box<SourceError>,
    },
    /// The server does not have, or does not send, all of a commit.
    #[error("the Git server does not give all of the commit: {why}")]
    Incomplete {
        /// What tells that.
        why: &'static str,
    },
    /// The server is one for clients that find out by themselves what they need.
    #[error("{url} speaks only the dumb HTTP protocol")]
    DumbHttp {
        /// The repository.
        url: String,
    },
    /// The server sends more than is accepted.
    #[error("{what} of the repository exceed the limit of {limit}")]
    TooLarge {
        /// What is too much, in the plural.
        what: &'static str,
        /// The limit.
        limit: u64,
    },
    /// The caller gave up.
    #[error("cancelled")]
    Cancelled,
    /// The connection broke in the middle of an answer.
    #[error("the connection to {host} broke")]
    Interrupted {
        /// Host and port.
        host: String,
        /// The operating system's error.
        #[source]
        source: Cause,
    },
    /// The server said in the Git protocol that it failed.
    #[error("the Git server reports: {message}")]
    Server {
        /// Its words, cleaned of control characters.
        message: String,
    },
    /// The server's answer breaks the Git protocol.
    #[error("the Git server's answer is not valid: {why}")]
    Protocol {
        /// In what way.
        why: String,
    },
    /// What the server sent is not what its ids say, or is incomplete.
    #[error("the Git server sent objects that are not usable: {why}")]
    BadObjects {
        /// In what way.
        why: String,
    },
    /// A commit or tag is not signed by a trusted key.
    #[error("{what} is not verified")]
    Unverified {
        /// Which: "commit 0123456789ab", "tag \"v1\"".
        what: String,
        /// Why.
        #[source]
        source: Refusal,
    },
    /// The commit is not in the cache, and this call may not fetch it.
    #[error("commit {commit} is not in the cache")]
    NotInCache {
        /// The commit.
        commit: CommitId,
    },
    /// The mirror on disk is damaged.
    #[error("the mirror in the cache is damaged")]
    Corrupt {
        /// What libgit2 said.
        #[source]
        source: Cause,
    },
    /// The cache directory cannot be read or written.
    #[error("cannot {action} {}", path.display())]
    CacheIo {
        /// What was tried: "create", "write".
        action: &'static str,
        /// Where.
        path: PathBuf,
        /// The operating system's error.
        #[source]
        source: Cause,
    },
    /// The disk that the cache directory is on takes nothing more.
    #[error("the disk is full: cannot {action} {}", path.display())]
    DiskFull {
        /// What was tried: "create", "write".
        action: &'static str,
        /// Where.
        path: PathBuf,
        /// The operating system's error.
        #[source]
        source: Cause,
    },
    /// The mirrors take all the room that they may.
    #[error("the cache is full: {} of {} are taken", quantity(*taken), quantity(*limit))]
    CacheFull {
        /// Bytes that all mirrors take.
        taken: u64,
        /// Bytes that they may take.
        limit: u64,
        /// Bytes that this fetch had brought when there was no room for more.
        brought: u64,
    },
    /// Another process uses the cache directory.
    #[error("cache directory {} is in use by another process", dir.display())]
    Locked {
        /// The directory.
        dir: PathBuf,
    },
}

impl SourceError {
    /// What happens next.
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Ssh(error) => error.class(),
            Self::Submodule { source, .. } => source.class(),
            Self::UnknownHost { .. }
            | Self::ConnectionRefused { .. }
            | Self::Connect { .. }
            | Self::ProxyUnreachable { .. }
            | Self::ProxyRefused { .. }
            | Self::Timeout { .. }
            | Self::CommandFailed { missing: false, .. }
            | Self::HttpStatus { .. }
            | Self::Busy { .. }
            | Self::NoAppToken { retry: true, .. }
            | Self::Cancelled
            | Self::Interrupted { .. }
            | Self::Server { .. }
            | Self::Protocol { .. }
            | Self::BadObjects { .. }
            | Self::NotInCache { .. }
            | Self::Corrupt { .. }
            | Self::DiskFull { .. }
            | Self::CacheFull { .. }
            | Self::CacheIo { .. } => ErrorClass::Retry,
            Self::InvalidUrl { .. }
            | Self::UnsupportedScheme { .. }
            | Self::CredentialsInUrl { .. }
            | Self::InvalidCertificates { .. }
            | Self::InvalidClientCertificate { .. }
            | Self::InvalidCredentials { .. }
            | Self::InvalidProxy { .. }
            | Self::ProxyUnauthorized { .. }
            | Self::InvalidReference { .. }
            | Self::ShortCommit { .. }
            | Self::InvalidRange { .. }
            | Self::InvalidPattern { .. }
            | Self::Tls { .. }
            | Self::Unauthorized { .. }
            | Self::ClientCertificate { .. }
            | Self::NoAppToken { retry: false, .. }
            | Self::CommandFailed { missing: true, .. }
            | Self::RepositoryNotFound { .. }
            | Self::Redirect { .. }
            | Self::NotGit { .. }
            | Self::RefNotFound { .. }
            | Self::NotACommit { .. }
            | Self::EmptyRepository
            | Self::NoSemverMatch { .. }
            | Self::Sha256Repository
            | Self::Incomplete { .. }
            | Self::DumbHttp { .. }
            | Self::InvalidModules { .. }
            | Self::TooLarge { .. }
            | Self::Unverified { .. }
            | Self::Locked { .. } => ErrorClass::WaitForUser,
        }
    }

    /// A condition reason in CamelCase, one for each cause.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::InvalidUrl { .. } | Self::UnsupportedScheme { .. } => "URLInvalid",
            Self::CredentialsInUrl { .. } => "CredentialsInURL",
            Self::InvalidCertificates { .. } | Self::InvalidClientCertificate { .. } => {
                "CertificatesInvalid"
            }
            Self::InvalidCredentials { .. } => "CredentialsInvalid",
            Self::InvalidProxy { .. } => "ProxyInvalid",
            Self::ProxyUnreachable { .. } => "ProxyUnreachable",
            Self::ProxyUnauthorized { .. } => "ProxyAuthenticationFailed",
            Self::ProxyRefused { .. } => "ProxyRefused",
            Self::InvalidReference { .. } | Self::ShortCommit { .. } => "ReferenceInvalid",
            Self::InvalidRange { .. } => "VersionRangeInvalid",
            Self::InvalidPattern { .. } => "VersionPatternInvalid",
            Self::UnknownHost { .. } => "UnknownHost",
            Self::ConnectionRefused { .. } => "ConnectionRefused",
            Self::Connect { .. } => "ConnectionFailed",
            Self::Tls { .. } => "TLSFailed",
            Self::Timeout { .. } => "Timeout",
            Self::Unauthorized { .. } | Self::ClientCertificate { .. } => "AuthenticationFailed",
            Self::NoAppToken { .. } => "GitHubAppRefused",
            Self::RepositoryNotFound { .. } | Self::CommandFailed { missing: true, .. } => {
                "RepositoryNotFound"
            }
            Self::Ssh(error) => error.reason(),
            Self::HttpStatus { .. }
            | Self::CommandFailed { missing: false, .. }
            | Self::Server { .. } => "ServerError",
            Self::Busy { .. } => "ServerBusy",
            Self::Redirect { .. } => "RedirectRefused",
            Self::NotGit { .. } => "NotAGitRepository",
            Self::RefNotFound { .. } => "RefNotFound",
            Self::NotACommit { .. } => "NotACommit",
            Self::EmptyRepository => "EmptyRepository",
            Self::NoSemverMatch { .. } => "NoMatchingVersion",
            Self::Sha256Repository => "UnsupportedObjectFormat",
            Self::Incomplete { .. } => "IncompleteRepository",
            Self::DumbHttp { .. } => "DumbHTTP",
            Self::InvalidModules { .. } => "SubmodulesInvalid",
            Self::Submodule { .. } => "SubmoduleFailed",
            Self::TooLarge { .. } => "RepositoryTooLarge",
            Self::Cancelled => "Cancelled",
            Self::Interrupted { .. } => "ConnectionBroken",
            Self::Protocol { .. } | Self::BadObjects { .. } => "ProtocolError",
            Self::Unverified { .. } => "VerificationFailed",
            Self::NotInCache { .. } => "NotInCache",
            Self::Corrupt { .. } => "CacheDamaged",
            Self::CacheIo { .. } => "CacheFailed",
            Self::DiskFull { .. } => "DiskFull",
            Self::CacheFull { .. } => "CacheFull",
            Self::Locked { .. } => "CacheLocked",
        }
    }

    /// What a person can do about it, where there is something to say beyond the message.
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::UnsupportedScheme { .. } => "use an https://, http:// or ssh:// URL",
            Self::CredentialsInUrl { .. } => {
                "remove them from the url and put them into a Secret named by secretRef"
            }
            Self::ProxyUnreachable { .. } => {
                "check the address in the Secret that proxySecretRef names, and whether a network \
                 policy is in the way"
            }
            Self::ProxyUnauthorized { .. } => {
                "check username and password in the Secret that proxySecretRef names"
            }
            Self::ProxyRefused { .. } => {
                "check spec.url, and whether the proxy lets this server and port be connected to"
            }
            Self::ShortCommit { .. } => {
                "give all 40 hexadecimal digits; `git rev-parse` prints them"
            }
            Self::InvalidRange { .. } => "examples: \">=1.2.0 <2.0.0\", \"^1.2\", \"1.x || 2.x\"",
            Self::InvalidPattern { .. } => {
                "a regular expression that whole tags match, whose first group is the version: \
                 \"web-(.*)\""
            }
            Self::Unauthorized { sent: false, .. } => {
                "name a Secret with username and password in secretRef; many hosts also answer so \
                 when a public repository does not exist"
            }
            Self::Unauthorized { sent: true, .. } => {
                "check username and password, or the token's expiry and scope, in the Secret"
            }
            Self::ClientCertificate { .. } => "check tls.crt and tls.key in the Secret",
            Self::Ssh(error) => return error.hint(),
            Self::RepositoryNotFound { .. } | Self::CommandFailed { missing: true, .. } => {
                "check the url; many hosts also hide private repositories this way"
            }
            Self::Tls { .. } => {
                "if the server's certificate is signed by a private authority, give its \
                 certificate as ca.crt in the Secret"
            }
            Self::HttpStatus { url, status: 400 } if url.starts_with("https://") => {
                "some servers answer so when they want another client certificate, or one at all: \
                 tls.crt and tls.key in the Secret"
            }
            Self::UnknownHost { .. } => {
                "check the host in spec.url; if it is right, the cluster's DNS does not know it"
            }
            Self::ConnectionRefused { .. } | Self::Connect { .. } => {
                "check host and port in spec.url, and whether a network policy or firewall is in \
                 the way"
            }
            Self::Timeout { .. } => {
                "the server may be slow or out of reach; spec.timeout bounds one try"
            }
            Self::Busy { .. } => {
                "until then nothing is asked of it, not even when a person or a webhook asks for a \
                 look; a longer spec.interval asks less often"
            }
            Self::NotGit { .. } => "check the url: it must be the one that `git clone` takes",
            Self::EmptyRepository => "push a first commit",
            Self::RefNotFound { hint, .. } => return hint.clone(),
            Self::NoSemverMatch { highest, .. } => {
                return Some(match highest {
                    Some(tag) => format!("the highest version is {tag}"),
                    None => "push a tag that is a version, such as 1.2.3 or v1.2.3".to_owned(),
                });
            }
            Self::TooLarge { .. } => {
                "keep manifests in a repository of their own, without large files"
            }
            Self::Sha256Repository => {
                "Git makes those with `git init --object-format=sha256`; push to one with SHA-1 \
                 ids, which is what it makes otherwise"
            }
            Self::Incomplete { .. } => {
                "the repository on the server is a partial clone, or damaged: clone it there without \
                 --filter, or see what `git fsck` says"
            }
            Self::DumbHttp { .. } => {
                "have the server run `git http-backend`, as Git's documentation of that says, or \
                 use ssh"
            }
            Self::InvalidModules { .. } => {
                "correct it in the repository; what `git submodule add` writes is usable"
            }
            Self::Submodule { source, .. } => return source.submodule_hint(),
            Self::Unverified { source, .. } => source.hint(),
            Self::NotInCache { .. } => {
                "the cache was lost; it fills again as soon as the Git server answers"
            }
            Self::DiskFull { .. } => {
                "make room on the volume of the cache; it should be larger than --cache-limit by what \
                 one fetch may bring"
            }
            Self::CacheFull { .. } => {
                "raise --cache-limit, and the volume with it, or delete GitRepositories that are not \
                 needed"
            }
            Self::Locked { .. } => {
                "give each process a cache directory of its own, and let an old one end before a new \
                 one begins"
            }
            _ => return None,
        };
        Some(hint.to_owned())
    }
}

/// A number of bytes as people write it, in units of 1024.
fn quantity(bytes: u64) -> String {
    let units = [(30, "Gi"), (20, "Mi"), (10, "Ki")];
    let Some((shift, unit)) = units.into_iter().find(|(shift, _)| bytes >> shift > 0) else {
        return bytes.to_string();
    };
    let tenths = (u128::from(bytes) * 10) >> shift;
    match (tenths / 10, tenths % 10) {
        (whole, 0) => format!("{whole}{unit}"),
        (whole, tenth) => format!("{whole}.{tenth}{unit}"),
    }
}

#[cfg(test)]
mod tests {
    use super::quantity;

    #[test]
    fn bytes_are_told_in_units() {
        for (bytes, text) in [
            (0, "0"),
            (1023, "1023"),
            (1024, "1Ki"),
            (3 << 30, "3Gi"),
            ((3 << 30) - 1, "2.9Gi"),
            (1_600_000, "1.5Mi"),
        ] {
            assert_eq!(quantity(bytes), text);
        }
    }
}
