//! TLS: the certificate and its key, read again whenever the files change. A pair that can't be used is told in the log once, and the one
//! before stays in use.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::config::TlsPlan;

/// How often the files are looked at: SIGHUP has nothing to hurry.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// A certificate's whole chain is a few kilobytes.
const MAX_FILE: u64 = 1 << 20;

/// A certificate and key that can't be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TlsError {
    /// A file can't be read.
    #[error("{what} {} can't be read: {why}; let the daemon's user read it, or name another", path.display())]
    Unreadable {
        /// `tls_certificate` or `tls_key`.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// The system's word.
        why: String,
    },
    /// A file holds no such thing.
    #[error("{what} {} holds no {missing} as PEM{why}; name a file that does", path.display())]
    NotPem {
        /// `tls_certificate` or `tls_key`.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// What should be in it.
        missing: &'static str,
        /// What the reader says.
        why: String,
    },
    /// They don't belong together, or are of an unknown kind.
    #[error("{} and {} can't be used together: {why}; name a certificate and its own key", certificate.display(), key.display())]
    NoPair {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// What rustls says.
        why: String,
    },
}

/// What the files hold.
#[derive(PartialEq, Eq)]
struct Pair {
    certificate: Vec<u8>,
    key: Vec<u8>,
}

/// The certificate in use.
pub struct Tls {
    files: TlsPlan,
    config: Mutex<Arc<ServerConfig>>,
}

impl Tls {
    /// Reads the pair.
    ///
    /// # Errors
    /// When it can't be used.
    pub fn load(files: TlsPlan) -> Result<Self, TlsError> {
        let config = configure(&files, &read(&files)?)?;
        Ok(Self {
            files,
            config: Mutex::new(config),
        })
    }

    /// What a new connection is to use.
    pub(super) fn config(&self) -> Arc<ServerConfig> {
        let config = self.config.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&config)
    }

    /// Takes up changes of the files, for ever.
    pub(super) async fn follow(self: Arc<Self>) {
        let mut known = None;
        loop {
            let tls = Arc::clone(&self);
            let looked = tokio::task::spawn_blocking(move || {
                let pair = read(&tls.files);
                if known.as_ref() == Some(&pair) {
                    return known;
                }
                let first = known.is_none();
                let config = pair
                    .as_ref()
                    .map_err(TlsError::clone)
                    .and_then(|pair| configure(&tls.files, pair));
                match config {
                    Ok(config) => {
                        *tls.config.lock().unwrap_or_else(PoisonError::into_inner) = config;
                        if !first {
                            tracing::info!(certificate = %tls.files.certificate.display(), "a new TLS certificate is in use");
                        }
                    }
                    Err(error) => {
                        tracing::error!(%error, "the TLS certificate before stays in use")
                    }
                }
                Some(pair)
            });
            known = looked.await.unwrap_or_default();
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

fn read(files: &TlsPlan) -> Result<Pair, TlsError> {
    let one = |what, path: &Path| {
        let unreadable = |why: String| TlsError::Unreadable {
            what,
            path: path.to_owned(),
            why,
        };
        let length = std::fs::metadata(path).map(|found| found.len());
        match length {
            Ok(length) if length > MAX_FILE => {
                Err(unreadable(format!("it is larger than {MAX_FILE} bytes")))
            }
            _ => std::fs::read(path).map_err(|error| unreadable(error.to_string())),
        }
    };
    Ok(Pair {
        certificate: one("tls_certificate", &files.certificate)?,
        key: one("tls_key", &files.key)?,
    })
}

fn configure(files: &TlsPlan, pair: &Pair) -> Result<Arc<ServerConfig>, TlsError> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pair.certificate).collect();
    let no_certificate = |why| TlsError::NotPem {
        what: "tls_certificate",
        path: files.certificate.clone(),
        missing: "certificate",
        why,
    };
    let chain = chain.map_err(|error| no_certificate(format!(" ({error})")))?;
    if chain.is_empty() {
        return Err(no_certificate(String::new()));
    }
    let key = PrivateKeyDer::from_pem_slice(&pair.key).map_err(|error| TlsError::NotPem {
        what: "tls_key",
        path: files.key.clone(),
        missing: "private key without a password",
        why: format!(" ({error})"),
    })?;
    let no_pair = |error: tokio_rustls::rustls::Error| TlsError::NoPair {
        certificate: files.certificate.clone(),
        key: files.key.clone(),
        why: error.to_string(),
    };
    let mut config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(no_pair)?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(no_pair)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}
