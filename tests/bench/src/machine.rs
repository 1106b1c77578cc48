//! The machine that was measured on.

use std::process::Command;

use serde::{Deserialize, Serialize};

use crate::failure::run;

/// What a reader needs in order to compare.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Machine {
    /// UTC date.
    pub date: String,
    /// CPU model as the kernel names it.
    pub cpu: String,
    /// Processors that the kernel may use.
    pub cores: usize,
    /// Kernel release.
    pub kernel: String,
    /// Distribution.
    pub system: String,
    /// Bytes of memory.
    pub memory_bytes: u64,
    /// Versions of the tools.
    pub tools: Vec<String>,
}

impl Machine {
    /// Its memory in GiB.
    pub fn gibibytes(&self) -> f64 {
        self.memory_bytes as f64 / f64::from(1 << 30)
    }

    /// This one, now, with the versions that tools say: programs and their arguments.
    pub fn here(tools: &[(&str, &[&str])]) -> Self {
        let file = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let value = |text: &str, key: &str, separator: char| {
            text.lines()
                .find(|line| line.starts_with(key))
                .and_then(|line| line.split_once(separator))
                .map(|(_, value)| value.trim().trim_matches('"').to_owned())
                .unwrap_or_default()
        };
        let output = |program: &str, arguments: &[&str]| {
            let text = run(Command::new(program).args(arguments)).unwrap_or_default();
            text.lines().next().unwrap_or_default().to_owned()
        };
        let kibibytes = value(&file("/proc/meminfo"), "MemTotal", ':');
        Self {
            date: output("date", &["-u", "+%Y-%m-%d"]),
            cpu: value(&file("/proc/cpuinfo"), "model name", ':'),
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            kernel: file("/proc/sys/kernel/osrelease").trim().to_owned(),
            system: value(&file("/etc/os-release"), "PRETTY_NAME", '='),
            memory_bytes: kibibytes
                .split(' ')
                .next()
                .and_then(|number| number.parse::<u64>().ok())
                .unwrap_or_default()
                * 1024,
            tools: tools
                .iter()
                .map(|(program, arguments)| output(program, arguments))
                .collect(),
        }
    }
}
