//! A double of CloudLab's Portal REST API: strict, stateful, with faults on demand. It speaks
//! HTTPS with a certificate of its own CA and checks every request, and every answer of its own,
//! against `data/portal-openapi.json`.
//!
//! Experiments pass through their states with time: created, provisioning, provisioned, a state
//! that no client knows, ready; their nodes come up one by one. As a process of its own
//! (`portal-double`) it outlives a client that is killed.

mod desk;
mod listener;
mod model;
mod openapi;
mod process;

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::SystemTime;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{ConnectInfo, State};
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use tempfile::TempDir;
use tokio::sync::oneshot;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;
use tokio_rustls::rustls::{self, ServerConfig};

use desk::{Call, Desk};
use listener::{Cut, TlsListener};
pub use model::{Faults, Holding, Options, PoolMachine};
pub use process::PortalProcess;

/// A portal that runs until dropped.
pub struct Portal {
    /// Its address.
    pub url: String,
    dir: TempDir,
    desk: Arc<Mutex<Desk>>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Portal {
    /// Starts one on loopback.
    pub fn start(options: Options) -> Self {
        let dir = TempDir::with_prefix("ipop-portal-").expect("temporary directory");
        let (tls, ca_pem) = certificates();
        std::fs::write(dir.path().join("ca.pem"), ca_pem).expect("written");
        std::fs::write(dir.path().join("token"), &options.token).expect("written");
        let desk = Arc::new(Mutex::new(Desk::new(options)));
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        let tcp = runtime
            .block_on(tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))
            .expect("a free port");
        let port = tcp.local_addr().expect("bound").port();
        let (stop, stopped) = oneshot::channel::<()>();
        let router = Router::new()
            .fallback(handle)
            .with_state(Arc::clone(&desk))
            .into_make_service_with_connect_info::<Cut>();
        let listener = TlsListener {
            tcp,
            acceptor: tls.into(),
        };
        let thread = std::thread::spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    served = axum::serve(listener, router) => served.expect("serves"),
                    _ = stopped => {}
                }
            });
        });
        let portal = Self {
            url: format!("https://localhost:{port}"),
            dir,
            desk,
            stop: Some(stop),
            thread: Some(thread),
        };
        set_mode(&portal.token_file());
        portal
    }

    /// PEM file of the CA of its certificate.
    pub fn ca_file(&self) -> PathBuf {
        self.dir.path().join("ca.pem")
    }

    /// File with the token it takes, of mode 0600.
    pub fn token_file(&self) -> PathBuf {
        self.dir.path().join("token")
    }

    /// Changes what goes wrong from now on.
    pub fn faults(&self, change: impl FnOnce(&mut Faults)) {
        change(&mut self.desk().faults);
    }

    /// Changes how it behaves from now on.
    pub fn options(&self, change: impl FnOnce(&mut Options)) {
        change(&mut self.desk().options);
    }

    /// `METHOD path status` of every call so far.
    pub fn log(&self) -> Vec<String> {
        self.desk().log.clone()
    }

    /// Names of the experiments that exist.
    pub fn experiments(&self) -> Vec<String> {
        let desk = self.desk();
        let stage = desk.options.stage;
        let alive = desk.experiments.iter().filter(|e| !e.gone(stage));
        alive.map(|e| e.name.clone()).collect()
    }

    /// The experiments that exist and what they hold.
    pub fn holdings(&self) -> Vec<Holding> {
        let desk = self.desk();
        let stage = desk.options.stage;
        let alive = desk.experiments.iter().filter(|e| !e.gone(stage));
        let holding = |e: &model::Experiment| Holding {
            experiment: e.name.clone(),
            machines: e.nodes.iter().map(|n| n.machine).collect(),
        };
        alive.map(holding).collect()
    }

    /// Lets every experiment's time run out.
    pub fn expire(&self) {
        for experiment in &mut self.desk().experiments {
            experiment.ends = SystemTime::now();
        }
    }

    fn desk(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Portal {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        let defects = std::mem::take(&mut self.desk().defects);
        if !std::thread::panicking() {
            assert!(defects.is_empty(), "the double's own answers: {defects:#?}");
        }
    }
}

async fn handle(
    State(desk): State<Arc<Mutex<Desk>>>,
    ConnectInfo(cut): ConnectInfo<Cut>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let header = |name: &str| headers.get(name).and_then(|v| v.to_str().ok());
    let reply = desk
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .answer(&Call {
            method: method.as_str(),
            path: uri.path(),
            query: uri.query().unwrap_or_default(),
            token: header("x-api-token"),
            elaborate: header("x-api-elaborate") == Some("true"),
            body: &body,
        });
    if reply.lost {
        cut.now();
    }
    let status = StatusCode::from_u16(reply.status).expect("a status");
    let mut response = match reply.body {
        Some(body) => (status, axum::Json(body)).into_response(),
        None => status.into_response(),
    };
    if let Some(location) = reply.location {
        let location = location.parse().expect("a header's value");
        response.headers_mut().insert(header::LOCATION, location);
    }
    response
}

fn certificates() -> (Arc<ServerConfig>, String) {
    let ca_key = KeyPair::generate().expect("key");
    let mut ca = CertificateParams::new(Vec::new()).expect("parameters");
    ca.distinguished_name.push(DnType::CommonName, "portal CA");
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    ca.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let ca_pem = ca.self_signed(&ca_key).expect("CA certificate").pem();
    let key = KeyPair::generate().expect("key");
    let server = CertificateParams::new(vec!["localhost".to_owned()]).expect("parameters");
    let certificate = server
        .signed_by(&key, &Issuer::new(ca, ca_key))
        .expect("server certificate");
    let key = PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
    let crypto = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(crypto)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)
        .expect("a certificate and its key");
    (Arc::new(config), ca_pem)
}

fn set_mode(path: &std::path::Path) {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).expect("our file");
}
