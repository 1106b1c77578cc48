//! The parts as they are.

use std::path::Path;
use std::sync::Arc;

use super::settings::Settings;
use super::{Meeting, Parts, SshKey};
use crate::backend::libvirt::Libvirt;
use crate::backend::{Backend, Image};
use crate::error::CliError;
use crate::event::Sink;
use crate::image::{self, BuildOptions};
use crate::layout::Layout;
use crate::name::NodeName;
use crate::provider::ImageForm;
use crate::rendezvous::Rendezvous;
use crate::site::{Site, SiteKind};
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
}

/// The backend of a site.
pub fn backend(layout: &Layout, site: &Site) -> Arc<dyn Backend> {
    match &site.kind {
        SiteKind::Libvirt(libvirt) => Arc::new(Libvirt::new(libvirt.clone(), &layout.cache)),
        _ => unreachable!("no sites file can name these kinds yet"),
    }
}

impl Parts for Real<'_> {
    fn image(&self, role: &str, events: &dyn Sink) -> Result<Image, CliError> {
        let options = BuildOptions::from_env(self.layout.images());
        image::build(role, ImageForm::Direct, &options, events)
    }

    fn backend(&self, site: &Site) -> Result<Arc<dyn Backend>, CliError> {
        Ok(backend(self.layout, site))
    }

    fn meeting(&self) -> Result<Box<dyn Meeting>, CliError> {
        let Settings {
            tag, rendezvous, ..
        } = self.settings;
        let rendezvous = Rendezvous::open(self.layout, self.name, tag, rendezvous)?;
        Ok(Box::new(RealMeeting {
            rendezvous,
            nodes: self.nodes.clone(),
        }))
    }

    fn ssh_key(&self, path: &Path, comment: &str) -> Result<SshKey, CliError> {
        keys::generate(path, comment)
    }
}
