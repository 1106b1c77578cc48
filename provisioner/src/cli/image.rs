//! `provision image`: builds and lists images.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::error::CliError;
use crate::event::Sink;
use crate::image::{self, BuildOptions};
use crate::layout::Layout;

const EXAMPLES: &str = "\
Examples:
  provision image list
  provision image build worker

`provision cluster` builds the images it needs; building them beforehand saves the time then.";

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
    /// Role: base, frontend or worker.
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
}

#[derive(Debug, Args)]
struct ListArgs {
    /// Folder of recipes to use instead of the built-in ones.
    #[arg(long, value_name = "DIR")]
    recipes: Option<PathBuf>,
}

impl ImageArgs {
    /// Runs the command. What it found is printed on standard output, one item a line.
    pub fn run(self, layout: &Layout, events: &dyn Sink) -> Result<(), CliError> {
        let env = BuildOptions::from_env(layout.images());
        match self.command {
            ImageCommand::Build(args) => {
                let options = BuildOptions {
                    recipes: args.recipes.or(env.recipes),
                    node_binary: args.node_binary.or(env.node_binary),
                    mirror: args.mirror.or(env.mirror),
                    refresh: args.refresh,
                    cache: env.cache,
                };
                let image = image::build(&args.role, &options, events)?;
                println!("{}", image.disk.display());
            }
            ImageCommand::List(args) => {
                for role in image::roles_of(&BuildOptions {
                    recipes: args.recipes.or(env.recipes.clone()),
                    ..env
                })? {
                    println!("{role}");
                }
            }
        }
        Ok(())
    }
}
