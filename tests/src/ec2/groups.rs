//! Security groups.

use super::error::Refusal;
use super::filters::{Filters, Page, TagSet};
use super::params::Params;
use super::places::VPC;
use super::world::{ACCOUNT, World, tag_specifications, well_formed};
use super::xml::Xml;

const FILTERS: [&str; 5] = [
    "group-id",
    "group-name",
    "vpc-id",
    "owner-id",
    "description",
];

/// A group. Its only rule lets everything out, as that of every new group does.
#[derive(Debug, Clone)]
pub(super) struct Group {
    pub id: String,
    pub name: String,
    description: String,
    vpc: String,
    tags: TagSet,
    /// Whether the rule that lets everything out is still there.
    open_egress: bool,
}

impl Group {
    /// The group that every VPC has.
    pub fn default_of_vpc() -> Self {
        Self {
            id: "sg-0000000000defa170".to_owned(),
            name: "default".to_owned(),
            description: "default VPC security group".to_owned(),
            vpc: VPC.to_owned(),
            tags: TagSet::new(),
            open_egress: true,
        }
    }

    pub fn is_default(&self) -> bool {
        self.name == "default"
    }

    pub fn vpc(&self) -> &str {
        &self.vpc
    }

    pub fn tags_mut(&mut self) -> &mut TagSet {
        &mut self.tags
    }

    fn field(&self, name: &str) -> Vec<String> {
        let value = match name {
            "group-id" => &self.id,
            "group-name" => &self.name,
            "vpc-id" => &self.vpc,
            "description" => &self.description,
            _ => ACCOUNT,
        };
        vec![value.to_owned()]
    }

    fn write(&self, xml: &mut Xml) {
        xml.leaf("ownerId", ACCOUNT)
            .leaf("groupId", &self.id)
            .leaf("groupName", &self.name)
            .leaf("groupDescription", &self.description)
            .leaf("vpcId", &self.vpc)
            .items("ipPermissions", [(); 0], |_, ()| {})
            .items(
                "ipPermissionsEgress",
                self.open_egress.then_some(()),
                |xml, ()| {
                    xml.leaf("ipProtocol", -1)
                        .items("ipRanges", [()], |xml, ()| {
                            xml.leaf("cidrIp", "0.0.0.0/0");
                        });
                },
            )
            .tags(&self.tags);
    }
}

impl World {
    pub fn create_security_group(&mut self, params: &mut Params) -> Result<Xml, Refusal> {
        let name = params.require("GroupName")?;
        let description = params.require("GroupDescription")?;
        let vpc = params.take("VpcId").unwrap_or_else(|| VPC.to_owned());
        let mut tags = tag_specifications(params, &["security-group"])?;
        params.finish()?;
        if vpc != VPC {
            let text = format!("The vpc ID '{vpc}' does not exist");
            return Err(Refusal::new("InvalidVpcID.NotFound", text));
        }
        let allowed = |c: char| c.is_ascii_alphanumeric() || " ._-:/()#,@[]+=&;{}!$*".contains(c);
        for (parameter, text) in [("groupName", &name), ("GroupDescription", &description)] {
            if text.is_empty() || text.len() > 255 || !text.chars().all(allowed) {
                let why = "Character sets beyond ASCII are not supported.";
                return Err(Refusal::value(parameter, text, why));
            }
        }
        if name.starts_with("sg-") {
            let why = "Group names may not be in the format sg-*.";
            return Err(Refusal::value("groupName", name, why));
        }
        if self.groups.values().any(|group| group.name == name) {
            let text = format!("The security group '{name}' already exists for VPC '{vpc}'");
            return Err(Refusal::new("InvalidGroup.Duplicate", text));
        }
        let group = Group {
            id: self.new_id("sg"),
            name,
            description,
            vpc,
            tags: tags.remove("security-group").unwrap_or_default(),
            open_egress: true,
        };
        let mut xml = Xml::default();
        xml.leaf("return", true)
            .leaf("groupId", &group.id)
            .tags(&group.tags);
        self.groups.insert(group.id.clone(), group);
        Ok(xml)
    }

    pub fn delete_security_group(&mut self, params: &mut Params) -> Result<Xml, Refusal> {
        let id = params.require("GroupId")?;
        params.finish()?;
        self.group(&id)?;
        if self.groups[&id].is_default() {
            let text = format!(
                "the specified group: \"{id}\" name: \"default\" cannot be deleted by a user"
            );
            return Err(Refusal::new("CannotDelete", text));
        }
        let uses = |group: &[String]| group.contains(&id);
        if self
            .instances
            .values()
            .any(|i| !i.is_over() && uses(&i.groups))
        {
            let text = format!("resource {id} has a dependent object");
            return Err(Refusal::new("DependencyViolation", text));
        }
        self.groups.remove(&id);
        let mut xml = Xml::done();
        xml.leaf("groupId", id);
        Ok(xml)
    }

    pub fn describe_security_groups(&mut self, params: &mut Params) -> Result<Xml, Refusal> {
        let ids = params.values("GroupId")?;
        let filters = Filters::take(params, &FILTERS)?;
        let page = Page::take(params, self.behaviour.page)?;
        params.finish()?;
        for id in &ids {
            self.group(id)?;
        }
        let all: Vec<Group> = self.groups.values().cloned().collect();
        let found = all
            .into_iter()
            .filter(|g| ids.is_empty() || ids.contains(&g.id))
            .filter(|g| filters.match_all(&g.tags, |name| g.field(name)))
            .filter(|g| !ids.is_empty() || self.sees(&g.id))
            .collect();
        let page = if ids.is_empty() { page } else { Page::all() };
        let (found, next) = page.cut(found, |g: &Group| g.id.clone());
        let mut xml = Xml::default();
        xml.items("securityGroupInfo", &found, |xml, group| group.write(xml))
            .maybe("nextToken", next);
        Ok(xml)
    }

    /// Takes the rule away that lets everything out; any other rule does not exist.
    pub fn revoke_security_group_egress(&mut self, params: &mut Params) -> Result<Xml, Refusal> {
        let id = params.require("GroupId")?;
        let mut rules = params.structures("IpPermissions")?;
        params.finish()?;
        self.group(&id)?;
        for rule in &mut rules {
            let protocol = rule.require("IpProtocol")?;
            let mut to = Vec::new();
            for mut range in rule.structures("IpRanges")? {
                to.push(range.require("CidrIp")?);
                range.finish()?;
            }
            rule.finish()?;
            let group = self.groups.get_mut(&id).expect("it was found");
            if protocol != "-1" || to != ["0.0.0.0/0"] || !group.open_egress {
                let text = "The specified rule does not exist in this security group.";
                return Err(Refusal::new("InvalidPermission.NotFound", text));
            }
            group.open_egress = false;
        }
        Ok(Xml::done())
    }

    /// Refuses the identifier of a group that cannot be found.
    pub fn group(&mut self, id: &str) -> Result<(), Refusal> {
        if !well_formed("sg", id) {
            let text = format!("Invalid id: \"{id}\" (expecting \"sg-...\")");
            return Err(Refusal::new("InvalidGroupId.Malformed", text));
        }
        if !self.groups.contains_key(id) || !self.sees(id) {
            let text = format!("The security group '{id}' does not exist");
            return Err(Refusal::new("InvalidGroup.NotFound", text));
        }
        Ok(())
    }
}
