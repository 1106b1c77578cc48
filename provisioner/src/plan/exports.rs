//! exports(5): to whom the front end's folder and a share's are exported.

use serde::Serialize;

use super::ClusterPlan;
use super::scheduler::Scheduler;
use super::share::PlannedShare;
use crate::error::{CliError, ExitCode};
use crate::render::render;

/// Owner of shared folders, to whom every client's every user is mapped: the clients of several
/// institutions each have a root of their own, and none of them is to be trusted with another's
/// files. Debian's nobody and nogroup.
const EXPORT_ID: u32 = 65534;

/// A share's exports(5): to its members by address, or to the overlay.
pub fn of_share(plan: &ClusterPlan, share: &PlannedShare) -> Result<String, CliError> {
    #[derive(Serialize)]
    struct Values<'a> {
        deployment: &'a str,
        share: &'a str,
        id: u32,
        clients: Vec<String>,
    }
    let values = Values {
        deployment: &plan.name,
        share: &share.share.name.0,
        id: EXPORT_ID,
        clients: share.exported_to(plan),
    };
    rendered("share-exports.j2", values)
}

/// The front end's exports(5): to the overlay, so that it stays the same as workers come and go.
pub fn of_frontend(plan: &ClusterPlan) -> Result<String, CliError> {
    #[derive(Serialize)]
    struct Values<'a> {
        deployment: &'a str,
        id: u32,
        net4: String,
        net6: String,
        machines4: String,
        machines6: String,
        scheduler: bool,
    }
    let (machines4, machines6) = plan.machine_nets();
    let values = Values {
        deployment: &plan.name,
        id: EXPORT_ID,
        net4: plan
            .lan
            .as_ref()
            .map_or(plan.nets.ipv4, |lan| lan.pool)
            .to_string(),
        net6: plan.nets.net6(),
        machines4,
        machines6,
        scheduler: plan.scheduler != Scheduler::None,
    };
    rendered("exports.j2", values)
}

fn rendered(template: &str, values: impl Serialize) -> Result<String, CliError> {
    render(template, values).map_err(|e| {
        let message = format!("cannot render the template `{template}`");
        CliError::new(ExitCode::Internal, message).caused_by(e)
    })
}
