//! Both machines, and the ways between them: opens the server for those beside the overlay, mounts, and
//! measures.

use std::time::Duration;

use ipop_bench::failure::{Failure, Result};

use crate::deployment::{CLIENT, Deployment, SERVER};
use crate::job::{self, FILES, JOBS, MOUNTED};
use crate::load::{PROBE, Ticks};
use crate::options::Options;
use crate::sample::{Guests, Load, Turn, Work};
use crate::shell::Shell;
use crate::way::Way;

/// How long a command may take that has nothing to wait for.
const SHORT: Duration = Duration::from_secs(60);

/// How long the first file after a start of the server may take: for `grace-time` it takes none.
const GRACE: Duration = Duration::from_secs(120);

/// How long a job may take beyond its own time.
const LATE: Duration = Duration::from_secs(90);

/// How long the loop over the files may take.
const LOOP: Duration = Duration::from_secs(300);

/// Echo requests of a turn.
const ECHOES: u32 = 50;

/// Addresses of client and server in WireGuard.
const TUNNEL: [&str; 2] = ["192.0.2.1", "192.0.2.2"];

/// WireGuard's interface on both.
const INTERFACE: &str = "wg-bench";

/// Its port on the server; the machines' firewall lets UDP to such ports, as ICE needs it.
const PORT: u16 = 51820;

/// What members mount a share with.
const OPTIONS: &str = "nosuid,nodev";

/// Client and server.
pub struct Stage {
    client: Shell,
    server: Shell,
    /// The server's address by each way.
    addresses: Vec<(Way, String)>,
}

impl Stage {
    /// Opens the server for the ways, and sees that a file can be made by each.
    pub fn set(deployment: &Deployment, ways: &[Way]) -> Result<Self> {
        let mut client = deployment.shell(CLIENT)?;
        let mut server = deployment.shell(SERVER)?;
        let overlay = word(&server.run(". /run/ipop/env; echo $IPOP_ADDR4", SHORT)?)?;
        let underlay = |shell: &mut Shell| {
            word(&shell.run(
                "ip -4 -o addr show dev eth0 | sed 's,.* inet \\([0-9.]*\\)/.*,\\1,'",
                SHORT,
            )?)
        };
        let (from, to) = (underlay(&mut client)?, underlay(&mut server)?);
        let mut open = vec![(from.as_str(), "eth0")];
        let mut hosts = vec![to.as_str()];
        if ways.contains(&Way::Wireguard) {
            tunnel(&mut client, &mut server, &to)?;
            open.push((TUNNEL[0], INTERFACE));
            hosts.push(TUNNEL[1]);
        }
        server.run(&opened(&open, &hosts), SHORT)?;
        server.run(&format!("{}\nsync", filled()), SHORT)?;
        let address = |way| match way {
            Way::Overlay => overlay.clone(),
            Way::Direct => to.clone(),
            Way::Wireguard => TUNNEL[1].to_owned(),
        };
        let mut stage = Self {
            client,
            server,
            addresses: ways.iter().map(|way| (*way, address(*way))).collect(),
        };
        for way in ways {
            stage.mount(*way)?;
            stage.client.run(
                &format!("echo >{MOUNTED}/first && rm {MOUNTED}/first"),
                GRACE,
            )?;
            stage.unmount()?;
        }
        Ok(stage)
    }

    /// What the machines are.
    pub fn guests(&mut self, options: &Options) -> Result<Guests> {
        let mut said = |command: &str| -> Result<String> {
            Ok(self.client.run(command, SHORT)?.trim().to_owned())
        };
        Ok(Guests {
            virtualization: said("systemd-detect-virt || true")?,
            kernel: said("uname -r")?,
            cpus: options.cpus,
            memory: options.memory.clone(),
            fio: said("fio --version")?,
            node: said("ipop-node --version")?,
        })
    }

    /// Measures one way once.
    pub fn turn(&mut self, way: Way, round: u32, options: &Options) -> Result<Turn> {
        self.mount(way)?;
        let address = self.address(way)?;
        let ping = format!("ping -n -i 0.05 -w 30 -c {ECHOES} {address}");
        let echoes_ms = job::echoes(&self.client.run(&ping, SHORT)?);
        let mtu = format!(
            "cat /sys/class/net/$(ip -o route get {address} | sed 's,.* dev \\([^ ]*\\).*,\\1,')/mtu"
        );
        let mtu = self.client.run(&mtu, SHORT)?.trim().parse();
        let mtu = mtu.map_err(|error| Failure(format!("MTU of the way to {address}: {error}")))?;
        let line = format!("grep ' {MOUNTED} ' /proc/mounts");
        let mount = self.client.run(&line, SHORT)?.trim().to_owned();
        let mut works = Vec::new();
        let seconds = options.seconds();
        for job in &JOBS {
            self.forget()?;
            let limit = Duration::from_secs(seconds.into()) + LATE;
            let (report, load) = self.watched(&job.command(seconds), limit)?;
            let rate = job.rate(&report).ok_or_else(|| {
                Failure(format!(
                    "fio reported no rate of `{}`: {}",
                    job.title,
                    report.trim()
                ))
            })?;
            let name = job.name.to_owned();
            works.push(Work { name, rate, load });
        }
        self.forget()?;
        let run = format!(
            "python3 - {MOUNTED}/files {} <<'END'\n{FILES}END",
            options.files()
        );
        let (text, load) = self.watched(&run, LOOP)?;
        let phases = job::phases(&text)
            .ok_or_else(|| Failure(format!("the loop over files said: {}", text.trim())))?;
        works.extend(phases.into_iter().map(|(name, rate)| Work {
            name: name.to_owned(),
            rate,
            load,
        }));
        self.is_by(&address)?;
        self.unmount()?;
        Ok(Turn {
            way,
            round,
            mtu,
            mount,
            echoes_ms,
            works,
        })
    }

    /// Runs a command on the client and sees what both machines' processors do meanwhile.
    fn watched(&mut self, command: &str, limit: Duration) -> Result<(String, [Load; 2])> {
        let before = self.ticks()?;
        let output = self.client.run(command, limit)?;
        let after = self.ticks()?;
        let load = |at: usize| {
            let load = after[at].since(&before[at]);
            load.ok_or_else(|| Failure("a machine's clock stood still".to_owned()))
        };
        Ok((output, [load(0)?, load(1)?]))
    }

    fn ticks(&mut self) -> Result<[Ticks; 2]> {
        let of = |shell: &mut Shell| {
            let text = shell.run(PROBE, SHORT)?;
            Ticks::of(&text).ok_or_else(|| Failure(format!("no load in: {}", text.trim())))
        };
        Ok([of(&mut self.client)?, of(&mut self.server)?])
    }

    /// Drops what both machines' page caches have of the share.
    fn forget(&mut self) -> Result<()> {
        for shell in [&mut self.client, &mut self.server] {
            shell.run("sync; echo 3 >/proc/sys/vm/drop_caches", SHORT)?;
        }
        Ok(())
    }

    fn mount(&mut self, way: Way) -> Result<()> {
        let address = self.address(way)?;
        let mount = format!(
            "mkdir -p {MOUNTED} && mount -t nfs4 -o {OPTIONS} {address}:/srv/share {MOUNTED}"
        );
        self.client.run(&mount, GRACE)?;
        self.is_by(&address)
    }

    /// Unmounts, and waits until the client's kernel has no connection to the server. A client that knows
    /// the server already would go on by the connection that it has, whatever address is mounted.
    fn unmount(&mut self) -> Result<()> {
        let wait = format!(
            "umount {MOUNTED}\ntries=0\nwhile [ -n \"$({CONNECTIONS})\" ]; do tries=$((tries + 1)); \
             [ $tries -lt 100 ] || {{ echo 'still connected'; exit 1; }}; sleep 0.1; done"
        );
        self.client.run(&wait, SHORT).map(drop)
    }

    /// Sees that the client's connection goes to this address and to no other.
    fn is_by(&mut self, address: &str) -> Result<()> {
        let peers = self.client.run(CONNECTIONS, SHORT)?;
        let by = |line: &str| line.split_whitespace().last() == Some(&format!("{address}:2049"));
        let mut lines = peers
            .lines()
            .filter(|line| !line.trim().is_empty())
            .peekable();
        if lines.peek().is_some() && lines.all(by) {
            return Ok(());
        }
        Err(Failure(format!(
            "the share is mounted from {address}, and the client's connections are: {}",
            peers.trim()
        )))
    }

    fn address(&self, way: Way) -> Result<String> {
        let found = self.addresses.iter().find(|(known, _)| *known == way);
        let (_, address) = found.ok_or_else(|| Failure(format!("no way {}", way.name())))?;
        Ok(address.clone())
    }
}

/// The client's connections to servers of NFS.
const CONNECTIONS: &str = "ss -Htn state established 'dport = :2049'";

/// What lets these clients, by address and interface, to the server, and makes it listen at these of its
/// addresses besides. Until the machine is gone: it is the benchmark's own.
fn opened(clients: &[(&str, &str)], hosts: &[&str]) -> String {
    let mut script = "set -e\n. /run/ipop/env\n".to_owned();
    for (client, interface) in clients {
        script.push_str(&format!(
            "nft add rule inet filter role iifname {interface} ip saddr {client} tcp dport 2049 accept\n\
             exportfs -o rw,sync,no_subtree_check,mp,sec=sys,root_squash,all_squash,anonuid=65534,anongid=65534 \
             {client}:/srv/share\n"
        ));
    }
    // nfsd takes no address more while it runs.
    script.push_str("rpc.nfsd 0\nrpc.nfsd --host $IPOP_ADDR4 --host $IPOP_ADDR6");
    for host in hosts {
        script.push_str(&format!(" --host {host}"));
    }
    script.push('\n');
    for host in hosts {
        script.push_str(&format!(
            "ss -Hltn 'sport = :2049' | grep -qF '{host}:2049'\n"
        ));
    }
    script
}

/// Makes the file that fio uses, of the user that all are on the share, with something other than zeros.
fn filled() -> String {
    format!(
        "set -e\ncd /srv/share\ndd if=/dev/urandom of=data bs=1M count={} conv=fsync status=none\n\
         chown 65534:65534 data",
        job::FILE_MIB
    )
}

/// Sets up WireGuard between both. The keys are made on the machines and go nowhere but to each other.
fn tunnel(client: &mut Shell, server: &mut Shell, to: &str) -> Result<()> {
    // The server's image has no `wg`.
    let program = client.run("base64 /usr/bin/wg", SHORT)?;
    let take = format!(
        "base64 -d >/run/wg <<'END' && chmod 755 /run/wg\n{}\nEND",
        program.trim()
    );
    server.run(&take, SHORT)?;
    let up = |wg: &str, address: &str, port: &str| {
        format!(
            "set -e\numask 077\n{wg} genkey >/run/wg-bench.key\n\
             ip link add {INTERFACE} type wireguard\n\
             {wg} set {INTERFACE} private-key /run/wg-bench.key {port}\n\
             ip addr add {address}/30 dev {INTERFACE}\nip link set {INTERFACE} mtu 1420 up\n\
             {wg} pubkey </run/wg-bench.key"
        )
    };
    let own = word(&client.run(&up("wg", TUNNEL[0], ""), SHORT)?)?;
    let port = format!("listen-port {PORT}");
    let others = word(&server.run(&up("/run/wg", TUNNEL[1], &port), SHORT)?)?;
    let (from, at) = (TUNNEL[0], TUNNEL[1]);
    server.run(
        &format!("/run/wg set {INTERFACE} peer {own} allowed-ips {from}/32"),
        SHORT,
    )?;
    let peer = format!("wg set {INTERFACE} peer {others} allowed-ips {at}/32 endpoint {to}:{PORT}");
    client.run(&peer, SHORT)?;
    client
        .run(&format!("ping -n -c 1 -w 20 {at}"), SHORT)
        .map(drop)
}

/// The one word that a command wrote.
fn word(text: &str) -> Result<String> {
    let mut words = text.split_whitespace();
    match (words.next(), words.next()) {
        (Some(word), None) => Ok(word.to_owned()),
        _ => Err(Failure(format!(
            "expected one word and got: {}",
            text.trim()
        ))),
    }
}
