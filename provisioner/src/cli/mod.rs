//! The command line: one file per subcommand.

use std::path::PathBuf;

use clap::{Args, ColorChoice, Parser, Subcommand};

use crate::error::CliError;

pub mod apply;
pub mod audit;
pub mod authority;
pub mod cluster;
mod confirm;
pub mod context;
pub mod destroy;
mod everywhere;
pub mod extend;
pub mod gc;
pub mod group;
pub mod image;
pub mod keep;
pub mod logs;
pub mod policy;
pub mod power;
pub mod rendezvous;
pub mod resume;
mod revoked;
pub mod scale;
pub mod share;
pub mod site;
pub mod slurm;
pub mod ssh;
pub mod status;
pub mod target;
pub mod user;

pub use context::Context;

const EXAMPLES: &str = "\
Examples:
  provision cluster --frontend 1@local --workers 2@local
  provision status
  provision ssh cluster/worker-0 -- hostname
  provision scale cluster --workers +2@local
  provision destroy cluster

Exit codes:
  0 done               5 host or service unavailable     10 something could not be removed
  1 internal error     6 missing program, right or disk  130 interrupted
  2 wrong arguments    7 a node did not join in time
  3 wrong file         8 image could not be built
  4 no such name, or the name is taken

`provision ssh` ends with the status of the command it ran.";

/// Launches virtual clusters whose nodes join a private overlay network.
///
/// `provision` builds the images, launches the machines with generated credentials, and says a
/// node has joined only when it is signed in, linked over the overlay, and its role works.
#[derive(Debug, Parser)]
#[command(name = "provision", version, after_help = EXAMPLES, max_term_width = 100)]
#[command(disable_help_subcommand = true, subcommand_required = true)]
#[command(arg_required_else_help = true)]
pub struct Cli {
    /// Options of every subcommand.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Options of every subcommand.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Global options")]
pub struct Global {
    /// Keep deployments and keys here [default: /var/lib/ipop-provision as root]
    #[arg(long, global = true, value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
    /// Read sites from this file [default: ~/.config/ipop/sites.toml, then /etc/ipop/sites.toml]
    #[arg(long, global = true, value_name = "FILE")]
    pub sites: Option<PathBuf>,
    /// Print JSON on standard output: one event a line, or one object
    #[arg(long, global = true)]
    pub json: bool,
    /// Log more to standard error (-v: steps, -vv: details)
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
    /// When to use colours and progress bars
    #[arg(long, global = true, value_name = "WHEN", default_value_t = ColorChoice::Auto)]
    pub color: ColorChoice,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Launch a cluster and wait until its nodes have joined
    Cluster(cluster::ClusterArgs),
    /// Continue what was stopped: a launch, a change of size, a removal
    Resume(resume::ResumeArgs),
    /// Add workers to a cluster, or remove some
    Scale(scale::ScaleArgs),
    /// Show deployments, or the nodes of one
    Status(status::StatusArgs),
    /// List deployments
    List,
    /// Run a command or a shell on a node, over the overlay
    Ssh(ssh::SshArgs),
    /// Show the console and the service log of a node
    Logs(logs::LogsArgs),
    /// Let people's machines into an overlay, see who is in, and have them leave
    User(user::UserArgs),
    /// Put people in groups, take them out, and show who is in which
    Group(group::GroupArgs),
    /// Show who may reach what
    Policy(policy::PolicyArgs),
    /// Show who was let into an overlay, who was refused and who was taken out
    Audit(audit::AuditArgs),
    /// Show how the key of an overlay's authority is kept, and keep it under a passphrase
    Authority(authority::AuthorityArgs),
    /// Make, list and remove shares: folders for those who were let in
    Share(share::ShareArgs),
    /// Remove a deployment and everything it made
    Destroy(destroy::DestroyArgs),
    /// Change when a deployment is destroyed by itself
    Extend(extend::ExtendArgs),
    /// Find and remove what deployments left behind
    Gc(gc::GcArgs),
    /// List, check and clean the sites machines can be launched on
    Site(site::SiteArgs),
    /// Build and list the images machines are made of
    Image(image::ImageArgs),
    /// Do what is due for a deployment
    #[command(hide = true)]
    Keep(keep::KeepArgs),
    /// Have workers come and go as the scheduler asks
    #[command(hide = true)]
    Power(power::PowerArgs),
    /// Keep an embedded rendezvous running
    #[command(hide = true)]
    Rendezvous(rendezvous::RendezvousArgs),
}

impl Command {
    /// Runs the subcommand; the value is the process's exit code.
    pub fn run(self, context: &Context) -> Result<u8, CliError> {
        match self {
            Self::Cluster(args) => cluster::run(context, args),
            Self::Resume(args) => resume::run(context, args),
            Self::Scale(args) => scale::run(context, args),
            Self::Status(args) => status::run(context, args),
            Self::List => status::run(context, status::StatusArgs { name: None }),
            Self::Ssh(args) => ssh::run(context, args),
            Self::Logs(args) => logs::run(context, args),
            Self::User(args) => user::run(context, args),
            Self::Group(args) => group::run(context, args),
            Self::Policy(args) => policy::run(context, args),
            Self::Audit(args) => audit::run(context, args),
            Self::Authority(args) => authority::run(context, args),
            Self::Share(args) => share::run(context, args),
            Self::Destroy(args) => destroy::run(context, args),
            Self::Extend(args) => extend::run(context, args),
            Self::Gc(args) => gc::run(context, args),
            Self::Keep(args) => keep::run(context, args),
            Self::Site(args) => site::run(context, args),
            Self::Image(args) => image::run(context, args),
            Self::Power(args) => power::run(context, args),
            Self::Rendezvous(args) => rendezvous::run(context, args),
        }
    }
}

#[cfg(test)]
mod tests;
