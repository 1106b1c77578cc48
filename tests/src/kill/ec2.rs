//! The strict double of EC2, a process of its own for every run.

use std::path::{Path, PathBuf};

use super::{Host, Peer};
use crate::ec2::{Behaviour, Ec2Process};

/// Starts doubles.
pub struct Ec2 {
    binary: PathBuf,
}

impl Ec2 {
    /// `binary` is `env!("CARGO_BIN_EXE_ec2-double")`.
    pub fn new(binary: &Path) -> Self {
        Self {
            binary: binary.to_owned(),
        }
    }
}

impl Peer for Ec2 {
    fn host(&self) -> Box<dyn Host + '_> {
        let behaviour = Behaviour::default();
        Box::new(Account {
            process: Ec2Process::start(&self.binary, &behaviour),
            behaviour,
        })
    }

    fn check(&self, view: &[String], workers: u32) {
        let count = |what: &str| view.iter().filter(|t| t.starts_with(what)).count();
        let machines = workers as usize + 1;
        assert_eq!(count("instance "), machines, "{view:?}");
        assert_eq!(count("group ID ") + count("group sg-"), 1, "{view:?}");
        assert_eq!(count("image "), 2, "{view:?}");
        assert_eq!(count("snapshot "), 2, "{view:?}");
    }
}

struct Account {
    process: Ec2Process,
    behaviour: Behaviour,
}

impl Host for Account {
    fn site(&self) -> String {
        format!(
            "kind = \"ec2\"\nregion = \"{}\"\nendpoint = \"{}\"\n",
            self.behaviour.region,
            self.process.endpoint()
        )
    }

    fn env(&self) -> Vec<(String, String)> {
        let variable = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        vec![
            variable("AWS_ACCESS_KEY_ID", &self.behaviour.access_key),
            variable("AWS_SECRET_ACCESS_KEY", &self.behaviour.secret_key),
            // Nothing of this machine's own configuration.
            variable("AWS_CONFIG_FILE", "/dev/null"),
            variable("AWS_SHARED_CREDENTIALS_FILE", "/dev/null"),
            variable("AWS_EC2_METADATA_DISABLED", "true"),
        ]
    }

    fn look(&self, _deployment: &str) -> Vec<String> {
        // Whether an instance is pending or runs already is a matter of time.
        let plain = |thing: String| thing.replace(" pending ", " running ");
        self.process.leftovers().into_iter().map(plain).collect()
    }
}
