//! The cable itself, without any tunnel.

use std::net::Ipv4Addr;

use super::{Ends, Entry, Layer, Role, Subject, Tunnel};
use crate::failure::Result;
use crate::stage::{CABLE, Stage, UNDERLAY};

struct Bare;

pub fn entries() -> Vec<Entry> {
    let subject = Subject {
        name: "veth".to_owned(),
        layers: vec![Layer::L3, Layer::L2],
        role: Role::Ceiling,
        configuration: "the underlay itself, no tunnel".to_owned(),
        version: Some("kernel".to_owned()),
    };
    vec![Entry::new(subject, || Bare)]
}

impl Tunnel for Bare {
    fn place(&self) -> ([&'static str; 2], [Ipv4Addr; 2]) {
        ([CABLE, CABLE], UNDERLAY)
    }

    fn prepare(&mut self, _stage: &Stage) -> Result<()> {
        Ok(())
    }

    fn start(&mut self, _stage: &Stage) -> Result<Ends> {
        let (interfaces, addresses) = self.place();
        Ok(Ends {
            interfaces,
            addresses,
            daemons: None,
        })
    }
}
