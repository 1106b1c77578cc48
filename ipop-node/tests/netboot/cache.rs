//! A cache of a gateway. Needs the package `nginx`.

use std::fs;
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};

use ipop_testbed::netns::Netns;
use ipop_testbed::wait_until;
use tempfile::TempDir;

use super::documented;
use crate::lans::{BRIDGE, PATIENCE};

/// Its address on the LAN.
pub const ADDRESS: &str = "10.1.0.253";
/// Where the documented configuration has the files.
const DOCUMENTED_ROOT: &str = "/var/cache/boot";

/// A running nginx.
pub struct Cache {
    child: Child,
    _dir: TempDir,
}

impl Cache {
    /// Starts one in a gateway's namespace, with nothing in it.
    pub fn start(netns: &Netns) -> Self {
        let dir = TempDir::with_prefix("ipop-cache-").expect("temporary directory");
        let root = dir.path().display().to_string();
        let site = fs::read_to_string(documented("boot-cache.conf")).expect("it is there");
        // A directory of its own: nginx removes from it what it did not put there.
        let site = site.replace(DOCUMENTED_ROOT, &format!("{root}/kept"));
        // What Debian's package has around it, with nothing outside of the directory.
        let around = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|what| format!("{what}_temp_path {root}/{what};\n"))
            .concat();
        let config = format!(
            "daemon off;\nuser root;\npid {root}/pid;\nerror_log stderr;\nevents {{}}\n\
             http {{\naccess_log off;\n{around}{site}}}\n"
        );
        let path = dir.path().join("config");
        fs::write(&path, config).expect("written");
        netns.address(BRIDGE, &format!("{ADDRESS}/24"));
        let child = netns
            .command("nginx")
            .arg("-c")
            .arg(path)
            .stdin(Stdio::null())
            .spawn()
            .expect("`ip` runs");
        let cache = Self { child, _dir: dir };
        wait_until("nginx", PATIENCE, || {
            netns.inside(|| TcpStream::connect((ADDRESS, 80))).ok()
        });
        cache
    }
}

impl Drop for Cache {
    fn drop(&mut self) {
        // It has processes of its own to end. Errors here mean that it is gone already.
        let _ = Command::new("kill")
            .arg(self.child.id().to_string())
            .status();
        let _ = self.child.wait();
    }
}
