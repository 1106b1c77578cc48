//! The libvirt provider and a host behind `qemu+ssh` and `qemu+tls`, with real daemons. Needs root.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "libvirt_hosts/mod.rs"]
mod libvirt_hosts;
mod libvirt_support;

use std::fs;
use std::io::{Seek as _, SeekFrom, Write as _};
use std::net::TcpListener;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use libvirt_hosts::{SshHost, TlsHost};
use libvirt_support::Fixture;
use provisioner::bundle::{Bundle, XMPP_PASSWORD};
use provisioner::error::{CliError, ExitCode, Retry};
use provisioner::event::Event;
use provisioner::provider::libvirt::{Libvirt, LibvirtSite};
use provisioner::provider::{MachineSpec, MachineState, Provider, Step};

/// A guest under software emulation on a machine that has other things to do.
const LIMIT: Duration = Duration::from_secs(300);

fn bundle() -> Bundle {
    let mut bundle = Bundle::default();
    bundle.set(XMPP_PASSWORD, "s3cret-of-0");
    bundle
}

/// A machine whose image's disk is 96 MiB, of which the middle third is a hole.
fn with_large_disk(fixture: &Fixture, dir: &tempfile::TempDir) -> (MachineSpec, PathBuf) {
    let file = dir.path().join("disk");
    let mut disk = fs::File::create(&file).unwrap();
    let mut state = 1_u64;
    let mut part = || -> Vec<u8> {
        (0..4 << 20)
            .flat_map(|_| {
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1);
                state.to_be_bytes()
            })
            .collect()
    };
    disk.write_all(&part()).unwrap();
    disk.seek(SeekFrom::Start(64 << 20)).unwrap();
    disk.write_all(&part()).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut spec = fixture.spec("ram-0", true, &listener, bundle());
    spec.image.disk = file.clone();
    (spec, file)
}

fn base_step(fixture: &Fixture, spec: &MachineSpec) -> Step {
    let steps = fixture.steps(std::slice::from_ref(spec));
    let is_base = |s: &Step| s.resource.id.contains("/ipop-base-");
    steps.into_iter().find(is_base).unwrap()
}

fn refused(provider: &Libvirt, within: Duration) -> CliError {
    let from = Instant::now();
    let error = provider.find(None).unwrap_err();
    assert!(from.elapsed() < within, "{:?}: {error}", from.elapsed());
    assert_eq!(error.code, ExitCode::Unavailable, "{error}");
    error
}

#[test]
fn a_machine_on_a_host_behind_ssh_lives_and_goes() {
    let host = SshHost::new();
    let fixture = Fixture::new("ssh", host.site());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let specs = [fixture.spec("ram-0", true, &listener, bundle())];
    let made = fixture.launch(&specs, &|_| {}).unwrap();
    assert_eq!(
        made[0].reached_at, None,
        "an address of that host is not ours"
    );
    assert!(!fixture.provider.is_local());
    let node = &specs[0].node;
    let deadline = Instant::now() + LIMIT;
    loop {
        let text = fixture
            .provider
            .console(&fixture.tags, node, 1 << 20)
            .unwrap();
        let text = String::from_utf8_lossy(&text).into_owned();
        if text.contains("guest-done") {
            assert!(text.contains("io.systemd.credential.binary:ipop.password=czNjcmV0LW9mLTA="));
            let machine = fixture.machine(node).unwrap();
            assert_eq!(machine.state, MachineState::Running);
            let lease = machine.underlay.unwrap();
            assert!(
                text.contains(&format!("lease of {lease} obtained")),
                "{lease}"
            );
            break;
        }
        assert!(Instant::now() < deadline, "{text}");
        std::thread::sleep(Duration::from_millis(500));
    }
    let found = fixture.again().find(Some(&fixture.tags)).unwrap();
    assert_eq!(found.len(), fixture.steps(&specs).len());
    // The connection breaks between two calls: the next call has a new one.
    assert!(host.cut() > 0);
    for step in fixture.steps(&specs).iter().rev() {
        let removed = fixture.remove(&fixture.provider, &step.resource);
        if let Err(e) = removed {
            assert_eq!(e.retry, Retry::Soon, "{e}");
            fixture.remove(&fixture.provider, &step.resource).unwrap();
        }
    }
    assert_eq!(fixture.traces(), [""; 0]);
    assert_eq!(fs::read_dir(&fixture.path).unwrap().count(), 0);
}

#[test]
fn an_upload_that_loses_its_connection_is_done_again_whole_and_sparse() {
    let host = SshHost::new();
    let fixture = Fixture::new("cut", host.site());
    let dir = tempfile::tempdir().unwrap();
    let (spec, file) = with_large_disk(&fixture, &dir);
    let step = base_step(&fixture, &spec);
    let specs = [spec];
    let cuts = AtomicUsize::new(0);
    let error = fixture
        .make(&fixture.provider, &step, &specs, &|e: Event| {
            if let Event::Progress { done, .. } = e
                && done > 8 << 20
                && cuts.load(Ordering::SeqCst) == 0
            {
                cuts.store(host.cut(), Ordering::SeqCst);
            }
        })
        .unwrap_err();
    assert_eq!(cuts.load(Ordering::SeqCst), 1, "{error}");
    assert_eq!(error.retry, Retry::Soon, "{error}");
    let broken = fixture.again().find(Some(&fixture.tags)).unwrap();
    for f in broken {
        assert_eq!(f.health, provisioner::provider::Health::Broken, "{f:?}");
    }

    let verified = AtomicUsize::new(0);
    fixture
        .make(&fixture.provider, &step, &specs, &|e: Event| {
            if let Event::Progress { what, done, total } = e
                && what.contains("verify")
                && done == total
            {
                verified.fetch_add(1, Ordering::SeqCst);
            }
        })
        .unwrap();
    assert_eq!(verified.load(Ordering::SeqCst), 1);
    let there = fixture
        .path
        .join(step.resource.id.split_once('/').unwrap().1);
    assert!(
        fs::read(&there).unwrap() == fs::read(&file).unwrap(),
        "not the same"
    );
    let used = fs::metadata(&there).unwrap().blocks() * 512;
    assert!(used < 80 << 20, "{used} bytes on disk: the hole was filled");
    // Complete: nothing is sent again.
    fixture
        .make(&fixture.provider, &step, &specs, &|e: Event| {
            panic!("{e:?}")
        })
        .unwrap();
    fixture.remove(&fixture.provider, &step.resource).unwrap();
    assert_eq!(fs::read_dir(&fixture.path).unwrap().count(), 0);
}

#[test]
fn a_host_that_cannot_be_trusted_or_reached_is_refused_in_time_with_what_to_do() {
    let host = SshHost::new();
    let fixture = Fixture::new("no", host.site());
    let over = |change: &dyn Fn(&mut LibvirtSite)| {
        let mut site = host.site();
        change(&mut site);
        Libvirt::new(site, fixture.cache.path())
    };
    for file in ["known_none", "known_others"] {
        let error = refused(
            &over(&|s| s.known_hosts = host.file(file)),
            Duration::from_secs(30),
        );
        assert!(error.hints[0].contains("known_hosts"), "{error}");
        assert_eq!(error.retry, Retry::Never, "{error}");
    }
    let error = refused(
        &over(&|s| s.identity = host.file("other")),
        Duration::from_secs(30),
    );
    assert!(error.hints[0].contains("identity"), "{error}");
    let nowhere = format!("qemu+ssh://root@{}/system", host.segment.nowhere);
    let error = refused(&over(&|s| s.uri = nowhere.clone()), Duration::from_secs(60));
    assert!(error.hints[0].contains("is root@"), "{error}");
    assert_eq!(error.retry, Retry::Soon, "{error}");
    let tls = format!("qemu+tls://{}/system", host.segment.nowhere);
    refused(&over(&|s| s.uri = tls.clone()), Duration::from_secs(90));
}

#[test]
fn a_host_behind_tls_serves_who_trusts_its_ca_and_no_other() {
    let host = TlsHost::new();
    let fixture = Fixture::new("tls", host.site("client"));
    let dir = tempfile::tempdir().unwrap();
    let (spec, file) = with_large_disk(&fixture, &dir);
    let step = base_step(&fixture, &spec);
    let made = fixture
        .make(&fixture.provider, &step, &[spec], &|_| {})
        .unwrap();
    let there = host.read(&PathBuf::from(made.handle.unwrap()));
    assert!(there == fs::read(file).unwrap(), "not the same");
    let found = fixture.provider.find(None).unwrap();
    assert_eq!(found.len(), 1, "another host's: {found:?}");
    fixture.remove(&fixture.provider, &step.resource).unwrap();

    let error = refused(
        &Libvirt::new(host.site("wrong"), fixture.cache.path()),
        Duration::from_secs(30),
    );
    assert!(error.hints[0].contains("certificate"), "{error}");
}
