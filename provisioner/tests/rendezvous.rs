//! The embedded rendezvous with a real ejabberd on loopback. Needs the package `ejabberd` and
//! `openssl`; as root the server runs as the user `ejabberd`, otherwise as ourselves.

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use provisioner::error::CliError;
use provisioner::name::NodeName;
use provisioner::provider::Resource;
use provisioner::rendezvous::config::EmbeddedConfig;
use provisioner::rendezvous::{Endpoint, RendezvousError, State};

mod site;
use site::{LOOPBACK, Site};

/// What only these tests look into.
trait Inside {
    fn path(&self, file: &str) -> PathBuf;
    fn recorded_pid(&self, file: &str) -> u32;
    fn stun_port(&self) -> u16;
}

impl Inside for Site {
    fn path(&self, file: &str) -> PathBuf {
        self.layout.rendezvous(&self.name).join(file)
    }

    fn recorded_pid(&self, file: &str) -> u32 {
        let text = fs::read_to_string(self.path(file)).expect("a record");
        let value: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        value["pid"]
            .as_u64()
            .and_then(|pid| pid.try_into().ok())
            .expect("a number")
    }

    fn stun_port(&self) -> u16 {
        let text = fs::read_to_string(self.path("spec.json")).expect("a specification");
        let value: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        value["stun_port"]
            .as_u64()
            .and_then(|port| port.try_into().ok())
            .expect("a port")
    }
}

fn c2s(endpoint: &Endpoint) -> SocketAddr {
    endpoint.servers[0].parse().expect("an address")
}

fn wait_for<T>(what: &str, limit: Duration, mut look: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(began.elapsed() < limit, "{what}: not within {limit:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Processes whose environment or arguments name the site's directory.
fn processes_of(site: &Site) -> Vec<String> {
    let needle = site.layout.state.display().to_string();
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").expect("/proc").flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if !name.bytes().all(|c| c.is_ascii_digit()) || name == std::process::id().to_string() {
            continue;
        }
        let read = |file: &str| {
            fs::read(entry.path().join(file))
                .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
                .unwrap_or_default()
        };
        let arguments = read("cmdline");
        if arguments.contains(&needle) || read("environ").contains(&needle) {
            found.push(format!("{name} {}", arguments.replace('\0', " ")));
        }
    }
    found
}

fn s_client(endpoint: &Endpoint, host: &str, ca_pem: &str) -> Output {
    let ca = tempfile::NamedTempFile::new().expect("temporary file");
    fs::write(ca.path(), ca_pem).expect("CA");
    Command::new("openssl")
        .args([
            "s_client",
            "-connect",
            &endpoint.servers[0],
            "-starttls",
            "xmpp",
        ])
        .args([
            "-xmpphost",
            &endpoint.domain,
            "-verify_hostname",
            host,
            "-verify_return_error",
        ])
        .arg("-CAfile")
        .arg(ca.path())
        .args(["-no-CApath", "-no-CAstore"])
        .stdin(Stdio::null())
        .output()
        .expect("openssl")
}

/// What the server says after STARTTLS to a client that opens a stream.
fn features_after_tls(endpoint: &Endpoint) -> String {
    use std::io::{Read, Write};
    let mut child = Command::new("openssl")
        .args([
            "s_client",
            "-quiet",
            "-connect",
            &endpoint.servers[0],
            "-starttls",
            "xmpp",
        ])
        .args(["-xmpphost", &endpoint.domain])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("openssl");
    let mut input = child.stdin.take().expect("piped");
    let mut output = child.stdout.take().expect("piped");
    write!(
        input,
        "<stream:stream to='{}' version='1.0' xmlns='jabber:client' \
         xmlns:stream='http://etherx.jabber.org/streams'>",
        endpoint.domain
    )
    .expect("sent");
    let mut features = String::new();
    let mut buffer = [0u8; 4096];
    while !features.contains("</stream:features>") {
        let read = output.read(&mut buffer).expect("an answer");
        assert_ne!(read, 0, "the server closed the stream after {features}");
        features.push_str(&String::from_utf8_lossy(&buffer[..read]));
    }
    drop(input);
    child.kill().expect("still there");
    child.wait().expect("ended");
    features
}

/// A STUN binding request (RFC 8489 section 5) and whether a success response came back.
fn stun_answers(server: SocketAddr) -> bool {
    let socket = UdpSocket::bind((LOOPBACK, 0)).expect("a socket");
    socket
        .set_read_timeout(Some(Duration::from_secs(5)))
        .expect("a time-out");
    let mut request = vec![0x00, 0x01, 0x00, 0x00, 0x21, 0x12, 0xA4, 0x42];
    request.extend_from_slice(b"transaction!");
    socket.send_to(&request, server).expect("sent");
    let mut answer = [0u8; 512];
    let Ok(length) = socket.recv(&mut answer) else {
        return false;
    };
    length >= 20 && answer[..2] == [0x01, 0x01] && answer[4..20] == request[4..20]
}

#[test]
fn nodes_find_a_server_that_proves_its_name_under_the_deployments_own_ca() {
    let site = Site::new("rdv-tls");
    let endpoint = site.start();
    assert_eq!(endpoint.domain, "rdv-tls.ipop");

    let output = s_client(&endpoint, "rdv-tls.ipop", &endpoint.ca_pem);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(text.contains("Verify return code: 0 (ok)"), "{text}");
    assert!(
        text.contains("TLSv1.3") || text.contains("TLSv1.2"),
        "{text}"
    );

    let other = Site::new("rdv-tls");
    let wrong_ca = provisioner::rendezvous::ca::Ca::open(
        &other.layout.state,
        "rdv-tls.ipop",
        std::time::SystemTime::now(),
    )
    .expect("another authority of the same name");
    let refused = s_client(&endpoint, "rdv-tls.ipop", wrong_ca.certificate_pem());
    assert!(!refused.status.success(), "a wrong CA was accepted");
    let refused = s_client(&endpoint, "other.ipop", &endpoint.ca_pem);
    assert!(!refused.status.success(), "a wrong name was accepted");

    let features = features_after_tls(&endpoint);
    let mechanisms: Vec<&str> = features
        .split("<mechanism>")
        .skip(1)
        .filter_map(|rest| rest.split("</mechanism>").next())
        .collect();
    assert!(mechanisms.contains(&"SCRAM-SHA-256"), "{mechanisms:?}");
    assert!(
        mechanisms.iter().all(|name| name.starts_with("SCRAM-")),
        "{mechanisms:?}"
    );
    assert!(!features.contains("jabber:iq:register"), "{features}");

    assert!(stun_answers(SocketAddr::new(LOOPBACK, site.stun_port())));
}

#[test]
fn a_stream_without_tls_is_offered_nothing_but_tls() {
    use std::io::{Read, Write};
    let site = Site::new("rdv-clear");
    let endpoint = site.start();
    let mut stream = TcpStream::connect(c2s(&endpoint)).expect("connected");
    stream
        .set_read_timeout(Some(Duration::from_secs(10)))
        .expect("a time-out");
    write!(
        stream,
        "<stream:stream to='{}' version='1.0' xmlns='jabber:client' \
         xmlns:stream='http://etherx.jabber.org/streams'>",
        endpoint.domain
    )
    .expect("sent");
    let mut features = String::new();
    let mut buffer = [0u8; 4096];
    while !features.contains("</stream:features>") {
        let read = stream.read(&mut buffer).expect("an answer");
        assert_ne!(read, 0, "closed after {features}");
        features.push_str(&String::from_utf8_lossy(&buffer[..read]));
    }
    assert!(features.contains("<required/>"), "{features}");
    assert!(!features.contains("mechanism"), "{features}");
}

#[test]
fn accounts_see_each_other_survive_a_restart_and_can_be_removed() {
    let site = Site::new("rdv-accounts");
    let nodes = [NodeName("frontend-0".into()), NodeName("worker-0".into())];
    let plan = site.rendezvous.plan(&nodes);
    let described: Vec<String> = plan
        .iter()
        .skip(1)
        .map(|r| format!("{} {}", r.kind, r.id))
        .collect();
    assert_eq!(
        described,
        [
            "process rdv-accounts",
            "roster-group rdv-accounts",
            "account provision@rdv-accounts.ipop",
            "account frontend-0@rdv-accounts.ipop",
            "account worker-0@rdv-accounts.ipop",
        ]
    );
    let endpoint = site.start();
    site.rendezvous.create_group().expect("group");
    site.rendezvous.create_group().expect("twice is no error");
    let first = site.rendezvous.create_account(&nodes[0]).expect("account");
    let again = site
        .rendezvous
        .create_account(&nodes[0])
        .expect("twice is no error");
    assert_eq!(first.jid, "frontend-0@rdv-accounts.ipop");
    assert_ne!(first.password, again.password);
    site.rendezvous.create_account(&nodes[1]).expect("account");
    let operator = site.rendezvous.operator().expect("operator");
    assert_eq!(
        site.rendezvous.node_of("worker-0@rdv-accounts.ipop/x"),
        Some(nodes[1].clone())
    );
    assert_eq!(site.rendezvous.node_of("worker-0@elsewhere/x"), None);

    site.rendezvous.stop().expect("stops");
    assert_eq!(site.rendezvous.state(), State::Stopped);
    let before = site.stun_port();
    let again = site.try_start_on(&[]).expect("it starts again");
    assert_eq!(again, endpoint, "nodes know its addresses and ports");
    assert_eq!(site.stun_port(), before, "nodes know the port");
    let api = site.rendezvous.api().expect("API");
    assert_eq!(
        api.accounts().expect("list"),
        ["frontend-0", "provision", "worker-0"]
    );
    assert_eq!(
        api.members("rdv-accounts").expect("members"),
        [
            "frontend-0@rdv-accounts.ipop",
            "provision@rdv-accounts.ipop",
            "worker-0@rdv-accounts.ipop"
        ]
    );
    assert_eq!(
        site.rendezvous.operator().expect("operator").password,
        operator.password
    );

    for resource in plan.iter().rev() {
        site.rendezvous
            .remove(resource)
            .unwrap_or_else(|e| panic!("{resource:?}: {e}"));
        if resource.id == "worker-0@rdv-accounts.ipop" {
            assert_eq!(api.accounts().expect("list"), ["frontend-0", "provision"]);
            assert_eq!(api.members("rdv-accounts").expect("members").len(), 2);
        }
    }
    assert_eq!(site.rendezvous.state(), State::Absent);
    assert!(!site.layout.rendezvous("rdv-accounts").exists());
    for resource in plan.iter().rev() {
        site.rendezvous
            .remove(resource)
            .expect("removing twice is no error");
    }
    let unknown = Resource {
        kind: "domain".into(),
        id: "x".into(),
    };
    assert!(site.rendezvous.remove(&unknown).is_err());
}

#[test]
fn a_killed_server_comes_back_and_a_stopped_one_leaves_nothing() {
    let site = Site::new("rdv-faults");
    let endpoint = site.start();
    site.rendezvous.create_group().expect("group");
    let node = NodeName("worker-0".into());
    site.rendezvous.create_account(&node).expect("account");
    let State::Running {
        pid: Some(supervisor),
    } = site.rendezvous.state()
    else {
        panic!("{:?}", site.rendezvous.state())
    };
    assert_eq!(
        site.start(),
        endpoint,
        "starting a running one changes nothing"
    );
    assert_eq!(site.recorded_pid("supervisor.json"), supervisor);

    // Erlang's disk log is written within two seconds of the change.
    wait_for("the account on disk", Duration::from_secs(30), || {
        let log = fs::read(site.path("spool/LATEST.LOG")).unwrap_or_default();
        log.windows(8)
            .any(|bytes| bytes == b"worker-0")
            .then_some(())
    });
    let killed = site.recorded_pid("server.json");
    kill(killed, "KILL");
    wait_for("another server", Duration::from_secs(60), || {
        let other = fs::read_to_string(site.path("server.json"))
            .is_ok_and(|text| !text.contains(&format!("\"pid\":{killed},")));
        (other && matches!(site.rendezvous.state(), State::Running { .. })).then_some(())
    });
    assert_eq!(
        site.recorded_pid("supervisor.json"),
        supervisor,
        "the same supervisor"
    );
    let accounts = site
        .rendezvous
        .api()
        .expect("API")
        .accounts()
        .expect("list");
    assert_eq!(accounts, ["provision", "worker-0"]);

    let left: Vec<String> = processes_of(&site);
    assert!(
        left.len() >= 2,
        "this test's own view of processes is blind: {left:?}"
    );
    let stun = SocketAddr::new(LOOPBACK, site.stun_port());
    site.rendezvous.stop().expect("stops");
    // Erlang's helper process follows by itself once its pipe is closed.
    wait_for("the end of all processes", Duration::from_secs(10), || {
        processes_of(&site).is_empty().then_some(())
    });
    TcpListener::bind(c2s(&endpoint)).expect("the XMPP port is free");
    UdpSocket::bind(stun).expect("the STUN port is free");
    site.rendezvous.stop().expect("stopping twice is no error");
}

#[test]
fn a_server_whose_supervisor_was_killed_is_replaced() {
    let site = Site::new("rdv-orphan");
    site.start();
    let (supervisor, server) = (
        site.recorded_pid("supervisor.json"),
        site.recorded_pid("server.json"),
    );
    kill(supervisor, "KILL");
    wait_for("the supervisor's end", Duration::from_secs(10), || {
        (site.rendezvous.state() == State::Stopped).then_some(())
    });
    site.start();
    assert_ne!(site.recorded_pid("server.json"), server);
    // Empty for a process that ended and was not waited for yet.
    let arguments = fs::read(format!("/proc/{server}/cmdline")).unwrap_or_default();
    assert!(arguments.is_empty(), "the orphan still runs");
}

#[test]
fn two_deployments_run_side_by_side_without_erlang_distribution() {
    let (one, two) = (Site::new("rdv-one"), Site::new("rdv-two"));
    let (first, second) = (one.start(), two.start());
    assert_ne!(first.servers, second.servers);
    assert_ne!(first.ca_pem, second.ca_pem);
    for (site, endpoint) in [(&one, &first), (&two, &second)] {
        assert!(
            s_client(endpoint, &endpoint.domain, &endpoint.ca_pem)
                .status
                .success()
        );
        assert!(stun_answers(SocketAddr::new(LOOPBACK, site.stun_port())));
        // One TCP port, the XMPP one: no cluster port, no API port, no web pages.
        let ports = listening_tcp_ports(site.recorded_pid("server.json"));
        assert_eq!(ports, [c2s(endpoint).port()], "{}", site.name);
        let family: Vec<String> = processes_of(site);
        assert!(
            family.iter().all(|process| !process.contains("epmd")),
            "{family:?}"
        );
    }
    one.rendezvous.stop().expect("stops");
    assert!(
        matches!(two.rendezvous.state(), State::Running { .. }),
        "the other one goes on"
    );
}

#[test]
fn the_api_and_the_secrets_are_out_of_reach_of_other_users() {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    let site = Site::new("rdv-a-name-so-long-that-a-socket-address-cannot-hold-it-63-bytes");
    site.start();
    let mode = |file: &str| {
        fs::metadata(site.path(file))
            .expect(file)
            .permissions()
            .mode()
            & 0o777
    };
    assert_eq!(mode("spool"), 0o700);
    assert_eq!(mode("ca.key"), 0o600);
    assert_eq!(mode("spec.json"), 0o600);
    for file in ["server.pem", "ejabberd.yml"] {
        assert_eq!(
            mode(file) & 0o037,
            0,
            "{file} is for its owner, and its group to read"
        );
    }
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let server = site.recorded_pid("server.json");
    assert_ne!(
        fs::metadata(format!("/proc/{server}"))
            .expect("it runs")
            .uid(),
        0
    );
    // As root we can become somebody else, and try.
    for file in [
        "spool/api.sock",
        "server.pem",
        "ca.key",
        "spec.json",
        "ejabberd.yml",
    ] {
        use std::os::unix::process::CommandExt;
        let status = Command::new("stat")
            .arg(site.path(file))
            .uid(65534)
            .gid(65534)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .expect("stat");
        assert!(!status.success(), "nobody reaches {file}");
    }
}

#[test]
fn a_port_that_is_taken_is_named_with_what_to_do() {
    let taken = TcpListener::bind((LOOPBACK, 0)).expect("a port");
    let port = taken.local_addr().expect("bound").port();
    let config = EmbeddedConfig {
        c2s_port: Some(port),
        ..EmbeddedConfig::default()
    };
    let site = Site::with("rdv-port", config);
    let error = CliError::from(site.try_start().expect_err("taken")).to_string();
    assert_eq!(
        error,
        format!(
            "error: the rendezvous cannot listen on TCP 127.0.0.1:{port}\n\
             caused by: Address already in use (os error 98)\n\
             hint: another program has this port: stop it, or set c2s_port or stun_port in \
             [rendezvous]"
        )
    );
    assert_eq!(processes_of(&site), Vec::<String>::new());
    drop(taken);
    site.start();
}

#[test]
fn a_server_that_cannot_start_shows_the_end_of_its_log_at_once() {
    let site = Site::new("rdv-broken");
    site.start();
    site.rendezvous.stop().expect("stops");
    // Mnesia refuses a schema it cannot read.
    fs::write(site.path("spool/schema.DAT"), b"not a table").expect("damaged");
    let began = Instant::now();
    let error = site.try_start().expect_err("damaged");
    assert!(
        began.elapsed() < Duration::from_secs(60),
        "{:?}",
        began.elapsed()
    );
    assert!(matches!(error, RendezvousError::Ended { .. }), "{error}");
    let text = CliError::from(error).to_string();
    assert!(
        text.starts_with("error: the rendezvous of `rdv-broken` ended while starting"),
        "{text}"
    );
    assert!(text.contains("schema"), "{text}");
    assert_eq!(processes_of(&site), Vec::<String>::new());
}

fn kill(pid: u32, signal: &str) {
    let status = Command::new("kill")
        .args(["-s", signal, &pid.to_string()])
        .status();
    assert!(status.expect("kill").success());
}

/// TCP ports that a process listens on, from its descriptors and /proc/net (proc(5)).
fn listening_tcp_ports(pid: u32) -> Vec<u16> {
    let inodes: Vec<String> = fs::read_dir(format!("/proc/{pid}/fd"))
        .expect("its descriptors")
        .flatten()
        .filter_map(|entry| fs::read_link(entry.path()).ok())
        .filter_map(|link| {
            Some(
                link.to_str()?
                    .strip_prefix("socket:[")?
                    .strip_suffix(']')?
                    .to_owned(),
            )
        })
        .collect();
    let mut ports = Vec::new();
    for table in ["tcp", "tcp6"] {
        let text = fs::read_to_string(format!("/proc/{pid}/net/{table}")).expect("sockets");
        for line in text.lines().skip(1) {
            let fields: Vec<&str> = line.split_ascii_whitespace().collect();
            let listening = fields[3] == "0A";
            if listening && inodes.iter().any(|inode| inode == fields[9]) {
                let port = fields[1].rsplit_once(':').expect("address:port").1;
                ports.push(u16::from_str_radix(port, 16).expect("hex"));
            }
        }
    }
    ports.sort_unstable();
    ports
}
