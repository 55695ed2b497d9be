//! Certificates.

use std::fmt;

use tonic::transport::{Certificate, ClientTlsConfig, Identity, ServerTlsConfig};

/// Certificates, by which each side of a connection knows that the other may speak to it. In PEM.
#[derive(Clone)]
pub struct Tls {
    ca: Vec<u8>,
    certificate: Vec<u8>,
    key: Vec<u8>,
    name: Option<String>,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Tls {
    /// The certificate of the authority that has signed those of all nodes and clients, and the
    /// certificate and private key of this one. A node's certificate must be good for both sides of
    /// a connection, and for the name or IP address by which others call it.
    #[must_use]
    pub fn new(ca: impl Into<Vec<u8>>, certificate: impl Into<Vec<u8>>, key: impl Into<Vec<u8>>) -> Tls {
        Tls { ca: ca.into(), certificate: certificate.into(), key: key.into(), name: None }
    }

    /// The name that the certificates of all nodes have, whatever their addresses.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Tls {
        self.name = Some(name.into());
        self
    }

    /// Which host of the simulation this is the certificate of.
    #[cfg(test)]
    pub(crate) fn simulated(&self) -> Option<u64> {
        std::str::from_utf8(&self.key).ok()?.strip_prefix("sim:")?.parse().ok()
    }

    fn identity(&self) -> Identity {
        Identity::from_pem(&self.certificate, &self.key)
    }

    /// Without a certificate of that authority, no client gets in.
    pub(crate) fn server(&self) -> ServerTlsConfig {
        ServerTlsConfig::new()
            .identity(self.identity())
            .client_ca_root(Certificate::from_pem(&self.ca))
            .client_auth_optional(false)
    }

    pub(crate) fn client(&self) -> ClientTlsConfig {
        let config = ClientTlsConfig::new().identity(self.identity()).ca_certificate(Certificate::from_pem(&self.ca));
        match &self.name {
            Some(name) => config.domain_name(name),
            None => config,
        }
    }
}
