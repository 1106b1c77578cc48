//! A site on the double, and the engine's side of the contract.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use ipop_tests::ec2::{BLOCK, Behaviour, Ec2Double};
use provisioner::bundle::{Bundle, NODE_CONFIG};
use provisioner::deploy::interrupt::Interrupt;
use provisioner::error::CliError;
use provisioner::event::Event;
use provisioner::name::NodeName;
use provisioner::provider::ec2::Ec2;
use provisioner::provider::ec2::config::Ec2Site;
use provisioner::provider::{
    Image, MachineSpec, Made, Making, Provider, Removing, Resource, Scope, SitePlan, Step, Tags,
    WantedMachine,
};
use provisioner::secret::Secret;
use tempfile::TempDir;

/// Blocks of the image that hold something.
pub const BLOCKS: [u32; 3] = [0, 5, 9];

/// A double and a provider for it, with an image and one worker.
pub struct Site {
    pub double: Ec2Double,
    pub provider: Ec2,
    tags: Tags,
    images: BTreeMap<String, Image>,
    handles: Mutex<BTreeMap<Resource, String>>,
    tokens: AtomicU32,
    _dir: TempDir,
}

impl Site {
    /// As awkward as the double is by default, except for what `change` changes.
    pub fn new(change: impl FnOnce(&mut Behaviour)) -> Self {
        let mut behaviour = Behaviour::default();
        change(&mut behaviour);
        let dir = TempDir::new().expect("a temporary directory");
        let disk = dir.path().join("disk.raw");
        let file = File::create(&disk).expect("an image file");
        file.set_len(16 << 20).expect("room for holes");
        for index in BLOCKS {
            let block = vec![index as u8 + 1; BLOCK];
            let at = u64::from(index) * BLOCK as u64;
            file.write_all_at(&block, at).expect("a block");
        }
        let image = Image {
            role: "worker".into(),
            hash: "ab".repeat(32),
            disk: disk.clone(),
            kernel: disk.clone(),
            initrd: None,
            cmdline: String::new(),
            whole: Some(disk),
        };
        let key = Secret::new(behaviour.secret_key.clone());
        let access = behaviour.access_key.clone();
        let double = Ec2Double::start(behaviour);
        let site = Ec2Site {
            region: "us-west-2".into(),
            profile: None,
            instance_type: "t3.micro".into(),
            subnet: None,
            spot: false,
            keep_images: false,
            endpoint: Some(double.endpoint().to_owned()),
            prices: None,
        };
        let cache = dir.path().join("cache");
        let provider = Ec2::with_key(site, &cache, &access, &key).expect("a provider");
        Self {
            double,
            provider,
            tags: Tags {
                owner: "0011223344556677".into(),
                deployment: "demo".into(),
                uid: "8899aabbccddeeff".into(),
            },
            images: BTreeMap::from([("worker".to_owned(), image)]),
            handles: Mutex::default(),
            tokens: AtomicU32::new(1),
            _dir: dir,
        }
    }

    /// The steps of one worker, in their order.
    fn steps(&self) -> Vec<Step> {
        let machine = WantedMachine {
            node: NodeName("worker-0".into()),
            role: "worker".into(),
            image: "worker".into(),
            memory_mib: 1024,
            cpus: 1,
            disk_gib: 2,
            data_gib: None,
            slot: 0,
        };
        let plan = SitePlan {
            tags: &self.tags,
            machines: &[machine],
            members: &[],
            images: &self.images,
        };
        self.provider.plan(&plan).expect("a plan")
    }

    /// The step of a kind.
    pub fn step(&self, kind: &str) -> Step {
        let found = self.steps().into_iter().find(|s| s.resource.kind == kind);
        found.expect("a step of this kind")
    }

    /// Makes a thing with a token of its own.
    pub fn make(&self, step: &Step) -> Result<Made, CliError> {
        let token = self.tokens.fetch_add(1, Ordering::Relaxed);
        self.make_as(step, &format!("{token:032x}"), 120)
    }

    /// Makes a thing within so many seconds.
    pub fn make_as(&self, step: &Step, token: &str, seconds: u64) -> Result<Made, CliError> {
        let spec = match &step.scope {
            Scope::Node(node) => Some(self.spec(node)),
            _ => None,
        };
        let made = self.provider.make(
            step,
            &Making {
                tags: &self.tags,
                token,
                machine: spec.as_ref(),
                images: &self.images,
                handles: &|resource: &Resource| self.handle(resource),
                deadline: Instant::now() + Duration::from_secs(seconds),
                interrupt: &Interrupt::default(),
                events: &|_: Event| {},
            },
        )?;
        let handle = made.handle.clone().expect("EC2 gives identifiers");
        let mut handles = self.handles.lock().expect("not poisoned");
        handles.insert(step.resource.clone(), handle);
        Ok(made)
    }

    /// Makes everything that comes before a kind's step, and gives that step.
    pub fn make_before(&self, kind: &str) -> Step {
        for step in self.steps() {
            if step.resource.kind == kind {
                return step;
            }
            self.make(&step)
                .unwrap_or_else(|e| panic!("{:?}: {e}", step.resource));
        }
        panic!("no step of kind {kind}")
    }

    /// Removes everything that was made, the last first.
    pub fn remove_all(&self) {
        let made = |step: &&Step| self.handle(&step.resource).is_some();
        for step in self.steps().iter().rev().filter(made) {
            self.remove(&step.resource, 60)
                .unwrap_or_else(|e| panic!("{:?}: {e}", step.resource));
        }
    }

    /// Removes a thing within so many seconds.
    pub fn remove(&self, resource: &Resource, seconds: u64) -> Result<(), CliError> {
        self.provider.remove(&Removing {
            tags: &self.tags,
            resource,
            handle: self.handle(resource).as_deref(),
            deadline: Instant::now() + Duration::from_secs(seconds),
            interrupt: &Interrupt::default(),
        })
    }

    /// What the provider says of the worker.
    pub fn machine(&self) -> Option<provisioner::provider::Machine> {
        let machines = self.provider.machines(&self.tags).expect("described");
        machines.get(&NodeName("worker-0".into())).cloned()
    }

    /// How many things of a kind are there.
    pub fn there(&self, kind: &str) -> usize {
        let left = self.double.leftovers();
        left.iter().filter(|line| line.starts_with(kind)).count()
    }

    fn handle(&self, resource: &Resource) -> Option<String> {
        let handles = self.handles.lock().expect("not poisoned");
        handles.get(resource).cloned()
    }

    fn spec(&self, node: &NodeName) -> MachineSpec {
        let mut bundle = Bundle::default();
        bundle.set(NODE_CONFIG, format!("name = \"{node}\""));
        MachineSpec {
            deployment: self.tags.deployment.clone(),
            node: node.clone(),
            image: self.images["worker"].clone(),
            memory_mib: 1024,
            cpus: 1,
            disk_gib: 2,
            data_gib: None,
            bundle,
        }
    }
}

/// An error as it is printed: message, causes, hints.
pub fn printed(error: &CliError) -> String {
    let mut text = format!("error: {}", error.message);
    let mut cause = std::error::Error::source(error);
    while let Some(next) = cause {
        text += &format!("\ncaused by: {next}");
        cause = next.source();
    }
    for hint in &error.hints {
        text += &format!("\nhint: {hint}");
    }
    text
}
