//! TLS by rustls with ring: whom to trust, and who the client is.

use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use rustls_platform_verifier::BuilderVerifierExt;

use crate::config::Config;
use crate::error::{Error, ErrorCode, Result};

/// Reads what the configuration names; the platform's roots only where a URL needs them.
pub(super) fn client_config(config: &Config, needed: bool) -> Result<ClientConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::new(ErrorCode::Internal, format!("TLS: {error}")))?;
    let builder = match &config.tls_ca_file {
        Some(path) => builder.with_root_certificates(roots(path)?),
        None if needed => builder.with_platform_verifier().map_err(|error| {
            Error::new(
                ErrorCode::InvalidConfig,
                format!(
                    "the certificates that this machine trusts cannot be read: {error}; install them (package \
                     ca-certificates) or set `tlsCaFile`"
                ),
            )
        })?,
        None => builder.with_root_certificates(RootCertStore::empty()),
    };
    let (Some(certificate), Some(key)) = (&config.tls_cert_file, &config.tls_key_file) else {
        return Ok(builder.with_no_client_auth());
    };
    let private = PrivateKeyDer::from_pem_file(key)
        .map_err(|error| unusable("tlsKeyFile", key, &error.to_string()))?;
    builder
        .with_client_auth_cert(certificates("tlsCertFile", certificate)?, private)
        .map_err(|error| unusable("tlsKeyFile", key, &error.to_string()))
}

fn roots(path: &Path) -> Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates("tlsCaFile", path)? {
        roots
            .add(certificate)
            .map_err(|error| unusable("tlsCaFile", path, &error.to_string()))?;
    }
    Ok(roots)
}

fn certificates(key: &str, path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let found = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<std::result::Result<Vec<_>, _>>)
        .map_err(|error| unusable(key, path, &error.to_string()))?;
    match found.is_empty() {
        true => Err(unusable(key, path, "it has no certificate in PEM format")),
        false => Ok(found),
    }
}

fn unusable(key: &str, path: &Path, why: &str) -> Error {
    Error::new(
        ErrorCode::InvalidConfig,
        format!("config `{key}` is {}: {why}", path.display()),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_cannot_be_used_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let empty = folder.path().join("empty.pem");
        std::fs::write(&empty, "nothing\n").unwrap();
        let absent = folder.path().join("absent.pem");
        for path in [&empty, &absent] {
            let mut config = Config::new("https://a");
            config.tls_ca_file = Some(path.clone());
            let error = client_config(&config, true).unwrap_err();
            assert_eq!(error.code(), ErrorCode::InvalidConfig);
            let file = path.display().to_string();
            assert!(error.message().contains("tlsCaFile") && error.message().contains(&file));
            config.tls_ca_file = None;
            config.tls_cert_file = Some(path.clone());
            config.tls_key_file = Some(path.clone());
            let error = client_config(&config, false).unwrap_err();
            assert!(error.message().contains("tlsKeyFile"), "{error}");
        }
    }
}
