//! The command line.

use std::path::PathBuf;

use clap::Parser;

use crate::way::Way;

/// Measures a share over the overlay beside the same server without it, and writes a report.
#[derive(Debug, Parser)]
pub struct Options {
    /// Rounds; in each, every way is measured once
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=20))]
    rounds: u32,
    /// Seconds of one of fio's jobs
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=60))]
    seconds: u32,
    /// Files that are made, looked at, renamed and deleted
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(10..=100_000))]
    files: u32,
    /// Measure only these ways
    #[arg(long, value_delimiter = ',', value_name = "WAY")]
    only: Vec<Way>,
    /// One short round: shows that everything works, and no figure to trust
    #[arg(long)]
    quick: bool,
    /// A sites file [default: one with libvirt on this machine]
    #[arg(long, value_name = "FILE", requires = "site")]
    pub sites: Option<PathBuf>,
    /// The site of both machines, of kind libvirt
    #[arg(long, default_value = "local")]
    pub site: String,
    /// Memory of each machine
    #[arg(long, default_value = "512M", value_name = "SIZE")]
    pub memory: String,
    /// Virtual processors of each machine
    #[arg(long, default_value_t = 1)]
    pub cpus: u32,
    /// The `provision` that is used [default: what IPOP_PROVISION names]
    #[arg(long, value_name = "FILE")]
    pub provision: Option<PathBuf>,
    /// Also write the measurements to this file
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Where sharing-performance.md and performance/share.json are written [default: docs, and
    /// nowhere if not everything is measured in full]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Measure nothing: write the report from measurements that were kept
    #[arg(long, value_name = "FILE")]
    pub render: Option<PathBuf>,
}

impl Options {
    /// How many rounds.
    pub fn rounds(&self) -> u32 {
        if self.quick { 1 } else { self.rounds }
    }

    /// Seconds of one of fio's jobs.
    pub fn seconds(&self) -> u32 {
        if self.quick { 2 } else { self.seconds }
    }

    /// Files of the metadata's measurement.
    pub fn files(&self) -> u32 {
        if self.quick { 50 } else { self.files }
    }

    /// The ways that are measured, in the order of a round.
    pub fn ways(&self) -> Vec<Way> {
        let wanted = |way: &Way| self.only.is_empty() || self.only.contains(way);
        Way::ALL.into_iter().filter(wanted).collect()
    }

    /// Where the report goes, if one is written.
    pub fn out(&self) -> Option<PathBuf> {
        let partial = self.quick || !self.only.is_empty();
        let full = || (!partial).then(|| PathBuf::from("docs"));
        self.out.clone().or_else(full)
    }
}
