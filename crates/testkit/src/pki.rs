//! Keys and certificates of servers under test.

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};

/// A certificate authority that nobody else trusts.
pub(crate) struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

/// A private key and what belongs to it, in PEM.
pub(crate) struct Signed {
    pub(crate) key: String,
    pub(crate) certificate: String,
}

impl Authority {
    pub(crate) fn create() -> Authority {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "plumb-testkit");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        let pem = params.self_signed(&key).expect("a certificate").pem();
        Authority { pem, issuer: Issuer::new(params, key) }
    }

    /// Its own certificate, in PEM.
    pub(crate) fn pem(&self) -> &str {
        &self.pem
    }

    /// A key and a certificate for a server with these names and addresses.
    pub(crate) fn server(&self, names: &[&str]) -> Signed {
        let key = KeyPair::generate().expect("a key");
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).expect("well-formed names");
        params.distinguished_name.push(DnType::CommonName, "server under test");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate").pem();
        Signed { key: key.serialize_pem(), certificate }
    }
}

/// A private key and its public half, in PEM: what signs the tokens of service accounts.
pub(crate) fn key_pair() -> (String, String) {
    let key = KeyPair::generate().expect("a key");
    (key.serialize_pem(), key.public_key_pem())
}
