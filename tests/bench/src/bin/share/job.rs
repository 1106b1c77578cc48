//! What is done on the mounted share: the commands, and what they came to. Pure: runs nothing.

use serde_json::Value;

/// Where the share is mounted on the client.
pub const MOUNTED: &str = "/mnt/bench-share";

/// What fio reads and writes, in MiB. It is there before, so that nothing is allocated while it is
/// measured.
pub const FILE_MIB: u32 = 64;

/// What a rate counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// MiB in a second.
    Mebibytes,
    /// Operations in a second.
    Operations,
}

impl Unit {
    /// For heads of tables.
    pub fn shown(self) -> &'static str {
        match self {
            Self::Mebibytes => "MiB/s",
            Self::Operations => "1/s",
        }
    }
}

/// One of fio's jobs.
#[derive(Debug, Clone, Copy)]
pub struct Job {
    /// Name in files.
    pub name: &'static str,
    /// Name in reports.
    pub title: &'static str,
    /// What fio calls the direction.
    pub rw: &'static str,
    /// Size of an operation.
    pub block: &'static str,
    /// How many at once.
    pub depth: u32,
}

impl Job {
    const fn new(
        name: &'static str,
        title: &'static str,
        rw: &'static str,
        block: &'static str,
        depth: u32,
    ) -> Self {
        Self {
            name,
            title,
            rw,
            block,
            depth,
        }
    }

    /// What its rate counts.
    pub fn unit(&self) -> Unit {
        if self.rw.starts_with("rand") {
            Unit::Operations
        } else {
            Unit::Mebibytes
        }
    }

    /// The command on the client; writes fio's report as JSON.
    pub fn command(&self, seconds: u32) -> String {
        let Self {
            rw, block, depth, ..
        } = self;
        format!(
            "fio --name=job --directory={MOUNTED} --filename=data --size={FILE_MIB}M --direct=1 \
             --ioengine=libaio --rw={rw} --bs={block} --iodepth={depth} --randrepeat=1 --time_based \
             --runtime={seconds} --end_fsync=1 --output-format=json --output=/run/fio.json >/run/fio.log 2>&1 \
             || {{ cat /run/fio.log /run/fio.json; exit 1; }}\ncat /run/fio.json"
        )
    }

    /// The rate in fio's report.
    pub fn rate(&self, report: &str) -> Option<f64> {
        let report: Value = serde_json::from_str(report.trim()).ok()?;
        let direction = if self.rw.ends_with("read") {
            "read"
        } else {
            "write"
        };
        let (key, scale) = match self.unit() {
            Unit::Mebibytes => ("bw_bytes", f64::from(1 << 20)),
            Unit::Operations => ("iops", 1.0),
        };
        let rate = report
            .pointer(&format!("/jobs/0/{direction}/{key}"))?
            .as_f64()?;
        (rate > 0.0).then_some(rate / scale)
    }
}

/// fio's jobs, in their order.
pub const JOBS: [Job; 6] = [
    Job::new("write", "sequential write, 1 MiB", "write", "1M", 1),
    Job::new("read", "sequential read, 1 MiB", "read", "1M", 1),
    Job::new(
        "randread-1",
        "random read, 4 KiB, depth 1",
        "randread",
        "4k",
        1,
    ),
    Job::new(
        "randread-8",
        "random read, 4 KiB, depth 8",
        "randread",
        "4k",
        8,
    ),
    Job::new(
        "randwrite-1",
        "random write, 4 KiB, depth 1",
        "randwrite",
        "4k",
        1,
    ),
    Job::new(
        "randwrite-8",
        "random write, 4 KiB, depth 8",
        "randwrite",
        "4k",
        8,
    ),
];

/// What is done to many files, in its order: name and title.
pub const PHASES: [(&str, &str); 4] = [
    ("create", "create an empty file"),
    ("stat", "stat a file"),
    ("rename", "rename a file"),
    ("delete", "delete a file"),
];

/// The loop over many files, as mdtest has it, and without a process for each file. What the client knows
/// of the files is dropped before it looks at them: otherwise it would not ask the server.
pub const FILES: &str = r#"import os, sys, time
folder, count = sys.argv[1], int(sys.argv[2])
names = [os.path.join(folder, "%06d" % number) for number in range(count)]

def phase(name, act):
    start = time.monotonic()
    for file in names:
        act(file)
    print(name, count / (time.monotonic() - start))

def create(file):
    os.close(os.open(file, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))

def forget():
    with open("/proc/sys/vm/drop_caches", "w") as caches:
        caches.write("3\n")

os.mkdir(folder)
phase("create", create)
forget()
phase("stat", os.stat)
phase("rename", lambda file: os.rename(file, file + ".new"))
phase("delete", lambda file: os.unlink(file + ".new"))
os.rmdir(folder)
"#;

/// The rate of each of [`PHASES`] in what [`FILES`] wrote.
pub fn phases(text: &str) -> Option<Vec<(&'static str, f64)>> {
    let rate = |name: &str| {
        let mut lines = text.lines().filter_map(|line| line.split_once(' '));
        lines
            .find(|(found, _)| *found == name)?
            .1
            .trim()
            .parse::<f64>()
            .ok()
    };
    PHASES
        .iter()
        .map(|(name, _)| Some((*name, rate(name)?)))
        .collect()
}

/// Round-trip times in what `ping` wrote, in milliseconds.
pub fn echoes(text: &str) -> Vec<f64> {
    let times = text.lines().filter_map(|line| line.split_once(" time="));
    times
        .filter_map(|(_, rest)| rest.split_whitespace().next()?.parse().ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_read_from_fios_report() {
        let report = r#"{"jobs":[{"jobname":"job","read":{"bw_bytes":3145728,"iops":3.0},
            "write":{"bw_bytes":0,"iops":0.0}}]}"#;
        let job = |name: &str| {
            JOBS.into_iter()
                .find(|job| job.name == name)
                .expect("a job")
        };
        assert_eq!(job("read").rate(report), Some(3.0));
        assert_eq!(job("randread-8").rate(report), Some(3.0));
        assert_eq!(job("write").rate(report), None, "nothing was written");
        assert_eq!(job("read").rate("fio: no such file"), None);
    }

    #[test]
    fn all_phases_must_have_a_rate() {
        let text = "create 10.5\nstat 20\nrename 30\ndelete 40\n";
        let rates = phases(text).expect("all");
        assert_eq!(
            rates,
            [
                ("create", 10.5),
                ("stat", 20.0),
                ("rename", 30.0),
                ("delete", 40.0)
            ]
        );
        assert_eq!(phases("create 10.5\nTraceback: no room\n"), None);
    }

    #[test]
    fn echoes_that_were_answered_have_a_time() {
        let text = "PING 10.0.0.1\n64 bytes from 10.0.0.1: icmp_seq=1 ttl=64 time=0.512 ms\n\
                    64 bytes from 10.0.0.1: icmp_seq=3 ttl=64 time=12 ms\n\n--- statistics ---\n";
        assert_eq!(echoes(text), [0.512, 12.0]);
    }
}
