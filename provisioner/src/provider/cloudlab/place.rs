//! Which machine of the experiment serves which node. Pure.

use std::collections::BTreeMap;

use super::config::CloudlabSite;
use crate::error::{CliError, ExitCode};
use crate::provider::WantedMachine;

/// How a site's machines are shared out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placement {
    /// Nodes on one machine.
    per_machine: u32,
    /// Most machines.
    machines: Option<u32>,
}

impl Placement {
    /// The site's.
    pub fn of(site: &CloudlabSite) -> Self {
        Self {
            per_machine: site.vms_per_machine.unwrap_or(1).max(1),
            machines: site.machines,
        }
    }

    /// The machine of a slot: the first `per_machine` slots are on machine 0, and so on. It
    /// depends on nothing else, so that nodes stay where they are when others come and go; a slot
    /// beyond the last machine starts again at the first, where somebody has left.
    pub fn machine(self, slot: u32) -> u32 {
        let machine = slot / self.per_machine;
        match self.machines {
            Some(most) if most > 0 => machine % most,
            _ => machine,
        }
    }

    /// The nodes by machine; refused when more are wanted than fit.
    pub fn of_all(
        self,
        wanted: &[WantedMachine],
    ) -> Result<BTreeMap<u32, Vec<&WantedMachine>>, CliError> {
        let mut placed: BTreeMap<u32, Vec<&WantedMachine>> = BTreeMap::new();
        for node in wanted {
            placed
                .entry(self.machine(node.slot))
                .or_default()
                .push(node);
        }
        let count = u32::try_from(wanted.len()).unwrap_or(u32::MAX);
        let most = self.machines.map(|m| m.saturating_mul(self.per_machine));
        if most.is_some_and(|most| count > most) {
            return Err(self.too_many(count));
        }
        let crowded = placed
            .values()
            .any(|on| on.len() > self.per_machine as usize);
        if crowded {
            return Err(CliError::new(
                ExitCode::Config,
                "two of the site's nodes would need the same place on a machine",
            )
            .hint("destroy the deployment and create it anew, or raise `machines` of the site"));
        }
        Ok(placed)
    }

    fn too_many(self, count: u32) -> CliError {
        let machines = self.machines.unwrap_or(0);
        let each = self.per_machine;
        CliError::new(
            ExitCode::Config,
            format!("{count} nodes do not fit on {machines} machines with {each} on each"),
        )
        .hint("raise `machines` or `vms_per_machine` of the site, or ask for fewer workers")
    }
}

/// How many machines an experiment needs for these: those up to the last one that is used.
pub fn machines_needed<T>(placed: &BTreeMap<u32, T>) -> u32 {
    placed.keys().last().map_or(0, |last| last + 1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::name::NodeName;

    fn wanted(slots: impl IntoIterator<Item = u32>) -> Vec<WantedMachine> {
        let machine = |slot| WantedMachine {
            node: NodeName(format!("worker-{slot}")),
            role: "worker".into(),
            image: "worker".into(),
            memory_mib: 512,
            cpus: 1,
            disk_gib: 4,
            data_gib: None,
            slot,
        };
        slots.into_iter().map(machine).collect()
    }

    fn placement(per_machine: u32, machines: Option<u32>) -> Placement {
        Placement {
            per_machine,
            machines,
        }
    }

    #[test]
    fn twenty_on_four_machines_is_five_on_each() {
        let twenty = wanted(0..20);
        let placed = placement(5, Some(4)).of_all(&twenty).expect("they fit");
        let counts: Vec<_> = placed.values().map(Vec::len).collect();
        assert_eq!(counts, [5, 5, 5, 5]);
        assert_eq!(machines_needed(&placed), 4);
    }

    #[test]
    fn more_than_fit_are_refused() {
        let error = placement(5, Some(4))
            .of_all(&wanted(0..21))
            .expect_err("21 of 20");
        assert!(
            error
                .to_string()
                .contains("21 nodes do not fit on 4 machines with 5")
        );
        let doubled = wanted([0, 20]);
        assert!(placement(1, Some(4)).of_all(&doubled).is_err());
    }

    #[test]
    fn a_new_slot_takes_the_place_that_an_old_one_left() {
        let rest = wanted([1, 2, 3, 4]);
        let placed = placement(2, Some(2)).of_all(&rest).expect("they fit");
        let slots =
            |machine: u32| -> Vec<u32> { placed[&machine].iter().map(|w| w.slot).collect() };
        assert_eq!((slots(0), slots(1)), (vec![1, 4], vec![2, 3]));
    }

    proptest! {
        #[test]
        fn no_machine_has_more_than_its_share_and_no_more_machines_are_used(
            count in 1u32..200, per_machine in 1u32..12
        ) {
            let all = wanted(0..count);
            let placed = placement(per_machine, None).of_all(&all).expect("no limit");
            prop_assert!(placed.values().all(|on| on.len() <= per_machine as usize));
            prop_assert_eq!(machines_needed(&placed), count.div_ceil(per_machine));
        }

        #[test]
        fn a_node_stays_where_it_is_when_others_come(
            before in 1u32..50, more in 1u32..50, per_machine in 1u32..12
        ) {
            let placement = placement(per_machine, None);
            let (few, many) = (wanted(0..before), wanted(0..before + more));
            let few = placement.of_all(&few).expect("no limit");
            let many = placement.of_all(&many).expect("no limit");
            for (machine, nodes) in few {
                prop_assert!(nodes.iter().all(|n| many[&machine].contains(n)));
            }
        }
    }
}
