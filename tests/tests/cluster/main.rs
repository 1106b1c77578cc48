//! A whole virtual cluster under real libvirt, ejabberd and NFS, looked at from outside the
//! product: by `virsh`, `ps`, `ss`, `findmnt` and the files that are there.
//!
//! Needs root, a running libvirt, and the binaries `scripts/test` builds.

mod jobs;
mod person;

use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::time::{Duration, Instant};

use ipop_tests::outside::{Outside, virsh};
use ipop_tests::wait_until;

#[test]
fn a_cluster_joins_is_used_survives_faults_and_leaves_nothing_behind() {
    let outside = Outside::new("vmtest");
    let name = outside.name.as_str();

    // --- One command, and its report is true.
    let run = outside.provision(&[
        "cluster",
        "--name",
        name,
        "--frontend",
        "1@local",
        "--workers",
        "1@local",
        "--workers",
        "1:scratch@annex",
        "--scheduler",
        "slurm",
        "--json",
    ]);
    run.expect_code(0);
    let events = run.json_lines();
    for node in ["frontend-0", "worker-0", "worker-1"] {
        let stages: Vec<&str> = events
            .iter()
            .filter(|e| e["event"] == "stage" && e["node"] == node)
            .filter_map(|e| e["stage"].as_str())
            .collect();
        assert_eq!(
            stages,
            ["image", "created", "booted", "signed-in", "linked", "ready"],
            "stages of {node}"
        );
    }
    let result = events.last().expect("a result");
    assert_eq!(
        (&result["event"], &result["joined"]),
        (&"result".into(), &true.into()),
        "{result}"
    );
    assert!(
        result["nodes"][1]["rtt_us"]
            .as_u64()
            .is_some_and(|rtt| rtt > 0),
        "{result}"
    );
    let mut accounts: Vec<String> = serde_json::from_value(
        outside.rendezvous_api("registered_users", &format!(r#"{{"host":"{name}.ipop"}}"#)),
    )
    .expect("names");
    accounts.sort();
    assert_eq!(
        accounts,
        ["frontend-0", "provision", "worker-0", "worker-1"]
    );
    let online = outside.rendezvous_api("connected_users", "{}");
    let online: Vec<String> = serde_json::from_value(online).expect("JIDs");
    for node in ["frontend-0", "worker-0", "worker-1"] {
        assert!(
            online
                .iter()
                .any(|jid| jid.starts_with(&format!("{node}@{name}.ipop/"))),
            "{online:?}"
        );
    }
    let domains = virsh(&["list", "--name"]);
    for node in ["frontend-0", "worker-0", "worker-1"] {
        assert!(
            domains.lines().any(|d| d == format!("ipop-{name}-{node}")),
            "{domains}"
        );
    }

    // --- A share is made while the cluster is looked at.
    let share = format!("{name}/lake-data");
    let create = ["share", "create", &share, "--on", "local", "--size", "1G"];
    let share = outside
        .provision_command(&[&create[..], &["--members", "group:cluster"]].concat())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("provision starts");

    // --- The nodes themselves agree.
    let status = outside.node_status("worker-0");
    assert_eq!(status["sign_in"]["state"], "online");
    let frontend = outside.peer_of(&status, "frontend-0");
    assert_eq!(frontend["link"]["state"], "up", "{status:#}");
    let frontend4 = frontend["addrs"]["ipv4"]
        .as_str()
        .expect("address")
        .split('/')
        .next()
        .expect("address")
        .to_owned();
    let frontend6 = frontend["addrs"]["ipv6"]
        .as_str()
        .expect("address")
        .split('/')
        .next()
        .expect("address")
        .to_owned();
    for worker in ["worker-0", "worker-1"] {
        assert_eq!(outside.on(worker, "hostname").trim(), worker);
        outside.on(
            worker,
            &format!("ping -c 3 -W 5 {frontend4} && ping -c 3 -W 5 {frontend6}"),
        );
    }

    // --- Members have names, by the machine's own resolver.
    let found = outside.on("worker-0", &format!("getent ahosts frontend-0.{name}.ipop"));
    assert!(
        found.contains(&frontend4) && found.contains(&frontend6),
        "{found}"
    );
    // Of the front end the worker has another name by itself, for the scheduler.
    let other = result["nodes"][2]["ipv4"].as_str().expect("address");
    let (other, _) = other.split_once('/').unwrap_or((other, ""));
    let found = outside.on("worker-0", &format!("getent hosts {other}"));
    assert!(found.contains(&format!("worker-1.{name}.ipop")), "{found}");
    let nobody = outside.try_on("worker-0", &format!("getent hosts worker-7.{name}.ipop"));
    assert_eq!(nobody.code, Some(2), "it finds nobody by that name");

    // --- A role of the user's own, the one that the documentation shows.
    assert_eq!(result["nodes"][2]["role"], "scratch", "{result}");
    let scratch = "findmnt -n -o FSTYPE /scratch && cat /etc/motd";
    let scratch = outside.on("worker-1", scratch);
    let said = format!("tmpfs\nworker-1 of {name}, at annex (");
    assert!(scratch.starts_with(&said), "{scratch}");
    let plain = outside.try_on("worker-0", "findmnt /scratch");
    assert_ne!(plain.code, Some(0), "worker-0 has the other's role");

    // --- The share is NFSv4.2 over the overlay, and only there.
    let mount = outside.on("worker-0", "findmnt -n -o FSTYPE,SOURCE,OPTIONS /share");
    assert!(
        mount.contains("nfs4") && mount.contains("vers=4.2"),
        "{mount}"
    );
    assert!(
        mount.contains(&frontend4) || mount.contains(&frontend6),
        "{mount}"
    );
    outside.on(
        "worker-0",
        "echo 'lake data' > /share/from-worker-0 && sync -f /share",
    );
    assert_eq!(
        outside.on("worker-1", "cat /share/from-worker-0").trim(),
        "lake data"
    );
    assert_eq!(
        outside.on("frontend-0", "cat /export/from-worker-0").trim(),
        "lake data"
    );
    let underlay = outside.underlay_address("frontend-0");
    assert!(
        outside.tcp_open(&underlay, 22),
        "the jump host does not answer at {underlay}"
    );
    let worker = outside.underlay_address("worker-0");
    assert!(
        !outside.tcp_open(&worker, 22),
        "a worker's ssh answers on the underlay"
    );
    assert!(
        !outside.tcp_open(&underlay, 2049),
        "NFS answers on the underlay at {underlay}"
    );
    let listeners = outside.on("frontend-0", "ss -Hltn 'sport = :2049'");
    assert!(!listeners.trim().is_empty(), "nfsd does not listen");
    assert!(
        listeners
            .lines()
            .all(|l| l.contains(&frontend4) || l.contains(&frontend6)),
        "nfsd listens beyond the overlay: {listeners}"
    );
    let services = outside.on("frontend-0", "ss -Hltun | awk '{print $5}'");
    assert!(
        !services.lines().any(|l| l.ends_with(":111")),
        "rpcbind listens: {services}"
    );

    jobs::jobs_run_on_workers(&outside);
    let created = share.wait_with_output().expect("provision ends");
    assert!(created.status.success(), "{created:?}");
    jobs::the_example_finds_the_two_states_of_a_lake(&outside);
    jobs::mpi_spans_the_sites(&outside);

    // --- No secret where others can read it.
    outside.assert_no_secret_on_command_lines();

    // --- A worker that restarts is what it was, as soon as it is up. Until it is, others are seen to.
    let boot = boot_id(&outside, "worker-0").expect("worker-0 answers");
    outside.try_on("worker-0", "systemctl reboot");

    // --- A killed node comes back by itself, and says so.
    let before = outside.on("worker-1", "systemctl show -p NRestarts --value ipop-node");
    assert_eq!(before.trim(), "0");
    outside.on("worker-1", "systemctl kill -s KILL ipop-node.service; true");
    wait_until(
        "ipop-node on worker-1 to be started again",
        Duration::from_secs(180),
        || {
            let run = outside.try_on("worker-1", "systemctl show -p NRestarts --value ipop-node");
            (run.code == Some(0) && run.stdout.trim() == "1").then_some(())
        },
    );
    wait_until("worker-1 to link again", Duration::from_secs(180), || {
        let status = outside.node_status_if_reachable("frontend-0")?;
        let peer = outside.peer_of(&status, "worker-1");
        (peer["link"]["state"] == "up").then_some(())
    });
    assert_eq!(
        outside.on("worker-1", "cat /share/from-worker-0").trim(),
        "lake data"
    );

    wait_until("worker-0 to be up again", Duration::from_secs(300), || {
        boot_id(&outside, "worker-0").filter(|now| *now != boot)
    });
    let again = outside.on(
        "frontend-0",
        "timeout 300 srun --nodelist=worker-0 hostname",
    );
    assert_eq!(again.trim(), "worker-0");
    assert_eq!(
        outside.on(
            "worker-0",
            "cat /share/from-worker-0 && stat --format %U /home/ann"
        ),
        "lake data\nann\n"
    );

    // --- A killed rendezvous is started again, and traffic does not stop meanwhile.
    let before = outside.rendezvous_server_pid();
    outside.kill(before);
    assert_eq!(
        outside.on("worker-0", "cat /share/from-worker-0").trim(),
        "lake data"
    );
    wait_until(
        "the rendezvous to be started again",
        Duration::from_secs(120),
        || {
            let now = outside.rendezvous_server_pid_if_any()?;
            (now != before).then_some(())
        },
    );
    wait_until(
        "worker-0 to sign in again",
        Duration::from_secs(180),
        || {
            let status = outside.node_status_if_reachable("worker-0")?;
            (status["sign_in"]["state"] == "online").then_some(())
        },
    );

    // --- Status and logs say what is there.
    let status = || {
        let status = outside.provision(&["status", name, "--json"]);
        status.expect_code(0).json_lines().pop().expect("an object")
    };
    // A node that was started again is told by its role when that was looked at next.
    let members = wait_until("every role to be ready", Duration::from_secs(120), || {
        let members = status()["members"].as_array().expect("members").clone();
        members
            .iter()
            .all(|m| m["now"] == "ready")
            .then_some(members)
    });
    assert_eq!(members.len(), 4, "with the share");
    for member in &members {
        assert_eq!(member["machine"], "running", "{member}");
    }
    let logs = outside.provision(&["logs", &format!("{name}/worker-0")]);
    logs.expect_code(0);
    for mark in ["Welcome to Debian GNU/Linux 13", "ipop: booted", "link up"] {
        assert!(
            logs.stdout.contains(mark),
            "no `{mark}` in: {}",
            logs.stdout
        );
    }
    let image = outside.provision(&["image", "build", "worker"]);
    image.expect_code(0);
    assert!(
        !image.stderr.contains("packages"),
        "the image was built again: {}",
        image.stderr
    );
    outside
        .provision(&["site", "check", "local"])
        .expect_code(0);
    outside
        .provision(&["ssh", &format!("{name}/worker-0"), "--", "exit 7"])
        .expect_code(7);
    outside
        .provision(&[
            "cluster",
            "--name",
            name,
            "--frontend",
            "1@local",
            "--workers",
            "1@local",
        ])
        .expect_code(4);

    jobs::workers_are_drained_before_they_go(&outside);
    jobs::an_elastic_worker_comes_for_a_job_and_goes(&outside);

    // --- Destroyed is gone, and twice is no error.
    let server = outside.rendezvous_server_pid();
    outside
        .provision(&["destroy", name, "--delete-data"])
        .expect_code(0);
    outside.assert_nothing_left();
    assert!(!outside.alive(server), "ejabberd {server} still runs");
    outside.provision(&["destroy", name]).expect_code(0);
}

/// Names one start of a machine; none while it is not reached.
fn boot_id(outside: &Outside, node: &str) -> Option<String> {
    let run = outside.try_on(node, "cat /proc/sys/kernel/random/boot_id");
    (run.code == Some(0)).then_some(run.stdout)
}

#[test]
fn a_worker_that_does_not_boot_is_named_and_joins_when_it_does() {
    let outside = Outside::new("vmstuck");
    let name = outside.name.as_str();
    let mut child = outside
        .provision_command(&[
            "cluster",
            "--name",
            name,
            "--frontend",
            "1@local",
            "--workers",
            "1@local",
            "--timeout",
            "60s",
            "--json",
        ])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("provision starts");
    let mut created = None;
    for line in BufReader::new(child.stdout.take().expect("piped")).lines() {
        let line = line.expect("text");
        let event: serde_json::Value = serde_json::from_str(&line).expect("one JSON value a line");
        if event["event"] == "stage" && event["stage"] == "created" && event["node"] == "worker-0" {
            virsh(&["suspend", &format!("ipop-{name}-worker-0")]);
            created = Some(Instant::now());
        }
    }
    let output = child.wait_with_output().expect("provision ends");
    let created = created.expect("worker-0 was created");
    assert!(
        created.elapsed() < Duration::from_secs(120),
        "took {:?}",
        created.elapsed()
    );
    assert_eq!(output.status.code(), Some(7));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(
        stderr.contains("worker-0") && stderr.contains("created"),
        "{stderr}"
    );

    virsh(&["resume", &format!("ipop-{name}-worker-0")]);
    outside.provision(&["resume", name]).expect_code(0);
    person::a_person_joins_uses_the_share_and_is_removed(&outside);
    outside.provision(&["destroy", name]).expect_code(0);
    outside.assert_nothing_left();
}
