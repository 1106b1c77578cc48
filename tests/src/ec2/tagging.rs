//! Tags on what is there already.

use super::error::Refusal;
use super::filters::{Filters, Page, TagSet};
use super::params::Params;
use super::world::{World, tags};
use super::xml::Xml;

impl World {
    pub fn create_tags(&mut self, params: &mut Params) -> Result<Xml, Refusal> {
        let ids = params.values("ResourceId")?;
        let added = tags(params)?;
        params.finish()?;
        if ids.is_empty() || added.is_empty() {
            let text = "The request must contain the parameters resourceIdSet and tagSet";
            return Err(Refusal::new("MissingParameter", text));
        }
        for id in &ids {
            self.tags_of(id)?;
        }
        for id in &ids {
            self.tags_of(id)?.extend(added.clone());
        }
        Ok(Xml::done())
    }

    pub fn delete_tags(&mut self, params: &mut Params) -> Result<Xml, Refusal> {
        let ids = params.values("ResourceId")?;
        let removed = tags(params)?;
        params.finish()?;
        for id in &ids {
            let tags = self.tags_of(id)?;
            tags.retain(|key, _| !removed.contains_key(key));
        }
        Ok(Xml::done())
    }

    pub fn describe_volumes(&mut self, params: &mut Params) -> Result<Xml, Refusal> {
        let ids = params.values("VolumeId")?;
        let filters = Filters::take(params, &["status", "volume-id"])?;
        let page = Page::take(params, self.behaviour.page)?;
        params.finish()?;
        let attached = self
            .instances
            .values()
            .filter(|i| !i.is_over())
            .map(|i| (&i.volume, &i.volume_tags, "in-use"));
        let loose = self
            .volumes
            .iter()
            .map(|(id, tags)| (id, tags, "available"));
        let mut found: Vec<_> = attached
            .chain(loose)
            .filter(|(id, ..)| ids.is_empty() || ids.contains(id))
            .filter(|(id, tags, state)| {
                let field = |name: &str| match name {
                    "status" => vec![(*state).to_owned()],
                    _ => vec![(*id).clone()],
                };
                filters.match_all(tags, field)
            })
            .collect();
        found.sort();
        let (found, next) = page.cut(found, |(id, ..)| (*id).clone());
        let mut xml = Xml::default();
        xml.items("volumeSet", found, |xml, (id, tags, state)| {
            xml.leaf("volumeId", id).leaf("status", state).tags(tags);
        })
        .maybe("nextToken", next);
        Ok(xml)
    }

    pub fn delete_volume(&mut self, params: &mut Params) -> Result<Xml, Refusal> {
        let id = params.require("VolumeId")?;
        params.finish()?;
        if self
            .instances
            .values()
            .any(|i| i.volume == id && !i.is_over())
        {
            let text = format!("Volume {id} is currently attached");
            return Err(Refusal::new("VolumeInUse", text));
        }
        let removed = self.volumes.remove(&id);
        removed.map(|_| Xml::done()).ok_or_else(|| {
            let text = format!("The volume '{id}' does not exist.");
            Refusal::new("InvalidVolume.NotFound", text)
        })
    }

    fn tags_of(&mut self, id: &str) -> Result<&mut TagSet, Refusal> {
        match id.split('-').next() {
            Some("i") => {
                self.instances_exist(&[id.to_owned()])?;
                Ok(&mut self.instances.get_mut(id).expect("it was found").tags)
            }
            Some("ami") => {
                self.image(id)?;
                Ok(self.images.get_mut(id).expect("it was found").tags_mut())
            }
            Some("snap") => {
                self.snapshot(id)?;
                Ok(&mut self.snapshots.get_mut(id).expect("it was found").tags)
            }
            Some("sg") => {
                self.group(id)?;
                Ok(self.groups.get_mut(id).expect("it was found").tags_mut())
            }
            _ => {
                let text = format!("The ID '{id}' is not valid");
                Err(Refusal::new("InvalidID", text))
            }
        }
    }
}
