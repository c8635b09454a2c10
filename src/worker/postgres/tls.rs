//! TLS of database connections: what `sslmode` and `sslrootcert` of a URI ask for, by rustls with ring.
//! Used by `session` alone. Must not weaken what the URI asks: `verify-full` checks chain and name, `verify-ca` the chain,
//! `require` and `prefer` encrypt without asking who answers, as libpq does.

use std::path::PathBuf;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verify {
    Nothing,
    Chain,
    ChainAndName,
}

/// What of a URI concerns TLS, and the URI that is left for the client library, which knows only three modes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsRequest {
    pub uri: String,
    pub verify: Verify,
    pub root_certificate: Option<PathBuf>,
}

/// Takes `sslmode=verify-…`, `sslmode=allow` and `sslrootcert` out of a URI.
pub fn split_uri(uri: &str) -> TlsRequest {
    let mut request = TlsRequest { uri: uri.to_owned(), verify: Verify::Nothing, root_certificate: None };
    let Some((base, query)) = uri.split_once('?') else {
        return request;
    };
    let mut kept = Vec::new();
    for parameter in query.split('&').filter(|part| !part.is_empty()) {
        match parameter.split_once('=') {
            Some(("sslmode", "verify-ca")) => request.verify = Verify::Chain,
            Some(("sslmode", "verify-full")) => request.verify = Verify::ChainAndName,
            Some(("sslmode", "allow")) => kept.push("sslmode=prefer"),
            Some(("sslrootcert", path)) => {
                request.root_certificate = (path != "system").then(|| PathBuf::from(decode(path)));
            }
            _ => kept.push(parameter),
        }
    }
    if request.verify != Verify::Nothing {
        kept.push("sslmode=require");
    } else if request.root_certificate.is_some() && kept.contains(&"sslmode=require") {
        // libpq: `require` together with a root certificate verifies the chain.
        request.verify = Verify::Chain;
    }
    request.uri = if kept.is_empty() { base.to_owned() } else { format!("{base}?{}", kept.join("&")) };
    request
}

fn decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let hex = (bytes[at] == b'%')
            .then(|| text.get(at + 1..at + 3))
            .flatten()
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        if let Some(byte) = hex {
            decoded.push(byte);
            at += 3;
        } else {
            decoded.push(bytes[at]);
            at += 1;
        }
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

/// The client configuration; an error is a sentence for the user.
pub fn client_config(request: &TlsRequest) -> Result<ClientConfig, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    let config = match request.verify {
        Verify::ChainAndName => builder.with_root_certificates(roots(request)?),
        verify => {
            let chain = match verify {
                Verify::Chain => Some(
                    WebPkiServerVerifier::builder_with_provider(Arc::new(roots(request)?), provider.clone())
                        .build()
                        .map_err(|error| error.to_string())?,
                ),
                _ => None,
            };
            builder.dangerous().with_custom_certificate_verifier(Arc::new(Lenient { chain, provider }))
        }
    };
    Ok(config.with_no_client_auth())
}

fn roots(request: &TlsRequest) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    if let Some(path) = &request.root_certificate {
        let certificates =
            CertificateDer::pem_file_iter(path).map_err(|error| format!("sslrootcert cannot be read: {error}"))?;
        for certificate in certificates {
            let certificate = certificate.map_err(|error| format!("sslrootcert is not PEM: {error}"))?;
            roots.add(certificate).map_err(|error| format!("sslrootcert holds no usable certificate: {error}"))?;
        }
    } else {
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    }
    if roots.is_empty() {
        return Err("no root certificate to verify the server with; name one by sslrootcert".into());
    }
    Ok(roots)
}

/// Checks the chain but not the name, or nothing but the handshake's signature.
#[derive(Debug)]
struct Lenient {
    chain: Option<Arc<WebPkiServerVerifier>>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Lenient {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let Some(chain) = &self.chain else {
            return Ok(ServerCertVerified::assertion());
        };
        match chain.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now) {
            Err(rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            other => other,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// What is wrong with TLS itself, as a sentence with the remedy; a connection that merely broke is none of that.
pub fn failure(error: &tokio_postgres::Error) -> Option<String> {
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        if cause.to_string() == NO_TLS {
            return Some(
                "the server does not offer it; switch TLS on there, or leave sslmode=require (or verify-…) out of the URI in its Secret"
                    .to_owned(),
            );
        }
        let refused = cause
            .downcast_ref::<std::io::Error>()
            .and_then(|error| error.get_ref())
            .and_then(|inner| inner.downcast_ref::<rustls::Error>());
        if let Some(rustls::Error::InvalidCertificate(problem)) = refused {
            return Some(format!(
                "its certificate is not accepted ({problem:?}); give its authority by sslrootcert, or name the server as its certificate does"
            ));
        }
        if let Some(refused) = refused {
            return Some(format!("{refused}; correct what the server offers, or what sslmode asks"));
        }
        source = cause.source();
    }
    None
}

/// What the client library says when a server answers the question for TLS with no; it has no code of its own.
const NO_TLS: &str = "server does not support TLS";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_client_library_does_not_know_is_taken_out_of_the_uri_and_kept_in_force() {
        let request = split_uri("postgresql://u@h/db?sslmode=verify-full&sslrootcert=%2Fca%2Fca.pem&connect_timeout=5");
        assert_eq!(
            request,
            TlsRequest {
                uri: "postgresql://u@h/db?connect_timeout=5&sslmode=require".into(),
                verify: Verify::ChainAndName,
                root_certificate: Some("/ca/ca.pem".into()),
            }
        );
        assert_eq!(split_uri("postgresql://h/db?sslmode=require").verify, Verify::Nothing);
        assert_eq!(split_uri("postgresql://h/db?sslmode=require&sslrootcert=/ca.pem").verify, Verify::Chain);
        assert_eq!(split_uri("postgresql://h/db").uri, "postgresql://h/db");
    }

    #[test]
    fn verification_without_any_root_certificate_is_refused() {
        let request = TlsRequest {
            uri: String::new(),
            verify: Verify::ChainAndName,
            root_certificate: Some("/nonexistent/ca.pem".into()),
        };
        assert!(client_config(&request).unwrap_err().contains("sslrootcert"));
    }
}
