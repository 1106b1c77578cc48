//! The parts as they are.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use super::settings::Settings;
use super::{Meeting, Parts, SshKey};
use crate::error::CliError;
use crate::event::Sink;
use crate::image::{self, BuildOptions, prebuilt};
use crate::layout::Layout;
use crate::name::NodeName;
use crate::provider::{self, Image, ImageForm, Provider, Tags};
use crate::rendezvous::Rendezvous;
use crate::rendezvous::attendant::Attendant;
use crate::site::Site;
use crate::ssh::keys;

pub use super::meeting::RealMeeting;

/// Everything real that one deployment is made of.
#[derive(Debug)]
pub struct Real<'a> {
    /// Directories.
    pub layout: &'a Layout,
    /// Deployment.
    pub name: &'a str,
    /// Its sites and rendezvous.
    pub settings: &'a Settings,
    /// Its nodes, the front end first.
    pub nodes: Vec<NodeName>,
    /// Written on what is made of the rendezvous; none where nothing is made.
    pub tags: Option<Tags>,
}

impl Parts for Real<'_> {
    fn image(&self, role: &str, form: ImageForm, events: &dyn Sink) -> Result<Image, CliError> {
        if let Some(dir) = prebuilt::directory() {
            return prebuilt::find(&dir, role, form);
        }
        let options = BuildOptions::from_env(self.layout.images());
        image::build(role, form, &options, events)
    }

    fn templates(&self, role: &str) -> Result<BTreeMap<String, String>, CliError> {
        BuildOptions::from_env(self.layout.images()).templates(role)
    }

    fn provider(&self, site: &Site) -> Result<Arc<dyn Provider>, CliError> {
        provider::open(self.layout, site)
    }

    fn meeting(&self) -> Result<Box<dyn Meeting>, CliError> {
        let Settings {
            tag, rendezvous, ..
        } = self.settings;
        let rendezvous = Rendezvous::open(self.layout, self.name, tag, rendezvous)?;
        let rendezvous = match &self.tags {
            Some(tags) => rendezvous.tagged(tags.clone()),
            None => rendezvous,
        };
        let attends = self.settings.authority && !rendezvous.is_ours();
        Ok(Box::new(RealMeeting {
            rendezvous,
            attendant: attends.then(|| Attendant::new(self.layout, self.name)),
            nodes: self.nodes.clone(),
        }))
    }

    fn ssh_key(&self, path: &Path, comment: &str) -> Result<SshKey, CliError> {
        keys::generate(path, comment)
    }
}
