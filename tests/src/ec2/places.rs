//! What is there without anybody having made it: regions, the default VPC and its subnets, and
//! the kinds of instances.

use super::error::Refusal;
use super::filters::{Filters, Page, TagSet};
use super::params::Params;
use super::world::{ACCOUNT, World};
use super::xml::Xml;

/// The default VPC.
pub(super) const VPC: &str = "vpc-0123456789abcdef0";

/// Default subnets: identifier, zone's letter, first two parts of the third octet's range.
pub(super) const SUBNETS: [(&str, &str, u8); 3] = [
    ("subnet-0aaaaaaaaaaaaaaaa", "a", 0),
    ("subnet-0bbbbbbbbbbbbbbbb", "b", 16),
    ("subnet-0cccccccccccccccc", "c", 32),
];

/// A kind of instance.
#[derive(Debug, Clone, Copy)]
pub(super) struct InstanceType {
    pub name: &'static str,
    pub arch: &'static str,
    pub vcpus: u32,
    mib: u32,
    uefi: bool,
}

const fn kind(name: &'static str, arch: &'static str, vcpus: u32, mib: u32) -> InstanceType {
    InstanceType {
        name,
        arch,
        vcpus,
        mib,
        uefi: true,
    }
}

/// All kinds of instances there are.
const TYPES: [InstanceType; 9] = [
    kind("t3.micro", "x86_64", 2, 1024),
    kind("t3.small", "x86_64", 2, 2048),
    kind("t3.medium", "x86_64", 2, 4096),
    kind("t3.large", "x86_64", 2, 8192),
    kind("m7i.large", "x86_64", 2, 8192),
    kind("c7i.xlarge", "x86_64", 4, 8192),
    kind("c7i.48xlarge", "x86_64", 192, 393_216),
    kind("t4g.micro", "arm64", 2, 1024),
    InstanceType {
        uefi: false,
        ..kind("t2.micro", "x86_64", 1, 1024)
    },
];

/// The kind of a name.
pub(super) fn instance_type(name: &str) -> Result<InstanceType, Refusal> {
    let found = TYPES.into_iter().find(|known| known.name == name);
    found.ok_or_else(|| {
        let why = format!("Invalid value '{name}' for InstanceType.");
        Refusal::new("InvalidParameterValue", why)
    })
}

impl World {
    pub fn describe_regions(&mut self, params: &mut Params) -> Result<Xml, Refusal> {
        let names = params.values("RegionName")?;
        params.take("AllRegions");
        let filters = Filters::take(params, &["region-name", "opt-in-status", "endpoint"])?;
        params.finish()?;
        let region = self.behaviour.region.clone();
        if let Some(name) = names.iter().find(|name| **name != region) {
            let text = format!("Invalid region provided: [{name}]");
            return Err(Refusal::new("InvalidParameterValue", text));
        }
        let field = |name: &str| match name {
            "region-name" => vec![region.clone()],
            "opt-in-status" => vec!["opt-in-not-required".to_owned()],
            _ => Vec::new(),
        };
        let there = filters.match_all(&TagSet::new(), field).then_some(());
        let mut xml = Xml::default();
        xml.items("regionInfo", there, |xml, ()| {
            xml.leaf("regionName", &region)
                .leaf("regionEndpoint", format!("ec2.{region}.amazonaws.com"))
                .leaf("optInStatus", "opt-in-not-required");
        });
        Ok(xml)
    }

    pub fn describe_availability_zones(&mut self, params: &mut Params) -> Result<Xml, Refusal> {
        let names = params.values("ZoneName")?;
        let filters = Filters::take(params, &["state", "zone-name", "region-name", "zone-type"])?;
        params.finish()?;
        let region = self.behaviour.region.clone();
        let zones = SUBNETS
            .iter()
            .map(|(_, letter, _)| format!("{region}{letter}"));
        let found = zones
            .filter(|zone| names.is_empty() || names.contains(zone))
            .filter(|zone| {
                let field = |name: &str| match name {
                    "state" => vec!["available".to_owned()],
                    "zone-name" => vec![zone.clone()],
                    "zone-type" => vec!["availability-zone".to_owned()],
                    _ => vec![region.clone()],
                };
                filters.match_all(&TagSet::new(), field)
            });
        let mut xml = Xml::default();
        xml.items("availabilityZoneInfo", found, |xml, zone| {
            xml.leaf("zoneName", zone)
                .leaf("zoneState", "available")
                .leaf("regionName", &region)
                .leaf("zoneType", "availability-zone")
                .leaf("optInStatus", "opt-in-not-required");
        });
        Ok(xml)
    }

    pub fn describe_vpcs(&mut self, params: &mut Params) -> Result<Xml, Refusal> {
        let ids = params.values("VpcId")?;
        let filters = Filters::take(params, &["is-default", "isDefault", "state", "vpc-id"])?;
        let _ = Page::take(params, self.behaviour.page)?;
        params.finish()?;
        if let Some(id) = ids.iter().find(|id| *id != VPC) {
            let text = format!("The vpc ID '{id}' does not exist");
            return Err(Refusal::new("InvalidVpcID.NotFound", text));
        }
        let field = |name: &str| {
            let value = match name {
                "state" => "available",
                "vpc-id" => VPC,
                _ => "true",
            };
            vec![value.to_owned()]
        };
        let there = filters.match_all(&TagSet::new(), field).then_some(());
        let mut xml = Xml::default();
        xml.items("vpcSet", there, |xml, ()| {
            xml.leaf("vpcId", VPC)
                .leaf("ownerId", ACCOUNT)
                .leaf("state", "available")
                .leaf("cidrBlock", "172.31.0.0/16")
                .leaf("instanceTenancy", "default")
                .leaf("isDefault", true);
        });
        Ok(xml)
    }

    pub fn describe_subnets(&mut self, params: &mut Params) -> Result<Xml, Refusal> {
        let ids = params.values("SubnetId")?;
        let known = [
            "vpc-id",
            "subnet-id",
            "availability-zone",
            "availabilityZone",
            "default-for-az",
            "defaultForAz",
            "state",
        ];
        let filters = Filters::take(params, &known)?;
        let page = Page::take(params, self.behaviour.page)?;
        params.finish()?;
        for id in &ids {
            subnet(id)?;
        }
        let region = self.behaviour.region.clone();
        let found = SUBNETS
            .into_iter()
            .filter(|(id, ..)| ids.is_empty() || ids.iter().any(|wanted| wanted == id))
            .filter(|(id, letter, _)| {
                let field = |name: &str| {
                    let value = match name {
                        "vpc-id" => VPC.to_owned(),
                        "subnet-id" => (*id).to_owned(),
                        "availability-zone" | "availabilityZone" => format!("{region}{letter}"),
                        "state" => "available".to_owned(),
                        _ => "true".to_owned(),
                    };
                    vec![value]
                };
                filters.match_all(&TagSet::new(), field)
            })
            .collect();
        let (found, next) = page.cut(found, |(id, ..)| (*id).to_owned());
        let mut xml = Xml::default();
        xml.items("subnetSet", found, |xml, (id, letter, third)| {
            xml.leaf("subnetId", id)
                .leaf("vpcId", VPC)
                .leaf("ownerId", ACCOUNT)
                .leaf("state", "available")
                .leaf("cidrBlock", format!("172.31.{third}.0/20"))
                .leaf("availableIpAddressCount", 4091)
                .leaf("availabilityZone", format!("{region}{letter}"))
                .leaf("defaultForAz", true)
                .leaf("mapPublicIpOnLaunch", true);
        })
        .maybe("nextToken", next);
        Ok(xml)
    }

    pub fn describe_instance_types(&mut self, params: &mut Params) -> Result<Xml, Refusal> {
        let names = params.values("InstanceType")?;
        let known = [
            "instance-type",
            "processor-info.supported-architecture",
            "supported-boot-mode",
        ];
        let filters = Filters::take(params, &known)?;
        let page = Page::take(params, self.behaviour.page)?;
        params.finish()?;
        for name in &names {
            let wrong = |_| {
                let text = format!("The following supplied instance types do not exist: [{name}]");
                Refusal::new("InvalidInstanceType", text)
            };
            instance_type(name).map_err(wrong)?;
        }
        let mut found: Vec<InstanceType> = TYPES
            .into_iter()
            .filter(|t| names.is_empty() || names.iter().any(|name| name == t.name))
            .filter(|t| {
                let field = |name: &str| match name {
                    "instance-type" => vec![t.name.to_owned()],
                    "supported-boot-mode" => boot_modes(t).map(str::to_owned).collect(),
                    _ => vec![t.arch.to_owned()],
                };
                filters.match_all(&TagSet::new(), field)
            })
            .collect();
        found.sort_by_key(|t| t.name);
        let (found, next) = page.cut(found, |t| t.name.to_owned());
        let mut xml = Xml::default();
        xml.items("instanceTypeSet", &found, write_type)
            .maybe("nextToken", next);
        Ok(xml)
    }

    pub fn describe_instance_type_offerings(
        &mut self,
        params: &mut Params,
    ) -> Result<Xml, Refusal> {
        let by_zone = params.one_of("LocationType", &["region", "availability-zone"])?
            == Some("availability-zone".to_owned());
        let filters = Filters::take(params, &["instance-type", "location"])?;
        let page = Page::take(params, self.behaviour.page)?;
        params.finish()?;
        let region = &self.behaviour.region;
        let places: Vec<String> = match by_zone {
            true => SUBNETS
                .iter()
                .map(|(_, l, _)| format!("{region}{l}"))
                .collect(),
            false => vec![region.clone()],
        };
        let mut found: Vec<(&str, String)> = TYPES
            .iter()
            .flat_map(|t| places.iter().map(|place| (t.name, place.clone())))
            .filter(|(name, place)| {
                let field = |filter: &str| match filter {
                    "instance-type" => vec![(*name).to_owned()],
                    _ => vec![place.clone()],
                };
                filters.match_all(&TagSet::new(), field)
            })
            .collect();
        found.sort();
        let (found, next) = page.cut(found, |(name, place)| format!("{name} {place}"));
        let kind = if by_zone {
            "availability-zone"
        } else {
            "region"
        };
        let mut xml = Xml::default();
        xml.items("instanceTypeOfferingSet", found, |xml, (name, place)| {
            xml.leaf("instanceType", name)
                .leaf("locationType", kind)
                .leaf("location", place);
        })
        .maybe("nextToken", next);
        Ok(xml)
    }

    pub fn describe_account_attributes(&mut self, params: &mut Params) -> Result<Xml, Refusal> {
        let names = params.values("AttributeName")?;
        params.finish()?;
        let all = [
            ("supported-platforms", "VPC"),
            ("default-vpc", VPC),
            ("max-instances", "20"),
        ];
        let found = all
            .into_iter()
            .filter(|(name, _)| names.is_empty() || names.iter().any(|n| n == name));
        let mut xml = Xml::default();
        xml.items("accountAttributeSet", found, |xml, (name, value)| {
            xml.leaf("attributeName", name)
                .items("attributeValueSet", [value], |xml, value| {
                    xml.leaf("attributeValue", value);
                });
        });
        Ok(xml)
    }
}

/// The zone's letter and the third octet of a subnet.
pub(super) fn subnet(id: &str) -> Result<(&'static str, u8), Refusal> {
    let found = SUBNETS.iter().find(|(known, ..)| *known == id);
    found
        .map(|(_, letter, third)| (*letter, *third))
        .ok_or_else(|| {
            let text = format!("The subnet ID '{id}' does not exist");
            Refusal::new("InvalidSubnetID.NotFound", text)
        })
}

fn boot_modes(t: &InstanceType) -> impl Iterator<Item = &'static str> {
    let bios = (t.arch == "x86_64").then_some("legacy-bios");
    bios.into_iter().chain(t.uefi.then_some("uefi"))
}

fn write_type(xml: &mut Xml, t: &InstanceType) {
    xml.leaf("instanceType", t.name)
        .leaf("currentGeneration", t.uefi)
        .items(
            "supportedUsageClasses",
            ["on-demand", "spot"],
            |xml, class| {
                xml.text(class);
            },
        )
        .items("supportedRootDeviceTypes", ["ebs"], |xml, class| {
            xml.text(class);
        })
        .items("supportedVirtualizationTypes", ["hvm"], |xml, class| {
            xml.text(class);
        })
        .leaf("bareMetal", false)
        .leaf("hypervisor", if t.uefi { "nitro" } else { "xen" })
        .nest("processorInfo", |xml| {
            xml.items("supportedArchitectures", [t.arch], |xml, arch| {
                xml.text(arch);
            });
        })
        .nest("vCpuInfo", |xml| {
            xml.leaf("defaultVCpus", t.vcpus);
        })
        .nest("memoryInfo", |xml| {
            xml.leaf("sizeInMiB", t.mib);
        })
        .nest("ebsInfo", |xml| {
            xml.leaf(
                "nvmeSupport",
                if t.uefi { "required" } else { "unsupported" },
            );
        })
        .nest("networkInfo", |xml| {
            xml.leaf(
                "enaSupport",
                if t.uefi { "required" } else { "unsupported" },
            );
        })
        .items("supportedBootModes", boot_modes(t), |xml, mode| {
            xml.text(mode);
        });
}
