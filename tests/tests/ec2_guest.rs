//! Whole images as EC2 starts them: machines that boot from their own disk, by BIOS and by UEFI,
//! and make themselves nodes of the user data that they fetch. Needs root, QEMU and OVMF; runs
//! under software emulation, so each boot takes a minute or two.

use std::fs::{self, File};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use ipop_proto::status::{LinkState, NodeStatus};
use ipop_tests::ejabberd::{DOMAIN, Ejabberd, Options};
use ipop_tests::imds::{Imds, Manner};
use ipop_tests::netns::Netns;
use ipop_tests::{node, wait_until};
use provisioner::image::{self, BuildOptions};
use provisioner::name::NodeName;
use provisioner::plan::personal::{self, Keys};
use provisioner::plan::{ClusterPlan, Request, World, plan};
use provisioner::provider::{Delivery, Image, ImageForm};
use provisioner::rendezvous::{Account, Endpoint};
use provisioner::secret::Secret;
use provisioner::site::Sites;
use provisioner::watch::Watcher;
use serde_json::json;
use tempfile::TempDir;

/// For one boot under software emulation on a machine that is busy.
const BOOT: Duration = Duration::from_secs(600);
/// For what takes no boot.
const PATIENCE: Duration = Duration::from_secs(120);
/// The disk that the machine is given, larger than the image.
const DISK_BYTES: u64 = 3 << 30;
/// The account's first password.
const TOKEN: &str = "7a11ab1e0ddba11c0ffee0000deadbeef";
const IMDS: &str = "169.254.169.254";

/// The image, built once for all tests of this file; its stages are kept for the next run.
fn whole_image() -> Image {
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/test-cache");
    let mut options = BuildOptions::from_env(target.join("images"));
    options.node_binary = Some(node::binary());
    image::build("base", ImageForm::Whole, &options, &|_| {}).expect("an image")
}

/// A virtual machine that starts from a copy of a whole disk.
struct Machine {
    dir: TempDir,
    child: Child,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Firmware {
    Bios,
    Uefi,
}

impl Machine {
    /// Starts one; `prefix` are words to put before QEMU, `more` its further arguments.
    fn start(image: &Image, firmware: Firmware, prefix: &[&str], more: &[&str]) -> Self {
        let dir = TempDir::with_prefix("ipop-whole-").expect("temporary directory");
        let disk = dir.path().join("disk.raw");
        let source = image.whole.as_ref().expect("a whole disk");
        let copied = Command::new("cp")
            .args(["--sparse=always", "--reflink=auto"])
            .args([source, &disk])
            .status()
            .expect("`cp` runs");
        assert!(copied.success());
        File::options()
            .write(true)
            .open(&disk)
            .and_then(|file| file.set_len(DISK_BYTES))
            .expect("a larger disk");
        let words = [prefix, &["qemu-system-x86_64"]].concat();
        let mut command = Command::new(words[0]);
        command
            .args(&words[1..])
            .args(["-machine", "q35", "-accel", "tcg", "-cpu", "max"])
            .args(["-m", "768", "-display", "none", "-monitor", "none"])
            .args(["-device", "virtio-rng-pci"])
            .arg("-drive")
            .arg(format!(
                "file={},format=raw,if=none,id=root",
                disk.display()
            ))
            .args(["-device", "nvme,drive=root,serial=root,bootindex=0"])
            .arg("-serial")
            .arg(format!("file:{}", dir.path().join("console").display()))
            .args(more);
        if firmware == Firmware::Uefi {
            let variables = dir.path().join("vars.fd");
            fs::copy("/usr/share/OVMF/OVMF_VARS_4M.fd", &variables)
                .expect("OVMF; is the package `ovmf` installed?");
            command
                .args([
                    "-drive",
                    "if=pflash,format=raw,readonly=on,file=/usr/share/OVMF/OVMF_CODE_4M.fd",
                ])
                .arg("-drive")
                .arg(format!("if=pflash,format=raw,file={}", variables.display()));
        }
        let log = File::create(dir.path().join("qemu.log")).expect("log file");
        let child = command
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("log file"))
            .stderr(log)
            .spawn()
            .expect("QEMU runs");
        Self { dir, child }
    }

    fn console(&self) -> String {
        let read = |name: &str| fs::read(self.dir.path().join(name)).unwrap_or_default();
        let both = [read("qemu.log"), read("console")].concat();
        String::from_utf8_lossy(&both).into_owned()
    }

    /// Waits until the console has said `text` `times` times.
    fn wait_for(&mut self, text: &str, times: usize) {
        wait_until(text, BOOT, || {
            let ended = self.child.try_wait().expect("our child");
            assert!(ended.is_none(), "QEMU ended: {ended:?}");
            (self.console().matches(text).count() >= times).then_some(())
        });
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // Errors here mean that it is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let console = self.console();
            let lines: Vec<&str> = console.lines().collect();
            eprintln!("{}", lines[lines.len().saturating_sub(80)..].join("\n"));
        }
    }
}

#[test]
fn a_whole_disk_boots_by_bios_and_by_uefi_and_has_the_same_bytes_each_time() {
    let image = whole_image();
    let disk = image.whole.as_ref().expect("a whole disk");
    let first = image::hash::sha256_file(disk).expect("readable");
    let began = Instant::now();
    let mut machines = [Firmware::Bios, Firmware::Uefi]
        .map(|firmware| Machine::start(&image, firmware, &[], &["-nic", "none"]));
    // Made anew meanwhile.
    fs::remove_dir_all(disk.parent().expect("a folder")).expect("ours");
    let again = whole_image();
    assert_eq!(again.hash, image.hash);
    let second = image::hash::sha256_file(disk).expect("readable");
    assert_eq!(first, second);
    for machine in &mut machines {
        machine.wait_for("ipop: booted", 1);
        println!("booted after {:?}", began.elapsed());
    }
}

/// What a cloud has around a machine: a bridge with a gateway, DHCP and the metadata service.
struct Cloud {
    // Ended before the namespaces are deleted.
    dhcp: Child,
    server: Ejabberd,
    frontend: Netns,
    gateway: Netns,
}

impl Cloud {
    fn start() -> Self {
        let gateway = Netns::new("cloud");
        for words in [
            &["ip", "link", "add", "br0", "type", "bridge"][..],
            &["ip", "link", "set", "br0", "up"],
            &["ip", "tuntap", "add", "guest", "mode", "tap"],
            &["ip", "link", "set", "guest", "master", "br0", "up"],
        ] {
            gateway.run(words);
        }
        gateway.address("br0", "192.0.2.1/24");
        gateway.address("lo", &format!("{IMDS}/32"));
        let frontend = Netns::new("frontend");
        frontend.cable("eth0", &gateway, "frontend");
        gateway.run(&["ip", "link", "set", "frontend", "master", "br0"]);
        frontend.address("eth0", "192.0.2.10/24");
        let prefix = ["ip", "netns", "exec", gateway.name()];
        let server = Ejabberd::start_with(Options {
            listen: vec![[192, 0, 2, 1].into()],
            prefix: prefix.map(str::to_owned).to_vec(),
            tls13: true,
        });
        let dhcp = gateway
            .command("dnsmasq")
            .args(["--keep-in-foreground", "--conf-file=/dev/null", "--port=0"])
            .args(["--interface=br0", "--bind-interfaces", "--leasefile-ro"])
            .args(["--dhcp-range=192.0.2.100,192.0.2.150,1h"])
            .args(["--dhcp-option=option:router,192.0.2.1"])
            .args(["--pid-file", "--user=root"])
            .stdin(Stdio::null())
            .spawn()
            .expect("dnsmasq");
        Self {
            dhcp,
            server,
            frontend,
            gateway,
        }
    }

    fn account(&self, node: &str, password: &str) -> Account {
        self.server.register(node, password);
        self.server.join(node);
        Account {
            jid: format!("{node}@{DOMAIN}"),
            password: Secret::new(password.to_owned()),
        }
    }
}

impl Drop for Cloud {
    fn drop(&mut self) {
        // Errors here mean that it is gone already.
        let _ = self.dhcp.kill();
        let _ = self.dhcp.wait();
    }
}

/// The front end's node, in its namespace.
struct Frontend {
    dir: TempDir,
    child: Child,
}

impl Frontend {
    fn start(cloud: &Cloud, plan: &ClusterPlan, endpoint: &Endpoint) -> Self {
        let dir = TempDir::with_prefix("ipop-frontend-").expect("temporary directory");
        let keys = Keys {
            account: cloud.account("frontend-0", "front"),
            host_key: None,
            authorized_key: String::new(),
            membership: None,
        };
        let control = dir.path().join("control.sock");
        let node = plan.frontend();
        let config = personal::config(plan, node, endpoint, &keys, Delivery::Private)
            .expect("rendered")
            .replace(
                "/run/ipop-node/control.sock",
                &control.display().to_string(),
            );
        for (name, text) in [
            ("ipop.config", config.as_str()),
            ("ipop.password", "front"),
            ("ipop.ca", &endpoint.ca_pem),
        ] {
            fs::write(dir.path().join(name), text).expect("written");
        }
        let log = File::create(dir.path().join("log")).expect("log file");
        let child = cloud
            .frontend
            .command(&node::binary().display().to_string())
            .args(["run", "--config", "ipop.config"])
            .env("CREDENTIALS_DIRECTORY", dir.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("log file"))
            .stderr(log)
            .spawn()
            .expect("`ip` runs");
        Self { dir, child }
    }

    fn linked_to(&self, name: &str) -> bool {
        let output = Command::new(node::binary())
            .args(["status", "--json", "--control"])
            .arg(self.dir.path().join("control.sock"))
            .output()
            .expect("it runs");
        let status = serde_json::from_slice::<NodeStatus>(&output.stdout);
        status.is_ok_and(|status| {
            status
                .peers
                .iter()
                .any(|peer| peer.name == name && peer.link == LinkState::Up)
        })
    }
}

impl Drop for Frontend {
    fn drop(&mut self) {
        // Errors here mean that it is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let log = fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
            eprintln!("--- front end ---\n{log}");
        }
    }
}

/// A shell on the guest, over the overlay, as the deployment's user has it.
struct Shell<'a> {
    from: &'a Netns,
    dir: PathBuf,
    address: String,
}

impl Shell<'_> {
    fn try_run(&self, script: &str) -> Option<String> {
        let known = format!(
            "UserKnownHostsFile={}",
            self.dir.join("known_hosts").display()
        );
        let output = self.from.output(&[
            "ssh",
            "-F",
            "/dev/null",
            "-o",
            "StrictHostKeyChecking=yes",
            "-o",
            &known,
            "-o",
            "ConnectTimeout=30",
            "-o",
            "BatchMode=yes",
            "-i",
            &self.dir.join("id").display().to_string(),
            &format!("root@{}", self.address),
            script,
        ]);
        let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        output.status.success().then_some(text)
    }

    fn run(&self, script: &str) -> String {
        wait_until(script, PATIENCE, || self.try_run(script))
    }
}

fn is_password(server: &Ejabberd, password: &str) -> bool {
    let account = json!({ "user": "worker-0", "host": DOMAIN, "password": password });
    server.api("check_password", &account).trim() == "0"
}

#[test]
fn a_machine_on_ec2_fetches_enrols_joins_and_closes_its_metadata_service() {
    let image = whole_image();
    let cloud = Cloud::start();
    let request = Request {
        name: Some("demo".to_owned()),
        frontend: vec!["1@local".parse().expect("a group")],
        workers: vec!["1@local".parse().expect("a group")],
        ..Request::default()
    };
    let plan = plan(&request, &Sites::default(), &World::default()).expect("planned");
    let endpoint = Endpoint {
        domain: DOMAIN.to_owned(),
        servers: cloud.server.servers(),
        ca_pem: cloud.server.ca_pem().to_owned(),
    };
    let dir = TempDir::with_prefix("ipop-user-").expect("temporary directory");
    let made = Command::new("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-N", "", "-f"])
        .arg(dir.path().join("id"))
        .status();
    assert!(made.expect("ssh-keygen").success());
    let worker = &plan.nodes[1];
    let keys = Keys {
        account: cloud.account("worker-0", TOKEN),
        host_key: None,
        authorized_key: fs::read_to_string(dir.path().join("id.pub")).expect("a public key"),
        membership: None,
    };
    let bundle = personal::bundle(&plan, worker, &endpoint, &keys, Delivery::Enrolment);
    let user_data = bundle.expect("complete").user_data();
    let listener = cloud.gateway.inside(|| TcpListener::bind((IMDS, 80)));
    let listener = listener.expect("the gateway's own address");
    let imds = Imds::start_on(listener, Manner::Well, Some(user_data.expose().clone()));
    let frontend = Frontend::start(&cloud, &plan, &endpoint);

    let began = Instant::now();
    let mut machine = Machine::start(
        &image,
        Firmware::Uefi,
        &["ip", "netns", "exec", cloud.gateway.name()],
        &[
            "-smbios",
            "type=1,manufacturer=Amazon EC2",
            "-netdev",
            "tap,id=net,ifname=guest,script=no,downscript=no",
            "-device",
            "virtio-net-pci,netdev=net",
        ],
    );
    wait_until("the guest's link to the front end", BOOT, || {
        let ended = machine.child.try_wait().expect("our child");
        assert!(ended.is_none(), "QEMU ended: {ended:?}");
        frontend.linked_to("worker-0").then_some(())
    });
    println!("joined after {:?}", began.elapsed());
    assert!(
        !is_password(&cloud.server, TOKEN),
        "the token is still good"
    );

    // Asked for over the overlay's rendezvous, as `provision` does when a node joins.
    let key = host_key_of(&cloud, &endpoint);
    let address = worker.addrs.ipv4.addr.to_string();
    let known = format!("{address} {key}\n");
    fs::write(dir.path().join("known_hosts"), known).expect("written");
    let shell = Shell {
        from: &cloud.frontend,
        dir: dir.path().to_owned(),
        address,
    };
    assert_eq!(shell.run("cat /proc/sys/kernel/hostname"), "worker-0");
    let ask = format!("exec 3<>/dev/tcp/{IMDS}/80");
    shell.run(&format!("timeout 20 bash -c '{ask}'"));
    let nobody = "setpriv --reuid=65534 --regid=65534 --clear-groups";
    let refused = shell.run(&format!(
        "{nobody} timeout 5 bash -c '{ask}' 2>/dev/null; echo $?"
    ));
    assert_ne!(refused, "0", "the metadata service answers anybody");
    for secret in [
        "/run/credstore/ipop.enrol-token",
        "/var/lib/ipop-node/password",
    ] {
        shell.run(&format!("test -s {secret}"));
        let seen = shell.run(&format!("{nobody} cat {secret} 2>/dev/null | wc -c"));
        assert_eq!(seen, "0", "{secret} can be read by anybody");
    }
    let part = "/sys/class/block/nvme0n1p3";
    let size: u64 = shell
        .run(&format!("cat {part}/size"))
        .parse()
        .expect("sectors");
    assert!(
        size * 512 > DISK_BYTES - (80 << 20),
        "partition of {size} sectors"
    );
    let free = "stat -f -c '%b %S' /";
    wait_until("the file system to have grown", PATIENCE, || {
        let text = shell.run(free);
        let (blocks, each) = text.split_once(' ')?;
        let bytes = blocks.parse::<u64>().ok()? * each.parse::<u64>().ok()?;
        (bytes > 2 << 30).then_some(())
    });
    // On EC2 the network card is one for which QEMU has no model.
    shell.run("modinfo -F alias ena | grep -qi 1d0f");
    let password = shell.run("cat /var/lib/ipop-node/password");
    assert!(is_password(&cloud.server, &password));

    let asked = imds.log().len();
    // Its answer is lost with the connection.
    let _ = shell.try_run("systemctl reboot");
    machine.wait_for("ipop: booted", 2);
    wait_until("the metadata service to be asked again", BOOT, || {
        (imds.log().len() > asked).then_some(())
    });
    assert_eq!(shell.run("cat /var/lib/ipop-node/password"), password);
    println!("back after {:?}", began.elapsed());
}

/// The guest's host key as it reports it to `provision`, which is not on the overlay.
fn host_key_of(cloud: &Cloud, endpoint: &Endpoint) -> String {
    let operator = cloud.account("operator", "boss");
    let (frontend, worker) = (NodeName("frontend-0".into()), NodeName("worker-0".into()));
    let jid = |node: &NodeName| (format!("{node}@{DOMAIN}"), node.clone());
    let nodes = [jid(&frontend), jid(&worker)].into();
    let status = cloud.gateway.inside(|| {
        let mut watcher =
            Watcher::connect(endpoint, &operator, &frontend, nodes).expect("signed in");
        let deadline = Instant::now() + PATIENCE;
        while watcher.progress().jid(&worker).is_none() {
            let event = watcher.next(deadline).expect("a session");
            assert!(event.is_some(), "the guest is not present");
        }
        let status = watcher.status(&worker).expect("its status");
        watcher.leave();
        status
    });
    let key = personal::reported_host_key(&status).expect("a key");
    key.expect("a machine that made its own host key")
}
