//! The site as the engine sees it.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use aws_credential_types::Credentials;

use super::api::{Api, Limits};
use super::config::Ec2Site;
use super::resume::Memory;
use super::{check, cost, find, group, image, instance, plan, snapshot};
use crate::error::{CliError, ExitCode};
use crate::name::NodeName;
use crate::provider::{
    CheckLine, Cost, Delivery, Found, Image, ImageForm, Machine, Made, Making, Provider, Removing,
    SitePlan, Step, Tags,
};
use crate::secret::Secret;

/// Boot, network, enrolment; stock images take half a minute to sshd.
const JOIN_LIMIT: Duration = Duration::from_secs(5 * 60);
/// Calls at once: EC2 lets through some ten changes a second.
const PARALLEL: usize = 16;
/// Listing and removing what is kept.
const PRUNE_LIMIT: Duration = Duration::from_secs(300);

/// One EC2 site: a region, and how machines are made there.
pub struct Ec2 {
    api: Api,
    site: Ec2Site,
    memory: Memory,
}

impl Ec2 {
    /// With the credentials that the AWS tools would use.
    pub fn new(site: Ec2Site, cache: &Path) -> Result<Self, CliError> {
        Self::open(site, cache, None)
    }

    /// With these credentials, whatever the environment says.
    pub fn with_key(
        site: Ec2Site,
        cache: &Path,
        key_id: &str,
        key: &Secret<String>,
    ) -> Result<Self, CliError> {
        let credentials = Credentials::new(key_id, key.expose(), None, None, "given");
        Self::open(site, cache, Some(credentials))
    }

    fn open(
        site: Ec2Site,
        cache: &Path,
        credentials: Option<Credentials>,
    ) -> Result<Self, CliError> {
        Ok(Self {
            api: Api::new(&site, credentials)?,
            site,
            memory: Memory::new(cache),
        })
    }

    /// The image a step of a snapshot or AMI is made of.
    fn image<'a>(&self, step: &Step, making: &Making<'a>) -> Result<&'a Image, CliError> {
        making
            .images
            .values()
            .find(|image| plan::image_id(image, making.tags) == step.resource.id)
            .ok_or_else(|| {
                let what = format!("there is no image for {}", step.resource.id);
                CliError::new(ExitCode::Internal, what)
            })
    }

    async fn make_snapshot(&self, step: &Step, making: &Making<'_>) -> Result<Made, CliError> {
        let image = self.image(step, making)?;
        let whole = image.whole.as_deref().ok_or_else(|| {
            let what = format!("the image of {} was not built as a whole disk", image.role);
            CliError::new(ExitCode::Internal, what)
        })?;
        snapshot::make(&snapshot::Uploading {
            api: &self.api,
            memory: &self.memory,
            keep: self.site.keep_images,
            image,
            whole,
            resource: &step.resource,
            making,
        })
        .await
    }
}

impl Provider for Ec2 {
    fn image_form(&self) -> Option<ImageForm> {
        Some(ImageForm::Whole)
    }

    fn delivery(&self) -> Delivery {
        Delivery::Enrolment
    }

    fn parallel(&self) -> usize {
        PARALLEL
    }

    fn plan(&self, plan: &SitePlan<'_>) -> Result<Vec<Step>, CliError> {
        plan::steps(plan, self.site.keep_images)
    }

    fn make(&self, step: &Step, making: &Making<'_>) -> Result<Made, CliError> {
        making.interrupt.check()?;
        self.api.run(async {
            match step.resource.kind.as_str() {
                plan::SNAPSHOT => self.make_snapshot(step, making).await,
                plan::IMAGE => {
                    let image = self.image(step, making)?;
                    let keep = self.site.keep_images;
                    image::make(&self.api, keep, image, &step.resource, making).await
                }
                plan::GROUP => group::make(&self.api, &self.site, &step.resource, making).await,
                plan::INSTANCE => instance::make(&self.api, &self.site, step, making).await,
                kind => Err(unknown_kind(kind)),
            }
        })
    }

    fn remove(&self, removing: &Removing<'_>) -> Result<(), CliError> {
        self.api.run(async {
            match removing.resource.kind.as_str() {
                plan::SNAPSHOT => snapshot::remove(&self.api, &self.memory, removing).await,
                plan::IMAGE => image::remove(&self.api, removing).await,
                plan::GROUP => group::remove(&self.api, removing).await,
                plan::INSTANCE => instance::remove(&self.api, removing).await,
                kind => Err(unknown_kind(kind)),
            }
        })
    }

    fn find(&self, tags: Option<&Tags>) -> Result<Vec<Found>, CliError> {
        self.api.run(find::find(&self.api, tags))
    }

    fn machines(&self, tags: &Tags) -> Result<BTreeMap<NodeName, Machine>, CliError> {
        self.api.run(find::machines(&self.api, tags))
    }

    fn console(&self, tags: &Tags, node: &NodeName, limit: usize) -> Result<Vec<u8>, CliError> {
        self.api.run(find::console(&self.api, tags, node, limit))
    }

    fn check(&self) -> Result<Vec<CheckLine>, CliError> {
        Ok(self.api.run(check::lines(&self.api, &self.site)))
    }

    fn prune(&self) -> Result<Vec<String>, CliError> {
        let limits = Limits::within(PRUNE_LIMIT);
        self.api.run(find::prune(&self.api, &self.memory, limits))
    }

    fn join_limit(&self) -> Result<Duration, CliError> {
        Ok(JOIN_LIMIT)
    }

    fn cost(&self, plan: &SitePlan<'_>) -> Result<Option<Cost>, CliError> {
        cost::estimate(&self.site, plan)
    }
}

fn unknown_kind(kind: &str) -> CliError {
    let what = format!("EC2 sites have no resource of kind \"{kind}\"");
    CliError::new(ExitCode::Internal, what)
        .hint("the state database was written by another version of provision")
}
