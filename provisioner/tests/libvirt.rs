//! The libvirt provider against a real libvirt and QEMU. Needs root; starts libvirt if it does not
//! run. Judged from outside the product: `virsh`, `/proc`, and what the guests themselves say.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod libvirt_support;

use std::fs;
use std::io::Read;
use std::net::{IpAddr, TcpListener};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::process::Command;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use libvirt_support::{Fixture, run};
use provisioner::bundle::{Bundle, SSH_HOST_KEY, XMPP_PASSWORD};
use provisioner::deploy::interrupt::Interrupt;
use provisioner::error::ExitCode;
use provisioner::event::Event;
use provisioner::name::{NodeName, machine_name};
use provisioner::provider::libvirt::LibvirtSite;
use provisioner::provider::libvirt::accel::{Accel, boot};
use provisioner::provider::libvirt::storage::Pool;
use provisioner::provider::{AtVolume, Health, MachineState, Provider, Resource, Scope};
use virt::connect::Connect;

/// `s3cret-of-N` in base64, N being 0 or 1.
const ENCODED: [&str; 2] = ["czNjcmV0LW9mLTA=", "czNjcmV0LW9mLTE="];
/// Two guests under software emulation on a machine that has other things to do.
const LIMIT: Duration = Duration::from_secs(300);

fn bundle(node: usize) -> Bundle {
    let mut bundle = Bundle::default();
    bundle.set(XMPP_PASSWORD, format!("s3cret-of-{node}"));
    // As long as a real bundle, so that no limit of a string or a page goes unseen.
    bundle.set(SSH_HOST_KEY, vec![b'k'; 6000]);
    bundle
}

fn local(name: &str) -> Fixture {
    Fixture::new(name, LibvirtSite::default())
}

fn console_until(fixture: &Fixture, node: &NodeName, wanted: &str) -> String {
    let deadline = Instant::now() + LIMIT;
    loop {
        let text = fixture
            .provider
            .console(&fixture.tags, node, 1 << 20)
            .unwrap();
        let text: String = String::from_utf8_lossy(&text)
            .lines()
            .map(|l| l.chars().take(200).collect::<String>() + "\n")
            .collect();
        if text.contains(wanted) {
            return text;
        }
        let state = fixture.machine(node).map(|m| m.state);
        assert!(
            Instant::now() < deadline && state == Some(MachineState::Running),
            "{node} is {state:?} and has not said {wanted:?}:\n{text}"
        );
        std::thread::sleep(Duration::from_millis(500));
    }
}

#[test]
fn machines_get_their_personal_data_and_leave_nothing_behind() {
    let fixture = local("life");
    let deployment = fixture.deployment.as_str();
    let listener = TcpListener::bind("0.0.0.0:0").unwrap();
    let calls = calls(listener.try_clone().unwrap());

    // One with an initial RAM disk, one that boots from NVMe without; both at once.
    let specs = [
        fixture.spec("ram-0", true, &listener, bundle(0)),
        fixture.spec("nvme-0", false, &listener, bundle(1)),
    ];
    let steps = fixture.steps(&specs);
    let events = std::sync::Mutex::new(Vec::new());
    let made = fixture
        .launch(&specs, &|e: Event| events.lock().unwrap().push(e))
        .unwrap();
    let Some(IpAddr::V4(address)) = made[0].reached_at else {
        panic!("no address of the host: {made:?}")
    };
    let trials = events
        .lock()
        .unwrap()
        .iter()
        .filter(|e| matches!(e, Event::Step { .. }))
        .count();
    assert_eq!(trials, 1, "KVM is to be tried once: {events:?}");
    // Once more: all is there and adopted, the running machines keep their disks.
    let inodes = || {
        specs.each_ref().map(|s| {
            let disk = format!("{}.qcow2", machine_name(deployment, &s.node));
            fs::metadata(fixture.path.join(disk)).unwrap().ino()
        })
    };
    let before = inodes();
    let again = fixture
        .launch(&specs, &|e: Event| panic!("second launch did {e:?}"))
        .unwrap();
    assert_eq!(again.len(), made.len());
    assert_eq!(again[0].reached_at, Some(address.into()));
    assert_eq!(inodes(), before);

    // Everything is found, and known to be this deployment's.
    let found = fixture.again().find(Some(&fixture.tags)).unwrap();
    let mut ids: Vec<_> = found.iter().map(|f| f.resource.clone()).collect();
    let mut planned: Vec<_> = steps.iter().map(|s| s.resource.clone()).collect();
    ids.sort();
    planned.sort();
    assert_eq!(ids, planned);
    for f in &found {
        let image = f.resource.kind == "image";
        assert_eq!(f.tags.as_ref(), (!image).then_some(&fixture.tags), "{f:?}");
        assert_eq!(f.health, Health::Present, "{f:?}");
    }

    let mut leases = Vec::new();
    for (i, spec) in specs.iter().enumerate() {
        let text = console_until(&fixture, &spec.node, "guest-done");
        let wanted = format!("io.systemd.credential.binary:ipop.password={}", ENCODED[i]);
        assert!(text.contains(&wanted), "credential did not arrive:\n{text}");
        assert!(
            !text.contains(ENCODED[1 - i]),
            "the other machine's credential arrived"
        );
        let disk = if spec.image.initrd.is_some() {
            "guest-disks:"
        } else {
            "nvme0n1"
        };
        assert!(text.contains(disk), "no {disk}:\n{text}");
        // Any port on the host's address is open to guests: the rendezvous listens there.
        let called = format!(
            "guest-called {address} {}",
            listener.local_addr().unwrap().port()
        );
        assert!(
            text.contains(&called),
            "the guest could not call the host:\n{text}"
        );
        let lease = fixture.machine(&spec.node).unwrap().underlay.unwrap();
        assert!(
            text.contains(&format!("lease of {lease} obtained")),
            "{lease}\n{text}"
        );
        leases.push(format!("guest-was-here {lease}\n"));
        nothing_shows_the_personal_data(&fixture, &spec.node, ENCODED[i]);
    }
    let mut said: Vec<_> = calls.try_iter().collect();
    said.sort();
    leases.sort();
    assert_eq!(
        said, leases,
        "who called the host, not behind an address of its own"
    );
    let last = fixture
        .provider
        .console(&fixture.tags, &specs[0].node, 10)
        .unwrap();
    assert_eq!(last.len(), 10);

    // The limit follows from how guests are really run.
    let xml = run(
        "virsh",
        &[
            "-c",
            "qemu:///system",
            "dumpxml",
            &machine_name(deployment, &specs[0].node),
        ],
    );
    let slow = xml.contains("<domain type='qemu'");
    let limit = fixture.again().join_limit().unwrap();
    assert_eq!(limit, Duration::from_secs(if slow { 900 } else { 120 }));

    let own = |scope: &Scope| !matches!(scope, Scope::Site { .. });
    let planned: Vec<_> = steps
        .into_iter()
        .filter(|s| own(&s.scope))
        .map(|s| s.resource)
        .collect();
    removal_leaves_nothing(&fixture, &specs[0].node, &planned);
}

#[test]
fn data_grows_is_copied_and_goes_back_under_a_machine_that_runs() {
    let fixture = local("data");
    let listener = TcpListener::bind("0.0.0.0:0").unwrap();
    let mut spec = fixture.spec("ram-0", true, &listener, Bundle::default());
    spec.data_gib = Some(1);
    let machine = machine_name(&fixture.deployment, &spec.node);
    let virsh = |args: &[&str]| run("virsh", &[&["-q", "-c", "qemu:///system"], args].concat());
    let specs = [spec.clone()];
    let events = |_: Event| {};
    // What is in it before the machine has it, and QEMU with the machine.
    let steps = fixture.steps(&specs);
    let data = steps.iter().find(|s| matches!(s.scope, Scope::Data(_)));
    let data = data.unwrap().resource.clone();
    let file = |resource: &Resource| {
        let (_, name) = resource.id.split_once('/').unwrap();
        fixture.path.join(name).to_str().unwrap().to_owned()
    };
    let has = |path: &str, byte: u8| {
        let read = format!("read -P {byte} 0 1M");
        let args = ["-r", "-f", "qcow2", "-c", &read, path];
        let said = Command::new("qemu-io").args(args).output().unwrap();
        let said = String::from_utf8_lossy(&said.stdout).into_owned();
        assert!(said.contains("read 1048576/1048576 bytes"), "{said}");
        !said.contains("verification failed")
    };
    let write = |byte: u8| {
        let write = format!("write -P {byte} 0 1M");
        run("qemu-io", &["-f", "qcow2", "-c", &write, &file(&data)]);
    };
    let step = steps.iter().find(|s| s.resource == data).unwrap();
    fixture
        .make(&fixture.provider, step, &specs, &events)
        .unwrap();
    write(7);
    fixture.launch(&specs, &events).unwrap();

    let interrupt = Interrupt::default();
    let volumes = fixture.provider.volumes().unwrap();
    let at = |resource| AtVolume {
        tags: &fixture.tags,
        node: &spec.node,
        resource,
        deadline: Instant::now() + LIMIT,
        interrupt: &interrupt,
        events: &events,
    };
    let capacity = || {
        let info = virsh(&["domblkinfo", &machine, "vdb"]);
        let line = info.lines().find(|l| l.starts_with("Capacity")).unwrap();
        line.split_whitespace().last().unwrap().to_owned()
    };
    for (asked, has) in [(2_u64, 2_u64), (1, 2), (2, 2)] {
        volumes.grow(&at(&data), asked << 30).unwrap();
        assert_eq!(capacity(), (has << 30).to_string(), "after {asked} GiB");
    }

    // While it runs, and when it does not.
    volumes.snapshot(&at(&data), "before").unwrap();
    let again = volumes.snapshot(&at(&data), "before").unwrap_err();
    assert_eq!(again.code, ExitCode::Name);
    virsh(&["destroy", &machine]);
    write(9);
    volumes.snapshot(&at(&data), "after").unwrap();
    volumes.grow(&at(&data), 3 << 30).unwrap();
    virsh(&["start", &machine]);
    let snapshots = || {
        let found = fixture.again().find(Some(&fixture.tags)).unwrap();
        let labelled = found.into_iter().filter_map(|f| {
            let label = volumes.label(&f.resource)?;
            Some((label, f))
        });
        labelled.collect::<std::collections::BTreeMap<_, _>>()
    };
    let made = snapshots();
    assert_eq!(made.len(), 2, "{made:?}");
    for (label, byte) in [("before", 7), ("after", 9)] {
        assert_eq!(made[label].health, Health::Present);
        assert_eq!(made[label].node.as_ref(), Some(&spec.node));
        let path = file(&made[label].resource);
        assert!(has(&path, byte) && !has(&path, 16 - byte), "{label}");
    }

    // Back, on a machine that ran before, with the room it had.
    let not_a_snapshot = volumes.restore(&at(&data), 3 << 30);
    assert!(not_a_snapshot.is_err(), "the data itself is none");
    volumes
        .restore(&at(&made["before"].resource), 3 << 30)
        .unwrap();
    let state = || fixture.machine(&spec.node).map(|m| m.state);
    assert_eq!(state(), Some(MachineState::Stopped), "nobody writes yet");
    for _ in 0..2 {
        volumes.serve(&at(&data)).unwrap();
        assert_eq!(state(), Some(MachineState::Running));
    }
    assert_eq!(capacity(), (3_u64 << 30).to_string());
    virsh(&["destroy", &machine]);
    assert!(has(&file(&data), 7), "what was there before");

    // One without its mark is no whole one: nothing goes back to it, and it is made anew.
    let marker = format!("{}.complete", file(&made["after"].resource));
    fs::remove_file(marker).unwrap();
    virsh(&["pool-refresh", &fixture.pool]);
    assert_eq!(snapshots()["after"].health, Health::Broken);
    let half = volumes.restore(&at(&made["after"].resource), 3 << 30);
    assert!(half.unwrap_err().message.contains("not whole"));
    volumes.snapshot(&at(&data), "after").unwrap();
    assert!(has(&file(&made["after"].resource), 7));

    for snapshot in made.values() {
        fixture
            .remove(&fixture.provider, &snapshot.resource)
            .unwrap();
    }
    assert!(snapshots().is_empty());
    assert!(has(&file(&data), 7), "the data is not the snapshots'");
}

/// What callers say, answered so that they hang up.
fn calls(listener: TcpListener) -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut said = String::new();
            if stream.and_then(|mut s| s.read_to_string(&mut said)).is_ok()
                && sender.send(said).is_err()
            {
                return;
            }
        }
    });
    receiver
}

fn nothing_shows_the_personal_data(fixture: &Fixture, node: &NodeName, encoded: &str) {
    let machine = machine_name(&fixture.deployment, node);
    let pid = fs::read_to_string(format!("/run/libvirt/qemu/{machine}.pid")).unwrap();
    let cmdline = fs::read(format!("/proc/{}/cmdline", pid.trim())).unwrap();
    let cmdline = String::from_utf8_lossy(&cmdline).into_owned();
    assert!(
        cmdline.contains(&machine),
        "not the machine's QEMU: {cmdline}"
    );
    let xml = run(
        "virsh",
        &[
            "-c",
            "qemu:///system",
            "dumpxml",
            "--security-info",
            &machine,
        ],
    );
    for (place, text) in [("command line", &cmdline), ("domain XML", &xml)] {
        for secret in [encoded, "s3cret-of", "kkkk", "a2tra2tr"] {
            assert!(!text.contains(secret), "{secret} is in the {place}: {text}");
        }
    }
    let file = fs::metadata(fixture.path.join(format!("{machine}.smbios"))).unwrap();
    assert_eq!(file.permissions().mode() & 0o777, 0o600);
    let qemu = fs::metadata(format!("/proc/{}", pid.trim())).unwrap();
    assert_eq!(
        file.uid(),
        qemu.uid(),
        "the file belongs to another user than QEMU's"
    );
}

fn removal_leaves_nothing(fixture: &Fixture, node: &NodeName, planned: &[Resource]) {
    let provider = fixture.again();
    let mut traces = fixture.traces();
    traces.sort();
    let mut expected: Vec<_> = planned
        .iter()
        .map(|r| r.id.rsplit('/').next().unwrap().to_owned())
        .collect();
    expected.sort();
    assert_eq!(traces, expected, "what was planned is what there is");
    assert_eq!(
        provider.prune().unwrap(),
        [""; 0],
        "images in use are not pruned"
    );
    // As virtlogd leaves it after 2 MiB of console.
    fs::write(
        fixture.path.join(format!(
            "{}.console.0",
            machine_name(&fixture.deployment, node)
        )),
        "old",
    )
    .unwrap();

    // Somebody else who believes that these names are his removes nothing.
    let mut theirs = fixture.tags.clone();
    theirs.owner = "f".repeat(16);
    for resource in planned.iter().rev() {
        provider
            .remove(&provisioner::provider::Removing {
                tags: &theirs,
                resource,
                handle: None,
                deadline: Instant::now() + Duration::from_secs(60),
                interrupt: &Default::default(),
            })
            .unwrap();
    }
    assert_eq!(fixture.machine(node).unwrap().state, MachineState::Running);

    for round in 0..2 {
        for resource in planned.iter().rev() {
            fixture
                .remove(&provider, resource)
                .unwrap_or_else(|e| panic!("round {round}: {e}"));
        }
        assert_eq!(fixture.traces(), [""; 0], "round {round}");
    }
    assert!(fixture.machine(node).is_none());
    assert_eq!(provider.console(&fixture.tags, node, 100).unwrap(), b"");

    let mut left: Vec<_> = fs::read_dir(&fixture.path)
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    left.sort();
    let names = [
        "ipop-base-nvme-0123456789ab.qcow2",
        "ipop-base-ram-0123456789ab.qcow2",
        "ipop-initrd-ram-0123456789ab",
        "ipop-kernel-nvme-0123456789ab",
        "ipop-kernel-ram-0123456789ab",
    ];
    let with_markers: Vec<_> = names
        .iter()
        .flat_map(|n| [(*n).into(), format!("{n}.complete")])
        .collect();
    assert_eq!(left, with_markers, "images stay for the next deployment");
    let mut pruned = provider.prune().unwrap();
    pruned.sort();
    assert_eq!(pruned, names);
    assert_eq!(fs::read_dir(&fixture.path).unwrap().count(), 0);
}

/// Sites of one host share a deployment's network there, and each removes it.
#[test]
fn two_sites_of_one_host_remove_their_network_at_once() {
    let fixture = local("both");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let specs = [fixture.spec("ram-0", true, &listener, bundle(0))];
    let steps = fixture.steps(&specs);
    let network = steps.iter().find(|s| s.resource.kind == "network").unwrap();
    for round in 0..5 {
        fixture
            .make(&fixture.provider, network, &specs, &|_: Event| ())
            .unwrap();
        std::thread::scope(|scope| {
            let removals: Vec<_> = (0..4)
                .map(|_| {
                    scope.spawn(|| {
                        let site = fixture.again();
                        // Connected before the others remove it.
                        site.machines(&fixture.tags).unwrap();
                        fixture.remove(&site, &network.resource)
                    })
                })
                .collect();
            for removal in removals {
                let removed = removal.join().unwrap();
                removed.unwrap_or_else(|e| panic!("round {round}: {e:?}"));
            }
        });
        let left = run("virsh", &["-c", "qemu:///system", "net-list", "--all"]);
        assert!(!left.contains(&fixture.deployment), "{left}");
    }
}

#[test]
fn an_interrupted_upload_is_done_again() {
    let fixture = local("half");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let spec = fixture.spec("ram-0", true, &listener, bundle(0));
    fs::create_dir_all(&fixture.path).unwrap();
    let kernel = fixture.path.join("ipop-kernel-ram-0123456789ab");
    fs::write(&kernel, "half").unwrap();
    let specs = [spec];
    fixture.launch(&specs, &|_| {}).unwrap();
    let spec = &specs[0];
    assert_eq!(
        fs::read(&kernel).unwrap(),
        fs::read(&spec.image.kernel).unwrap()
    );
    console_until(&fixture, &spec.node, "Linux version");

    // A launch that was killed halfway is done again too: the domain stopped, a volume missing.
    let machine = machine_name(&fixture.deployment, &spec.node);
    run("virsh", &["-c", "qemu:///system", "destroy", &machine]);
    let state = || fixture.machine(&spec.node).unwrap().state;
    assert_eq!(state(), MachineState::Stopped);
    fs::remove_file(fixture.path.join(format!("{machine}.smbios"))).unwrap();
    fixture.launch(&specs, &|_| {}).unwrap();
    assert_eq!(state(), MachineState::Running);

    for step in fixture.steps(&specs).iter().rev() {
        fixture.remove(&fixture.provider, &step.resource).unwrap();
    }
    assert_eq!(fixture.traces(), [""; 0]);
}

#[test]
fn a_full_disk_is_named_and_leaves_no_half_of_an_image() {
    let fixture = local("full");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let spec = fixture.spec("ram-0", true, &listener, bundle(0));
    fs::create_dir_all(&fixture.path).unwrap();
    let path = fixture.path.to_str().unwrap();
    run("mount", &["-t", "tmpfs", "-o", "size=4m", "tmpfs", path]);
    let error = fixture.launch(&[spec], &|_| {}).unwrap_err();
    let left = fs::read_dir(path).unwrap().count();
    run(
        "virsh",
        &["-q", "-c", "qemu:///system", "pool-destroy", &fixture.pool],
    );
    run("umount", &[path]);
    assert_eq!(error.code, ExitCode::Missing, "{error}");
    let expected = format!(
        "storage pool \"{}\" is full: \"ipop-kernel-ram-",
        fixture.pool
    );
    assert!(error.message.starts_with(&expected), "{error}");
    assert!(!error.hints.is_empty());
    assert_eq!(left, 0);
}

#[test]
fn a_disk_smaller_than_its_image_is_refused() {
    let fixture = local("small");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut spec = fixture.spec("ram-0", true, &listener, bundle(0));
    spec.disk_gib = 0;
    let error = fixture.launch(&[spec], &|_| {}).unwrap_err();
    assert_eq!(error.code, ExitCode::Config);
    assert_eq!(
        error.to_string(),
        "error: a disk of 0 GiB for ram-0 is smaller than its image\nhint: give it 1 GiB"
    );
    let network = format!("ipop-{}", fixture.deployment);
    assert_eq!(
        fixture.traces(),
        [network],
        "refused before its disk is made"
    );
}

#[test]
fn trying_tells_a_kernel_that_boots_from_one_that_does_not() {
    let fixture = local("try");
    let conn = Connect::open(Some("qemu:///system")).unwrap();
    let pool = Pool::ensure(&conn, &fixture.pool, Some(&fixture.path)).unwrap();
    let kernel = &libvirt_support::material().kernel;
    let good = pool.put_shared("good", kernel, &mut |_| Ok(())).unwrap();
    // Software emulation, as that is there on every machine.
    let took = boot(&conn, &pool, &fixture.pool, &good, Accel::Tcg, LIMIT).unwrap();
    assert!(took.is_ok(), "{took:?}");
    let why = boot(
        &conn,
        &pool,
        &fixture.pool,
        &good,
        Accel::Tcg,
        Duration::ZERO,
    )
    .unwrap();
    assert!(
        why.as_ref().is_err_and(|w| w.starts_with("a guest hung ")),
        "{why:?}"
    );
    let bad = pool.put("bad", b"no kernel").unwrap();
    let why = boot(&conn, &pool, &fixture.pool, &bad, Accel::Tcg, LIMIT).unwrap();
    assert!(why.is_err(), "{why:?}");
    for volume in ["good", "bad"] {
        pool.remove_shared(volume).unwrap();
    }
    assert_eq!(fixture.traces(), [""; 0]);
    assert_eq!(fs::read_dir(&fixture.path).unwrap().count(), 0);
}

#[test]
fn a_site_is_checked_by_trying_it() {
    let fixture = local("check");
    let lines = fixture.provider.check().unwrap();
    let what: Vec<_> = lines.iter().map(|l| l.what.as_str()).collect();
    assert_eq!(what, ["connection", "network", "storage", "acceleration"]);
    for line in &lines {
        assert!(line.ok, "{}: {}", line.what, line.found);
    }
    assert_eq!(
        fs::read_dir(&fixture.path).unwrap().count(),
        0,
        "checking leaves nothing"
    );
    let networks = run(
        "virsh",
        &["-q", "-c", "qemu:///system", "net-list", "--all", "--name"],
    );
    assert!(!networks.contains("ipop-check"));
}

/// How many machines the test of many makes: 8, or what the environment variable
/// `IPOP_TEST_MACHINES` says (20 for a full run, which takes minutes under software emulation).
fn many() -> usize {
    match std::env::var("IPOP_TEST_MACHINES") {
        Ok(count) => count.parse().expect("IPOP_TEST_MACHINES is a number"),
        Err(_) => 8,
    }
}

#[test]
fn many_machines_take_no_longer_each_than_one() {
    let fixture = local("many");
    let many = many();
    assert!(many > 4, "too few to compare");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let specs: Vec<_> = (0..many)
        .map(|n| fixture.spec(&format!("ram-{n}"), true, &listener, bundle(0)))
        .collect();
    // What is made once: images, network, the verdict on KVM.
    fixture.launch(&specs[..1], &|_| {}).unwrap();
    let mut each = Vec::new();
    let middle = (many / 3).max(3);
    for range in [1..2, 2..middle, middle..many] {
        let (from, count) = (Instant::now(), range.len() as u32);
        fixture.launch(&specs[range], &|_| {}).unwrap();
        each.push(from.elapsed() / count);
        eprintln!("{count} at once: {:?} a machine", each.last());
    }
    let looked = Instant::now();
    let machines = fixture.again().machines(&fixture.tags).unwrap();
    eprintln!(
        "looking at {} machines: {:?}",
        machines.len(),
        looked.elapsed()
    );
    assert_eq!(machines.len(), many);
    for (node, machine) in &machines {
        assert_eq!(machine.state, MachineState::Running, "{node}");
    }
    let from = Instant::now();
    for step in fixture.steps(&specs).iter().rev() {
        fixture.remove(&fixture.provider, &step.resource).unwrap();
    }
    eprintln!("{many} removed one by one: {:?}", from.elapsed());
    assert_eq!(fixture.traces(), [""; 0]);
    // The guests boot on the same processors meanwhile, so there is some slack.
    assert!(
        each[2] < 4 * each[0].max(each[1]) + Duration::from_secs(1),
        "{each:?}"
    );
}
