//! Servers with a certificate of their own authority.

use std::sync::Arc;

use plumb_source::{Cancel, Remote, SourceError, Tls};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;

use crate::server::{Server, backend};
use crate::{World, branch};

/// A server's configuration, and the PEM of whom to trust for it.
fn certificate(host: &str) -> (ServerConfig, String) {
    let made = rcgen::generate_simple_self_signed([host.to_owned()]).unwrap();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    (config, made.cert.pem())
}

#[test]
fn only_the_given_authority_is_trusted() {
    let mut world = World::new();
    let first = world.repo.commit("refs/heads/main", &[("a.yaml", "1")]);
    let (config, ca) = certificate("127.0.0.1");
    let (_, other_ca) = certificate("127.0.0.1");
    let root = world.dir.path().join("git");
    world.server = Server::with_tls(config, move |request| backend(&root, request));
    let resolve = |ca: Option<&str>| {
        let remote =
            Remote { tls: Tls { ca: ca.map(String::from), ..Tls::default() }, ..world.remote() };
        world.mirrors.resolve(&remote, &branch("main"), &Cancel::new())
    };
    for untrusted in [None, Some(other_ca.as_str())] {
        let error = resolve(untrusted).unwrap_err();
        assert!(matches!(error, SourceError::Tls { .. }), "{error:?}");
        assert!(error.hint().unwrap().contains("ca.crt"));
    }
    assert_eq!(resolve(Some(&ca)).unwrap().commit, first);
    // An agent that trusts the one authority is not used for a call that does not.
    assert_eq!(resolve(None).unwrap_err().reason(), "TLSFailed");
}

#[test]
fn a_certificate_for_another_host_is_refused() {
    let mut world = World::new();
    let (config, ca) = certificate("git.example.com");
    let root = world.dir.path().join("git");
    world.server = Server::with_tls(config, move |request| backend(&root, request));
    let remote = Remote { tls: Tls { ca: Some(ca), ..Tls::default() }, ..world.remote() };
    let error = world.mirrors.resolve(&remote, &branch("main"), &Cancel::new()).unwrap_err();
    assert!(matches!(error, SourceError::Tls { .. }), "{error:?}");
}
