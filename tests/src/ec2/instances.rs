//! Instances: how they come and go, and how they are described.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::clock;
use super::error::Refusal;
use super::filters::{Filters, Page, TagSet};
use super::params::Params;
use super::places::VPC;
use super::world::{ACCOUNT, Effect, Guest, World, well_formed};
use super::xml::Xml;

const FILTERS: [&str; 15] = [
    "instance-id",
    "instance-state-name",
    "instance-state-code",
    "instance-type",
    "instance-lifecycle",
    "image-id",
    "client-token",
    "vpc-id",
    "subnet-id",
    "availability-zone",
    "instance.group-id",
    "instance.group-name",
    "owner-id",
    "private-ip-address",
    "architecture",
];

/// How far an instance is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Pending,
    Running,
    ShuttingDown,
    Terminated,
}

impl State {
    pub fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Running => "running",
            Self::ShuttingDown => "shutting-down",
            Self::Terminated => "terminated",
        }
    }

    fn code(self) -> u8 {
        match self {
            Self::Pending => 0,
            Self::Running => 16,
            Self::ShuttingDown => 32,
            Self::Terminated => 48,
        }
    }

    fn write(self, xml: &mut Xml, name: &str) {
        xml.nest(name, |xml| {
            xml.leaf("code", self.code()).leaf("name", self.name());
        });
    }
}

/// An instance.
#[derive(Debug, Clone)]
pub(super) struct Instance {
    pub id: String,
    pub reservation: String,
    pub state: State,
    /// When it came to that state.
    pub since: Duration,
    pub launched: SystemTime,
    /// Code and message of the reason for its state.
    pub reason: Option<(String, String)>,
    pub image: String,
    pub kind: String,
    pub vcpus: u32,
    pub arch: String,
    pub subnet: String,
    pub zone: String,
    pub address: Ipv4Addr,
    /// How often it is still described without its address.
    pub address_after: u32,
    pub groups: Vec<String>,
    pub spot: Option<String>,
    pub token: Option<String>,
    pub tags: TagSet,
    pub user_data: Vec<u8>,
    pub metadata: BTreeMap<String, String>,
    pub root_device: String,
    pub boot_mode: Option<String>,
    pub volume: String,
    pub volume_tags: TagSet,
    pub volume_dies_with_it: bool,
    /// Nothing runs in it.
    pub silent: bool,
    /// It can no longer be described.
    pub forgotten: bool,
}

impl Instance {
    /// Whether it is terminated.
    pub fn is_over(&self) -> bool {
        self.state == State::Terminated
    }

    fn field(&self, name: &str) -> Vec<String> {
        let one = |value: &str| vec![value.to_owned()];
        match name {
            "instance-id" => one(&self.id),
            "instance-state-name" => one(self.state.name()),
            "instance-state-code" => vec![self.state.code().to_string()],
            "instance-type" => one(&self.kind),
            "instance-lifecycle" => self.spot.iter().map(|_| "spot".to_owned()).collect(),
            "image-id" => one(&self.image),
            "client-token" => self.token.clone().into_iter().collect(),
            "vpc-id" => one(VPC),
            "subnet-id" => one(&self.subnet),
            "availability-zone" => one(&self.zone),
            "instance.group-id" => self.groups.clone(),
            "owner-id" => one(ACCOUNT),
            "private-ip-address" if self.shows_address() => vec![self.address.to_string()],
            "architecture" => one(&self.arch),
            _ => Vec::new(),
        }
    }

    fn shows_address(&self) -> bool {
        self.state == State::Running && self.address_after == 0
    }

    fn write(&self, xml: &mut Xml) {
        let address = self.shows_address().then_some(self.address);
        xml.leaf("instanceId", &self.id)
            .leaf("imageId", &self.image);
        self.state.write(xml, "instanceState");
        let dns = address.map(|ip| format!("ip-{}.internal", ip.to_string().replace('.', "-")));
        xml.leaf("privateDnsName", dns.unwrap_or_default())
            .leaf("dnsName", "")
            .leaf("reason", self.reason.as_ref().map_or("", |(_, text)| text))
            .leaf("amiLaunchIndex", 0)
            .leaf("instanceType", &self.kind)
            .leaf("launchTime", clock::iso(self.launched))
            .nest("placement", |xml| {
                xml.leaf("availabilityZone", &self.zone)
                    .leaf("groupName", "")
                    .leaf("tenancy", "default");
            })
            .nest("monitoring", |xml| {
                xml.leaf("state", "disabled");
            });
        // As in EC2, a terminated instance has no network any more.
        if !self.is_over() {
            xml.leaf("subnetId", &self.subnet).leaf("vpcId", VPC);
            xml.maybe("privateIpAddress", address);
        }
        if let Some((code, message)) = &self.reason {
            xml.nest("stateReason", |xml| {
                xml.leaf("code", code).leaf("message", message);
            });
        }
        let groups = self.groups.iter().filter(|_| !self.is_over());
        xml.leaf("architecture", &self.arch)
            .leaf("rootDeviceType", "ebs")
            .leaf("rootDeviceName", &self.root_device)
            .leaf("virtualizationType", "hvm")
            .leaf("hypervisor", "xen")
            .leaf("enaSupport", true)
            .maybe("clientToken", self.token.as_ref())
            .maybe("instanceLifecycle", self.spot.as_ref().map(|_| "spot"))
            .maybe("spotInstanceRequestId", self.spot.as_ref())
            .maybe("bootMode", self.boot_mode.as_ref())
            .items("groupSet", groups, |xml, id| {
                xml.leaf("groupId", id);
            })
            .items(
                "blockDeviceMapping",
                (!self.is_over()).then_some(()),
                |xml, ()| {
                    xml.leaf("deviceName", &self.root_device)
                        .nest("ebs", |xml| {
                            xml.leaf("volumeId", &self.volume)
                                .leaf("status", "attached")
                                .leaf("deleteOnTermination", self.volume_dies_with_it);
                        });
                },
            )
            .nest("metadataOptions", |xml| {
                xml.leaf("state", "applied");
                for (name, value) in &self.metadata {
                    xml.leaf(name, value);
                }
            })
            .tags(&self.tags);
    }
}

/// Writes a reservation: instances that were launched together.
pub(super) fn write_reservation(xml: &mut Xml, reservation: &str, instances: &[&Instance]) {
    xml.leaf("reservationId", reservation)
        .leaf("ownerId", ACCOUNT)
        .items("groupSet", [(); 0], |_, ()| {})
        .items("instancesSet", instances, |xml, i| i.write(xml));
}

impl World {
    pub(super) fn tick_instances(&mut self) {
        let now = self.now();
        let behaviour = &self.behaviour;
        for instance in self.instances.values_mut() {
            let age = now.saturating_sub(instance.since);
            match instance.state {
                State::Pending if age >= behaviour.pending => {
                    instance.since = now;
                    if instance.reason.is_some() {
                        instance.state = State::Terminated;
                        continue;
                    }
                    instance.state = State::Running;
                    if !instance.silent {
                        self.effects.push(Effect::Started(Guest {
                            instance: instance.id.clone(),
                            user_data: instance.user_data.clone(),
                        }));
                    }
                }
                State::ShuttingDown if age >= behaviour.shutting_down => {
                    instance.since = now;
                    instance.state = State::Terminated;
                    if !instance.volume_dies_with_it {
                        let tags = instance.volume_tags.clone();
                        self.volumes.insert(instance.volume.clone(), tags);
                    }
                }
                State::Terminated if age >= behaviour.forgotten_after => instance.forgotten = true,
                _ => {}
            }
        }
    }

    pub fn describe_instances(&mut self, params: &mut Params) -> Result<Xml, Refusal> {
        let ids = params.values("InstanceId")?;
        let filters = Filters::take(params, &FILTERS)?;
        let paged = params.has("MaxResults");
        let page = Page::take(params, self.behaviour.page)?;
        params.finish()?;
        if paged && !ids.is_empty() {
            let text = "The parameter instancesSet cannot be used with the parameter maxResults";
            return Err(Refusal::new("InvalidParameterCombination", text));
        }
        self.instances_exist(&ids)?;
        let candidates: Vec<String> = self
            .instances
            .values()
            .filter(|i| !i.forgotten && (ids.is_empty() || ids.contains(&i.id)))
            .filter(|i| filters.match_all(&i.tags, |name| i.field(name)))
            .map(|i| i.id.clone())
            .collect();
        let found: Vec<String> = candidates
            .into_iter()
            .filter(|id| !ids.is_empty() || self.sees(id))
            .collect();
        let page = if ids.is_empty() { page } else { Page::all() };
        let (found, next) = page.cut(found, String::clone);
        let mut xml = Xml::default();
        xml.items("reservationSet", &found, |xml, id| {
            let instance = &self.instances[id];
            write_reservation(xml, &instance.reservation, &[instance]);
        })
        .maybe("nextToken", next);
        for id in found {
            let instance = self.instances.get_mut(&id).expect("it was found");
            if instance.state == State::Running {
                instance.address_after = instance.address_after.saturating_sub(1);
            }
        }
        Ok(xml)
    }

    pub fn terminate_instances(&mut self, params: &mut Params) -> Result<Xml, Refusal> {
        let ids = params.values("InstanceId")?;
        params.finish()?;
        if ids.is_empty() {
            let text = "The request must contain the parameter InstanceId";
            return Err(Refusal::new("MissingParameter", text));
        }
        // All or none, as in EC2.
        self.instances_exist(&ids)?;
        let now = self.now();
        let mut xml = Xml::default();
        xml.items("instancesSet", &ids, |xml, id| {
            let instance = self.instances.get_mut(id).expect("it was found");
            let before = instance.state;
            if matches!(before, State::Pending | State::Running) {
                instance.state = State::ShuttingDown;
                instance.since = now;
                let code = "Client.UserInitiatedShutdown".to_owned();
                let text = format!("{code}: User initiated shutdown");
                instance.reason = Some((code, text));
                self.effects.push(Effect::Stopped(id.clone()));
            }
            xml.leaf("instanceId", id);
            instance.state.write(xml, "currentState");
            before.write(xml, "previousState");
        });
        Ok(xml)
    }

    pub fn describe_instance_status(&mut self, params: &mut Params) -> Result<Xml, Refusal> {
        let ids = params.values("InstanceId")?;
        let all: bool = params.parsed("IncludeAllInstances")?.unwrap_or(false);
        let filters = Filters::take(params, &["instance-state-name"])?;
        let page = Page::take(params, self.behaviour.page)?;
        params.finish()?;
        self.instances_exist(&ids)?;
        let found: Vec<&Instance> = self
            .instances
            .values()
            .filter(|i| !i.forgotten && (ids.is_empty() || ids.contains(&i.id)))
            .filter(|i| all || i.state == State::Running)
            .filter(|i| filters.match_all(&i.tags, |name| i.field(name)))
            .collect();
        let (found, next) = page.cut(found, |i| i.id.clone());
        let mut xml = Xml::default();
        xml.items("instanceStatusSet", found, |xml, i| {
            xml.leaf("instanceId", &i.id)
                .leaf("availabilityZone", &i.zone);
            i.state.write(xml, "instanceState");
            for name in ["systemStatus", "instanceStatus"] {
                xml.nest(name, |xml| {
                    xml.leaf("status", "ok");
                });
            }
        })
        .maybe("nextToken", next);
        Ok(xml)
    }

    pub fn get_console_output(&mut self, params: &mut Params) -> Result<Xml, Refusal> {
        let id = params.require("InstanceId")?;
        let _latest: Option<bool> = params.parsed("Latest")?;
        params.finish()?;
        self.instances_exist(std::slice::from_ref(&id))?;
        let instance = &self.instances[&id];
        // EC2 has none for the first minutes, and none of what was never started.
        let output = (instance.state != State::Pending && !instance.silent)
            .then(|| STANDARD.encode(format!("[    0.000000] Linux version (of {id})\nlogin: ")));
        let mut xml = Xml::default();
        xml.leaf("instanceId", &id)
            .leaf("timestamp", clock::iso(instance.launched))
            .maybe("output", output);
        Ok(xml)
    }

    /// Refuses identifiers of which one cannot be found.
    pub fn instances_exist(&mut self, ids: &[String]) -> Result<(), Refusal> {
        if let Some(id) = ids.iter().find(|id| !well_formed("i", id)) {
            let text = format!("Invalid id: \"{id}\"");
            return Err(Refusal::new("InvalidInstanceID.Malformed", text));
        }
        let missing: Vec<&str> = ids
            .iter()
            .filter(|id| self.instances.get(*id).is_none_or(|i| i.forgotten) || !self.sees(id))
            .map(String::as_str)
            .collect();
        match missing.as_slice() {
            [] => Ok(()),
            [id] => Err(Refusal::new(
                "InvalidInstanceID.NotFound",
                format!("The instance ID '{id}' does not exist"),
            )),
            ids => Err(Refusal::new(
                "InvalidInstanceID.NotFound",
                format!("The instance IDs '{}' do not exist", ids.join(", ")),
            )),
        }
    }
}
