//! The command line.

use std::path::PathBuf;

use clap::Parser;

use crate::tunnel::{Layer, Subject};

/// Compares ipop-node with other overlays, in network namespaces, and writes a report.
#[derive(Debug, Parser)]
pub struct Options {
    /// Rounds; in each, everything is measured once
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=20))]
    rounds: u32,
    /// Seconds of one measurement
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=60))]
    seconds: u32,
    /// Measure only these, by their names in the report
    #[arg(long, value_delimiter = ',', value_name = "NAME")]
    pub only: Vec<String>,
    /// Measure only tunnels of this layer, and the ceilings
    #[arg(long)]
    layer: Option<Layer>,
    /// One round of one second each: shows that everything works, and no figure to trust
    #[arg(long)]
    quick: bool,
    /// Also write the measurements to this file
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Where performance.md and performance/ are written [default: docs, and nowhere if not
    /// everything is measured in full]
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

    /// Seconds of a measurement.
    pub fn seconds(&self) -> u32 {
        if self.quick { 1 } else { self.seconds }
    }

    /// Where the report goes, if one is written.
    pub fn out(&self) -> Option<PathBuf> {
        let partial = self.quick || self.layer.is_some() || !self.only.is_empty();
        self.out
            .clone()
            .or_else(|| (!partial).then(|| PathBuf::from("docs")))
    }

    /// Whether it is to be measured.
    pub fn wants(&self, subject: &Subject) -> bool {
        let named = self.only.is_empty() || self.only.contains(&subject.name);
        named
            && self
                .layer
                .is_none_or(|layer| subject.layers.contains(&layer))
    }
}
