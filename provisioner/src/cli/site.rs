//! `provision site`: lists, checks and cleans sites.

use clap::{Args, Subcommand};
use serde::Serialize;

use super::Context;
use crate::deploy::kept;
use crate::error::{CliError, ExitCode};
use crate::provider::{self, CheckLine};
use crate::report::table::table;
use crate::site::{Site, SiteKind, Sites};

const EXAMPLES: &str = "\
Examples:
  provision site list
  provision site check local
  provision site prune local

A sites file, ~/.config/ipop/sites.toml or /etc/ipop/sites.toml; docs/sites.md has every key:

  [site.lab]                              # the name in COUNT@SITE
  kind = \"libvirt\"
  uri = \"qemu+ssh://lab.example/system\"   # default qemu:///system
  memory = \"1G\"                           # of each machine; default 512M
  cpus = 2                                # of each machine; default 1
  max = 8                                 # most machines of one deployment

  [site.machines]
  kind = \"ssh\"                            # machines that exist
  hosts = [\"root@m1.example\", \"ann@m2.example:2222\"]

  [site.ucsd]
  kind = \"rocks\"                          # a Rocks front end, for --frontend ucsd
  host = \"root@ucsd.example\"
  bridge = \"br0\"                          # that its private network is on

  [site.cloudlab]
  kind = \"cloudlab\"
  project = \"lake\"
  profile = \"ipop\"
  token_file = \"/home/ann/.config/ipop/cloudlab.jwt\"
  vms_per_machine = 5                     # without it a machine is one worker

  [site.cloud]
  kind = \"ec2\"                            # credentials as the AWS tools find them
  region = \"us-west-2\"
  instance_type = \"t3.micro\"
  spot = true

  [rendezvous]
  kind = \"embedded\"                       # an ejabberd of the deployment's own (the default)
  listen = [\"192.0.2.1\"]                  # more addresses of this machine to serve on

or, for an ejabberd that exists:

  [rendezvous]
  kind = \"external\"
  api = \"https://xmpp.example:5443/api\"
  domain = \"xmpp.example\"
  servers = [\"xmpp.example:5222\"]
  ca_file = \"/etc/ipop/xmpp-ca.pem\"
  admin = \"admin@xmpp.example\"
  password_file = \"/etc/ipop/xmpp-password\"   # or password_env = \"VARIABLE\"";

/// List, check and clean the sites machines can be launched on.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct SiteArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: SiteCommand,
}

/// What to do with sites.
#[derive(Debug, Subcommand)]
pub enum SiteCommand {
    /// List the sites
    List,
    /// Try whether machines can be launched: connection, rights, acceleration, disk
    Check {
        /// The site [default: every site]
        site: Option<String>,
    },
    /// Remove the uploaded images that no machine uses
    ///
    /// Each launch uploads what it needs and is not there, and destroy leaves it for the next one.
    /// A launch that is under way is waited for when it was started from this machine by the same
    /// user; nothing should be launched there from elsewhere meanwhile.
    Prune {
        /// The site [default: every site]
        site: Option<String>,
    },
}

#[derive(Debug, Serialize)]
struct Pruned<'a> {
    site: &'a str,
    removed: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Checked<'a> {
    site: &'a str,
    ok: bool,
    lines: Vec<CheckLine>,
}

/// Runs the command.
pub fn run(context: &Context, args: SiteArgs) -> Result<u8, CliError> {
    let sites = context.sites()?;
    match args.command {
        SiteCommand::List => {
            list(context, &sites);
            Ok(0)
        }
        SiteCommand::Check { site } => check(context, &chosen(&sites, site.as_deref())?),
        SiteCommand::Prune { site } => {
            prune(context, &chosen(&sites, site.as_deref())?)?;
            Ok(0)
        }
    }
}

fn chosen<'a>(sites: &'a Sites, name: Option<&str>) -> Result<Vec<&'a Site>, CliError> {
    Ok(match name {
        Some(name) => vec![sites.find(name)?],
        None => sites.iter().collect(),
    })
}

fn prune(context: &Context, sites: &[&Site]) -> Result<(), CliError> {
    context
        .layout
        .create()
        .map_err(|e| CliError::file("create", &context.layout.cache, e))?;
    let _alone = kept::pruning(&context.layout, || {
        eprintln!("waiting for a launch that is under way");
    })?;
    for site in sites {
        let removed = provider::open(&context.layout, site)?.prune()?;
        let site = site.name.as_str();
        if context.global.json {
            println!("{}", serde_json::json!(Pruned { site, removed }));
        } else if removed.is_empty() {
            println!("{site}: nothing to remove");
        } else {
            for name in removed {
                println!("{site}: removed {name}");
            }
        }
    }
    Ok(())
}

fn list(context: &Context, sites: &Sites) {
    if context.global.json {
        for site in sites.iter() {
            println!("{}", serde_json::json!(site));
        }
        return;
    }
    let or_dash = |value: Option<String>| value.unwrap_or_else(|| "-".to_owned());
    let row = |site: &Site| {
        let (kind, place) = match &site.kind {
            SiteKind::Libvirt(libvirt) => ("libvirt", libvirt.uri.clone()),
            SiteKind::Ssh(ssh) => ("ssh", ssh.hosts.join(", ")),
            SiteKind::Rocks(rocks) => ("rocks", rocks.host.clone()),
            SiteKind::Cloudlab(cloudlab) => (
                "cloudlab",
                format!("{}/{}", cloudlab.project, cloudlab.profile),
            ),
            SiteKind::Members => ("members", String::new()),
            SiteKind::Ec2(ec2) => ("ec2", format!("{} {}", ec2.region, ec2.instance_type)),
        };
        vec![
            site.name.clone(),
            kind.to_owned(),
            place,
            or_dash(site.memory_mib.map(|m| format!("{m}M"))),
            or_dash(site.max.map(|m| m.to_string())),
        ]
    };
    let rows: Vec<_> = sites.iter().map(row).collect();
    print!(
        "{}",
        table(&["SITE", "KIND", "WHERE", "MEMORY", "MAX"], &rows)
    );
    match &sites.file {
        Some(file) => println!("\nfrom {}", file.display()),
        None => println!("\nno sites file; `provision site --help` shows one"),
    }
}

fn check(context: &Context, sites: &[&Site]) -> Result<u8, CliError> {
    context
        .layout
        .create()
        .map_err(|e| CliError::file("create", &context.layout.state, e))?;
    let mut failed = Vec::new();
    for site in sites {
        let lines = provider::open(&context.layout, site)?.check()?;
        let ok = lines.iter().all(|l| l.ok);
        if !ok {
            failed.push(site.name.as_str());
        }
        if context.global.json {
            println!(
                "{}",
                serde_json::json!(Checked {
                    site: &site.name,
                    ok,
                    lines
                })
            );
            continue;
        }
        println!("{}:", site.name);
        for line in lines {
            let mark = if line.ok { "ok  " } else { "FAIL" };
            println!("  {mark} {}: {}", line.what, line.found);
        }
    }
    if failed.is_empty() {
        return Ok(0);
    }
    Err(CliError::new(
        ExitCode::Unavailable,
        format!("machines cannot be launched on {}", failed.join(", ")),
    )
    .hint("the lines marked FAIL say what to do"))
}
