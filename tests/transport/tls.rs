//! TLS: whom the client trusts, and how it shows who it is.

use std::net::TcpStream;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use queen::{Client, ErrorCode, Level};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, ServerConnection, StreamOwned};
use tempfile::TempDir;

use crate::script::{Script, Stream, Wrap};
use crate::{LONG, client, push, push_fails, well};

/// An authority and what it has signed, with everything the client needs in files.
struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    files: TempDir,
}

impl Authority {
    fn new() -> Authority {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let files = TempDir::new().unwrap();
        std::fs::write(files.path().join("ca.pem"), issuer.pem()).unwrap();
        Authority { issuer, files }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.files.path().join(name)
    }

    fn sign(&self, name: &str) -> (CertificateDer<'static>, KeyPair) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        std::fs::write(self.file("cert.pem"), certificate.pem()).unwrap();
        std::fs::write(self.file("key.pem"), key.serialize_pem()).unwrap();
        (certificate.der().clone(), key)
    }

    /// A server with a certificate for that name, that notes the names it is asked for, and wants certificates of
    /// clients if `clients` has an authority.
    fn server(&self, name: &str, clients: Option<&Authority>) -> (Script, Arc<Mutex<Vec<String>>>) {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .unwrap();
        let builder = match clients {
            None => builder.with_no_client_auth(),
            Some(authority) => {
                let mut roots = RootCertStore::empty();
                roots.add(authority.issuer.der().clone()).unwrap();
                let verifier =
                    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
                builder.with_client_cert_verifier(verifier.build().unwrap())
            }
        };
        let (certificate, key) = self.sign(name);
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let config = Arc::new(builder.with_single_cert(vec![certificate], key).unwrap());
        let names = Arc::new(Mutex::new(Vec::new()));
        let asked = names.clone();
        let wrap: Wrap = Arc::new(move |mut stream: TcpStream| {
            let mut connection = ServerConnection::new(config.clone()).unwrap();
            while connection.is_handshaking() {
                connection.complete_io(&mut stream)?;
            }
            if let Some(name) = connection.server_name() {
                asked.lock().unwrap().push(name.to_owned());
            }
            Ok(Box::new(StreamOwned::new(connection, stream)) as Box<dyn Stream>)
        });
        (Script::with("https", wrap, well), names)
    }

    fn trusted(&self) -> String {
        format!(r#""retryAttempts":1,"tlsCaFile":{:?}"#, self.file("ca.pem"))
    }
}

#[test]
fn tls_with_an_authority_of_ones_own() {
    let authority = Authority::new();
    let (server, _) = authority.server("127.0.0.1", None);
    let client = client(&[&server.url], &authority.trusted());
    push(&client).wait(LONG).unwrap();
    push(&client).wait(LONG).unwrap();
    assert_eq!(server.seen()[1].connection, 0, "the connection is kept");
}

#[test]
fn tls_trusts_nobody_else() {
    let (server, _) = Authority::new().server("127.0.0.1", None);
    let error = push_fails(&client(&[&server.url], &Authority::new().trusted()));
    assert_eq!(error.code(), ErrorCode::Connect);
    assert!(error.message().contains("certificate"), "{error}");
    // Nor by the platform's roots, if the machine has any.
    let error = push_fails(&client(&[&server.url], r#""retryAttempts":1"#));
    assert!(error.message().contains("certificate"), "{error}");
    assert_eq!(server.count(), 0);
}

#[test]
fn tls_checks_the_name() {
    let authority = Authority::new();
    let (server, _) = authority.server("other.example.com", None);
    let error = push_fails(&client(&[&server.url], &authority.trusted()));
    assert_eq!(error.code(), ErrorCode::Connect);
    assert!(error.message().contains("certificate"), "{error}");
}

#[test]
fn x3_the_host_header_is_the_name_in_the_handshake() {
    let authority = Authority::new();
    let (one, names) = authority.server("acme.example.com", None);
    let (two, _) = authority.server("acme.example.com", None);
    let config = format!(r#"{},"hostHeader":"acme.example.com""#, authority.trusted());
    let client = client(&[&one.url, &two.url], &config);
    for _ in 0..4 {
        push(&client).wait(LONG).unwrap();
    }
    assert_eq!(
        (one.count(), two.count()),
        (2, 2),
        "each by its own address"
    );
    assert_eq!(one.seen()[0].header("host"), Some("acme.example.com"));
    assert_eq!(*names.lock().unwrap(), ["acme.example.com"]);
}

#[test]
fn tls_shows_a_certificate_of_its_own() {
    let (brokers, clients) = (Authority::new(), Authority::new());
    let (server, _) = brokers.server("127.0.0.1", Some(&clients));
    clients.sign("client");
    let identity = format!(
        r#","tlsCertFile":{:?},"tlsKeyFile":{:?}"#,
        clients.file("cert.pem"),
        clients.file("key.pem")
    );
    let good = client(&[&server.url], &(brokers.trusted() + &identity));
    push(&good).wait(LONG).unwrap();
    let anonymous = client(&[&server.url], &brokers.trusted());
    assert!(push(&anonymous).wait(LONG).is_err());
    assert_eq!(server.count(), 1);
}

#[test]
fn tls_files_that_cannot_be_used_are_told_by_the_first_call() {
    let authority = Authority::new();
    let (server, _) = authority.server("127.0.0.1", None);
    let client = client(&[&server.url], r#""tlsCaFile":"/no/such/file.pem""#);
    let error = push_fails(&client);
    assert_eq!(error.code(), ErrorCode::InvalidConfig);
    assert!(error.message().contains("tlsCaFile") && error.message().contains("/no/such/file.pem"));
    for (bad, named) in [
        (r#"{"url":"http://a","tlsCaFile":"/x"}"#, "https"),
        (r#"{"url":"https://a","tlsCertFile":"/x"}"#, "tlsKeyFile"),
        (r#"{"url":"https://a","tlsKeyFile":"/x"}"#, "tlsCertFile"),
        (
            r#"{"url":"https://a","hostHeader":"10.0.0.1"}"#,
            "hostHeader",
        ),
    ] {
        let error = Client::new(bad).unwrap_err();
        assert!(error.message().contains(named), "{error}");
    }
}

#[test]
fn c16_neither_certificates_nor_keys_are_logged() {
    let (brokers, clients) = (Authority::new(), Authority::new());
    let (server, _) = brokers.server("127.0.0.1", Some(&clients));
    clients.sign("client");
    let key = std::fs::read_to_string(clients.file("key.pem")).unwrap();
    let certificate = std::fs::read_to_string(clients.file("cert.pem")).unwrap();
    // The same key with an end that is broken, no key at all, and a certificate where the key should be.
    std::fs::write(clients.file("half.pem"), &key[..key.len() - 40]).unwrap();
    std::fs::write(clients.file("none.pem"), "s3cret").unwrap();
    let pem = format!("{key}{certificate}");
    let mut secrets: Vec<&str> = pem.lines().filter(|line| !line.starts_with("--")).collect();
    secrets.push("s3cret");
    assert!(secrets.len() > 5);
    let lines = Arc::new(Mutex::new(String::new()));
    for (file, well) in [
        ("key.pem", true),
        ("half.pem", false),
        ("none.pem", false),
        ("cert.pem", false),
    ] {
        let identity = format!(
            r#","tlsCertFile":{:?},"tlsKeyFile":{:?}"#,
            clients.file("cert.pem"),
            clients.file(file)
        );
        let client = client(&[&server.url], &(brokers.trusted() + &identity));
        let log = lines.clone();
        client.set_log(
            Level::Debug,
            Some(Arc::new(move |_, line| log.lock().unwrap().push_str(line))),
        );
        let pushed = push(&client).wait(LONG);
        assert_eq!(pushed.is_ok(), well, "{file}: {pushed:?}");
        if let Err(error) = pushed {
            assert_eq!(error.code(), ErrorCode::InvalidConfig, "{error}");
            assert!(error.message().contains("tlsKeyFile"), "{error}");
            lines.lock().unwrap().push_str(&error.to_json());
        }
        lines.lock().unwrap().push_str(&format!("{client:?}"));
        client.close(LONG).wait(LONG).unwrap();
    }
    let lines = lines.lock().unwrap();
    assert!(lines.contains("transport"), "something was logged: {lines}");
    for secret in secrets {
        assert!(!lines.contains(secret), "{secret} is in {lines}");
    }
}
