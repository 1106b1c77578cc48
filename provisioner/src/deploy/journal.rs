//! The only way to make a resource: recorded, made, recorded as made.

use crate::backend::Resource;
use crate::deploy::interrupt::Interrupt;
use crate::error::CliError;
use crate::name::NodeName;
use crate::state::Database;
use crate::state::record::Owner;

/// The journal of one deployment.
#[derive(Debug, Clone, Copy)]
pub struct Journal<'a> {
    /// The state database.
    pub database: &'a Database,
    /// The deployment's row.
    pub id: i64,
    /// Whether the user wants to stop; nothing more is made then.
    pub interrupt: &'a Interrupt,
}

impl Journal<'_> {
    /// Records that resources are about to be made.
    pub fn plan(
        &self,
        owner: &Owner,
        node: Option<&NodeName>,
        resources: &[Resource],
    ) -> Result<(), CliError> {
        for resource in resources {
            self.database
                .plan_resource(self.id, owner, node, resource)?;
        }
        Ok(())
    }

    /// Makes planned resources by `make`, and records that they were made.
    pub fn make<T>(
        &self,
        owner: &Owner,
        resources: &[Resource],
        make: impl FnOnce() -> Result<T, CliError>,
    ) -> Result<T, CliError> {
        self.interrupt.check()?;
        let made = make()?;
        for resource in resources {
            self.database.made(self.id, owner, resource)?;
        }
        Ok(made)
    }
}
