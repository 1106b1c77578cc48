//! Other hosts with libvirt: a network namespace with a real sshd in front of this machine's
//! libvirtd, and one with a libvirtd of its own that listens for TLS. Need root, openssh-server,
//! iproute2, util-linux.

use std::fs;
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use provisioner::provider::libvirt::LibvirtSite;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};

use crate::libvirt_support::run;

/// How long a daemon may take to listen.
const PATIENCE: Duration = Duration::from_secs(60);

/// A namespace at the other end of a cable.
pub struct Segment {
    pub name: String,
    /// Its address.
    pub address: String,
    /// Routed to it, where what is sent there vanishes.
    pub nowhere: String,
}

impl Segment {
    pub fn new() -> Self {
        static CALLS: AtomicU32 = AtomicU32::new(0);
        let call = CALLS.fetch_add(1, Ordering::Relaxed);
        let id = format!("{:x}-{call}", std::process::id());
        let name = format!("lvh{id}");
        // RFC 2544's block for benchmarks; /30 each.
        let at = (std::process::id().wrapping_mul(5) + call) % 16000 * 4;
        let address = |n: u32| {
            let n = at + n;
            format!("198.{}.{}.{}", 18 + n / 65536, n / 256 % 256, n % 256)
        };
        let (here, there, nowhere) = (address(1), address(2), address(0));
        // One of that name is of a process that was killed, whose number we have now.
        let _ = Command::new("ip").args(["netns", "del", &name]).output();
        run("ip", &["netns", "add", &name]);
        let segment = Self {
            name: name.clone(),
            address: there.clone(),
            nowhere: nowhere.clone(),
        };
        let cable = format!("lv{id}");
        let words = format!("link add {cable} type veth peer name eth0 netns {name}");
        run("ip", &words.split(' ').collect::<Vec<_>>());
        let prefix = |a: &str| format!("{a}/30");
        run("ip", &["address", "add", &prefix(&here), "dev", &cable]);
        run("ip", &["link", "set", &cable, "up"]);
        let inside = |words: &str| {
            let words: Vec<_> = words.split(' ').collect();
            run("ip", &[["-n", name.as_str()].as_slice(), &words].concat());
        };
        inside("link set lo up");
        inside(&format!("address add {there}/30 dev eth0"));
        inside("link set eth0 up");
        // A namespace that forwards nothing drops what is not for itself, and says nothing.
        run(
            "ip",
            &["route", "add", &format!("{nowhere}/32"), "via", &there],
        );
        segment
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name, program]);
        command
    }

    fn wait_for(&self, port: u16, daemon: &mut Child, log: &Path) {
        let deadline = Instant::now() + PATIENCE;
        while TcpStream::connect((self.address.as_str(), port)).is_err() {
            let ended = daemon.try_wait().unwrap();
            assert!(
                ended.is_none() && Instant::now() < deadline,
                "nothing listens at {}:{port}; ended: {ended:?}\n{}",
                self.address,
                fs::read_to_string(log).unwrap_or_default()
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Segment {
    fn drop(&mut self) {
        // The cable and the routes go with the namespace.
        let _ = Command::new("ip")
            .args(["netns", "delete", &self.name])
            .status();
    }
}

/// A host that is reached by SSH.
pub struct SshHost {
    pub segment: Segment,
    sshd: Child,
    dir: tempfile::TempDir,
}

impl SshHost {
    pub fn new() -> Self {
        let segment = Segment::new();
        let dir = tempfile::Builder::new().prefix("lvhost").tempdir().unwrap();
        let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
        for key in ["host", "id", "other"] {
            run(
                "ssh-keygen",
                &["-q", "-t", "ed25519", "-N", "", "-C", key, "-f", &path(key)],
            );
        }
        let public = |key: &str| fs::read_to_string(path(&format!("{key}.pub"))).unwrap();
        fs::write(path("authorized"), public("id")).unwrap();
        let known = |key: &str| format!("{} {}", segment.address, public(key));
        fs::write(path("known_hosts"), known("host")).unwrap();
        fs::write(path("known_others"), known("other")).unwrap();
        fs::write(path("known_none"), "").unwrap();
        let config = format!(
            "Port 22\nHostKey {}\nAuthorizedKeysFile {}\nPermitRootLogin prohibit-password\n\
             PasswordAuthentication no\nKbdInteractiveAuthentication no\nUsePAM no\n\
             StrictModes no\nPidFile none\n",
            path("host"),
            path("authorized")
        );
        fs::write(path("sshd_config"), config).unwrap();
        fs::create_dir_all("/run/sshd").unwrap();
        let log = fs::File::create(path("log")).unwrap();
        let mut sshd = segment
            .command("/usr/sbin/sshd")
            .args(["-D", "-e", "-f", &path("sshd_config")])
            .stdin(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        segment.wait_for(22, &mut sshd, &dir.path().join("log"));
        Self { segment, sshd, dir }
    }

    pub fn site(&self) -> LibvirtSite {
        LibvirtSite {
            uri: format!("qemu+ssh://root@{}/system", self.segment.address),
            identity: Some(self.dir.path().join("id")),
            known_hosts: Some(self.dir.path().join("known_hosts")),
            ..LibvirtSite::default()
        }
    }

    /// The same with another file of its directory.
    pub fn file(&self, name: &str) -> Option<std::path::PathBuf> {
        Some(self.dir.path().join(name))
    }

    /// Kills the `ssh` with which this process is connected to it.
    pub fn cut(&self) -> usize {
        let own = std::process::id().to_string();
        let mut killed = 0;
        for entry in fs::read_dir("/proc").unwrap().flatten() {
            let read = |file: &str| fs::read(entry.path().join(file)).unwrap_or_default();
            let (stat, words) = (read("stat"), read("cmdline"));
            let (stat, words) = (
                String::from_utf8_lossy(&stat).into_owned(),
                String::from_utf8_lossy(&words).into_owned(),
            );
            let parent = stat.rsplit(") ").next().and_then(|s| s.split(' ').nth(1));
            if parent == Some(own.as_str())
                && words.starts_with("ssh\0")
                && words.contains(&self.segment.address)
            {
                let pid = entry.file_name().into_string().unwrap();
                run("kill", &["-KILL", &pid]);
                killed += 1;
            }
        }
        killed
    }
}

impl Drop for SshHost {
    fn drop(&mut self) {
        let _ = self.sshd.kill();
        let _ = self.sshd.wait();
    }
}

/// A host with a libvirtd of its own, everything of which is in memory, that listens for TLS.
pub struct TlsHost {
    segment: Segment,
    libvirtd: Child,
    dir: tempfile::TempDir,
}

impl TlsHost {
    pub fn new() -> Self {
        let segment = Segment::new();
        let dir = tempfile::Builder::new().prefix("lvtls").tempdir().unwrap();
        let (ca, ca_pem) = authority();
        for (role, usage) in [
            ("server", ExtendedKeyUsagePurpose::ServerAuth),
            ("client", ExtendedKeyUsagePurpose::ClientAuth),
        ] {
            let own = dir.path().join(role);
            fs::create_dir(&own).unwrap();
            certificate(&own, role, &segment.address, usage, &ca);
            fs::write(own.join("cacert.pem"), &ca_pem).unwrap();
        }
        // A client who trusts somebody else.
        let wrong = dir.path().join("wrong");
        fs::create_dir(&wrong).unwrap();
        for file in ["clientcert.pem", "clientkey.pem"] {
            fs::copy(dir.path().join("client").join(file), wrong.join(file)).unwrap();
        }
        fs::write(wrong.join("cacert.pem"), authority().1).unwrap();

        let server = dir.path().join("server");
        let config = format!(
            "listen_tls = 1\nlisten_tcp = 0\nauth_tls = \"none\"\nlisten_addr = \"{}\"\n\
             key_file = \"{server}/serverkey.pem\"\ncert_file = \"{server}/servercert.pem\"\n\
             ca_file = \"{server}/cacert.pem\"\n",
            segment.address,
            server = server.display()
        );
        let file = dir.path().join("libvirtd.conf");
        fs::write(&file, config).unwrap();
        let script = format!(
            "for d in /run/libvirt /var/lib/libvirt /var/cache/libvirt /etc/libvirt; do \
               mkdir -p $d && mount -t tmpfs tmpfs $d; done; \
             exec /usr/sbin/libvirtd -f {} -p {}/pid --listen",
            file.display(),
            dir.path().display()
        );
        let log = fs::File::create(dir.path().join("log")).unwrap();
        let mut libvirtd = segment
            .command("unshare")
            .args(["--mount", "--propagation", "private", "sh", "-c", &script])
            .stdin(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        segment.wait_for(16514, &mut libvirtd, &dir.path().join("log"));
        Self {
            segment,
            libvirtd,
            dir,
        }
    }

    /// As seen by the client whose certificates are in this directory (`client`, `wrong`).
    pub fn site(&self, client: &str) -> LibvirtSite {
        LibvirtSite {
            uri: format!(
                "qemu+tls://{}/system?pkipath={}",
                self.segment.address,
                self.dir.path().join(client).display()
            ),
            ..LibvirtSite::default()
        }
    }

    /// A file of the host's.
    pub fn read(&self, path: &Path) -> Vec<u8> {
        let root = format!("/proc/{}/root", self.libvirtd.id());
        fs::read(Path::new(&root).join(path.strip_prefix("/").unwrap())).unwrap()
    }
}

impl Drop for TlsHost {
    fn drop(&mut self) {
        let _ = self.libvirtd.kill();
        let _ = self.libvirtd.wait();
    }
}

fn authority() -> (Issuer<'static, KeyPair>, String) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new([]).unwrap();
    params
        .distinguished_name
        .push(DnType::CommonName, "authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let pem = params.self_signed(&key).unwrap().pem();
    (Issuer::new(params, key), pem)
}

fn certificate(
    dir: &Path,
    role: &str,
    address: &str,
    usage: ExtendedKeyUsagePurpose,
    ca: &Issuer<'static, KeyPair>,
) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new([address.to_owned()]).unwrap();
    params.distinguished_name.push(DnType::CommonName, role);
    // libvirt wants both, whatever the key.
    params.key_usages = vec![
        KeyUsagePurpose::DigitalSignature,
        KeyUsagePurpose::KeyEncipherment,
    ];
    params.extended_key_usages = vec![usage];
    let signed = params.signed_by(&key, ca).unwrap();
    fs::write(dir.join(format!("{role}cert.pem")), signed.pem()).unwrap();
    fs::write(dir.join(format!("{role}key.pem")), key.serialize_pem()).unwrap();
}
