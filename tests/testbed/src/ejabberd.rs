//! A real ejabberd of the test's own: configuration, spool, certificate and address are its own,
//! so that any number of them run side by side. Needs Debian's `ejabberd` package and no privilege.
//!
//! It runs without Erlang's distribution, hence without epmd, and dies with the test: it watches
//! its standard input.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use serde_json::json;
use tempfile::TempDir;

use crate::http;

/// The XMPP domain of every such server.
pub const DOMAIN: &str = "xmpp.test";
/// Port of client connections.
pub const C2S_PORT: u16 = 5222;
/// Port of STUN and TURN over UDP.
pub const STUN_PORT: u16 = 3478;
/// The shared roster group.
pub const GROUP: &str = "overlay";
/// How long starting or stopping may take on a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(180);

/// On standard input, `stop` stops it in good order, and the end of input at once.
const WATCH_INPUT: &str = r#"spawn(fun F() -> case io:get_line("") of
    "stop\n" -> init:stop();
    Line when is_list(Line) -> F();
    _ -> halt(0) end end)."#;

/// How to run the server.
#[derive(Debug, Clone)]
pub struct Options {
    /// Addresses to listen on; STUN and TURN use the first of each family.
    pub listen: Vec<IpAddr>,
    /// Words to put before `erl`, such as `ip netns exec NAME`.
    pub prefix: Vec<String>,
    /// Highest TLS version to accept.
    pub tls13: bool,
}

impl Options {
    /// On a loopback address that no other test uses, IPv4 only.
    pub fn loopback() -> Self {
        Self {
            listen: vec![own_loopback().into()],
            prefix: Vec::new(),
            tls13: true,
        }
    }
}

/// A running server.
#[derive(Debug)]
pub struct Ejabberd {
    dir: TempDir,
    options: Options,
    child: Option<Child>,
    ca_pem: String,
}

impl Ejabberd {
    /// Starts one on a loopback address of its own, with the shared roster group [`GROUP`].
    pub fn start() -> Self {
        Self::start_with(Options::loopback())
    }

    /// Starts one, with the shared roster group [`GROUP`].
    pub fn start_with(options: Options) -> Self {
        let dir = TempDir::with_prefix("ipop-ejabberd-").expect("temporary directory");
        let ca_pem = write_certificates(dir.path());
        fs::create_dir(dir.path().join("spool")).expect("spool directory");
        fs::write(
            dir.path().join("ejabberd.yml"),
            configuration(dir.path(), &options),
        )
        .expect("configuration");
        let mut server = Self {
            dir,
            options,
            child: None,
            ca_pem,
        };
        server.resume();
        let group = json!({
            "group": GROUP, "host": DOMAIN, "label": GROUP, "description": "", "display": GROUP,
        });
        server.api("srg_create", &group);
        server
    }

    /// The CA that its certificate chains to, in PEM.
    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    /// Where clients connect.
    pub fn servers(&self) -> Vec<String> {
        self.options
            .listen
            .iter()
            .map(|ip| format!("{}:{C2S_PORT}", bracketed(*ip)))
            .collect()
    }

    /// Makes an account, outside of the group.
    pub fn register(&self, user: &str, password: &str) {
        self.api(
            "register",
            &json!({ "user": user, "host": DOMAIN, "password": password }),
        );
    }

    /// Makes an account a member of the group.
    pub fn join(&self, user: &str) {
        self.api("srg_user_add", &membership(user));
    }

    /// Ends an account's membership.
    pub fn expel(&self, user: &str) {
        self.api("srg_user_del", &membership(user));
    }

    /// Full JIDs that are signed in.
    pub fn connected(&self) -> Vec<String> {
        serde_json::from_str(&self.api("connected_users", &json!({}))).expect("a list of JIDs")
    }

    /// Calls a command of its API and gives the answer's text.
    ///
    /// # Panics
    ///
    /// When the server refuses the command.
    pub fn api(&self, command: &str, arguments: &serde_json::Value) -> String {
        let path = format!("/api/{command}");
        let (status, body) = http::post(&self.socket(), &path, &arguments.to_string())
            .unwrap_or_else(|error| panic!("{command} {arguments}: {error}"));
        assert_eq!(status, 200, "{command} {arguments}: {body}");
        body
    }

    /// Stops the server in good order; accounts and groups stay.
    pub fn stop(&mut self) {
        let Some(mut child) = self.child.take() else {
            return;
        };
        let mut input = child.stdin.take().expect("piped");
        input.write_all(b"stop\n").expect("a running server");
        let deadline = Instant::now() + PATIENCE;
        while child.try_wait().expect("our child").is_none() {
            if Instant::now() > deadline {
                child.kill().expect("our child");
                panic!("ejabberd did not stop within {PATIENCE:?}\n{}", self.log());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Makes it hang: it accepts connections and answers nothing, until [`Self::wake`].
    pub fn hang(&self) {
        self.signal("-STOP");
    }

    /// Ends [`Self::hang`].
    pub fn wake(&self) {
        self.signal("-CONT");
    }

    fn signal(&self, signal: &str) {
        let child = self.child.as_ref().expect("a running server");
        let status = Command::new("kill")
            .args([signal, &child.id().to_string()])
            .status()
            .expect("kill runs");
        assert!(status.success(), "kill {signal}");
    }

    /// Starts it again after [`Self::stop`], on the same address.
    pub fn resume(&mut self) {
        let output = File::options()
            .create(true)
            .append(true)
            .open(self.dir.path().join("output"))
            .expect("output file");
        let words: Vec<&str> = self.options.prefix.iter().map(String::as_str).collect();
        let mut command = match words.split_first() {
            Some((first, rest)) => {
                let mut command = Command::new(first);
                command.args(rest).arg("erl");
                command
            }
            None => Command::new("erl"),
        };
        let spool = format!("{:?}", self.dir.path().join("spool").display().to_string());
        command
            .args([
                "-noshell",
                "-start_epmd",
                "false",
                "+S",
                "1:1",
                "+sbwt",
                "none",
            ])
            .args([
                "-mnesia",
                "dir",
                &spool,
                "-s",
                "ejabberd",
                "-eval",
                WATCH_INPUT,
            ])
            .env("HOME", self.dir.path())
            .env("ERL_LIBS", erlang_libraries())
            .env("ERL_CRASH_DUMP_BYTES", "0")
            .env("EJABBERD_CONFIG_PATH", self.dir.path().join("ejabberd.yml"))
            .env("EJABBERD_LOG_PATH", self.dir.path().join("ejabberd.log"))
            .stdin(Stdio::piped())
            .stdout(output.try_clone().expect("output file"))
            .stderr(output);
        // A stale socket would refuse connections, which looks like starting.
        let _ = fs::remove_file(self.socket());
        self.child = Some(
            command
                .spawn()
                .expect("`erl`; is the package `ejabberd` installed?"),
        );
        self.wait_until_started();
    }

    /// The end of its log.
    pub fn log(&self) -> String {
        let mut text = String::new();
        for file in ["output", "ejabberd.log"] {
            let all = fs::read_to_string(self.dir.path().join(file)).unwrap_or_default();
            let lines: Vec<&str> = all.lines().collect();
            let last = lines[lines.len().saturating_sub(30)..].join("\n");
            let _ = writeln!(text, "--- {file} ---\n{last}");
        }
        text
    }

    /// Where its API listens, a Unix socket.
    pub fn socket(&self) -> PathBuf {
        self.dir.path().join("api.sock")
    }

    fn wait_until_started(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if matches!(
                http::post(&self.socket(), "/api/status", "{}"),
                Ok((200, _))
            ) {
                return;
            }
            let ended = self
                .child
                .as_mut()
                .and_then(|child| child.try_wait().expect("our child"));
            if ended.is_some() || Instant::now() > deadline {
                panic!("ejabberd did not start: {ended:?}\n{}", self.log());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Ejabberd {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // Errors here mean that it is gone already.
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            eprintln!("{}", self.log());
        }
    }
}

/// A loopback address for this process and call: ports need not be chosen, and cannot be lost to
/// another test between choosing and binding.
pub fn own_loopback() -> Ipv4Addr {
    static CALLS: AtomicU32 = AtomicU32::new(0);
    let call = CALLS.fetch_add(1, Ordering::Relaxed);
    // Process ids have 22 bits: 16 of them, and 64 calls with the other six bits.
    let [_, high, middle, low] = std::process::id().to_be_bytes();
    let [.., call] = (call % 64 + 1).to_be_bytes();
    Ipv4Addr::new(127, middle, low, (high & 3) << 6 | call & 63)
}

fn bracketed(ip: IpAddr) -> String {
    match ip {
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => format!("[{ip}]"),
    }
}

fn membership(user: &str) -> serde_json::Value {
    json!({ "user": user, "host": DOMAIN, "group": GROUP, "grouphost": DOMAIN })
}

/// Where Debian keeps Erlang's libraries: the architecture's folder that has ejabberd.
fn erlang_libraries() -> PathBuf {
    let has_ejabberd = |folder: &PathBuf| {
        fs::read_dir(folder).is_ok_and(|mut entries| {
            entries
                .any(|e| e.is_ok_and(|e| e.file_name().to_string_lossy().starts_with("ejabberd-")))
        })
    };
    fs::read_dir("/usr/lib")
        .expect("/usr/lib")
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(has_ejabberd)
        .expect("ejabberd's library; is the package `ejabberd` installed?")
}

/// Writes `server.pem`, a certificate for [`DOMAIN`] with its key, and gives the CA's PEM.
fn write_certificates(dir: &Path) -> String {
    let ca_key = KeyPair::generate().expect("key");
    let mut ca = CertificateParams::new(Vec::new()).expect("parameters");
    ca.distinguished_name.push(DnType::CommonName, "test CA");
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    ca.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let ca_pem = ca.self_signed(&ca_key).expect("CA certificate").pem();
    let key = KeyPair::generate().expect("key");
    let mut server = CertificateParams::new(vec![DOMAIN.to_owned()]).expect("parameters");
    server.distinguished_name.push(DnType::CommonName, DOMAIN);
    // The default, the year 4096, is more than ejabberd 23.01 can count down to.
    server.not_after = rcgen::date_time_ymd(2048, 1, 1);
    let certificate = server
        .signed_by(&key, &Issuer::new(ca, ca_key))
        .expect("server certificate")
        .pem();
    fs::write(dir.join("server.pem"), certificate + &key.serialize_pem()).expect("server.pem");
    ca_pem
}

fn configuration(dir: &Path, options: &Options) -> String {
    let tls13 = if options.tls13 {
        ""
    } else {
        "\n  - no_tlsv1_3"
    };
    let mut listeners = String::new();
    let mut services = String::new();
    for ip in &options.listen {
        let (turn_address, kind) = match ip {
            IpAddr::V4(_) => ("turn_ipv4_address", "IPv4"),
            IpAddr::V6(_) => ("turn_ipv6_address", "IPv6"),
        };
        let _ = write!(
            listeners,
            r#"
  - module: ejabberd_c2s
    ip: "{ip}"
    port: {C2S_PORT}
    starttls_required: true
    max_stanza_size: 262144
  # {kind}
  - module: ejabberd_stun
    transport: udp
    ip: "{ip}"
    port: {STUN_PORT}
    auth_type: user
    auth_realm: "{DOMAIN}"
    use_turn: true
    {turn_address}: "{ip}"
    turn_max_allocations: infinity"#
        );
        for (service, restricted) in [("stun", false), ("turn", true)] {
            let _ = write!(
                services,
                r#"
      - {{ type: {service}, transport: udp, host: "{ip}", port: {STUN_PORT}, restricted: {restricted} }}"#
            );
        }
    }
    let dir = dir.display();
    format!(
        r#"loglevel: info
hosts: ["{DOMAIN}"]
certfiles: ["{dir}/server.pem"]
acme: {{ auto: false }}
auth_method: internal
auth_password_format: scram
auth_scram_hash: sha256
disable_sasl_mechanisms: [PLAIN, DIGEST-MD5, X-OAUTH2, ANONYMOUS]
c2s_protocol_options:
  - no_sslv3
  - no_tlsv1
  - no_tlsv1_1{tls13}
listen:{listeners}
  - module: ejabberd_http
    port: "unix:{dir}/api.sock"
    request_handlers: {{ /api: mod_http_api }}
api_permissions:
  test: {{ from: [mod_http_api], who: all, what: "*" }}
shaper_rules:
  max_user_sessions: 4
modules:
  mod_admin_extra: {{}}
  mod_disco: {{}}
  mod_http_api: {{}}
  mod_register: {{ access: none, access_from: none, access_remove: none }}
  mod_ping: {{ send_pings: true, ping_interval: 60, timeout_action: kill }}
  mod_roster: {{}}
  mod_shared_roster: {{}}
  mod_stun_disco:
    # The default is a rule named `local` that only ejabberd's sample configuration defines.
    access: all
    secret: "only for tests"
    credentials_lifetime: 12h
    offer_local_services: false
    services:{services}
"#
    )
}
