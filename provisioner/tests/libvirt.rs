//! The libvirt backend against a real libvirt and QEMU. Needs root; starts libvirt if it does not
//! run. Judged from outside the product: `virsh`, `/proc`, and what the guests themselves say.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod libvirt_support;

use std::fs;
use std::io::Read;
use std::net::{IpAddr, TcpListener};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use libvirt_support::{Fixture, run};
use provisioner::backend::libvirt::accel::{Accel, boot};
use provisioner::backend::libvirt::storage::Pool;
use provisioner::backend::{Backend, MachineState};
use provisioner::bundle::{Bundle, SSH_HOST_KEY, XMPP_PASSWORD};
use provisioner::error::ExitCode;
use provisioner::event::Event;
use provisioner::name::{NodeName, machine_name};
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

fn console_until(fixture: &Fixture, node: &NodeName, wanted: &str) -> String {
    let deadline = Instant::now() + LIMIT;
    loop {
        let text = fixture
            .backend
            .console(&fixture.deployment, node, 1 << 20)
            .unwrap();
        let text: String = String::from_utf8_lossy(&text)
            .lines()
            .map(|l| l.chars().take(200).collect::<String>() + "\n")
            .collect();
        if text.contains(wanted) {
            return text;
        }
        let state = fixture
            .backend
            .machine_state(&fixture.deployment, node)
            .unwrap();
        assert!(
            Instant::now() < deadline && state == MachineState::Running,
            "{node} is {state:?} and has not said {wanted:?}:\n{text}"
        );
        std::thread::sleep(Duration::from_millis(500));
    }
}

#[test]
fn machines_get_their_personal_data_and_leave_nothing_behind() {
    let fixture = Fixture::new("life");
    let (backend, deployment) = (&fixture.backend, fixture.deployment.as_str());
    let listener = TcpListener::bind("0.0.0.0:0").unwrap();
    let calls = calls(listener.try_clone().unwrap());

    let shared = backend.plan_shared(deployment).unwrap();
    let mut address = None;
    for resource in &shared {
        address = backend
            .create_shared(deployment, resource)
            .unwrap()
            .or(address);
        // Once more: the same network, not another.
        assert_eq!(
            backend.create_shared(deployment, resource).unwrap(),
            address
        );
    }
    let Some(IpAddr::V4(address)) = address else {
        panic!("no address of the host: {address:?}")
    };

    // One with an initial RAM disk, one that boots from NVMe without; both at once.
    let specs = [
        fixture.spec("ram-0", true, &listener, bundle(0)),
        fixture.spec("nvme-0", false, &listener, bundle(1)),
    ];
    let planned: Vec<_> = specs
        .iter()
        .flat_map(|s| backend.plan_machine(s).unwrap())
        .collect();
    let events = std::sync::Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for spec in &specs {
            let events = &events;
            scope.spawn(move || {
                backend
                    .launch(spec, &|e: Event| events.lock().unwrap().push(e))
                    .unwrap();
            });
        }
    });
    let trials = events
        .lock()
        .unwrap()
        .iter()
        .filter(|e| matches!(e, Event::Step { .. }))
        .count();
    assert_eq!(trials, 1, "KVM is to be tried once: {events:?}");
    // A running machine is left alone.
    backend
        .launch(&specs[0], &|e: Event| panic!("second launch did {e:?}"))
        .unwrap();

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
        let lease = backend
            .underlay_address(deployment, &spec.node)
            .unwrap()
            .unwrap();
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
    let last = backend.console(deployment, &specs[0].node, 10).unwrap();
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

    removal_leaves_nothing(&fixture, &specs[0].node, &planned, &shared);
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

fn removal_leaves_nothing(
    fixture: &Fixture,
    node: &NodeName,
    planned: &[provisioner::backend::Resource],
    shared: &[provisioner::backend::Resource],
) {
    let (backend, deployment) = (fixture.again(), fixture.deployment.as_str());
    let mut traces = fixture.traces();
    traces.sort();
    let mut expected: Vec<_> = planned
        .iter()
        .chain(shared)
        .map(|r| r.id.rsplit('/').next().unwrap().to_owned())
        .collect();
    expected.sort();
    assert_eq!(traces, expected, "what was planned is what there is");
    assert_eq!(
        backend.prune().unwrap(),
        [""; 0],
        "images in use are not pruned"
    );
    // As virtlogd leaves it after 2 MiB of console.
    fs::write(
        fixture
            .path
            .join(format!("{}.console.0", machine_name(deployment, node))),
        "old",
    )
    .unwrap();

    for round in 0..2 {
        for resource in planned.iter().chain(shared).rev() {
            backend
                .remove(resource)
                .unwrap_or_else(|e| panic!("round {round}: {e}"));
        }
        assert_eq!(fixture.traces(), [""; 0], "round {round}");
    }
    assert_eq!(
        backend.machine_state(deployment, node).unwrap(),
        MachineState::Absent
    );
    assert_eq!(backend.underlay_address(deployment, node).unwrap(), None);
    assert_eq!(backend.console(deployment, node, 100).unwrap(), b"");

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
    let mut pruned = backend.prune().unwrap();
    pruned.sort();
    assert_eq!(pruned, names);
    assert_eq!(fs::read_dir(&fixture.path).unwrap().count(), 0);
}

#[test]
fn an_interrupted_upload_is_done_again() {
    let fixture = Fixture::new("half");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let spec = fixture.spec("ram-0", true, &listener, bundle(0));
    fs::create_dir_all(&fixture.path).unwrap();
    let kernel = fixture.path.join("ipop-kernel-ram-0123456789ab");
    fs::write(&kernel, "half").unwrap();
    for resource in fixture.backend.plan_shared(&fixture.deployment).unwrap() {
        fixture
            .backend
            .create_shared(&fixture.deployment, &resource)
            .unwrap();
    }
    fixture.backend.launch(&spec, &|_| {}).unwrap();
    assert_eq!(
        fs::read(&kernel).unwrap(),
        fs::read(&spec.image.kernel).unwrap()
    );
    console_until(&fixture, &spec.node, "Linux version");

    // A launch that was killed halfway is done again too: the domain stopped, a volume missing.
    let machine = machine_name(&fixture.deployment, &spec.node);
    run("virsh", &["-c", "qemu:///system", "destroy", &machine]);
    let state = || {
        fixture
            .backend
            .machine_state(&fixture.deployment, &spec.node)
            .unwrap()
    };
    assert_eq!(state(), MachineState::Stopped);
    fs::remove_file(fixture.path.join(format!("{machine}.smbios"))).unwrap();
    fixture.backend.launch(&spec, &|_| {}).unwrap();
    assert_eq!(state(), MachineState::Running);

    let planned = fixture.backend.plan_machine(&spec).unwrap();
    let shared = fixture.backend.plan_shared(&fixture.deployment).unwrap();
    for resource in planned.iter().chain(&shared).rev() {
        fixture.backend.remove(resource).unwrap();
    }
    assert_eq!(fixture.traces(), [""; 0]);
}

#[test]
fn a_full_disk_is_named_and_leaves_no_half_of_an_image() {
    let fixture = Fixture::new("full");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let spec = fixture.spec("ram-0", true, &listener, bundle(0));
    fs::create_dir_all(&fixture.path).unwrap();
    let path = fixture.path.to_str().unwrap();
    run("mount", &["-t", "tmpfs", "-o", "size=4m", "tmpfs", path]);
    let error = fixture.backend.launch(&spec, &|_| {}).unwrap_err();
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
    let fixture = Fixture::new("small");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut spec = fixture.spec("ram-0", true, &listener, bundle(0));
    spec.disk_gib = 0;
    let error = fixture.backend.launch(&spec, &|_| {}).unwrap_err();
    assert_eq!(error.code, ExitCode::Config);
    assert_eq!(
        error.to_string(),
        "error: a disk of 0 GiB for ram-0 is smaller than its image\nhint: give it 1 GiB"
    );
    assert!(!fixture.path.exists(), "refused before anything is made");
}

#[test]
fn trying_tells_a_kernel_that_boots_from_one_that_does_not() {
    let fixture = Fixture::new("try");
    let conn = Connect::open(Some("qemu:///system")).unwrap();
    let pool = Pool::ensure(&conn, &fixture.pool, Some(&fixture.path)).unwrap();
    let kernel = &libvirt_support::material().kernel;
    let good = pool
        .put_shared("good", kernel, "raw", &mut |_, _| {})
        .unwrap();
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
    let fixture = Fixture::new("check");
    let lines = fixture.backend.check().unwrap();
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
