//! RunInstances.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::SystemTime;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::error::Refusal;
use super::faults::FaultKind;
use super::filters::TagSet;
use super::images::Image;
use super::instances::{Instance, State, write_reservation};
use super::params::Params;
use super::places::{self, InstanceType, SUBNETS, VPC};
use super::world::{World, tag_specifications};
use super::xml::Xml;

/// Longest user data before it is encoded.
const USER_DATA: usize = 16 * 1024;

/// What is asked for, apart from the number.
struct Wanted {
    image: Image,
    kind: InstanceType,
    subnet: String,
    zone: String,
    third: u8,
    groups: Vec<String>,
    token: Option<String>,
    user_data: Vec<u8>,
    spot: bool,
    metadata: BTreeMap<String, String>,
    volume_dies_with_it: bool,
    tags: BTreeMap<String, TagSet>,
}

impl World {
    /// Launches instances; `fault` may make them stillborn.
    pub fn run_instances(
        &mut self,
        params: &mut Params,
        fault: Option<&FaultKind>,
    ) -> Result<Xml, Refusal> {
        let asked = params.fingerprint(&["ClientToken", "Action", "Version"]);
        let (least, most) = (count(params, "MinCount")?, count(params, "MaxCount")?);
        if least > most || least == 0 {
            let text = "MinCount must be at least 1 and at most MaxCount";
            return Err(Refusal::new("InvalidParameterCombination", text));
        }
        let token = params.take("ClientToken");
        if let Some(token) = &token {
            if token.is_empty() || token.len() > 64 || !token.is_ascii() {
                let why = "At most 64 ASCII characters.";
                return Err(Refusal::value("ClientToken", token, why));
            }
            if let Some((before, ids)) = self.launches.get(token) {
                if *before != asked {
                    let text = "Arguments on this idempotent request are inconsistent with \
                                arguments used in previous request(s).";
                    return Err(Refusal::new("IdempotentParameterMismatch", text));
                }
                return Ok(self.reservation(&ids.clone()));
            }
        }
        let wanted = self.wanted(params, token.clone())?;
        params.finish()?;
        let most = self.affordable(&wanted.kind, least, most)?;
        let reservation = self.new_id("r");
        let ids: Vec<String> = (0..most)
            .map(|_| self.launch(&wanted, &reservation, fault))
            .collect();
        if let Some(token) = token {
            self.launches.insert(token, (asked, ids.clone()));
        }
        Ok(self.reservation(&ids))
    }

    fn reservation(&self, ids: &[String]) -> Xml {
        let instances: Vec<&Instance> = ids.iter().map(|id| &self.instances[id]).collect();
        let mut xml = Xml::default();
        write_reservation(&mut xml, &instances[0].reservation, &instances);
        xml
    }

    /// How many of the wanted instances the quota allows.
    fn affordable(&self, kind: &InstanceType, least: u32, most: u32) -> Result<u32, Refusal> {
        let living = self.instances.values().filter(|i| !i.is_over());
        let used: u32 = living.map(|i| i.vcpus).sum();
        let free = self.behaviour.vcpus.saturating_sub(used) / kind.vcpus;
        if free < least {
            let text = format!(
                "You have requested more vCPU capacity than your current vCPU limit of {} allows \
                 for the instance bucket that the specified instance type belongs to. Please visit \
                 http://aws.amazon.com/contact-us/ec2-request to request an adjustment to this limit.",
                self.behaviour.vcpus
            );
            return Err(Refusal::new("VcpuLimitExceeded", text));
        }
        Ok(most.min(free))
    }

    fn wanted(&mut self, params: &mut Params, token: Option<String>) -> Result<Wanted, Refusal> {
        let image = params.require("ImageId")?;
        self.image(&image)?;
        let image = self.images[&image].clone();
        if !image.is_available() {
            let text = format!("The AMI ID '{}' is not available", image.id);
            return Err(Refusal::new("InvalidAMIID.Unavailable", text));
        }
        let kind = params.take("InstanceType");
        let kind = places::instance_type(kind.as_deref().unwrap_or("m1.small"))?;
        if kind.arch != image.arch {
            let text = format!(
                "The architecture '{}' of the specified instance type does not match the \
                 architecture '{}' of the specified AMI.",
                kind.arch, image.arch
            );
            return Err(Refusal::new("InvalidParameterValue", text));
        }
        let (subnet, mut groups) = network(params)?;
        let subnet = subnet.unwrap_or_else(|| SUBNETS[0].0.to_owned());
        let (letter, third) = places::subnet(&subnet)?;
        if groups.is_empty() {
            let default = self.groups.values().find(|g| g.is_default());
            groups.extend(default.map(|g| g.id.clone()));
        }
        for id in &groups {
            self.group(id)?;
            if self.groups[id].vpc() != VPC {
                let text = format!(
                    "Security group {id} and subnet {subnet} belong to different networks."
                );
                return Err(Refusal::new("InvalidGroup.NotFound", text));
            }
        }
        if let Some(key) = params.take("KeyName") {
            let text = format!("The key pair '{key}' does not exist");
            return Err(Refusal::new("InvalidKeyPair.NotFound", text));
        }
        params.one_of("InstanceInitiatedShutdownBehavior", &["stop", "terminate"])?;
        let _ebs_optimized: Option<bool> = params.parsed("EbsOptimized")?;
        if let Some(mut credits) = params.below("CreditSpecification") {
            credits.one_of("CpuCredits", &["standard", "unlimited"])?;
            credits.finish()?;
        }
        Ok(Wanted {
            volume_dies_with_it: root_volume(params, &image)?,
            spot: spot(params)?,
            metadata: metadata(params)?,
            user_data: user_data(params)?,
            tags: tag_specifications(
                params,
                &[
                    "instance",
                    "volume",
                    "network-interface",
                    "spot-instances-request",
                ],
            )?,
            zone: format!("{}{letter}", self.behaviour.region),
            image,
            kind,
            subnet,
            third,
            groups,
            token,
        })
    }

    fn launch(&mut self, wanted: &Wanted, reservation: &str, fault: Option<&FaultKind>) -> String {
        let id = self.new_id("i");
        let number = self.instances.len() as u16 + 10;
        let [high, low] = number.to_be_bytes();
        let instance = Instance {
            id: id.clone(),
            reservation: reservation.to_owned(),
            state: State::Pending,
            since: self.now(),
            launched: SystemTime::now(),
            reason: match fault {
                Some(FaultKind::Dies { code, message }) => {
                    Some((code.clone(), format!("{code}: {message}")))
                }
                _ => None,
            },
            image: wanted.image.id.clone(),
            kind: wanted.kind.name.to_owned(),
            vcpus: wanted.kind.vcpus,
            arch: wanted.image.arch.clone(),
            subnet: wanted.subnet.clone(),
            zone: wanted.zone.clone(),
            address: Ipv4Addr::new(172, 31, wanted.third + high % 16, low),
            address_after: self.behaviour.address_after,
            groups: wanted.groups.clone(),
            spot: wanted.spot.then(|| self.new_id("sir")),
            token: wanted.token.clone(),
            tags: wanted.tags.get("instance").cloned().unwrap_or_default(),
            user_data: wanted.user_data.clone(),
            metadata: wanted.metadata.clone(),
            root_device: wanted.image.root_device.clone(),
            boot_mode: wanted.image.boot_mode.clone(),
            volume: self.new_id("vol"),
            volume_tags: wanted.tags.get("volume").cloned().unwrap_or_default(),
            volume_dies_with_it: wanted.volume_dies_with_it,
            silent: fault == Some(&FaultKind::Silent),
            forgotten: false,
        };
        self.instances.insert(id.clone(), instance);
        id
    }
}

fn count(params: &mut Params, name: &str) -> Result<u32, Refusal> {
    let text = params.require(name)?;
    text.parse()
        .map_err(|_| Refusal::value(name, text, "It is no number."))
}

/// Subnet and groups, given at the top or in one network interface.
fn network(params: &mut Params) -> Result<(Option<String>, Vec<String>), Refusal> {
    let subnet = params.take("SubnetId");
    let groups = params.values("SecurityGroupId")?;
    let mut interfaces = params.structures("NetworkInterface")?;
    let Some(interface) = interfaces.first_mut() else {
        return Ok((subnet, groups));
    };
    if subnet.is_some() || !groups.is_empty() {
        let text = "Network interfaces and an instance-level subnet ID or security groups may not \
                    be specified on the same request";
        return Err(Refusal::new("InvalidParameterCombination", text));
    }
    let index: Option<u8> = interface.parsed("DeviceIndex")?;
    if index != Some(0) || interfaces.len() > 1 {
        let text = "One network interface, with the device index 0, is what this double knows.";
        return Err(Refusal::new("InvalidParameterValue", text));
    }
    let interface = &mut interfaces[0];
    let _public: Option<bool> = interface.parsed("AssociatePublicIpAddress")?;
    let _dies: Option<bool> = interface.parsed("DeleteOnTermination")?;
    let found = (
        interface.take("SubnetId"),
        interface.values("SecurityGroupId")?,
    );
    interface.finish()?;
    Ok(found)
}

/// Whether the root volume is deleted with the instance.
fn root_volume(params: &mut Params, image: &Image) -> Result<bool, Refusal> {
    let mut dies = image.volume_dies_with_it;
    for mut mapping in params.structures("BlockDeviceMapping")? {
        let name = mapping.require("DeviceName")?;
        let wrong = |text: String| Refusal::new("InvalidBlockDeviceMapping", text);
        if name != image.root_device {
            return Err(wrong(format!("{name} is not the image's root device")));
        }
        if let Some(mut ebs) = mapping.below("Ebs") {
            if let Some(size) = ebs.parsed::<u32>("VolumeSize")?.filter(|s| *s < image.gib) {
                let text = format!(
                    "Volume of size {size}GB is smaller than snapshot '{}', expect size >= {}GB",
                    image.snapshot, image.gib
                );
                return Err(wrong(text));
            }
            super::images::volume_kind(&mut ebs)?;
            dies = ebs.parsed("DeleteOnTermination")?.unwrap_or(dies);
            ebs.finish()?;
        }
        mapping.finish()?;
    }
    Ok(dies)
}

fn spot(params: &mut Params) -> Result<bool, Refusal> {
    let Some(mut market) = params.below("InstanceMarketOptions") else {
        return Ok(false);
    };
    let kind = market.one_of("MarketType", &["spot"])?;
    if let Some(mut options) = market.below("SpotOptions") {
        options.one_of("SpotInstanceType", &["one-time"])?;
        options.one_of("InstanceInterruptionBehavior", &["terminate"])?;
        let _price: Option<f64> = options.parsed("MaxPrice")?;
        options.finish()?;
    }
    market.finish()?;
    Ok(kind.is_some())
}

/// Metadata options, by the names in which they are described.
fn metadata(params: &mut Params) -> Result<BTreeMap<String, String>, Refusal> {
    let mut found = BTreeMap::new();
    let mut options = params.below("MetadataOptions").unwrap_or_default();
    let hops: Option<u8> = options.parsed("HttpPutResponseHopLimit")?;
    if hops.is_some_and(|hops| !(1..=64).contains(&hops)) {
        let text = "The hop limit must be 1 to 64";
        return Err(Refusal::new("InvalidParameterValue", text));
    }
    found.insert(
        "httpPutResponseHopLimit".to_owned(),
        hops.unwrap_or(1).to_string(),
    );
    for (name, shown, values, default) in [
        (
            "HttpTokens",
            "httpTokens",
            ["optional", "required"],
            "optional",
        ),
        (
            "HttpEndpoint",
            "httpEndpoint",
            ["enabled", "disabled"],
            "enabled",
        ),
        (
            "HttpProtocolIpv6",
            "httpProtocolIpv6",
            ["enabled", "disabled"],
            "disabled",
        ),
        (
            "InstanceMetadataTags",
            "instanceMetadataTags",
            ["enabled", "disabled"],
            "disabled",
        ),
    ] {
        let value = options.one_of(name, &values)?;
        found.insert(
            shown.to_owned(),
            value.unwrap_or_else(|| default.to_owned()),
        );
    }
    options.finish()?;
    Ok(found)
}

fn user_data(params: &mut Params) -> Result<Vec<u8>, Refusal> {
    let text = params.take("UserData").unwrap_or_default();
    let data = STANDARD.decode(&text).map_err(|_| {
        Refusal::new(
            "InvalidParameterValue",
            "Invalid BASE64 encoding of user data.",
        )
    })?;
    if data.len() > USER_DATA {
        let text = format!("User data is limited to {USER_DATA} bytes");
        return Err(Refusal::new("InvalidParameterValue", text));
    }
    Ok(data)
}
