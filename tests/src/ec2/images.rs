//! Images.

use std::time::{Duration, SystemTime};

use super::clock;
use super::error::Refusal;
use super::filters::{Filters, Page, TagSet};
use super::params::Params;
use super::snapshots;
use super::world::{ACCOUNT, World, tag_specifications, well_formed};
use super::xml::Xml;

const FILTERS: [&str; 9] = [
    "image-id",
    "name",
    "state",
    "owner-id",
    "architecture",
    "root-device-type",
    "virtualization-type",
    "block-device-mapping.snapshot-id",
    "is-public",
];

/// An image.
#[derive(Debug, Clone)]
pub(super) struct Image {
    pub id: String,
    pub name: String,
    pub arch: String,
    pub root_device: String,
    pub snapshot: String,
    pub gib: u32,
    pub volume_dies_with_it: bool,
    pub boot_mode: Option<String>,
    description: Option<String>,
    volume_kind: String,
    ena: bool,
    imds: Option<String>,
    tpm: Option<String>,
    tags: TagSet,
    available_at: Duration,
    created: SystemTime,
    available: bool,
}

impl Image {
    pub fn is_available(&self) -> bool {
        self.available
    }

    pub fn tags_mut(&mut self) -> &mut TagSet {
        &mut self.tags
    }

    fn state(&self) -> &'static str {
        if self.available {
            "available"
        } else {
            "pending"
        }
    }

    fn field(&self, name: &str) -> Vec<String> {
        let value = match name {
            "image-id" => &self.id,
            "name" => &self.name,
            "state" => self.state(),
            "owner-id" => ACCOUNT,
            "architecture" => &self.arch,
            "root-device-type" => "ebs",
            "virtualization-type" => "hvm",
            "block-device-mapping.snapshot-id" => &self.snapshot,
            _ => "false",
        };
        vec![value.to_owned()]
    }

    fn write(&self, xml: &mut Xml) {
        xml.leaf("imageId", &self.id)
            .leaf("imageLocation", format!("{ACCOUNT}/{}", self.name))
            .leaf("imageState", self.state())
            .leaf("imageOwnerId", ACCOUNT)
            .leaf("creationDate", clock::iso(self.created))
            .leaf("isPublic", false)
            .leaf("architecture", &self.arch)
            .leaf("imageType", "machine")
            .leaf("name", &self.name)
            .maybe("description", self.description.as_ref())
            .leaf("rootDeviceType", "ebs")
            .leaf("rootDeviceName", &self.root_device)
            .leaf("virtualizationType", "hvm")
            .leaf("hypervisor", "xen")
            .leaf("enaSupport", self.ena)
            .maybe("bootMode", self.boot_mode.as_ref())
            .maybe("imdsSupport", self.imds.as_ref())
            .maybe("tpmSupport", self.tpm.as_ref())
            .items("blockDeviceMapping", [()], |xml, ()| {
                xml.leaf("deviceName", &self.root_device)
                    .nest("ebs", |xml| {
                        xml.leaf("snapshotId", &self.snapshot)
                            .leaf("volumeSize", self.gib)
                            .leaf("volumeType", &self.volume_kind)
                            .leaf("deleteOnTermination", self.volume_dies_with_it)
                            .leaf("encrypted", false);
                    });
            })
            .tags(&self.tags);
    }
}

impl World {
    pub(super) fn tick_images(&mut self) {
        let now = self.now();
        for image in self.images.values_mut() {
            image.available = image.available || now >= image.available_at;
        }
    }

    pub fn register_image(&mut self, params: &mut Params) -> Result<Xml, Refusal> {
        let name = params.require("Name")?;
        let allowed = |c: char| c.is_ascii_alphanumeric() || "()[] ./-'@_".contains(c);
        if !(3..=128).contains(&name.len()) || !name.chars().all(allowed) {
            let text = "AMI names must be between 3 and 128 characters long, and may contain \
                        letters, numbers, '(', ')', '.', '-', '/' and '_'";
            return Err(Refusal::new("InvalidAMIName.Malformed", text));
        }
        let arch = params.one_of("Architecture", &["i386", "x86_64", "arm64"])?;
        let virtualization = params.one_of("VirtualizationType", &["hvm", "paravirtual"])?;
        if virtualization.as_deref() != Some("hvm") {
            let text = "Only hvm images run on current instance types";
            return Err(Refusal::new("InvalidParameterValue", text));
        }
        let root_device = params.require("RootDeviceName")?;
        let (snapshot, gib, kind, dies) = self.root_mapping(params, &root_device)?;
        let image = Image {
            arch: arch.unwrap_or_else(|| "i386".to_owned()),
            boot_mode: params.one_of("BootMode", &["legacy-bios", "uefi", "uefi-preferred"])?,
            imds: params.one_of("ImdsSupport", &["v2.0"])?,
            tpm: params.one_of("TpmSupport", &["v2.0"])?,
            ena: params.parsed("EnaSupport")?.unwrap_or(false),
            description: params.take("Description"),
            tags: tag_specifications(params, &["image", "snapshot"])?
                .remove("image")
                .unwrap_or_default(),
            available_at: self.now() + self.behaviour.image_pending,
            created: SystemTime::now(),
            available: false,
            volume_dies_with_it: dies,
            volume_kind: kind,
            id: String::new(),
            name,
            root_device,
            snapshot,
            gib,
        };
        params.finish()?;
        if let Some(other) = self.images.values().find(|other| other.name == image.name) {
            let text = format!(
                "AMI name {} is already in use by AMI {}",
                image.name, other.id
            );
            return Err(Refusal::new("InvalidAMIName.Duplicate", text));
        }
        let id = self.new_id("ami");
        let image = Image {
            id: id.clone(),
            ..image
        };
        self.images.insert(id.clone(), image);
        let mut xml = Xml::default();
        xml.leaf("imageId", id);
        Ok(xml)
    }

    /// Snapshot, size, kind of volume, and whether that is deleted with its instance.
    fn root_mapping(
        &mut self,
        params: &mut Params,
        root: &str,
    ) -> Result<(String, u32, String, bool), Refusal> {
        let wrong = |text: String| Refusal::new("InvalidBlockDeviceMapping", text);
        let mut found = None;
        for mut mapping in params.structures("BlockDeviceMapping")? {
            let device = mapping.require("DeviceName")?;
            let Some(mut ebs) = mapping.below("Ebs") else {
                return Err(wrong(format!("{device} has no EBS volume")));
            };
            mapping.finish()?;
            if device != root {
                return Err(wrong(format!("{device} is not the root device {root}")));
            }
            let snapshot = ebs.require("SnapshotId")?;
            let size: Option<u32> = ebs.parsed("VolumeSize")?;
            let kind = volume_kind(&mut ebs)?;
            let dies = ebs.parsed("DeleteOnTermination")?.unwrap_or(true);
            ebs.finish()?;
            self.snapshot(&snapshot)?;
            let of = &self.snapshots[&snapshot];
            if of.state != snapshots::State::Completed {
                let text = format!("Snapshot {snapshot} is not in the completed state");
                return Err(Refusal::new("IncorrectState", text));
            }
            let gib = size.unwrap_or(of.gib);
            if gib < of.gib {
                let text = format!(
                    "Volume of size {gib}GB is smaller than snapshot '{snapshot}', expect size \
                     >= {}GB",
                    of.gib
                );
                return Err(wrong(text));
            }
            found = Some((snapshot, gib, kind, dies));
        }
        found.ok_or_else(|| {
            let text = "No root snapshot specified in device mapping.";
            Refusal::new("InvalidBlockDeviceMapping", text)
        })
    }

    pub fn deregister_image(&mut self, params: &mut Params) -> Result<Xml, Refusal> {
        let id = params.require("ImageId")?;
        let with_snapshots: bool = params.parsed("DeleteAssociatedSnapshots")?.unwrap_or(false);
        params.finish()?;
        self.image(&id)?;
        let image = self.images.remove(&id).expect("it was found");
        self.deregistered.push(id);
        if with_snapshots && !self.images.values().any(|i| i.snapshot == image.snapshot) {
            self.snapshots.remove(&image.snapshot);
        }
        Ok(Xml::done())
    }

    pub fn describe_images(&mut self, params: &mut Params) -> Result<Xml, Refusal> {
        let ids = params.values("ImageId")?;
        let owners = params.values("Owner")?;
        let filters = Filters::take(params, &FILTERS)?;
        let _deprecated: Option<bool> = params.parsed("IncludeDeprecated")?;
        let _disabled: Option<bool> = params.parsed("IncludeDisabled")?;
        let page = Page::take(params, self.behaviour.page)?;
        params.finish()?;
        owned_by_self(&owners, &ids)?;
        for id in &ids {
            self.image(id)?;
        }
        let all: Vec<Image> = self.images.values().cloned().collect();
        let found = all
            .into_iter()
            .filter(|i| ids.is_empty() || ids.contains(&i.id))
            .filter(|i| filters.match_all(&i.tags, |name| i.field(name)))
            .filter(|i| !ids.is_empty() || self.sees(&i.id))
            .collect();
        let page = if ids.is_empty() { page } else { Page::all() };
        let (found, next) = page.cut(found, |i: &Image| i.id.clone());
        let mut xml = Xml::default();
        xml.items("imagesSet", &found, |xml, image| image.write(xml))
            .maybe("nextToken", next);
        Ok(xml)
    }

    /// Refuses the identifier of an image that cannot be found.
    pub fn image(&mut self, id: &str) -> Result<(), Refusal> {
        if !well_formed("ami", id) {
            let text = format!("Invalid id: \"{id}\" (expecting \"ami-...\")");
            return Err(Refusal::new("InvalidAMIID.Malformed", text));
        }
        if self.deregistered.iter().any(|gone| gone == id) {
            let text = format!("The image ID '{id}' is no longer available");
            return Err(Refusal::new("InvalidAMIID.Unavailable", text));
        }
        if !self.images.contains_key(id) || !self.sees(id) {
            let text = format!("The image id '[{id}]' does not exist");
            return Err(Refusal::new("InvalidAMIID.NotFound", text));
        }
        Ok(())
    }
}

/// Lists without an owner would hold everything that is public: thousands, and none of ours to
/// touch. The double refuses what no client of ours should ask.
pub(super) fn owned_by_self(owners: &[String], ids: &[String]) -> Result<(), Refusal> {
    if ids.is_empty() && owners != ["self"] && owners != [ACCOUNT] {
        let text = "This double lists only what is owned by `self`; ask for that.";
        return Err(Refusal::new("InvalidParameterValue", text));
    }
    Ok(())
}

/// Checks what is said of a volume, and gives its kind.
pub(super) fn volume_kind(ebs: &mut Params) -> Result<String, Refusal> {
    let kinds = ["gp2", "gp3", "io1", "io2", "st1", "sc1", "standard"];
    let kind = ebs.one_of("VolumeType", &kinds)?;
    let kind = kind.unwrap_or_else(|| "gp2".to_owned());
    let iops: Option<u32> = ebs.parsed("Iops")?;
    let throughput: Option<u32> = ebs.parsed("Throughput")?;
    if throughput.is_some() && kind != "gp3" || iops.is_some() && kind == "gp2" {
        let text = format!("The parameter iops or throughput is not supported for {kind} volumes.");
        return Err(Refusal::new("InvalidParameterCombination", text));
    }
    if ebs.parsed::<bool>("Encrypted")? == Some(true) {
        let text = "This double encrypts nothing.";
        return Err(Refusal::new("InvalidParameterValue", text));
    }
    Ok(kind)
}
