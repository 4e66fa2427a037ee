//! The HTTP clients of one remote: whom they trust, what they show, and by whom they ask.

use std::sync::Arc;
use std::time::Duration;

use rustls::InconsistentKeys;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use ureq::tls::{Certificate, ClientCert, PemItem, PrivateKey, RootCerts, TlsConfig, parse_pem};
use ureq::{Agent, Proxy, ProxyProtocol, http};

use crate::remote::{CERTIFICATE_SHOWN, CheckedRemote};
use crate::wire::AGENT;
use crate::{ClientCertificate, SourceError};

/// A host that accepts no connection within this time is taken for unreachable, so that the next
/// of its addresses, or the next try, gets a chance inside the remote's own time-out.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);

/// Git servers send something every five seconds while they prepare a pack
/// (`uploadpack.keepAlive`); one that is silent six times as long has stalled.
pub(crate) const STALL_TIMEOUT: Duration = Duration::from_secs(30);

/// The agents that a remote's calls share one after the other: they keep the parsed certificates
/// and idle connections.
#[derive(Clone)]
pub(crate) struct Agents {
    /// For the origin of the URL.
    pub(crate) own: Agent,
    /// For where redirects lead otherwise: it shows no client certificate.
    pub(crate) other: Agent,
}

impl Agents {
    pub(crate) fn new(remote: &CheckedRemote) -> Result<Self, SourceError> {
        let roots = match &remote.tls.ca {
            None => RootCerts::PlatformVerifier,
            Some(pem) => RootCerts::Specific(Arc::new(authorities(pem)?)),
        };
        let proxy = match &remote.proxy {
            Some(proxy) => Some(proxy.clone()),
            None => Proxy::try_from_env().map(|proxy| of_environment(proxy, remote)).transpose()?,
        };
        let agent = |client: Option<ClientCert>| {
            let tls = TlsConfig::builder().root_certs(roots.clone()).client_cert(client).build();
            let config = Agent::config_builder()
                .tls_config(tls)
                .proxy(proxy.clone())
                .user_agent(AGENT)
                // Redirects are followed by our own rules, and statuses have errors of our own.
                .max_redirects(0)
                .max_redirects_will_error(false)
                .http_status_as_error(false)
                .timeout_connect(Some(CONNECT_TIMEOUT))
                .timeout_per_read(Some(STALL_TIMEOUT))
                .timeout_per_write(Some(STALL_TIMEOUT))
                .build();
            config.new_agent()
        };
        let other = agent(None);
        let own = match &remote.tls.client {
            None => other.clone(),
            Some(client) => agent(Some(client_certificate(client)?)),
        };
        Ok(Self { own, other })
    }

    /// The agent for where credentials may go, or may not.
    pub(crate) fn of(&self, trusted: bool) -> &Agent {
        if trusted { &self.own } else { &self.other }
    }
}

/// A proxy that the environment names, if this remote may be asked by it.
fn of_environment(proxy: Proxy, remote: &CheckedRemote) -> Result<Proxy, SourceError> {
    let uri: Option<http::Uri> = remote.url.as_str().parse().ok();
    let used = !uri.is_some_and(|uri| proxy.is_no_proxy(&uri));
    if used && proxy.protocol() == ProxyProtocol::Https && remote.tls.client.is_some() {
        let address = format!("https://{}:{}", proxy.host(), proxy.port());
        return Err(SourceError::InvalidProxy { address, why: CERTIFICATE_SHOWN.into() });
    }
    Ok(proxy)
}

/// The certificates of a CA bundle.
fn authorities(pem: &str) -> Result<Vec<Certificate<'static>>, SourceError> {
    let bad = |why: &str| SourceError::InvalidCertificates { why: why.into() };
    let mut certificates = Vec::new();
    for item in parse_pem(pem.as_bytes()) {
        match item {
            Ok(PemItem::Certificate(certificate)) => certificates.push(certificate),
            Ok(_) => {}
            Err(_) => return Err(bad("it is not valid PEM")),
        }
    }
    if certificates.is_empty() {
        return Err(bad("it holds no certificate"));
    }
    Ok(certificates)
}

/// A client certificate whose key is its own.
fn client_certificate(client: &ClientCertificate) -> Result<ClientCert, SourceError> {
    let bad = |why: &str| SourceError::InvalidClientCertificate { why: why.into() };
    let mut chain = Vec::new();
    for item in parse_pem(client.certificate.as_bytes()) {
        match item {
            Ok(PemItem::Certificate(certificate)) => chain.push(certificate),
            Ok(_) => {}
            Err(_) => return Err(bad("tls.crt is not valid PEM")),
        }
    }
    if chain.is_empty() {
        return Err(bad("tls.crt holds no certificate"));
    }
    let key = PrivateKeyDer::from_pem_slice(client.key.as_bytes())
        .map_err(|_| bad("tls.key holds no private key in PEM, or one with a passphrase"))?;
    // The client that we use takes it for granted that they fit, and panics otherwise.
    let certificates = chain.iter().map(|c| CertificateDer::from(c.der().to_vec())).collect();
    let provider = rustls::crypto::ring::default_provider();
    match CertifiedKey::from_der(certificates, key, &provider) {
        Ok(_) | Err(rustls::Error::InconsistentKeys(InconsistentKeys::Unknown)) => {}
        Err(rustls::Error::InconsistentKeys(_)) => {
            return Err(bad("tls.key is not the key of the certificate in tls.crt"));
        }
        Err(rustls::Error::InvalidCertificate(_)) => {
            return Err(bad("tls.crt holds no usable certificate"));
        }
        Err(_) => return Err(bad("the private key in tls.key is of no kind that is supported")),
    }
    let key = PrivateKey::from_pem(client.key.as_bytes())
        .map_err(|_| bad("tls.key holds no private key in PEM"))?;
    Ok(ClientCert::new_with_certs(&chain, key))
}
