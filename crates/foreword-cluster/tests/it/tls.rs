//! With certificates, those who have none get neither in nor an answer.

use std::time::Duration;

use crate::common::{options, run};
use foreword_cluster::{Client, Error, Tls};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};

struct Authority {
    certificate: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Authority {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap().pem();
        Authority { certificate, issuer: Issuer::new(params, key) }
    }

    /// Certificates of this authority, of one who trusts another.
    fn tls_trusting(&self, other: &Authority) -> Tls {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["node.test".to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap().pem();
        Tls::new(other.certificate.clone(), certificate, key.serialize_pem()).name("node.test")
    }

    fn tls(&self) -> Tls {
        self.tls_trusting(self)
    }
}

#[test]
fn both_sides_show_certificates_of_one_authority() {
    run(async {
        let (authority, other) = (Authority::new(), Authority::new());
        let dir = tempfile::tempdir().unwrap();
        let first = options(1).tls(authority.tls()).open(dir.path().join("1")).await.unwrap();
        let second = options(2).tls(authority.tls()).join([first.address()]).open(dir.path().join("2")).await.unwrap();
        first.promote(2).await.unwrap();
        assert_eq!(second.append("both have it").await.unwrap(), 1);
        let patience = Duration::from_millis(300);
        let client = Client::new([second.address()], Some(authority.tls())).unwrap();
        assert_eq!(client.append("with a certificate").await.unwrap(), 2);
        let strangers = [
            ("no certificate", None),
            ("a certificate of another authority", Some(other.tls_trusting(&authority))),
            ("trust in another authority", Some(authority.tls_trusting(&other))),
        ];
        for (who, tls) in strangers {
            let stranger = Client::new([first.address()], tls).unwrap().patience(patience);
            let refused = stranger.append("no").await.unwrap_err();
            assert!(matches!(refused, Error::NoLeader { .. } | Error::Unknown { .. }), "{who}: {refused}");
            assert!(stranger.status().await.is_err(), "{who} was answered");
        }
        assert_eq!(first.last().await.unwrap(), 2);
        first.halt().await.unwrap();
        second.halt().await.unwrap();
    });
}
