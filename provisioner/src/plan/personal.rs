//! A node's personal data: what turns the image of its role into this one node.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, Ipv6Addr};

use ipop_proto::config::{
    AllowedSection, AuditSection, AuthoritySection, IceSection, NamesSection, NodeConfig,
    NodeSection, OffloadSection, OverlayMode, OverlaySection, PolicySection, ResolverKind,
    SwitchSection, XmppSection,
};
use ipop_proto::status::NodeStatus;

use super::lan::Lan;
use super::{ClusterPlan, FRONTEND, GATEWAY, NodePlan, SHARE, exports, lan};
use crate::bundle::{self, Bundle};
use crate::error::{CliError, ExitCode};
use crate::provider::Delivery;
use crate::render::render_source;
use crate::rendezvous::{Account, Endpoint};
use crate::secret::Secret;

/// Name of the TUN device on every node.
const INTERFACE: &str = "ipop0";
/// Where a node that enrolled keeps its password: on its own disk, below its unit's state directory.
const ENROLLED_PASSWORD: &str = "/var/lib/ipop-node/password";
/// Where a node keeps its key and its certificate.
const IDENTITY: &str = "/var/lib/ipop-node/identity.pem";
/// Where it keeps records of what happened to its links.
pub const AUDIT: &str = "/var/lib/ipop-node/audit.jsonl";
/// Where it keeps rules that it was told while it ran.
pub const RULES: &str = "/var/lib/ipop-node/rules.toml";
/// Public half of the host key that the image's `ipop-metadata` unit makes.
const HOST_KEY: &str = "/etc/ssh/ipop_host_ed25519_key.pub";

/// What only this node may know, and who may sign in to it.
#[derive(Debug, Clone)]
pub struct Keys {
    /// Its XMPP account. Where the node enrols, the password is the token.
    pub account: Account,
    /// OpenSSH private host key; none where the node makes its own ([`Delivery::Enrolment`]).
    pub host_key: Option<Secret<Vec<u8>>>,
    /// Public key of the deployment's user.
    pub authorized_key: String,
    /// What makes it a member of an overlay with an authority; none where there is none.
    pub membership: Option<Membership>,
}

/// A node's place in an overlay with an authority.
#[derive(Debug, Clone)]
pub struct Membership {
    /// The authority's certificate, PEM.
    pub authority_pem: String,
    /// Whom it asks for certificates, a full JID.
    pub issuer: String,
    /// What it begins with.
    pub first: First,
}

/// How a node comes by its first certificate.
#[derive(Debug, Clone)]
pub enum First {
    /// It is given one with the key (PEM).
    Given(Secret<String>),
    /// It makes its key itself and asks, and is known by this secret.
    Asked(Secret<String>),
}

/// Puts together a node's credentials, as they are to be delivered.
pub fn bundle(
    plan: &ClusterPlan,
    node: &NodePlan,
    endpoint: &Endpoint,
    keys: &Keys,
    delivery: Delivery,
) -> Result<Bundle, CliError> {
    let mut bundle = Bundle::default();
    bundle.set(
        bundle::NODE_CONFIG,
        config(plan, node, endpoint, keys, delivery)?,
    );
    let password = keys.account.password.expose().as_bytes();
    match delivery {
        Delivery::Private => {
            bundle.set(bundle::XMPP_PASSWORD, password);
            let host_key = keys.host_key.as_ref().ok_or_else(|| {
                let message = format!("`{}` was given no SSH host key", node.name);
                CliError::new(ExitCode::Internal, message)
            })?;
            bundle.set(bundle::SSH_HOST_KEY, host_key.expose().as_slice());
        }
        Delivery::Enrolment => bundle.set(bundle::ENROL_TOKEN, password),
    }
    bundle.set(bundle::CA, endpoint.ca_pem.as_bytes());
    if let Some(membership) = &keys.membership {
        bundle.set(bundle::AUTHORITY, membership.authority_pem.as_bytes());
        let (name, secret) = match &membership.first {
            First::Given(identity) => (bundle::IDENTITY, identity),
            First::Asked(token) => (bundle::CERTIFICATE_TOKEN, token),
        };
        bundle.set(name, secret.expose().as_bytes());
    }
    bundle.set(bundle::ROLE_ENV, environment(plan, node));
    if node.role == FRONTEND {
        bundle.set(bundle::EXPORTS, exports::of_frontend(plan)?);
    }
    let share = plan.shares.iter().find(|s| s.share.name == node.name);
    if let (SHARE, Some(share)) = (node.role.as_str(), share) {
        bundle.set(bundle::EXPORTS, exports::of_share(plan, share)?);
    }
    if let Some(text) = lan_of(plan, node) {
        bundle.set(bundle::LAN, text);
    }
    if let Some(scheduler) = plan.scheduler.credential()
        && ![SHARE, GATEWAY].contains(&node.role.as_str())
    {
        bundle.set(bundle::SCHEDULER, scheduler);
    }
    bundle.set(
        bundle::SSH_AUTHORIZED_KEYS,
        format!("{}\n", keys.authorized_key.trim()),
    );
    bundle.set(bundle::HOSTNAME, node.name.0.as_bytes());
    Ok(bundle)
}

/// The public SSH host key that a node which made its own reports, fit for `known_hosts`. None when
/// it reports none.
pub fn reported_host_key(status: &NodeStatus) -> Result<Option<String>, CliError> {
    let Some(key) = &status.ssh_host_key else {
        return Ok(None);
    };
    let words: Vec<_> = key.split_whitespace().collect();
    let base64 = |c: char| c.is_ascii_alphanumeric() || "+/=".contains(c);
    match words[..] {
        // Whatever else it says would become lines of a file that ssh trusts.
        ["ssh-ed25519", blob]
            if blob.starts_with("AAAAC3NzaC1lZDI1NTE5") && blob.chars().all(base64) =>
        {
            Ok(Some(format!("ssh-ed25519 {blob}")))
        }
        _ => {
            let message = format!("`{}` reports an SSH host key that is none", status.name);
            Err(CliError::new(ExitCode::Unavailable, message)
                .hint("do not trust this machine: destroy it, and see what runs on it"))
        }
    }
}

/// `ipop-node`'s configuration file. None of the keys is in it.
pub fn config(
    plan: &ClusterPlan,
    node: &NodePlan,
    endpoint: &Endpoint,
    keys: &Keys,
    delivery: Delivery,
) -> Result<String, CliError> {
    let (password_file, enrol_token_file, ssh_host_key) = match delivery {
        Delivery::Private => (bundle::XMPP_PASSWORD, None, None),
        Delivery::Enrolment => (
            ENROLLED_PASSWORD,
            Some(bundle::ENROL_TOKEN.into()),
            Some(HOST_KEY.into()),
        ),
    };
    let bridge = plan.bridge_of(node);
    let config = NodeConfig {
        node: NodeSection {
            name: node.name.0.clone(),
            control: "/run/ipop-node/control.sock".into(),
            identity: keys.membership.as_ref().map(|_| IDENTITY.into()),
            ssh_host_key,
            groups: BTreeSet::new(),
        },
        overlay: OverlaySection {
            name: plan.name.clone(),
            ipv4: node.addrs.ipv4,
            ipv6: node.addrs.ipv6,
            interface: INTERFACE.to_owned(),
            mode: match plan.lan {
                Some(_) => OverlayMode::Switch,
                None => OverlayMode::Route,
            },
            mtu: mtu(plan, node),
            // A port of a bridge is no station.
            mac: (plan.lan.is_some() && bridge.is_none()).then(|| lan::mac(node.addrs.ipv4.addr)),
        },
        audit: Some(AuditSection { file: AUDIT.into() }),
        policy: plan
            .lan
            .is_none()
            .then(|| PolicySection { keep: RULES.into() }),
        authority: keys.membership.as_ref().map(authority),
        pinning: None,
        xmpp: Some(XmppSection {
            jid: keys.account.jid.clone(),
            servers: endpoint.servers.clone(),
            password_file: password_file.into(),
            enrol_token_file,
            ca_file: bundle::CA.into(),
        }),
        ice: IceSection {
            // Over what the overlay carries no link of the overlay is to go.
            ignore_interfaces: bridge.map(str::to_owned).into_iter().collect(),
            ..IceSection::default()
        },
        offload: OffloadSection::default(),
        switch: switch(plan, node),
        // A LAN that the overlay extends has names of its own. Of a machine that keeps its system nothing is
        // changed that would outlast the node.
        names: plan.lan.is_none().then_some(NamesSection {
            listen: None,
            resolver: ResolverKind::Volatile,
        }),
        peers: Vec::new(),
        allow: plan.rules.clone(),
    };
    toml::to_string(&config).map_err(|e| {
        CliError::new(
            ExitCode::Internal,
            format!("cannot write the configuration of `{}`", node.name),
        )
        .caused_by(e)
    })
}

fn authority(membership: &Membership) -> AuthoritySection {
    let (given, token_file) = match membership.first {
        First::Given(_) => (Some(bundle::IDENTITY.into()), None),
        First::Asked(_) => (None, Some(bundle::CERTIFICATE_TOKEN.into())),
    };
    AuthoritySection {
        certificate: bundle::AUTHORITY.into(),
        revoked: None,
        keep: None,
        issuer: Some(membership.issuer.clone()),
        token_file,
        given,
    }
}

/// The nodes of the front end and of gateways are ports of their LANs' bridges, so that they alone carry what is
/// from addresses of others, and nobody but what is behind the front end serves DHCP or is a router.
fn switch(plan: &ClusterPlan, node: &NodePlan) -> SwitchSection {
    if plan.lan.is_none() {
        return SwitchSection::default();
    }
    let frontend = || {
        Some(AllowedSection {
            node: plan.frontend().name.0.clone(),
            mac: None,
        })
    };
    SwitchSection {
        bridge: plan.bridge_of(node).map(str::to_owned),
        dhcp: frontend(),
        dhcpv6: frontend(),
        router: frontend(),
        lans: plan
            .nodes
            .iter()
            .filter(|other| plan.bridge_of(other).is_some())
            .map(|other| other.name.0.clone())
            .collect(),
        ..SwitchSection::default()
    }
}

/// The MTU of a node's device, in bytes.
fn mtu(plan: &ClusterPlan, node: &NodePlan) -> u16 {
    match &plan.lan {
        Some(lan) if plan.bridge_of(node).is_some() => lan.port_mtu(),
        Some(lan) => lan.mtu,
        None => ipop_proto::config::DEFAULT_MTU,
    }
}

/// `KEY=value` lines for the role's units of what its card on the LAN is for; none where it has no such
/// card.
fn lan_of(plan: &ClusterPlan, node: &NodePlan) -> Option<String> {
    let lan = plan.lan.as_ref()?;
    let (port, workers) = (lan::card(&plan.name, &node.name), lan.pool);
    let common = format!("LAN_PORT={port}\nLAN_WORKERS={workers}\n");
    match (node.role.as_str(), lan.machines) {
        (FRONTEND, Some(machines)) => {
            let (first, last) = (after(machines.first(), 1), after(machines.last(), -1));
            Some(format!(
                "{common}LAN_ADDRESS={}\nLAN_MACHINES={first}\nLAN_MACHINES_END={last}\n",
                lan.address
            ))
        }
        (GATEWAY, _) => Some(format!(
            "{common}LAN_ADDRESS={}\nLAN_FRONTEND={}\n{}",
            node.addrs.ipv4,
            plan.frontend().addrs.ipv4.addr,
            gateways_beside(plan, node)
        )),
        _ => None,
    }
}

/// The line for other gateways on the same LAN, if there are any.
fn gateways_beside(plan: &ClusterPlan, node: &NodePlan) -> String {
    let beside = |other: &&NodePlan| {
        other.role == GATEWAY && other.site == node.site && other.name != node.name
    };
    let others = plan.nodes.iter().filter(beside);
    let others: Vec<_> = others.map(|n| n.addrs.ipv4.addr.to_string()).collect();
    match others.as_slice() {
        [] => String::new(),
        others => format!("LAN_GATEWAYS={}\n", others.join(",")),
    }
}

fn after(address: Ipv4Addr, offset: i32) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(address).wrapping_add_signed(offset))
}

/// Whether a node's addresses are on its own bridge, which the LAN's card is a port of.
fn is_on_bridge(plan: &ClusterPlan, node: &NodePlan) -> bool {
    match node.role.as_str() {
        FRONTEND => plan.lan.as_ref().is_some_and(Lan::is_launched),
        GATEWAY => plan.lan.is_some(),
        _ => false,
    }
}

/// `KEY=value` lines for the role's units.
pub fn environment(plan: &ClusterPlan, node: &NodePlan) -> String {
    variables(plan, node)
        .iter()
        .map(|(key, value)| format!("{key}={value}\n"))
        .collect()
}

fn variables(plan: &ClusterPlan, node: &NodePlan) -> Vec<(&'static str, String)> {
    let frontend = plan.frontend().addrs;
    let elastic = plan
        .elastic
        .has(&node.name)
        .then(|| ("IPOP_ELASTIC", "yes".to_owned()));
    // On a LAN neither the front end nor a gateway has an address of the IPv6 overlay, and what would
    // listen there does so for itself alone.
    let (interface, own6) = match is_on_bridge(plan, node) {
        true => (lan::BRIDGE, Ipv6Addr::LOCALHOST),
        false => (INTERFACE, node.addrs.ipv6.addr),
    };
    let all = [
        ("IPOP_DEPLOYMENT", plan.name.clone()),
        ("IPOP_NODE", node.name.to_string()),
        ("IPOP_ROLE", node.role.clone()),
        ("IPOP_SITE", node.site.clone()),
        ("IPOP_INTERFACE", interface.to_owned()),
        ("IPOP_ADDR4", node.addrs.ipv4.addr.to_string()),
        ("IPOP_ADDR6", own6.to_string()),
        ("IPOP_NET4", plan.nets.ipv4.to_string()),
        ("IPOP_NET6", plan.nets.net6()),
        ("IPOP_FRONTEND4", frontend.ipv4.addr.to_string()),
        ("IPOP_FRONTEND6", frontend.ipv6.addr.to_string()),
    ];
    all.into_iter().chain(elastic).collect()
}

/// What a role's own templates have to say to a node, by credential.
pub fn of_role(
    plan: &ClusterPlan,
    node: &NodePlan,
    templates: &BTreeMap<String, String>,
) -> Result<BTreeMap<String, String>, CliError> {
    let values = values(plan, node);
    let rendered = templates.iter().map(|(name, source)| {
        let text = render_source(name, source, &values).map_err(|e| {
            let message = format!(
                "cannot render the template `{name}.j2` of the role `{}`",
                node.image
            );
            CliError::new(ExitCode::Config, message)
                .caused_by(e)
                .hint("docs/roles.md lists the values that templates may use")
        })?;
        Ok((name.clone(), text))
    });
    rendered.collect()
}

/// What templates may use: the keys of [`environment`] in small letters and without `ipop_`.
fn values(plan: &ClusterPlan, node: &NodePlan) -> BTreeMap<String, String> {
    let lines = variables(plan, node).into_iter();
    let short = |key: &str| key.trim_start_matches("IPOP_").to_ascii_lowercase();
    lines.map(|(key, value)| (short(key), value)).collect()
}
