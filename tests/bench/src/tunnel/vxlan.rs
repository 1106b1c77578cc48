//! The kernel's VXLAN (RFC 7348), which does not encrypt.

use super::{Ends, Entry, INTERFACES, Layer, OVERLAY, Role, Subject, Tunnel};
use crate::failure::{Result, run};
use crate::stage::{Stage, UNDERLAY};

struct Vxlan;

pub fn entries() -> Vec<Entry> {
    let subject = Subject {
        name: "vxlan".to_owned(),
        layers: vec![Layer::L3, Layer::L2],
        role: Role::Ceiling,
        configuration: "kernel VXLAN between two addresses, not encrypted, MTU 1450".to_owned(),
        version: Some("kernel".to_owned()),
    };
    vec![Entry::new(subject, || Vxlan)]
}

impl Tunnel for Vxlan {
    fn prepare(&mut self, _stage: &Stage) -> Result<()> {
        Ok(())
    }

    fn start(&mut self, stage: &Stage) -> Result<Ends> {
        for side in [0, 1] {
            let [here, there] = [side, 1 - side].map(|side| UNDERLAY[side].to_string());
            let name = INTERFACES[side];
            let address = format!("{}/24", OVERLAY[side]);
            let add = format!(
                "link add {name} mtu 1450 type vxlan id 7 dstport 4789 local {here} remote {there}"
            );
            for words in [
                add,
                format!("address add {address} dev {name}"),
                format!("link set {name} up"),
            ] {
                run(stage.sides[side].command("ip").args(words.split(' ')))?;
            }
        }
        Ok(Ends {
            interfaces: INTERFACES,
            addresses: OVERLAY,
            daemons: None,
        })
    }
}
