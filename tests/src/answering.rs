//! Machines of a lab that can be asked things over `ssh`: a double of the program `ssh` that runs the command
//! here, with the paths of the machine's own.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::process::Output;

use provisioner::state::Database;

use crate::deployed::Lab;
use crate::node;

/// Finds the machine by its address, as `provision` names it: `… root@ADDRESS -- COMMAND`.
const SSH: &str = r#"#!/bin/sh
for word; do
  case $word in root@*) address=${word#root@} ;; esac
done
if [ ! -e "@DIR@/$address" ]; then
  echo "ssh: connect to host $address port 22: No route to host" >&2
  exit 255
fi
own=$(cat "@DIR@/$address")
exec sh -c "$(printf '%s' "$word" | sed "s#/var/lib/ipop-node#$own#g; s#/run/ipop-node#$own#g")"
"#;

/// Runs `provision` while all machines of a lab answer but those that are `silent`.
///
/// # Panics
///
/// When something cannot be made.
pub fn provision(lab: &Lab, silent: &[&str], words: &[&str]) -> Output {
    let dir = tempfile::tempdir().expect("temporary directory");
    let database = Database::open(&lab.layout.database()).expect("opens");
    let deployment = database.deployment("demo").expect("read").expect("there");
    for node in &lab.nodes {
        let name = provisioner::name::NodeName(node.name.clone());
        // The front end is reached by that, for which anything will do that no other has.
        let set = database.set_underlay(deployment.id, &name, &node.addr);
        set.expect("recorded");
        if !silent.contains(&node.name.as_str()) {
            let own = node.path("").display().to_string();
            fs::write(dir.path().join(&node.addr), own).expect("written");
        }
    }
    let program = dir.path().join("ssh");
    write_program(
        &program,
        &SSH.replace("@DIR@", &dir.path().display().to_string()),
    );
    symlink(node::binary(), dir.path().join("ipop-node")).expect("linked");
    let path = std::env::var("PATH").expect("set");
    let path = format!("{}:{path}", dir.path().display());
    lab.command(words)
        .env("PATH", path)
        .output()
        .expect("`ip` runs")
}

fn write_program(path: &Path, text: &str) {
    fs::write(path, text).expect("written");
    fs::set_permissions(path, Permissions::from_mode(0o755)).expect("set");
}
