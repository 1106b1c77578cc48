//! Who may hand out addresses and be a router, of all that a switch connects.
//!
//! By default nobody may across the overlay: a second DHCP server on one member's LAN, or a router's
//! advertisement that gets out, would take every machine of every LAN with it.

use std::fmt;

use ipop_datapath::ethernet::{Class, Discovery};
use ipop_datapath::stations::{Mac, Station};
use thiserror::Error;

use super::port::Port;

/// What only one machine should do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Answers DHCP (RFC 2131).
    DhcpServer,
    /// Answers DHCPv6 (RFC 8415).
    Dhcpv6Server,
    /// Advertises itself as a router, and redirects (RFC 4861).
    Router,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::DhcpServer => "DHCP server",
            Self::Dhcpv6Server => "DHCPv6 server",
            Self::Router => "IPv6 router",
        })
    }
}

/// Where a machine is, by what does not change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// On this node's own side.
    Here,
    /// Behind the member of this name.
    Member(String),
}

/// Who may have a [`Role`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Allowed {
    /// Nobody across the overlay. Machines of one LAN have it among themselves.
    #[default]
    Nobody,
    /// One place, or one machine there.
    Only {
        /// Where it is.
        place: Place,
        /// Its address, when it has to be that one.
        mac: Option<Mac>,
    },
    /// Everybody.
    Anybody,
}

/// Who may have which role.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Policy {
    /// DHCP servers.
    pub dhcp: Allowed,
    /// DHCPv6 servers.
    pub dhcpv6: Allowed,
    /// IPv6 routers.
    pub router: Allowed,
}

/// Somebody has a role who should not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("{} is not the {role} that is allowed", Station::from(*mac))]
pub struct NotAllowed {
    /// The role.
    pub role: Role,
    /// Whose frame it was.
    pub mac: Mac,
}

/// Where frames of a kind have to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Towards<'a> {
    /// Wherever they are addressed.
    Everybody,
    /// To the one place where somebody may answer.
    Place(&'a Place),
    /// Nowhere across the overlay.
    Nobody,
}

impl Policy {
    /// Whether a frame of `class` from `mac` may cross the overlay. `name` is that of the member that
    /// `port` is.
    ///
    /// # Errors
    ///
    /// When it is what only another machine may send.
    pub fn check(&self, class: Class, port: Port, name: &str, mac: Mac) -> Result<(), NotAllowed> {
        let Some(role) = role_of(class) else {
            return Ok(());
        };
        let is_allowed = match self.allowed(role) {
            Allowed::Nobody => false,
            Allowed::Anybody => true,
            Allowed::Only { place, mac: only } => {
                let is_there = match (place, port) {
                    (Place::Here, Port::Lan) => true,
                    (Place::Member(member), Port::Member(_)) => member == name,
                    (Place::Here, Port::Member(_)) | (Place::Member(_), Port::Lan) => false,
                };
                is_there && only.is_none_or(|only| only == mac)
            }
        };
        if is_allowed {
            return Ok(());
        }
        Err(NotAllowed { role, mac })
    }

    /// Where a frame of `class` is to go, when it asks for somebody with a role.
    pub fn towards(&self, class: Class) -> Towards<'_> {
        let role = match class {
            Class::DhcpRequest => Role::DhcpServer,
            Class::Dhcpv6Request => Role::Dhcpv6Server,
            Class::NeighbourDiscovery(Discovery::RouterSolicitation) => Role::Router,
            _ => return Towards::Everybody,
        };
        match self.allowed(role) {
            Allowed::Nobody => Towards::Nobody,
            Allowed::Only { place, .. } => Towards::Place(place),
            Allowed::Anybody => Towards::Everybody,
        }
    }

    fn allowed(&self, role: Role) -> &Allowed {
        match role {
            Role::DhcpServer => &self.dhcp,
            Role::Dhcpv6Server => &self.dhcpv6,
            Role::Router => &self.router,
        }
    }
}

/// The role of which a frame is a sign.
fn role_of(class: Class) -> Option<Role> {
    match class {
        Class::DhcpReply => Some(Role::DhcpServer),
        Class::Dhcpv6Reply => Some(Role::Dhcpv6Server),
        Class::NeighbourDiscovery(Discovery::RouterAdvertisement | Discovery::Redirect) => {
            Some(Role::Router)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: Mac = [2, 0, 0, 0, 0, 9];
    const A: Port = Port::Member(3);
    const SIGNS: [(Class, Role); 4] = [
        (Class::DhcpReply, Role::DhcpServer),
        (Class::Dhcpv6Reply, Role::Dhcpv6Server),
        (
            Class::NeighbourDiscovery(Discovery::RouterAdvertisement),
            Role::Router,
        ),
        (Class::NeighbourDiscovery(Discovery::Redirect), Role::Router),
    ];

    fn everywhere(allowed: &Allowed) -> Policy {
        Policy {
            dhcp: allowed.clone(),
            dhcpv6: allowed.clone(),
            router: allowed.clone(),
        }
    }

    #[test]
    fn by_default_nobody_hands_out_addresses_and_the_offender_is_named() {
        for (class, role) in SIGNS {
            let refused = Policy::default().check(class, A, "worker-1", MAC);
            assert_eq!(refused, Err(NotAllowed { role, mac: MAC }));
        }
        let refused = Policy::default().check(Class::DhcpReply, Port::Lan, "", MAC);
        assert_eq!(
            refused.map_err(|refused| refused.to_string()),
            Err("02:00:00:00:00:09 is not the DHCP server that is allowed".to_owned())
        );
        for class in [Class::DhcpRequest, Class::Arp, Class::Broadcast] {
            assert_eq!(Policy::default().check(class, A, "worker-1", MAC), Ok(()));
        }
    }

    #[test]
    fn one_place_or_one_machine_there_may_be_named() {
        let at = |mac| Allowed::Only {
            place: Place::Member("frontend-0".to_owned()),
            mac,
        };
        for (class, _) in SIGNS {
            let check =
                |mac, port, name| everywhere(&at(mac)).check(class, port, name, MAC).is_ok();
            assert!(check(None, A, "frontend-0"));
            assert!(check(Some(MAC), A, "frontend-0"));
            assert!(!check(Some([2; 6]), A, "frontend-0"));
            assert!(!check(None, A, "worker-1"));
            assert!(
                !check(None, Port::Lan, "frontend-0"),
                "that is not its name"
            );
            let here = everywhere(&Allowed::Only {
                place: Place::Here,
                mac: None,
            });
            assert!(here.check(class, Port::Lan, "", MAC).is_ok());
            assert!(here.check(class, A, "worker-1", MAC).is_err());
            assert!(
                everywhere(&Allowed::Anybody)
                    .check(class, A, "x", MAC)
                    .is_ok()
            );
        }
    }

    #[test]
    fn who_asks_is_heard_where_somebody_may_answer_and_nowhere_else() {
        let place = Place::Member("frontend-0".to_owned());
        let only = Allowed::Only {
            place: place.clone(),
            mac: None,
        };
        let asks = [
            Class::DhcpRequest,
            Class::Dhcpv6Request,
            Class::NeighbourDiscovery(Discovery::RouterSolicitation),
        ];
        for class in asks {
            assert_eq!(Policy::default().towards(class), Towards::Nobody);
            assert_eq!(everywhere(&only).towards(class), Towards::Place(&place));
            let anybody = everywhere(&Allowed::Anybody);
            assert_eq!(anybody.towards(class), Towards::Everybody);
        }
        assert_eq!(
            Policy::default().towards(Class::Broadcast),
            Towards::Everybody
        );
    }
}
