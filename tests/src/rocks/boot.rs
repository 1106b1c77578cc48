//! The commands that say what a host boots.

use super::command::{Abort, Call, remove, write};
use super::database::BootAction;
use super::files;

impl Call<'_> {
    pub(super) fn set_boot(&mut self) -> Result<(), Abort> {
        if self.args.is_empty() {
            return Err(Abort("must supply host".to_owned()));
        }
        let action = self.params.get("action").cloned();
        if action
            .as_deref()
            .is_some_and(|a| !["os", "run", "install"].contains(&a))
        {
            return Err(Abort(
                "invalid action. action must be \"os\", \"run\" or \"install\"".to_owned(),
            ));
        }
        for name in self.hosts()? {
            if let Some(action) = &action {
                self.host(&name)?.boot = Some(action.clone());
            }
            self.step()?;
            self.write_booted(&name)?;
        }
        Ok(())
    }

    fn write_booted(&self, name: &str) -> Result<(), Abort> {
        let Some(host) = self.tables.host(name) else {
            return Ok(());
        };
        let invalid = |action| {
            Abort(format!(
                "bootaction \"{action}\" for host \"{name}\" is invalid"
            ))
        };
        let Some(booted) = files::booted(&self.tables, host).map_err(invalid)? else {
            return Ok(());
        };
        let root = self.database.root();
        match booted.texts {
            Some((pxelinux, grub)) => {
                write(root, &booted.pxelinux, &pxelinux)?;
                write(root, &booted.grub, &grub)?;
            }
            None => {
                remove(root, &booted.pxelinux)?;
                remove(root, &booted.grub)?;
            }
        }
        Ok(())
    }

    pub(super) fn set_runaction(&mut self) -> Result<(), Abort> {
        let action = self.last("action");
        if self.args.is_empty() {
            return Err(Abort("must supply host".to_owned()));
        }
        let action = action.ok_or_else(|| Abort("must supply an action".to_owned()))?;
        if self.tables.bootaction(&action).is_none() {
            return Err(Abort(format!("action \"{action}\" does not exist")));
        }
        for name in self.hosts()? {
            self.host(&name)?.run_action.clone_from(&action);
            self.step()?;
            self.write_booted(&name)?;
        }
        Ok(())
    }

    /// Adds one, or changes of one that is there what is given.
    pub(super) fn add_bootaction(&mut self) -> Result<(), Abort> {
        let action = self.params.remove("action");
        let action = action.ok_or_else(|| Abort("must supply an action".to_owned()))?;
        let known = &mut self.tables.bootactions;
        let at = known.iter().position(|b| b.action == action);
        let at = at.unwrap_or_else(|| {
            known.push(BootAction {
                action,
                ..BootAction::default()
            });
            known.len() - 1
        });
        let boot = &mut known[at];
        for (key, place) in [
            ("kernel", &mut boot.kernel),
            ("ramdisk", &mut boot.ramdisk),
            ("args", &mut boot.args),
        ] {
            if let Some(value) = self.params.remove(key) {
                *place = value;
            }
        }
        self.step()?;
        self.write_all_booted()
    }

    pub(super) fn remove_bootaction(&mut self) -> Result<(), Abort> {
        let action = self.params.remove("action");
        let action = action.ok_or_else(|| Abort("you need to specify an action".to_owned()))?;
        if self.tables.bootaction(&action).is_none() {
            return Err(Abort(format!("no action found with name {action}")));
        }
        self.tables.bootactions.retain(|b| b.action != action);
        self.step()?;
        self.write_all_booted()
    }

    fn write_all_booted(&self) -> Result<(), Abort> {
        let mut hosts = self.tables.hosts.iter();
        hosts.try_for_each(|host| self.write_booted(&host.name))
    }

    pub(super) fn remove_boot(&mut self) -> Result<(), Abort> {
        if self.args.is_empty() {
            return Err(Abort("must supply host".to_owned()));
        }
        for name in self.hosts()? {
            self.unboot(&name)?;
            self.step()?;
        }
        Ok(())
    }

    pub(super) fn unboot(&mut self, name: &str) -> Result<(), Abort> {
        self.host(name)?.boot = None;
        self.write_booted(name)
    }
}
