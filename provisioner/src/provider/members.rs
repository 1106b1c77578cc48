//! Machines of people: nobody here makes, sees or removes them. What a deployment has of one is its
//! account, which is the rendezvous's.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{
    CheckLine, Delivery, Found, ImageForm, Machine, Made, Making, Provider, Removing, SitePlan,
    Step, Tags,
};
use crate::error::{CliError, ExitCode};
use crate::name::NodeName;

/// The place where members' machines are. No site of a user's has this name.
pub const ELSEWHERE: &str = "-";

/// See the module.
#[derive(Debug)]
pub struct Members;

fn no_machine(what: &str) -> CliError {
    let message = format!("`{what}` is of no machine of a member's");
    CliError::new(ExitCode::Internal, message)
}

impl Provider for Members {
    fn image_form(&self) -> Option<ImageForm> {
        None
    }

    /// An invitation passes through many hands before it is used.
    fn delivery(&self) -> Delivery {
        Delivery::Enrolment
    }

    /// Nobody here knows where they are: whoever invites one is told where the rendezvous listens.
    fn is_local(&self) -> bool {
        true
    }

    fn plan(&self, _: &SitePlan<'_>) -> Result<Vec<Step>, CliError> {
        Ok(Vec::new())
    }

    fn make(&self, step: &Step, _: &Making<'_>) -> Result<Made, CliError> {
        Err(no_machine(&step.resource.id))
    }

    fn remove(&self, removing: &Removing<'_>) -> Result<(), CliError> {
        Err(no_machine(&removing.resource.id))
    }

    fn find(&self, _: Option<&Tags>) -> Result<Vec<Found>, CliError> {
        Ok(Vec::new())
    }

    fn machines(&self, _: &Tags) -> Result<BTreeMap<NodeName, Machine>, CliError> {
        Ok(BTreeMap::new())
    }

    fn console(&self, _: &Tags, _: &NodeName, _: usize) -> Result<Vec<u8>, CliError> {
        Ok(Vec::new())
    }

    fn check(&self) -> Result<Vec<CheckLine>, CliError> {
        Ok(Vec::new())
    }

    fn join_limit(&self) -> Result<Duration, CliError> {
        Ok(Duration::ZERO)
    }
}
