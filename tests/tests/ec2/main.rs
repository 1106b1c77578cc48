//! The EC2 provider against moto: what is uploaded is read back from outside of the product.
//!
//! Needs `python3` with `venv`, `curl` and `setpriv`, no privilege and no network but for the first
//! installation of moto.

mod site;

use std::collections::BTreeMap;
use std::fs;
use std::sync::atomic::{AtomicU64, Ordering};

use ipop_tests::moto::Moto;
use provisioner::deploy::interrupt::Interrupt;
use provisioner::error::ExitCode;
use provisioner::event::Event;
use provisioner::name::NodeName;
use provisioner::provider::{Health, MachineState, Provider};

use site::{BLOCK, Site};

const PUT: &str = "PUT /snapshots/";

/// The blocks that the server has of a snapshot.
fn blocks(moto: &Moto, snapshot: &str) -> BTreeMap<u32, Vec<u8>> {
    let mut blocks = BTreeMap::new();
    let mut next = String::new();
    loop {
        let path = format!("/snapshots/{snapshot}/blocks?maxResults=100{next}");
        let page: serde_json::Value =
            serde_json::from_slice(&moto.call("ebs", &path, None)).expect("JSON");
        for block in page["Blocks"].as_array().expect("a list") {
            let index = block["BlockIndex"].as_u64().expect("a number");
            let token = block["BlockToken"].as_str().expect("a token");
            let path = format!("/snapshots/{snapshot}/blocks/{index}?blockToken={token}");
            let content = moto.call("ebs", &path, None);
            blocks.insert(u32::try_from(index).expect("small"), content);
        }
        match page["NextToken"].as_str() {
            Some(token) => next = format!("&pageToken={token}"),
            None => return blocks,
        }
    }
}

/// An image with its holes filled, as the blocks that are not zero.
fn content(site: &Site) -> BTreeMap<u32, Vec<u8>> {
    let whole = site.images["worker"].whole.as_ref().expect("a whole image");
    let bytes = fs::read(whole).expect("the image");
    let blocks = bytes.chunks(BLOCK).enumerate();
    blocks
        .filter(|(_, block)| block.iter().any(|byte| *byte != 0))
        .map(|(i, block)| (u32::try_from(i).expect("small"), block.to_vec()))
        .collect()
}

#[test]
fn an_uploaded_image_is_equal_block_for_block_and_a_later_version_uploads_only_what_changed() {
    let moto = Moto::start();
    let mut site = Site::new(&moto.endpoint, true);
    site.want(1);
    site.image(1, 64, (0..90).filter(|i| i % 3 != 0));
    let first = site
        .make(&site.step("snapshot"))
        .expect("the first version");
    let first = first.handle.expect("a snapshot");
    let uploaded = blocks(&moto, &first);
    assert_eq!(uploaded.len(), 60);
    assert!(uploaded == content(&site), "not equal");
    assert_eq!(moto.requests(PUT), 60);

    // The same once more: found, nothing is put.
    let again = site.make(&site.step("snapshot")).expect("the same version");
    assert_eq!(again.handle.as_deref(), Some(&*first));
    assert_eq!(moto.requests(PUT), 60);

    // Another version: three blocks differ, one is new, one has become zero.
    let old = fs::read(site.images["worker"].whole.as_ref().expect("an image")).expect("bytes");
    site.image(2, 64, []);
    let path = site.images["worker"].whole.clone().expect("an image");
    let mut new = old;
    for index in [1, 2, 4] {
        new[index * BLOCK] ^= 1;
    }
    new[100 * BLOCK + 7] = 1;
    new[5 * BLOCK..6 * BLOCK].fill(0);
    fs::write(&path, new).expect("the new version");
    let second = site
        .make(&site.step("snapshot"))
        .expect("the second version");
    let second = second.handle.expect("a snapshot");
    assert_ne!(first, second);
    assert_eq!(moto.requests(PUT), 65);

    // A child's content is its parent's with its own blocks over it; moto lists only these.
    let mut whole = uploaded;
    let own = blocks(&moto, &second);
    assert_eq!(own.keys().copied().collect::<Vec<_>>(), [1, 2, 4, 5, 100]);
    whole.extend(own);
    whole.retain(|_, block| block.iter().any(|byte| *byte != 0));
    assert!(whole == content(&site), "not equal");
}

#[test]
fn an_interrupted_upload_goes_on_with_the_rest() {
    let moto = Moto::start();
    let mut site = Site::new(&moto.endpoint, false);
    site.want(1);
    site.image(1, 128, 0..200);
    let step = site.step("snapshot");
    let interrupt = Interrupt::default();
    let (arrived, all) = (AtomicU64::new(0), AtomicU64::new(0));
    let events = |event: Event| {
        let Event::Progress { done, total, .. } = event else {
            return;
        };
        arrived.store(done / BLOCK as u64, Ordering::SeqCst);
        all.store(total / BLOCK as u64, Ordering::SeqCst);
        if done >= 50 * BLOCK as u64 {
            interrupt.set();
        }
    };
    let error = site
        .make_as(&step, &"a".repeat(32), &interrupt, &events)
        .expect_err("it was interrupted");
    assert_eq!(error.code, ExitCode::Interrupted, "{error}");
    let arrived = arrived.load(Ordering::SeqCst);
    assert_eq!(all.load(Ordering::SeqCst), 200);
    assert!((50..150).contains(&arrived), "{arrived}");
    let found = site.provider.find(Some(&site.tags)).expect("a list");
    assert_eq!(found.len(), 1);

    let before = moto.requests(PUT);
    let made = site
        .make_as(
            &step,
            &"a".repeat(32),
            &Interrupt::default(),
            &|_: Event| {},
        )
        .expect("the rest");
    assert_eq!(made.handle, found[0].handle, "another snapshot was begun");
    // Requests that the first run let go of may be answered, and logged, during the second.
    let rest = moto.requests(PUT) - before;
    let expected = 200 - usize::try_from(arrived).expect("small");
    assert!(
        (expected..=expected + 64).contains(&rest),
        "{rest} instead of {expected}"
    );
    assert!(
        blocks(&moto, &made.handle.expect("a snapshot")) == content(&site),
        "not equal"
    );
}

#[test]
fn machines_are_launched_found_and_removed_without_a_trace() {
    let moto = Moto::start();
    let mut site = Site::new(&moto.endpoint, false);
    site.want(5);
    site.image(1, 8, [0, 3]);
    site.make_all();

    let found = site.provider.find(Some(&site.tags)).expect("a list");
    assert!(
        found.iter().all(|f| f.health == Health::Present),
        "{found:?}"
    );
    assert!(
        found.iter().all(|f| f.tags.as_ref() == Some(&site.tags)),
        "{found:?}"
    );
    let mut there: Vec<_> = found
        .iter()
        .map(|f| (f.resource.clone(), f.handle.clone()))
        .collect();
    there.sort();
    let made: Vec<_> = site
        .handles
        .lock()
        .expect("not poisoned")
        .clone()
        .into_iter()
        .collect();
    assert_eq!(
        there,
        made.into_iter()
            .map(|(r, h)| (r, Some(h)))
            .collect::<Vec<_>>()
    );
    assert_eq!(site.provider.find(None).expect("a list"), found);

    // Made again, with another token, each is the one that is there.
    let before = site.handles.lock().expect("not poisoned").clone();
    site.make_all();
    assert_eq!(*site.handles.lock().expect("not poisoned"), before);

    let machines = site.provider.machines(&site.tags).expect("the machines");
    assert_eq!(machines.len(), 5);
    for machine in machines.values() {
        assert_eq!(machine.state, MachineState::Running);
        assert!(
            machine.underlay.is_some() && machine.place.is_some(),
            "{machine:?}"
        );
    }
    let instance = before
        .iter()
        .find(|(r, _)| r.id == "ipop-demo-worker-0")
        .expect("it")
        .1;
    let seen = moto.call(
        "ec2",
        "/",
        Some(&format!(
            "Action=DescribeInstances&Version=2016-11-15&InstanceId.1={instance}"
        )),
    );
    let seen = String::from_utf8(seen).expect("XML");
    for part in [
        "<httpTokens>required</httpTokens>",
        "<httpPutResponseHopLimit>1</httpPutResponseHopLimit>",
        "<key>ipop:node</key>",
        "<value>worker-0</value>",
    ] {
        assert!(seen.contains(part), "no {part} in {seen}");
    }
    let node = NodeName("worker-0".into());
    let console = site
        .provider
        .console(&site.tags, &node, 10)
        .expect("a console");
    assert_eq!(console.len(), 10);

    for (resource, handle) in before.iter().rev() {
        // One by its tags, as if its handle had not been recorded.
        let handle = Some(handle.as_str()).filter(|_| resource.id != "ipop-demo-worker-1");
        let order = ["instance", "security-group", "image", "snapshot"];
        assert!(order.contains(&resource.kind.as_str()));
        if resource.kind == "instance" {
            site.remove(resource, handle).expect("removed");
        }
    }
    let machines = site.provider.machines(&site.tags).expect("the machines");
    assert!(
        machines.values().all(|m| m.state == MachineState::Absent),
        "{machines:?}"
    );
    for kind in ["security-group", "image", "snapshot"] {
        let (resource, handle) = before.iter().find(|(r, _)| r.kind == kind).expect("it");
        site.remove(resource, Some(handle)).expect("removed");
        site.remove(resource, Some(handle)).expect("gone is fine");
        site.remove(resource, None).expect("gone is fine");
    }
    assert_eq!(site.provider.find(None).expect("a list"), []);
}

#[test]
fn what_is_kept_is_listed_without_an_owner_and_pruned() {
    let moto = Moto::start();
    let mut site = Site::new(&moto.endpoint, true);
    site.want(1);
    site.image(1, 8, [0]);
    site.make_all();
    let found = site.provider.find(None).expect("a list");
    for thing in &found {
        let kept = matches!(thing.resource.kind.as_str(), "snapshot" | "image");
        assert_eq!(thing.tags.is_none(), kept, "{thing:?}");
    }
    assert_eq!(site.provider.prune().expect("in use"), Vec::<String>::new());
    let instance = site.step("instance").resource;
    site.remove(&instance, None).expect("removed");
    assert_eq!(site.provider.prune().expect("pruned").len(), 2);
    let kinds: Vec<_> = site.provider.find(None).expect("a list");
    assert_eq!(kinds.len(), 1, "{kinds:?}");
    assert_eq!(kinds[0].resource.kind, "security-group");
}

#[test]
fn a_site_is_checked_line_by_line() {
    let moto = Moto::start();
    let site = Site::new(&moto.endpoint, false);
    // Its first answer waits for Python's modules, longer than a check waits.
    moto.call(
        "ec2",
        "/",
        Some("Action=DescribeInstanceTypes&Version=2016-11-15"),
    );
    let lines = site.provider.check().expect("lines");
    let what: Vec<_> = lines.iter().map(|line| line.what.as_str()).collect();
    assert_eq!(
        what,
        [
            "credentials",
            "log-in",
            "clock",
            "instance type",
            "network",
            "permissions",
            "image upload",
            "quota"
        ]
    );
    for line in &lines {
        // Asked for the blocks of a snapshot that does not exist, moto fails itself.
        let ok = line.what != "image upload";
        assert_eq!(line.ok, ok, "{}: {}", line.what, line.found);
    }
    assert_eq!(lines[3].found, "t3.micro: 2 vCPUs, 1024 MiB");
}

#[test]
fn an_endpoint_that_nobody_listens_on_is_named() {
    let site = Site::new("http://127.0.0.1:9", false);
    let lines = site.provider.check().expect("lines");
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert!(!lines[1].ok);
    assert!(
        lines[1].found.contains("http://127.0.0.1:9"),
        "{}",
        lines[1].found
    );
    assert!(lines[1].found.contains("onnect"), "{}", lines[1].found);
    let error = site.provider.find(None).expect_err("nobody listens");
    assert_eq!(error.code, ExitCode::Unavailable, "{error}");
}
