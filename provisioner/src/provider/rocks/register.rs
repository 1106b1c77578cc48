//! Makes and removes what Rocks knows of a deployment, and the node on its front end.

use super::RocksProvider;
use super::plan::{BOOT, CONFIGURATION, INTERFACE, MTU, REGISTRATION, Registered, unknown};
use crate::error::{CliError, ExitCode, Retry};
use crate::plan::lan;
use crate::provider::ssh::marker::Marker;
use crate::provider::ssh::plan as ssh;
use crate::provider::{Made, Making, Provider as _, Removing, Scope, Step};
use crate::ssh::room::{FULL, ROOM, full};
use crate::ssh::transport::{Answer, Limits, Script};

/// Where Rocks writes; stands behind [`ROOM`].
pub(super) const PLACES: &str = include_str!("files/places");
const LEDGER: &str = include_str!("files/ledger");
const REGISTER: &str = include_str!("files/register");
const UNREGISTER: &str = include_str!("files/unregister");
const ADD_INTERFACE: &str = include_str!("files/interface");
const REMOVE_INTERFACE: &str = include_str!("files/remove-interface");
const SET_BOOT: &str = include_str!("files/boot");
const REMOVE_BOOT: &str = include_str!("files/remove-boot");
const SYNC: &str = include_str!("files/configuration");
const SET_MTU: &str = include_str!("files/mtu");
const RESTORE_MTU: &str = include_str!("files/remove-mtu");
const FORGET: &str = include_str!("files/forget");
/// The worker's interface on the private network, as Rocks names that of every compute node.
const ETH0: &str = "eth0";
/// Status of a script whose input was cut short.
const CUT: i32 = 74;
/// Status of a script that found a name to be somebody else's.
const TAKEN: i32 = 75;

impl RocksProvider {
    /// Makes one thing, or finds that it is there.
    pub(super) fn make_part(&self, step: &Step, making: &Making<'_>) -> Result<Made, CliError> {
        let limits = Limits {
            deadline: making.deadline,
            interrupt: Some(making.interrupt),
        };
        let uid = making.tags.uid.as_str();
        let kind = step.resource.kind.as_str();
        match kind {
            ssh::HOST => {
                self.check_frontend(&limits)?;
                return self.ssh.make(step, making);
            }
            ssh::BINARY | ssh::CREDENTIALS | ssh::MEMBER => return self.ssh.make(step, making),
            MTU => self.set_mtu(uid, &limits)?,
            REGISTRATION => self.register(step, making, &limits)?,
            INTERFACE => {
                let Registered { name, ip, .. } = Registered::of(&step.resource)?;
                let (mac, ip) = (lan::mac(ip).to_string(), ip.to_string());
                let network = self.settings.network.as_str();
                let args = [&name, uid, ETH0, network, &mac, &ip];
                let what = format!("adding the interface of {name} to Rocks");
                self.rocks(&what, ADD_INTERFACE, &args, None, &limits)?;
            }
            BOOT => {
                let Registered { name, .. } = Registered::of(&step.resource)?;
                let what = format!("setting how {name} boots");
                self.rocks(&what, SET_BOOT, &[&name, uid], None, &limits)?;
            }
            CONFIGURATION => {
                let Registered { ip, .. } = Registered::of(&step.resource)?;
                let args = [lan::mac(ip).to_string(), ip.to_string()];
                let args = args.each_ref().map(String::as_str);
                self.rocks("writing Rocks' configuration", SYNC, &args, None, &limits)?;
            }
            _ => return Err(unknown(&step.resource)),
        }
        Ok(Made {
            handle: Some(step.resource.id.clone()),
            reached_at: None,
        })
    }

    fn set_mtu(&self, uid: &str, limits: &Limits<'_>) -> Result<(), CliError> {
        let mtu = self.lan.mtu.to_string();
        let args = [self.settings.network.as_str(), &mtu, uid];
        self.rocks("setting the network's MTU", SET_MTU, &args, None, limits)
    }

    fn register(
        &self,
        step: &Step,
        making: &Making<'_>,
        limits: &Limits<'_>,
    ) -> Result<(), CliError> {
        let registered = Registered::of(&step.resource)?;
        let (Scope::Node(node), Some((rack, rank))) = (&step.scope, registered.place()) else {
            return Err(unknown(&step.resource));
        };
        let marker = serde_json::to_string(&Marker {
            tags: making.tags.clone(),
            node: node.clone(),
        })
        .map_err(|e| CliError::new(ExitCode::Internal, "cannot write a marker").caused_by(e))?;
        let name = registered.name.as_str();
        let (rack, rank) = (rack.to_string(), rank.to_string());
        // The address is a part of the resource's name, so it is in the note too.
        let input = format!("{} {marker}\nend\n", registered.ip);
        let membership = self.settings.membership.as_str();
        let args = [name, membership, &rack, &rank, &making.tags.uid];
        let what = format!("adding {name} to Rocks");
        self.rocks(&what, REGISTER, &args, Some(&input), limits)
    }

    /// Removes one thing; gone is no error.
    pub(super) fn remove_part(&self, removing: &Removing<'_>) -> Result<(), CliError> {
        let limits = Limits {
            deadline: removing.deadline,
            interrupt: Some(removing.interrupt),
        };
        let uid = removing.tags.uid.as_str();
        let run =
            |what: &str, text: &str, args: &[&str]| self.rocks(what, text, args, None, &limits);
        match removing.resource.kind.as_str() {
            ssh::HOST => {
                run("removing the deployment from Rocks", FORGET, &[uid])?;
                self.ssh.remove(removing)
            }
            ssh::BINARY | ssh::CREDENTIALS | ssh::MEMBER => self.ssh.remove(removing),
            MTU => run("restoring the network's MTU", RESTORE_MTU, &[uid]),
            // Removing the host writes it.
            CONFIGURATION => Ok(()),
            kind @ (REGISTRATION | INTERFACE | BOOT) => {
                let Registered { name, .. } = Registered::of(removing.resource)?;
                match kind {
                    REGISTRATION => {
                        let what = format!("removing {name} from Rocks");
                        run(&what, UNREGISTER, &[&name, uid])
                    }
                    INTERFACE => {
                        let what = format!("removing the interface of {name} from Rocks");
                        run(&what, REMOVE_INTERFACE, &[&name, uid, ETH0])
                    }
                    _ => {
                        let what = format!("removing how {name} boots");
                        run(&what, REMOVE_BOOT, &[&name, uid])
                    }
                }
            }
            _ => Err(unknown(removing.resource)),
        }
    }

    /// Runs a script that changes Rocks.
    fn rocks(
        &self,
        what: &str,
        text: &str,
        args: &[&str],
        input: Option<&str>,
        limits: &Limits<'_>,
    ) -> Result<(), CliError> {
        // A script that only removes must not make what says that there is something to remove.
        let needs_ledger = [REGISTER, SET_MTU].contains(&text);
        let needs = if needs_ledger {
            "needs_ledger=yes\n"
        } else {
            ""
        };
        let text = format!("{needs}{ROOM}{PLACES}{LEDGER}{text}");
        let script = Script::new(what, &text).args(args);
        let script = script.answers(&[FULL, CUT, TAKEN]);
        let transport = self.ssh.transport(&self.host)?;
        let answer: Answer = match input {
            Some(input) => transport.feed(&script, &mut input.as_bytes(), limits, &|_| {})?,
            None => transport.run(&script, limits)?,
        };
        match answer.status {
            FULL => Err(full(&self.host, what, &answer.text())),
            CUT => {
                let message = format!("the connection to {} was lost: {what}", self.host);
                Err(CliError::new(ExitCode::Unavailable, message).retry(Retry::Soon))
            }
            TAKEN => {
                let name = args.first().copied().unwrap_or_default();
                let message = format!("Rocks on {} has a host `{name}` already", self.host);
                Err(CliError::new(ExitCode::Name, message).hint(
                    "set `rack` of the site to one that Rocks has no node in, or remove that host \
                     there",
                ))
            }
            _ => Ok(()),
        }
    }
}
