use super::record::{Key, Owner, ResourceRecord, ResourceState, Verb};
use super::resources::token;
use super::*;
use crate::provider::{Made, Resource, Scope};

fn new(name: &str) -> NewDeployment {
    NewDeployment {
        name: name.to_owned(),
        uid: "00112233445566ff".to_owned(),
        quorum: Some(1),
        domain: format!("{name}.ipop"),
        net4: "10.200.7.0/24".to_owned(),
        net6: "fd00:1:2:3::/64".to_owned(),
        settings: "{}".to_owned(),
        nodes: vec![NodeRecord {
            name: NodeName("worker-0".to_owned()),
            role: "worker".to_owned(),
            image: "gpu".to_owned(),
            person: Some("alice".to_owned()),
            groups: ["lake".to_owned()].into(),
            site: "local".to_owned(),
            ipv4: "10.200.7.2".to_owned(),
            ipv6: "fd00:1:2:3::2".to_owned(),
            host_key: None,
            underlay: None,
            memory_mib: 1024,
            cpus: 2,
            disk_gib: 8,
            slot: 3,
            wanted: true,
            attempt: 1,
            stages: Vec::new(),
        }],
    }
}

fn open() -> (tempfile::TempDir, Database) {
    let dir = tempfile::tempdir().expect("temporary directory");
    let database = Database::open(&dir.path().join("state.db")).expect("opens");
    (dir, database)
}

#[test]
fn a_deployment_is_read_back_as_it_was_recorded() {
    let (dir, database) = open();
    let now = UNIX_EPOCH + Duration::from_secs(1_800_000_000);
    let id = database.create(&new("demo"), now).expect("recorded");
    let node = NodeName("worker-0".to_owned());
    database
        .set_stage(id, &node, Stage::Ready, 9.5)
        .expect("recorded");
    database
        .set_stage(id, &node, Stage::Created, 1.5)
        .expect("recorded");
    database
        .set_stage(id, &node, Stage::Created, 7.0)
        .expect("kept as it was");
    database.set_phase(id, Phase::Joined).expect("recorded");
    drop(database);

    let database = Database::open(&dir.path().join("state.db")).expect("opens again");
    let deployment = database.deployment("demo").expect("read").expect("there");
    assert_eq!((deployment.phase, deployment.created), (Phase::Joined, now));
    assert_eq!(
        (deployment.uid.as_str(), deployment.quorum),
        ("00112233445566ff", Some(1))
    );
    assert_eq!(deployment.owner, database.owner());
    let nodes = database.nodes(id).expect("read");
    assert_eq!(nodes[0].name, new("demo").nodes[0].name);
    assert_eq!(
        (nodes[0].memory_mib, nodes[0].disk_gib, nodes[0].slot),
        (1024, 8, 3)
    );
    assert_eq!(
        nodes[0].stages,
        [(Stage::Created, 1.5), (Stage::Ready, 9.5)]
    );
}

#[test]
fn a_person_is_in_groups_with_all_machines_until_the_last_one_goes() {
    let (_dir, database) = open();
    let id = database.create(&new("demo"), UNIX_EPOCH).expect("recorded");
    let other = database
        .create(&new("other"), UNIX_EPOCH)
        .expect("recorded");
    let second = NodeRecord {
        name: NodeName("alice-phone".to_owned()),
        groups: ["field".to_owned()].into(),
        ..new("demo").nodes[0].clone()
    };
    database.rescale(id, "{}", &[second], &[]).expect("added");
    let groups = |id| -> Vec<Vec<String>> {
        let nodes = database.nodes(id).expect("read");
        let wanted = nodes.into_iter().filter(|node| node.wanted);
        wanted
            .map(|node| node.groups.into_iter().collect())
            .collect()
    };
    assert_eq!(groups(id), [["field", "lake"], ["field", "lake"]]);
    let crew = ["crew".to_owned()].into();
    database.put_in_groups(id, "alice", &crew).expect("put in");
    assert_eq!(groups(id), [["crew", "field", "lake"]; 2]);
    database
        .take_out_of_group(id, "alice", "crew")
        .expect("taken out");
    let names = ["worker-0", "alice-phone"].map(|name| NodeName(name.to_owned()));
    database
        .rescale(id, "{}", &[], &names[..1])
        .expect("removed");
    assert_eq!(groups(id), [["field", "lake"]]);
    database
        .rescale(id, "{}", &[], &names[1..])
        .expect("removed");
    let gone = database.nodes(id).expect("read");
    assert!(gone.iter().all(|node| node.groups.is_empty()), "{gone:?}");
    assert_eq!(groups(other), [["lake"]], "another deployment's");
}

#[test]
fn a_name_is_taken_until_the_deployment_is_buried() {
    let (_dir, database) = open();
    let id = database.create(&new("demo"), UNIX_EPOCH).expect("recorded");
    let error = database
        .create(&new("demo"), UNIX_EPOCH)
        .expect_err("taken");
    assert_eq!(error.code, ExitCode::Name);
    assert!(!database.was_destroyed("demo").expect("read"));
    database.bury(id, UNIX_EPOCH).expect("buried");
    assert!(database.was_destroyed("demo").expect("read"));
    assert!(database.deployments().expect("read").is_empty());
    database
        .create(&new("demo"), UNIX_EPOCH)
        .expect("free again");
}

fn key(kind: &str, ident: &str) -> Key {
    Key {
        owner: Owner::Site("local".to_owned()),
        resource: Resource {
            kind: kind.to_owned(),
            id: ident.to_owned(),
        },
    }
}

fn record(key: Key, attempt: u32) -> ResourceRecord {
    ResourceRecord {
        token: token("uid", &key, attempt),
        scope: Scope::Node(NodeName("worker-0".to_owned())),
        after: vec![self::key("network", "demo")],
        deadline: Duration::from_secs(300),
        state: ResourceState::Wanted,
        attempt,
        node_attempt: 1,
        handle: None,
        reached_at: None,
        error: None,
        key,
    }
}

#[test]
fn a_resource_is_known_from_before_it_is_made_until_it_is_removed() {
    let (_dir, database) = open();
    let id = database.create(&new("demo"), UNIX_EPOCH).expect("recorded");
    let domain = record(key("domain", "ipop-demo-worker-0"), 1);
    let state = || database.resources(id).expect("read")[0].state;
    database
        .want(id, std::slice::from_ref(&domain))
        .expect("recorded");
    assert_eq!(
        database.resources(id).expect("read"),
        std::slice::from_ref(&domain)
    );
    let begun = database.begin_making(id, &domain).expect("recorded");
    assert_eq!(state(), ResourceState::Planned);
    database
        .failed(id, &domain.key, begun, "no room")
        .expect("recorded");
    assert_eq!(state(), ResourceState::Planned);
    let begun = database.begin_making(id, &domain).expect("recorded");
    let made = Made {
        handle: Some("7".to_owned()),
        reached_at: Some([192, 168, 9, 1].into()),
    };
    database
        .made(id, &domain.key, begun, &made)
        .expect("recorded");
    let read = &database.resources(id).expect("read")[0];
    assert_eq!(read.state, ResourceState::Made);
    assert_eq!(
        (&read.handle, read.reached_at),
        (&made.handle, made.reached_at)
    );
    assert_eq!(read.error, None);
    let node = domain.node();
    let begun = database
        .begin_removing(id, &domain.key, node, 1)
        .expect("recorded");
    assert_eq!(state(), ResourceState::Removing);
    database.removed(id, &domain.key, begun).expect("recorded");
    assert!(database.resources(id).expect("read").is_empty());

    let next = record(domain.key.clone(), 2);
    database
        .want(id, std::slice::from_ref(&next))
        .expect("recorded");
    assert_eq!(
        database.resources(id).expect("read"),
        [next],
        "its handle is another"
    );
    let journal = database.journal(id).expect("read");
    let told: Vec<_> = journal
        .iter()
        .map(|l| (l.verb, l.error.as_deref()))
        .collect();
    let expected = [
        (Verb::Make, Some("no room")),
        (Verb::Make, None),
        (Verb::Remove, None),
    ];
    assert_eq!(told, expected);
}

#[test]
fn a_token_is_the_same_for_every_try_and_another_for_anything_else() {
    let one = token("uid", &key("domain", "a"), 1);
    assert_eq!(one, token("uid", &key("domain", "a"), 1));
    assert_eq!(one.len(), 32);
    let others = [
        token("uie", &key("domain", "a"), 1),
        token("uid", &key("domaina", ""), 1),
        token("uid", &key("domain", "a"), 2),
    ];
    assert!(!others.contains(&one));
}

#[test]
fn an_action_on_what_is_not_recorded_is_refused() {
    let (_dir, database) = open();
    let id = database.create(&new("demo"), UNIX_EPOCH).expect("recorded");
    let domain = record(key("domain", "x"), 1);
    database
        .begin_making(id, &domain)
        .expect_err("never recorded");
    assert!(database.journal(id).expect("read").is_empty());
}

#[test]
fn a_database_of_version_1_keeps_everything_that_destroy_must_know() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let path = dir.path().join("state.db");
    let raw = Connection::open(&path).expect("opens");
    raw.execute_batch(schema::STEPS[0]).expect("version 1");
    raw.pragma_update(None, "user_version", 1).expect("set");
    raw.execute_batch(
        "INSERT INTO deployments VALUES
             (7, 'demo', 1800000000, NULL, 'joined', 'demo.ipop', '10.200.7.0/24', 'fd00::/64', '{}');
         INSERT INTO nodes VALUES
             (7, 'frontend-0', 'frontend', 'local', '10.200.7.1', 'fd00::1', 'ssh-ed25519 A', NULL),
             (7, 'worker-0', 'worker', 'local', '10.200.7.2', 'fd00::2', NULL, NULL);
         INSERT INTO stages VALUES (7, 'worker-0', 'ready', 9.5);
         INSERT INTO resources VALUES
             (7, 'files', NULL, 'directory', '/x', 'planned'),
             (7, 'site local', NULL, 'network', 'demo', 'made'),
             (7, 'rendezvous', NULL, 'process', 'demo', 'made'),
             (7, 'rendezvous', 'worker-0', 'account', 'worker-0', 'made'),
             (7, 'site local', 'frontend-0', 'domain', 'f', 'made'),
             (7, 'site local', 'worker-0', 'volume', 'w', 'made'),
             (7, 'site local', 'worker-0', 'domain', 'w', 'planned');",
    )
    .expect("filled");
    drop(raw);

    let database = Database::open(&path).expect("upgraded");
    let deployment = database.deployment("demo").expect("read").expect("there");
    assert_eq!((deployment.id, deployment.phase), (7, Phase::Joined));
    assert_eq!(deployment.uid.len(), 16);
    assert_eq!(deployment.owner, database.owner());
    let nodes = database.nodes(7).expect("read");
    assert_eq!(nodes[1].stages, [(Stage::Ready, 9.5)]);
    assert_eq!((nodes[0].slot, nodes[1].slot), (0, 1));
    assert_eq!(nodes[0].image, "frontend");
    assert!(
        nodes
            .iter()
            .all(|n| n.wanted && n.attempt == 1 && n.memory_mib == 512)
    );

    let records = database.resources(7).expect("read");
    assert_eq!(records.len(), 7);
    let domain = &records[6];
    assert_eq!(domain.state, ResourceState::Planned);
    assert_eq!(domain.node(), Some(&nodes[1].name));
    let after: Vec<_> = domain
        .after
        .iter()
        .map(|k| k.resource.kind.as_str())
        .collect();
    assert_eq!(
        after,
        ["directory", "network", "process", "account", "volume"]
    );
    database
        .create(&new("demo"), UNIX_EPOCH)
        .expect_err("the name is still taken");
    database.bury(7, UNIX_EPOCH).expect("buried");
    assert!(database.nodes(7).expect("read").is_empty());
}

#[test]
fn who_was_not_told_the_newest_rules_is_known_with_those_that_it_has() {
    let (_dir, database) = open();
    let mut two = new("demo");
    two.nodes.push(NodeRecord {
        name: NodeName("worker-1".to_owned()),
        slot: 4,
        ..two.nodes[0].clone()
    });
    let id = database.create(&two, UNIX_EPOCH).expect("recorded");
    let names: Vec<_> = database
        .nodes(id)
        .expect("read")
        .into_iter()
        .map(|n| n.name)
        .collect();
    let [first, second, ..] = &names[..] else {
        panic!("two nodes: {names:?}");
    };
    let rules = crate::plan::tests::rules();
    let older = || database.older_rules(id).expect("read");
    assert!(older().is_empty());
    database
        .set_rules(id, "{\"new\":1}", &rules)
        .expect("recorded");
    let settings = database
        .deployment("demo")
        .expect("read")
        .expect("there")
        .settings;
    assert_eq!(settings, "{\"new\":1}");
    assert_eq!(older().len(), names.len());
    assert_eq!(older()[first], rules);
    // Who was told has those that were newest then; others have still older ones.
    database.has_newest_rules(id, first).expect("recorded");
    database.set_rules(id, "{}", &[]).expect("recorded");
    assert_eq!(older()[first], []);
    assert_eq!(older()[second], rules);
    // A machine that is made anew is given the newest.
    database.replace_node(id, second).expect("recorded");
    assert!(!older().contains_key(second));
}

#[test]
fn a_database_of_a_later_version_is_refused() {
    let (dir, database) = open();
    drop(database);
    let path = dir.path().join("state.db");
    let raw = Connection::open(&path).expect("opens");
    raw.pragma_update(None, "user_version", 99).expect("set");
    let error = Database::open(&path).expect_err("too new");
    assert!(error.to_string().contains("has version 99"), "{error}");
}

#[test]
fn a_file_that_is_no_database_is_named() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let path = dir.path().join("state.db");
    std::fs::write(&path, "not a database at all, but long enough to be one").expect("written");
    let error = Database::open(&path).expect_err("defective");
    assert!(error.to_string().contains("state.db"), "{error}");
}

#[test]
fn only_its_owner_reads_the_database_also_one_of_an_earlier_version() {
    let modes = |dir: &Path| {
        let mut files: Vec<_> = std::fs::read_dir(dir)
            .expect("a directory")
            .map(|entry| {
                let entry = entry.expect("an entry");
                let mode = entry.metadata().expect("metadata").permissions().mode();
                (entry.file_name().into_string().expect("text"), mode & 0o777)
            })
            .collect();
        files.sort();
        files
    };
    let private = ["state.db", "state.db-shm", "state.db-wal"].map(|n| (n.to_owned(), 0o600));
    let (dir, database) = open();
    database
        .create(&new("demo"), SystemTime::now())
        .expect("recorded");
    assert_eq!(modes(dir.path()), private);

    for (name, _) in &private {
        std::fs::set_permissions(dir.path().join(name), Permissions::from_mode(0o644))
            .expect("set");
    }
    let again = Database::open(&dir.path().join("state.db")).expect("opens");
    assert_eq!(modes(dir.path()), private);
    assert!(again.deployment("demo").expect("read").is_some());
}
