//! A whole virtual cluster under real libvirt, ejabberd and NFS, looked at from outside the
//! product: by `virsh`, `ps`, `ss`, `findmnt` and the files that are there.
//!
//! Needs root, a running libvirt, and the binaries `scripts/test` builds.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
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

    jobs_run_on_workers(&outside);
    the_example_finds_the_two_states_of_a_lake(&outside);

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
    assert_eq!(members.len(), 3);
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

    workers_are_drained_before_they_go(&outside);

    // --- Destroyed is gone, and twice is no error.
    let server = outside.rendezvous_server_pid();
    outside.provision(&["destroy", name]).expect_code(0);
    outside.assert_nothing_left();
    assert!(!outside.alive(server), "ejabberd {server} still runs");
    outside.provision(&["destroy", name]).expect_code(0);
}

/// Names one start of a machine; none while it is not reached.
fn boot_id(outside: &Outside, node: &str) -> Option<String> {
    let run = outside.try_on(node, "cat /proc/sys/kernel/random/boot_id");
    (run.code == Some(0)).then_some(run.stdout)
}

/// That nodes have joined means that they run jobs, those of users of the front end too.
fn jobs_run_on_workers(outside: &Outside) {
    let names = outside.on(
        "frontend-0",
        "srun -N2 hostname | sort && srun -C annex hostname",
    );
    assert_eq!(names, "worker-0\nworker-1\nworker-1\n");

    outside.on("frontend-0", "useradd ann");
    for worker in ["worker-0", "worker-1"] {
        wait_until("a worker to know the user", Duration::from_secs(90), || {
            (outside.try_on(worker, "id ann").code == Some(0)).then_some(())
        });
    }
    outside.on(
        "frontend-0",
        "su - ann -c \"sbatch --quiet --wait --array=1-4 --output=result-%a --wrap 'id -un; hostname'\"",
    );
    let results = "cd /export/home/ann && stat --format %U result-? && cat result-?";
    let results = outside.on("frontend-0", results);
    let lines: Vec<_> = results.lines().collect();
    let count = |what: &str| lines.iter().filter(|l| l.starts_with(what)).count();
    assert_eq!((count("ann"), count("worker-")), (8, 4), "{results}");

    // The key is on the worker, and for no user.
    outside.on(
        "worker-0",
        "test -s /etc/munge/munge.key -a -s /srv/cluster/munge.key",
    );
    let as_ann = "setpriv --reuid=ann --regid=ann --clear-groups";
    outside.on("worker-0", &format!("{as_ann} test -r /home/ann/result-1"));
    for path in [
        "/etc/munge/munge.key",
        "/srv/cluster/munge.key",
        "/srv/cluster",
    ] {
        let read = outside.try_on("worker-0", &format!("{as_ann} test -r {path}"));
        assert_eq!(
            read.code,
            Some(1),
            "{path} is readable by a user of worker-0"
        );
    }
    let shadow = outside.try_on(
        "worker-0",
        "grep ann /srv/cluster/* /var/lib/extrausers/* | grep -v :x:",
    );
    assert_eq!(shadow.stdout, "", "more than names is published");

    for (node, port) in [("frontend-0", 6817), ("worker-0", 6818)] {
        let underlay = outside.underlay_address(node);
        assert!(
            !outside.tcp_open(&underlay, port),
            "Slurm answers on the underlay at {underlay}:{port}"
        );
        let listeners = outside.on(
            node,
            &format!("ss -Hltn 'sport = :{port}' | awk '{{print $4}}'"),
        );
        let overlay = outside.on(node, ". /run/ipop/env; echo $IPOP_ADDR4");
        assert_eq!(listeners.trim(), format!("{}:{port}", overlay.trim()));
    }
}

/// `examples/shallow-lake`, with what it says compared with the model as it is written here.
fn the_example_finds_the_two_states_of_a_lake(outside: &Outside) {
    let example = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/shallow-lake");
    let tar = Command::new("tar")
        .args(["-c", "-C", example, "."])
        .output();
    let tar = tar.expect("`tar` runs");
    assert!(tar.status.success(), "{tar:?}");
    outside.write_on("frontend-0", "/root/example.tar", &tar.stdout);
    outside.on(
        "frontend-0",
        "install -d /opt/lake && tar -x -C /opt/lake -f /root/example.tar",
    );
    let figure = outside.on(
        "frontend-0",
        "su - ann -c \"cd /opt/lake && ./prepare /export/lake 4 16 && \
         sbatch --quiet --wait --array=1-4 job /share/lake && \
         awk -f plot.awk /export/lake/results/*\"",
    );
    assert_eq!(figure.matches("class=\"state\"").count(), 32, "{figure}");
    for site in [">local</text>", ">annex</text>"] {
        assert!(figure.contains(site), "{figure}");
    }
    let results = outside.on("frontend-0", "cat /export/lake/results/*");
    let (by, states): (Vec<_>, Vec<_>) = results.lines().partition(|line| line.starts_with('#'));
    for worker in ["# worker-0 at local", "# worker-1 at annex"] {
        assert!(by.contains(&worker), "{by:?}");
    }
    let states = states.iter().map(|line| {
        let numbers = line.split(' ').map(|word| word.parse().expect("a number"));
        <[f64; 3]>::try_from(numbers.collect::<Vec<_>>()).expect("three numbers")
    });
    let mut stays_clear = [0, 0];
    for [load, start, found] in states {
        let mut state = start;
        for _ in 0..1000 {
            let recycled = state * state / (1.0 + state * state);
            state += load - 0.42 * state + recycled;
        }
        assert!(
            (state - found).abs() < 1e-5,
            "{load} {start}: {found}, not {state}"
        );
        stays_clear[usize::from(start > 1.0)] += i32::from(found < 1.0);
    }
    assert_eq!(stays_clear, [7, 0], "what was clear and what was turbid");
}

/// The last worker goes: not while a job runs there, then by force; Slurm forgets it.
fn workers_are_drained_before_they_go(outside: &Outside) {
    let name = outside.name.as_str();
    outside.on(
        "frontend-0",
        "sbatch --quiet --nodelist=worker-1 --wrap 'sleep 3600'",
    );
    wait_until("the job to run", Duration::from_secs(120), || {
        let jobs = outside.on("frontend-0", "squeue --noheader --states=running");
        jobs.contains("worker-1").then_some(())
    });
    let scale = [
        "scale",
        name,
        "--workers",
        "-1",
        "--drain-timeout",
        "1s",
        "--json",
    ];
    let refused = outside.provision(&scale);
    refused.expect_code(5);
    assert!(refused.stderr.contains("worker-1"), "{}", refused.stderr);
    let state = outside.on(
        "frontend-0",
        "sinfo --noheader --nodes=worker-1 --format %T",
    );
    assert_eq!(state.trim(), "allocated", "it takes jobs again");
    outside
        .provision(&[&scale[..], &["--force"]].concat())
        .expect_code(0);
    let nodes = outside.on("frontend-0", "sinfo --noheader --Node --format %N");
    assert_eq!(nodes.trim(), "worker-0");
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
    a_person_joins_uses_the_share_and_is_removed(&outside);
    outside.provision(&["destroy", name]).expect_code(0);
    outside.assert_nothing_left();
}

/// What a person's machine does: `worker-0`, whose own node stops meanwhile, and with it the way by
/// which it is reached.
const PERSON: &str = r#"
exec >/run/person.log 2>&1
systemctl stop ipop-role-check ipop-share ipop-node
ipop-node join - </run/invitation && ipop-node status
mount -t nfs4 -o vers=4.2 FRONTEND:/export /mnt && echo "from alice" >/mnt/from-alice && umount /mnt
until ! ipop-node status --json | grep -q '"state": "up"'; do sleep 1; done
echo removed
ipop-node leave NAME
systemctl start ipop-node ipop-share ipop-role-check
"#;

fn a_person_joins_uses_the_share_and_is_removed(outside: &Outside) {
    let name = outside.name.as_str();
    let frontend4 = outside.on("frontend-0", ". /run/ipop/env; echo $IPOP_ADDR4");
    let user = |args: &[&str]| {
        let run = outside.provision(&[&["user"], args, &["--json"]].concat());
        run.expect_code(0).json_lines().pop().expect("a result")
    };
    let invited = user(&["invite", name, "alice", "--machine", "laptop"]);
    let twice = outside.provision(&["user", "invite", name, "alice", "--machine", "laptop"]);
    twice.expect_code(4);
    assert!(twice.stderr.contains("--again"), "{}", twice.stderr);
    let token = invited["token"].as_str().expect("an invitation");
    outside.write_on("worker-0", "/run/invitation", token);
    let script = PERSON
        .replace("FRONTEND", frontend4.trim())
        .replace("NAME", name);
    outside.write_on("worker-0", "/run/person", &script);
    outside.on("worker-0", "systemd-run --quiet sh /run/person");

    wait_until(
        "alice's file on the share",
        Duration::from_secs(240),
        || {
            let run = outside.try_on("frontend-0", "cat /export/from-alice");
            (run.stdout.trim() == "from alice").then_some(())
        },
    );
    let members = user(&["list", name]);
    let member = &members["members"][0];
    assert_eq!(
        (&member["machine"], &member["state"]),
        (&"alice-laptop".into(), &"online".into()),
        "{members}"
    );
    let addr = member["ipv4"].as_str().expect("an address").to_owned();
    outside.on("frontend-0", &format!("ping -c 1 -W 5 {addr}"));

    // Out at once, and forgotten by everybody.
    user(&["remove", name, "alice"]);
    let listed = user(&["list", name]);
    assert_eq!(listed["members"].as_array().map(Vec::len), Some(0));
    let log = wait_until(
        "worker-0 to be itself again",
        Duration::from_secs(240),
        || {
            let run = outside.try_on("worker-0", "cat /run/person.log && findmnt /share");
            (run.code == Some(0)).then_some(run.stdout)
        },
    );
    for said in [
        format!("this machine is `alice-laptop` in `{name}`"),
        "\nremoved\n".to_owned(),
        format!("this machine is no member of `{name}` any more"),
    ] {
        assert!(log.contains(&said), "no {said:?} in: {log}");
    }
    let lost = outside.on("frontend-0", "ipop-node status --json");
    assert!(!lost.contains("alice-laptop"), "{lost}");
    let used = outside.try_on("frontend-0", &format!("ping -c 1 -W 2 {addr}"));
    assert_ne!(used.code, Some(0), "what alice had still answers");
}
