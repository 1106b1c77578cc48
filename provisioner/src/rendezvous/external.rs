//! An ejabberd that somebody else runs.

use std::net::ToSocketAddrs;

use super::api::{Admin, Api, ApiError};
use super::config::ExternalConfig;
use super::{Endpoint, RendezvousError};
use crate::secret::Secret;

/// The external server with everything read that calling it needs.
pub struct External {
    api: Api,
    /// `servers` as configured: names are looked up when somebody is to connect.
    endpoint: Endpoint,
}

impl External {
    /// Reads the CA and the administrator's password.
    pub fn open(config: &ExternalConfig) -> Result<Self, RendezvousError> {
        let ca_pem = std::fs::read_to_string(&config.ca_file)
            .map_err(|source| RendezvousError::file(&config.ca_file, source))?;
        let admin = match &config.admin {
            Some(jid) => Some(Admin {
                jid: jid.clone(),
                password: password(config, jid)?,
            }),
            None => None,
        };
        let api = Api::new(&config.api, &config.domain, &ca_pem, admin.as_ref())
            .map_err(ApiError::Target)?;
        let endpoint = Endpoint {
            domain: config.domain.clone(),
            servers: config.servers.clone(),
            ca_pem,
        };
        Ok(Self { api, endpoint })
    }

    /// Its API.
    pub fn api(&self) -> &Api {
        &self.api
    }

    /// Where its clients connect, by address.
    pub fn endpoint(&self) -> Result<Endpoint, RendezvousError> {
        Ok(Endpoint {
            servers: resolve(&self.endpoint.servers)?,
            ..self.endpoint.clone()
        })
    }

    /// Its XMPP domain.
    pub fn domain(&self) -> &str {
        &self.endpoint.domain
    }
}

/// The servers' addresses: nodes are static binaries without a resolver.
fn resolve(servers: &[String]) -> Result<Vec<String>, RendezvousError> {
    let mut addresses = Vec::new();
    for server in servers {
        let found = server
            .to_socket_addrs()
            .map_err(|source| RendezvousError::Resolve {
                server: server.clone(),
                source,
            })?;
        for address in found.map(|address| address.to_string()) {
            if !addresses.contains(&address) {
                addresses.push(address);
            }
        }
    }
    Ok(addresses)
}

fn password(config: &ExternalConfig, admin: &str) -> Result<Secret<String>, RendezvousError> {
    let missing = |place: String| RendezvousError::NoPassword {
        admin: admin.to_owned(),
        place,
    };
    if let Some(variable) = &config.password_env {
        return std::env::var(variable)
            .map(Secret::new)
            .map_err(|_| missing(format!("the environment variable {variable}")));
    }
    let path = config
        .password_file
        .as_ref()
        .ok_or_else(|| missing("the configuration".to_owned()))?;
    let text = std::fs::read_to_string(path).map_err(|_| missing(path.display().to_string()))?;
    Ok(Secret::new(text.trim_end_matches(['\r', '\n']).to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_given_to_nodes_as_addresses() {
        let servers = ["192.0.2.7:5222".to_owned(), "[2001:db8::7]:5222".to_owned()];
        assert_eq!(resolve(&servers).unwrap(), servers);
        let error = resolve(&["192.0.2.7".to_owned()]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the address of the XMPP server `192.0.2.7` cannot be found"
        );
    }
}
