use super::*;

fn new(name: &str) -> NewDeployment {
    NewDeployment {
        name: name.to_owned(),
        domain: format!("{name}.ipop"),
        net4: "10.200.7.0/24".to_owned(),
        net6: "fd00:1:2:3::/64".to_owned(),
        settings: "{}".to_owned(),
        nodes: vec![NodeRecord {
            name: NodeName("worker-0".to_owned()),
            role: "worker".to_owned(),
            site: "local".to_owned(),
            ipv4: "10.200.7.2".to_owned(),
            ipv6: "fd00:1:2:3::2".to_owned(),
            host_key: None,
            underlay: None,
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
    let nodes = database.nodes(id).expect("read");
    assert_eq!(
        nodes[0].stages,
        [(Stage::Created, 1.5), (Stage::Ready, 9.5)]
    );
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

#[test]
fn a_resource_is_known_from_before_it_is_made_until_it_is_removed() {
    let (_dir, database) = open();
    let id = database.create(&new("demo"), UNIX_EPOCH).expect("recorded");
    let owner = Owner::Site("local".to_owned());
    let resource = Resource {
        kind: "domain".to_owned(),
        id: "ipop-demo-worker-0".to_owned(),
    };
    let node = NodeName("worker-0".to_owned());
    database
        .plan_resource(id, &owner, Some(&node), &resource)
        .expect("recorded");
    assert!(!database.resources(id).expect("read")[0].made);
    database.made(id, &owner, &resource).expect("recorded");
    let records = database.resources(id).expect("read");
    assert!(records[0].made);
    assert_eq!((&records[0].owner, &records[0].node), (&owner, &Some(node)));
    database.removed(id, &owner, &resource).expect("recorded");
    assert!(database.resources(id).expect("read").is_empty());
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
