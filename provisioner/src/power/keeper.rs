//! Keeps `provision power` running beside a rendezvous, for deployments that have elastic workers.

use std::convert::Infallible;
use std::time::Duration;

use super::Report;
use crate::deploy::settings::Settings;
use crate::error::CliError;
use crate::keep::own_command;
use crate::layout::Layout;
use crate::state::Database;
use crate::state::record::Phase;

/// Between looks whether there is something to do, and after one that ended.
const LOOK: Duration = Duration::from_secs(10);

/// Runs it whenever it does not run; dropped, it is killed, which is harmless at any moment.
pub async fn keep(layout: Layout, deployment: String) -> Infallible {
    loop {
        tokio::time::sleep(LOOK).await;
        let (looked, name) = (layout.clone(), deployment.clone());
        let look = tokio::task::spawn_blocking(move || is_needed(&looked, &name));
        // A database that cannot be read now may be read later.
        if !matches!(look.await, Ok(Ok(true))) {
            continue;
        }
        let status = match own_command(&layout, &["power", &deployment]) {
            Ok(command) => {
                let mut command = tokio::process::Command::from(command);
                command.kill_on_drop(true).status().await
            }
            Err(error) => Err(std::io::Error::other(error)),
        };
        if let Err(error) = status {
            eprintln!("cannot run `provision power {deployment}`: {error}");
        }
    }
}

fn is_needed(layout: &Layout, deployment: &str) -> Result<bool, CliError> {
    let path = layout.database();
    // Opening would make one.
    if !path.exists() {
        return Ok(false);
    }
    let Some(found) = Database::open(&path)?.deployment(deployment)? else {
        return Ok(false);
    };
    let is_leaving = found.phase == Phase::Destroying;
    // That there are none any more is to be told as well.
    let was_told = Report::read(layout, deployment).is_some();
    Ok(!is_leaving && (was_told || !Settings::of(&found)?.elastic.is_empty()))
}
