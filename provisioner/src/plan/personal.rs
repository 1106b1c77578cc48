//! A node's personal data: what turns the image of its role into this one node.

use ipop_proto::config::{IceSection, NodeConfig, NodeSection, OverlaySection, XmppSection};
use serde::Serialize;

use super::{ClusterPlan, FRONTEND, NodePlan};
use crate::bundle::{self, Bundle};
use crate::error::{CliError, ExitCode};
use crate::provider::Delivery;
use crate::render::render;
use crate::rendezvous::{Account, Endpoint};
use crate::secret::Secret;

/// Name of the TUN device on every node.
const INTERFACE: &str = "ipop0";
/// Owner of the shared folder, to whom every client's every user is mapped: the clients of several
/// institutions each have a root of their own, and none of them is to be trusted with another's
/// files. Debian's nobody and nogroup.
const EXPORT_ID: u32 = 65534;

/// What only this node may know, and who may sign in to it.
#[derive(Debug, Clone)]
pub struct Keys {
    /// Its XMPP account.
    pub account: Account,
    /// OpenSSH private host key; none where the node makes its own ([`Delivery::Enrolment`]).
    pub host_key: Option<Secret<Vec<u8>>>,
    /// Public key of the deployment's user.
    pub authorized_key: String,
}

/// Puts together a node's credentials.
pub fn bundle(
    plan: &ClusterPlan,
    node: &NodePlan,
    endpoint: &Endpoint,
    keys: &Keys,
    _delivery: Delivery,
) -> Result<Bundle, CliError> {
    let mut bundle = Bundle::default();
    bundle.set(
        bundle::NODE_CONFIG,
        config(plan, node, endpoint, &keys.account.jid)?,
    );
    bundle.set(
        bundle::XMPP_PASSWORD,
        keys.account.password.expose().as_bytes(),
    );
    bundle.set(bundle::CA, endpoint.ca_pem.as_bytes());
    bundle.set(bundle::ROLE_ENV, environment(plan, node));
    if node.role == FRONTEND {
        bundle.set(bundle::EXPORTS, exports(plan)?);
    }
    if let Some(host_key) = &keys.host_key {
        bundle.set(bundle::SSH_HOST_KEY, host_key.expose().as_slice());
    }
    bundle.set(
        bundle::SSH_AUTHORIZED_KEYS,
        format!("{}\n", keys.authorized_key.trim()),
    );
    bundle.set(bundle::HOSTNAME, node.name.0.as_bytes());
    Ok(bundle)
}

/// `ipop-node`'s configuration file; `jid` is the node's account.
pub fn config(
    plan: &ClusterPlan,
    node: &NodePlan,
    endpoint: &Endpoint,
    jid: &str,
) -> Result<String, CliError> {
    let config = NodeConfig {
        node: NodeSection {
            name: node.name.0.clone(),
            control: "/run/ipop-node/control.sock".into(),
        },
        overlay: OverlaySection {
            name: plan.name.clone(),
            ipv4: node.addrs.ipv4,
            ipv6: node.addrs.ipv6,
            interface: INTERFACE.to_owned(),
            mtu: ipop_proto::config::DEFAULT_MTU,
        },
        xmpp: XmppSection {
            jid: jid.to_owned(),
            servers: endpoint.servers.clone(),
            password_file: bundle::XMPP_PASSWORD.into(),
            ca_file: bundle::CA.into(),
        },
        ice: IceSection::default(),
    };
    toml::to_string(&config).map_err(|e| {
        CliError::new(
            ExitCode::Internal,
            format!("cannot write the configuration of `{}`", node.name),
        )
        .caused_by(e)
    })
}

/// `KEY=value` lines for the role's units.
pub fn environment(plan: &ClusterPlan, node: &NodePlan) -> String {
    let frontend = plan.frontend().addrs;
    let lines = [
        ("IPOP_DEPLOYMENT", plan.name.clone()),
        ("IPOP_NODE", node.name.to_string()),
        ("IPOP_ROLE", node.role.clone()),
        ("IPOP_INTERFACE", INTERFACE.to_owned()),
        ("IPOP_ADDR4", node.addrs.ipv4.addr.to_string()),
        ("IPOP_ADDR6", node.addrs.ipv6.addr.to_string()),
        ("IPOP_NET4", plan.nets.ipv4.to_string()),
        ("IPOP_NET6", plan.nets.net6()),
        ("IPOP_FRONTEND4", frontend.ipv4.addr.to_string()),
        ("IPOP_FRONTEND6", frontend.ipv6.addr.to_string()),
    ];
    lines
        .iter()
        .map(|(key, value)| format!("{key}={value}\n"))
        .collect()
}

/// The front end's exports(5).
pub fn exports(plan: &ClusterPlan) -> Result<String, CliError> {
    #[derive(Serialize)]
    struct Client {
        name: String,
        ipv4: String,
        ipv6: String,
    }
    #[derive(Serialize)]
    struct Values<'a> {
        deployment: &'a str,
        id: u32,
        clients: Vec<Client>,
    }
    let client = |node: &NodePlan| Client {
        name: node.name.to_string(),
        ipv4: node.addrs.ipv4.addr.to_string(),
        ipv6: node.addrs.ipv6.addr.to_string(),
    };
    let values = Values {
        deployment: &plan.name,
        id: EXPORT_ID,
        clients: plan.workers().iter().map(client).collect(),
    };
    render("exports.j2", values).map_err(|e| {
        CliError::new(
            ExitCode::Internal,
            "cannot render the template `exports.j2`",
        )
        .caused_by(e)
    })
}
