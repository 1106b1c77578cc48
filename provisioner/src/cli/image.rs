//! `provision image`: builds and lists images.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde::Serialize;

use super::Context;
use crate::error::CliError;
use crate::image::{self, BuildOptions};
use crate::provider::ImageForm;
use crate::report::Report;

const EXAMPLES: &str = "\
Examples:
  provision image list
  provision image build worker
  provision image build worker --netboot /srv/boot/worker

`provision cluster` builds the images it needs; building them beforehand saves the time then.

A role is a folder with a recipe.toml (packages, units, a health check), files, and templates. Those
of your own are in ~/.config/ipop/roles or /etc/ipop/roles (or where IPOP_ROLES says) and extend one
that is there; `--workers 2:NAME@SITE` has machines of the role NAME. docs/roles.md has an example.";

/// Build and list the images that machines are made of.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct ImageArgs {
    #[command(subcommand)]
    command: ImageCommand,
}

#[derive(Debug, Subcommand)]
enum ImageCommand {
    /// Build the image of a role; returns at once when nothing has changed.
    Build(BuildArgs),
    /// List the roles that images can be built for.
    List(ListArgs),
}

#[derive(Debug, Args)]
struct BuildArgs {
    /// Role: base, frontend, worker, or one of your own.
    role: String,
    /// Folder of recipes to use instead of the built-in ones.
    #[arg(long, value_name = "DIR")]
    recipes: Option<PathBuf>,
    /// Static ipop-node to put into the image.
    #[arg(long, value_name = "FILE")]
    node_binary: Option<PathBuf>,
    /// Debian mirror; by default the one this machine installs from.
    #[arg(long, value_name = "URL")]
    mirror: Option<String>,
    /// Install the packages anew, with the mirror's latest updates.
    #[arg(long)]
    refresh: bool,
    /// Make the raw disk that boots by itself by BIOS and by UEFI, as clouds take it.
    #[arg(long)]
    whole: bool,
    /// Make what machines without a disk boot from the network, and put it into DIR: vmlinuz,
    /// initrd, boot.ipxe and manifest.json.
    #[arg(long, value_name = "DIR", conflicts_with = "whole")]
    netboot: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct ListArgs {
    /// Folder of recipes to use instead of the built-in ones.
    #[arg(long, value_name = "DIR")]
    recipes: Option<PathBuf>,
}

#[derive(Debug, Serialize)]
struct Built<'a> {
    role: &'a str,
    /// Names the content.
    hash: &'a str,
    disk: &'a Path,
    kernel: &'a Path,
    initrd: Option<&'a Path>,
    whole: Option<&'a Path>,
}

#[derive(Debug, Serialize)]
struct Installed<'a> {
    role: &'a str,
    /// Names the content.
    hash: &'a str,
    netboot: &'a Path,
}

#[derive(Debug, Serialize)]
struct Roles {
    roles: Vec<String>,
}

/// Runs the command. The result is a line for a script (the disk's path, or each role), or the
/// event `result` in JSON.
pub fn run(context: &Context, args: ImageArgs) -> Result<u8, CliError> {
    let env = BuildOptions::from_env(context.layout.images());
    let report = Report::new(context.mode(), &[]);
    match args.command {
        ImageCommand::Build(args) => {
            let options = BuildOptions {
                recipes: args.recipes.or(env.recipes),
                roles: env.roles,
                node_binary: args.node_binary.or(env.node_binary),
                mirror: args.mirror.or(env.mirror),
                refresh: args.refresh,
                cache: env.cache,
            };
            if let Some(dir) = &args.netboot {
                let built = image::build_netboot(&args.role, &options, &report)?;
                image::netboot::install(&built.dir, dir)?;
                let installed = Installed {
                    role: &args.role,
                    hash: &built.hash,
                    netboot: dir,
                };
                report.finish(&installed, |i| format!("{}\n", i.netboot.display()));
                return Ok(0);
            }
            let form = if args.whole {
                ImageForm::Whole
            } else {
                ImageForm::Direct
            };
            let image = image::build(&args.role, form, &options, &report)?;
            let built = Built {
                role: &image.role,
                hash: &image.hash,
                disk: &image.disk,
                kernel: &image.kernel,
                initrd: image.initrd.as_deref(),
                whole: image.whole.as_deref(),
            };
            report.finish(&built, |b| {
                format!("{}\n", b.whole.unwrap_or(b.disk).display())
            });
        }
        ImageCommand::List(args) => {
            let roles = image::roles_of(&BuildOptions {
                recipes: args.recipes.or(env.recipes.clone()),
                ..env
            })?;
            report.finish(&Roles { roles }, |r| {
                r.roles.iter().map(|role| format!("{role}\n")).collect()
            });
        }
    }
    Ok(0)
}
