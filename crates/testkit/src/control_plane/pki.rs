//! Keys and certificates of one control plane.

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use std::path::{Path, PathBuf};

/// What the parts are started with.
#[derive(Debug)]
pub(crate) struct Pki {
    /// The certificate of the authority, in PEM.
    pub(crate) ca: String,
    pub(crate) ca_file: PathBuf,
    pub(crate) cert_file: PathBuf,
    pub(crate) key_file: PathBuf,
    /// Signs the tokens of service accounts.
    pub(crate) account_key_file: PathBuf,
    pub(crate) account_public_file: PathBuf,
}

impl Pki {
    pub(crate) fn create(dir: &Path) -> Pki {
        let ca_key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::default();
        params
            .distinguished_name
            .push(DnType::CommonName, "plumb-testkit");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![
            KeyUsagePurpose::KeyCertSign,
            KeyUsagePurpose::DigitalSignature,
        ];
        let ca = params.self_signed(&ca_key).expect("a certificate").pem();
        let issuer = Issuer::new(params, ca_key);

        let key = KeyPair::generate().expect("a key");
        let names = [
            "127.0.0.1",
            "localhost",
            "kubernetes.default.svc",
            "10.96.0.1",
        ];
        let mut params =
            CertificateParams::new(names.map(str::to_owned)).expect("well-formed names");
        params
            .distinguished_name
            .push(DnType::CommonName, "kube-apiserver");
        let certificate = params
            .signed_by(&key, &issuer)
            .expect("a certificate")
            .pem();

        let account = KeyPair::generate().expect("a key");
        let write = |name: &str, content: &str| {
            let path = dir.join(name);
            std::fs::write(&path, content)
                .unwrap_or_else(|error| panic!("cannot write {}: {error}", path.display()));
            path
        };
        Pki {
            ca_file: write("ca.crt", &ca),
            ca,
            cert_file: write("apiserver.crt", &certificate),
            key_file: write("apiserver.key", &key.serialize_pem()),
            account_key_file: write("accounts.key", &account.serialize_pem()),
            account_public_file: write("accounts.pub", &account.public_key_pem()),
        }
    }
}
