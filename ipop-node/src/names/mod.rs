//! Answers this machine's questions for members' names, and has its resolver ask here.
//!
//! It listens on a loopback address, so that no member can ask, whatever the overlay carries, and so
//! that a question to a node that was killed is refused at once and goes to the next server.

mod resolv_conf;
mod server;
mod system;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use ipop_proto::address::OverlayAddrs;
use ipop_proto::config::NamesSection;
use ipop_proto::names::Names;
use ipop_proto::status::NamesStatus;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use self::server::Server;
use self::system::Resolver;

/// Where it answers unless the configuration says: another overlay of the machine may have the first.
const CHOICES: std::ops::RangeInclusive<u8> = 1..=16;
const PORT: u16 = 53;
/// Between tries to listen, or to tell the resolver, and looks whether somebody else changed what it
/// was told.
const PAUSE: Duration = Duration::from_secs(10);

/// The service of one node. Ends, and takes back what the resolver was told, by [`NameService::stop`].
#[derive(Debug)]
pub struct NameService {
    names: watch::Sender<Arc<Names>>,
    standing: watch::Receiver<Standing>,
    resolver: Resolver,
    task: JoinHandle<()>,
}

/// How the service is.
#[derive(Debug, Clone, Default)]
struct Standing {
    listen: Option<SocketAddr>,
    told: Option<String>,
    error: Option<String>,
}

impl NameService {
    /// Starts answering for `names`, and tells the system's resolver, for which the overlay is the
    /// device `interface`. Needs a tokio runtime.
    pub fn start(section: &NamesSection, names: Names, interface: &str) -> Self {
        let resolver = Resolver::new(section.resolver, interface, names.domains());
        let (names, asked) = watch::channel(Arc::new(names));
        let (tell, standing) = watch::channel(Standing::default());
        let task = tokio::spawn(serve(section.listen, asked, resolver.clone(), tell));
        Self {
            names,
            standing,
            resolver,
            task,
        }
    }

    /// Members showed who they are.
    pub fn learn<'a>(&self, members: impl Iterator<Item = (&'a str, OverlayAddrs)>) {
        self.names.send_if_modified(|names| {
            let mut known = Names::clone(names);
            // Each of them, not as far as the first that is news.
            let news = members.filter(|(name, addrs)| known.learn(name, *addrs));
            let is_news = news.count() > 0;
            if is_news {
                *names = Arc::new(known);
            }
            is_news
        });
    }

    /// For the node's administrator.
    pub fn status(&self) -> NamesStatus {
        let names = self.names.borrow();
        let standing = self.standing.borrow();
        NamesStatus {
            domain: names.domain(),
            listen: standing.listen,
            resolver: standing.told.clone(),
            members: names.len(),
            error: standing.error.clone(),
        }
    }

    /// Takes back what the system's resolver was told, and answers no more.
    pub async fn stop(self) {
        self.task.abort();
        let told = self.standing.borrow().told.is_some();
        if told && let Err(error) = self.resolver.forget().await {
            tracing::warn!(%error, "the system's resolver still asks here");
        }
    }
}

/// Listens, tells the resolver, and does both again for as long as they fail.
async fn serve(
    listen: Option<SocketAddr>,
    names: watch::Receiver<Arc<Names>>,
    resolver: Resolver,
    tell: watch::Sender<Standing>,
) {
    let mut said = Some(String::new());
    let mut told = None;
    let mut server: Option<Server> = None;
    loop {
        let mut now = Standing::default();
        if server.is_none() {
            match bind(listen, &names).await {
                Ok(bound) => server = Some(bound),
                Err(error) => now.error = Some(error),
            }
        }
        if let Some(server) = &server {
            now.listen = Some(server.addr());
            match resolver.tell(server.addr(), told.as_ref()).await {
                Ok(told) => now.told = told,
                Err(error) => now.error = Some(error.to_string()),
            }
        }
        told.clone_from(&now.told);
        if now.error != said {
            match (&now.error, now.listen) {
                (Some(error), _) => tracing::warn!(error, "names are not resolved"),
                (None, listen) => {
                    let listen = listen.map(tracing::field::display);
                    tracing::info!(listen, resolver = now.told, "names are resolved");
                }
            }
            said.clone_from(&now.error);
        }
        tell.send_replace(now);
        tokio::time::sleep(PAUSE).await;
    }
}

async fn bind(
    listen: Option<SocketAddr>,
    names: &watch::Receiver<Arc<Names>>,
) -> Result<Server, String> {
    let default = || CHOICES.map(|last| (Ipv4Addr::new(127, 0, 73, last), PORT).into());
    let choices: Vec<SocketAddr> = match listen {
        Some(addr) => vec![addr],
        None => default().collect(),
    };
    let mut failed = String::new();
    for addr in choices {
        match Server::bind(addr, names.clone()).await {
            Ok(server) => return Ok(server),
            Err(error) => failed = format!("cannot listen on {addr}: {error}"),
        }
    }
    Err(failed)
}
