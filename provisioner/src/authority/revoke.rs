//! Nodes that are members no more: their certificates are put on the authority's revocation list.
//!
//! The list is a file beside the authority's certificate, where `ipop-node authority revoke` has it too.
//! It is written before anything else is taken from the node, and once more is the same: whoever was
//! interrupted begins anew. [`herald`](super::herald) tells it to the nodes.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use ipop_proto::audit::{Event, Record};
use ipop_proto::authority::{ListError, RevocationList, Serial};

use super::kept::Kept;
use super::{Authority, AuthorityError, CLOCK_SLACK, NODE_LIFETIME, file, lock};
use crate::name::NodeName;
use crate::plan::{MEMBER, NodePlan};
use crate::rendezvous::files;

/// Most certificates of machines of sites on the list, which has room for twice as many. A cluster that
/// grows and shrinks every day must not keep people from being removed.
const MOST_OF_MACHINES: usize = 850;

/// What came of revoking a node's certificates.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Revocation {
    /// The number of the list that has them; none where nobody was ever revoked.
    pub list: Option<u64>,
    /// How many of the node's certificates it has.
    pub certificates: usize,
    /// How many there was no room for.
    pub left_out: usize,
    /// Whether the node may have others, of which nobody knows the serial number.
    pub may_have_others: bool,
    /// Whether the node was out before.
    pub was_out: bool,
}

impl Revocation {
    /// What somebody should know who believes that the node is out.
    pub fn warning(&self, node: &NodeName) -> Option<String> {
        if self.left_out > 0 {
            return Some(format!(
                "{node}: its certificate is not revoked, since the list has {MOST_OF_MACHINES} and \
                 more; it ends within a year, and is not renewed"
            ));
        }
        self.may_have_others.then(|| {
            format!(
                "{node}: an older version signed certificates of it and did not keep their serial \
                 numbers, so that they cannot be revoked: they end within a year of that, and are not \
                 renewed"
            )
        })
    }
}

impl Authority {
    /// Revokes all certificates of a node that is known; from then on it gets no other one. Of a node
    /// that never had one nothing is revoked. `role` is the node's.
    pub fn revoke(
        &self,
        node: &NodeName,
        role: &str,
        now: SystemTime,
    ) -> Result<Revocation, AuthorityError> {
        let _lock = lock(&self.dir)?;
        let mut kept = Kept::read(&self.dir, node)?;
        let revocation = self.revoke_kept(node, &kept, role, "taken out of the overlay", now)?;
        if !kept.is_out && !kept.is_empty() {
            kept.is_out = true;
            kept.write(&self.dir, node)?;
        }
        Ok(revocation)
    }

    /// Revokes those certificates of a member's machine that have other groups than it is in now. Told so,
    /// its node asks for another one. What is recorded of the machine is to have changed before.
    pub fn regroup(&self, node: &NodePlan, now: SystemTime) -> Result<Revocation, AuthorityError> {
        let _lock = lock(&self.dir)?;
        let kept = Kept::read(&self.dir, &node.name)?;
        let serials = kept.serials_without(&node.certified_groups(), now);
        self.revoke_serials(
            &node.name,
            serials,
            &kept,
            &node.role,
            "in other groups now",
            now,
        )
    }

    /// Revokes all certificates in what is kept of a node, and says why; the lock is held.
    pub(super) fn revoke_kept(
        &self,
        node: &NodeName,
        kept: &Kept,
        role: &str,
        why: &str,
        now: SystemTime,
    ) -> Result<Revocation, AuthorityError> {
        let mut serials = kept.serials(now);
        // Where an older version made the key, this one is known.
        if let Some(pem) = &kept.identity {
            let serial = self.issuer.serial_of(pem);
            let serial = serial.map_err(|source| self.not_issued(source))?;
            if !serials.contains(&serial) {
                serials.push(serial);
            }
        }
        self.revoke_serials(node, serials, kept, role, why, now)
    }

    /// Puts these on the list, which are among the certificates of a node; the lock is held.
    fn revoke_serials(
        &self,
        node: &NodeName,
        serials: Vec<Serial>,
        kept: &Kept,
        role: &str,
        why: &str,
        now: SystemTime,
    ) -> Result<Revocation, AuthorityError> {
        let previous = read_list(&self.dir)?;
        let on_it = |serial: &Serial| {
            let list = previous.as_ref();
            list.is_some_and(|list| list.revoked().contains_key(serial))
        };
        let record = |event| Record {
            node: Some(node.0.clone()),
            key: kept.key.clone(),
            ..Record::new(event, now)
        };
        let (known, new): (Vec<_>, Vec<_>) = serials.into_iter().partition(on_it);
        let mut revocation = Revocation {
            list: previous.as_ref().map(RevocationList::number),
            certificates: known.len(),
            left_out: 0,
            may_have_others: kept.may_have_others(),
            was_out: kept.is_out,
        };
        if revocation.may_have_others && !revocation.was_out {
            let why = "an older version kept no serial numbers of some certificates";
            self.audit.write(Record {
                why: Some(why.to_owned()),
                ..record(Event::NotRevoked)
            });
        }
        if new.is_empty() {
            return Ok(revocation);
        }
        let ended = now - NODE_LIFETIME - CLOCK_SLACK;
        let stays = previous.as_ref().map_or(0, |list| {
            list.revoked().values().filter(|at| **at >= ended).count()
        });
        if role != MEMBER && stays + new.len() > MOST_OF_MACHINES {
            revocation.left_out = new.len();
            if !revocation.was_out {
                self.audit.write(Record {
                    why: Some("the list has no room for more machines of sites".to_owned()),
                    count: Some(new.len() as u64),
                    ..record(Event::NotRevoked)
                });
            }
            return Ok(revocation);
        }
        let list = self
            .issuer
            .revise(previous.as_ref(), &new, Some(ended), now)
            .map_err(|source| self.not_issued(source))?;
        for serial in &new {
            self.audit.write(Record {
                serial: Some(serial.to_string()),
                list: Some(list.number()),
                why: Some(why.to_owned()),
                ..record(Event::Revoked)
            });
        }
        let path = list_path(&self.dir);
        files::write(&path, list.pem().as_bytes(), 0o644).map_err(file(&path))?;
        revocation.list = Some(list.number());
        revocation.certificates += new.len();
        Ok(revocation)
    }
}

/// The revocation list of the authority in `dir`, if it made one.
pub fn read_list(dir: &Path) -> Result<Option<RevocationList>, AuthorityError> {
    let path = list_path(dir);
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(file(&path)(error)),
    };
    let unusable = |source| AuthorityError::List { path, source };
    let mut lists = match RevocationList::from_pem(&text) {
        Ok(lists) => lists,
        Err(error) => return Err(unusable(error)),
    };
    match (lists.pop(), lists.is_empty()) {
        (Some(list), true) => Ok(Some(list)),
        _ => Err(unusable(ListError::Pem("not one list".to_owned()))),
    }
}

/// Where the list lies.
pub fn list_path(dir: &Path) -> PathBuf {
    dir.join("ca.crl")
}
