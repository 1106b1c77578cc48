//! What the scheduler does: jobs at two sites, workers that are drained, workers that come for a job.

use std::process::Command;
use std::time::Duration;

use ipop_tests::outside::{Outside, virsh};
use ipop_tests::wait_until;

/// That nodes have joined means that they run jobs, those of users of the front end too.
pub fn jobs_run_on_workers(outside: &Outside) {
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
pub fn the_example_finds_the_two_states_of_a_lake(outside: &Outside) {
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
        "su - ann -c \"cd /opt/lake && ./prepare /shares/lake-data/sweep 4 16 && \
         sbatch --quiet --wait --array=1-4 job /shares/lake-data/sweep && \
         awk -f plot.awk /shares/lake-data/sweep/results/*\"",
    );
    assert_eq!(figure.matches("class=\"state\"").count(), 32, "{figure}");
    for site in [">local</text>", ">annex</text>"] {
        assert!(figure.contains(site), "{figure}");
    }
    let results = outside.on("lake-data", "cat /srv/share/sweep/results/*");
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
pub fn workers_are_drained_before_they_go(outside: &Outside) {
    let name = outside.name.as_str();
    // An elastic worker of the same name would get it otherwise, which comes later.
    outside.on(
        "frontend-0",
        "sbatch --quiet --no-requeue --nodelist=worker-1 --wrap 'sleep 3600'",
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
    // With a star while it is slow to answer.
    let state = state.trim().trim_end_matches('*');
    assert_eq!(state, "allocated", "it takes jobs again");
    outside
        .provision(&[&scale[..], &["--force"]].concat())
        .expect_code(0);
    let nodes = outside.on("frontend-0", "sinfo --noheader --Node --format %N");
    assert_eq!(nodes.trim(), "worker-0");
}

/// A job that no worker can take calls one, which goes when it was idle for long enough.
pub fn an_elastic_worker_comes_for_a_job_and_goes(outside: &Outside) {
    let name = outside.name.as_str();
    let scaled = outside.provision(&["scale", name, "--elastic", "1@annex", "--idle", "20s"]);
    scaled.expect_code(0);
    let elastic = || {
        let status = outside.provision(&["status", name, "--json"]);
        let lines = status.json_lines();
        lines.last().expect("a status")["elastic"].clone()
    };
    let named = elastic();
    let worker = named["workers"][0].as_str().expect("a planned worker");
    assert_eq!(named["present"], serde_json::json!([]), "{named}");
    let domain = format!("ipop-{name}-{worker}");
    let there = || virsh(&["list", "--all", "--name"]).contains(&domain);
    assert!(!there(), "nothing asks for it yet");

    let known = format!("sinfo --noheader --nodes={worker} --format %T");
    wait_until("Slurm to know it", Duration::from_secs(60), || {
        (outside.try_on("frontend-0", &known).stdout.trim() == "idle~").then_some(())
    });
    outside.on(
        "frontend-0",
        "su - ann -c \"sbatch --quiet -C elastic --output=elastic --wrap hostname\"",
    );
    wait_until("the worker's machine", Duration::from_secs(120), || {
        there().then_some(())
    });
    wait_until("the job on it", Duration::from_secs(300), || {
        let said = outside.try_on("frontend-0", "cat /export/home/ann/elastic");
        (said.stdout.trim() == worker).then_some(())
    });
    assert_eq!(elastic()["present"], serde_json::json!([worker]));
    wait_until("it to be gone again", Duration::from_secs(180), || {
        (!there()).then_some(())
    });
    wait_until("it to be forgotten", Duration::from_secs(60), || {
        (elastic()["present"] == serde_json::json!([])).then_some(())
    });
}

/// `examples/open-mpi`, with a program of Debian's that measures messages between two processes.
pub fn mpi_spans_the_sites(outside: &Outside) {
    let example = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/open-mpi");
    let dir = tempfile::tempdir().expect("a folder");
    let packed = dir.path().join("netpipe.tgz");
    let pack = Command::new(format!("{example}/pack"))
        .arg("NPopenmpi")
        .arg(&packed)
        .output();
    let pack = pack.expect("it runs");
    assert!(pack.status.success(), "{pack:?}");
    let packed = std::fs::read(packed).expect("what it packed");
    outside.write_on("frontend-0", "/export/netpipe.tgz", packed);
    let job = std::fs::read(format!("{example}/job")).expect("a script");
    outside.write_on("frontend-0", "/opt/open-mpi-job", job);
    outside.on(
        "frontend-0",
        "chmod a+r /export/netpipe.tgz /opt/open-mpi-job",
    );
    let submit = "sbatch --quiet --time 4 --output=mpi /opt/open-mpi-job /share/netpipe.tgz NPopenmpi -l 1 -u 1024 -n 5 -p 0";
    outside.on("frontend-0", &format!("su - ann -c '{submit}'"));
    wait_until("the MPI job to end", Duration::from_secs(300), || {
        let jobs = outside.try_on("frontend-0", "squeue --noheader --name open-mpi");
        (jobs.code == Some(0) && jobs.stdout.is_empty()).then_some(())
    });
    let said = outside.on("frontend-0", "cat /export/home/ann/mpi");
    for worker in ["worker-0", "worker-1"] {
        assert!(said.contains(worker), "{said}");
    }
    let measured = said.lines().filter(|line| line.contains("Mbps in"));
    assert!(measured.count() > 5, "{said}");
}
