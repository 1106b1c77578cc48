//! The commands that only look.

use super::command::{Abort, Call};
use super::database::Network;
use super::list::List;

impl Call<'_> {
    pub(super) fn list_hosts(&self) -> Result<String, Abort> {
        let header = [
            "host",
            "membership",
            "cpus",
            "rack",
            "rank",
            "runaction",
            "installaction",
        ];
        let mut list = List::new(&header);
        for name in self.hosts()? {
            let Some(host) = self.tables.host(&name) else {
                continue;
            };
            let numbers = [host.cpus, host.rack, host.rank].map(|n| Some(n.to_string()));
            let mut cells = vec![Some(host.membership.clone())];
            cells.extend(numbers);
            cells.extend([&*host.run_action, "install"].map(|action| Some(action.to_owned())));
            list.add(&name, cells);
        }
        Ok(list.text())
    }

    pub(super) fn list_interfaces(&self) -> Result<String, Abort> {
        let header = [
            "host", "subnet", "iface", "mac", "ip", "netmask", "module", "name", "vlan", "options",
            "channel",
        ];
        let mut list = List::new(&header);
        for name in self.hosts()? {
            for i in self
                .tables
                .host(&name)
                .into_iter()
                .flat_map(|h| &h.interfaces)
            {
                let network = |n: &&Network| Some(&n.name) == i.subnet.as_ref();
                let netmask = self.tables.networks.iter().find(network);
                list.add(
                    &name,
                    vec![
                        i.subnet.clone(),
                        Some(i.device.clone()),
                        i.mac.clone(),
                        i.ip.clone(),
                        netmask.map(|n| n.netmask.clone()),
                        None,
                        i.name.clone(),
                        None,
                        None,
                        None,
                    ],
                );
            }
        }
        Ok(list.text())
    }

    pub(super) fn list_boot(&self) -> Result<String, Abort> {
        let mut list = List::new(&["host", "action"]);
        for name in self.hosts()? {
            let boot = self.tables.host(&name).and_then(|h| h.boot.clone());
            list.add(&name, vec![boot]);
        }
        Ok(list.text())
    }

    pub(super) fn list_networks(&self) -> String {
        let header = ["network", "subnet", "netmask", "mtu", "dnszone", "servedns"];
        let mut list = List::new(&header);
        // A name that there is not is passed over in silence.
        let named = |name: &String| self.args.is_empty() || self.args.contains(name);
        for n in self.tables.networks.iter().filter(|n| named(&n.name)) {
            let cells = [
                n.subnet.clone(),
                n.netmask.clone(),
                n.mtu.to_string(),
                n.zone.clone(),
                "True".to_owned(),
            ];
            list.add(&n.name, cells.map(Some).to_vec());
        }
        list.text()
    }

    pub(super) fn list_bootactions(&self) -> String {
        let mut list = List::new(&["action", "kernel", "ramdisk", "args"]);
        let mut sorted: Vec<_> = self.tables.bootactions.iter().collect();
        sorted.sort_by_key(|b| &b.action);
        for b in sorted {
            let cells = [&b.kernel, &b.ramdisk, &b.args];
            list.add(&b.action, cells.map(|cell| Some(cell.clone())).to_vec());
        }
        list.text()
    }

    pub(super) fn list_memberships(&self) -> String {
        let mut list = List::new(&["membership", "appliance", "distribution", "public"]);
        for m in &self.tables.memberships {
            let cells = [m.appliance.as_str(), "rocks-dist", "yes"].map(|c| Some(c.to_owned()));
            list.add(&m.name, cells.to_vec());
        }
        list.text()
    }
}
