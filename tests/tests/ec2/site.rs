//! A site of a test's own: a provider, images, and the engine's side of the contract.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use ipop_tests::moto::REGION;
use provisioner::bundle::{Bundle, NODE_CONFIG};
use provisioner::deploy::interrupt::Interrupt;
use provisioner::error::CliError;
use provisioner::event::{Event, Sink};
use provisioner::name::NodeName;
use provisioner::provider::ec2::Ec2;
use provisioner::provider::ec2::config::Ec2Site;
use provisioner::provider::{
    Image, MachineSpec, Made, Making, Provider, Removing, Resource, Scope, SitePlan, Step, Tags,
    WantedMachine,
};
use provisioner::secret::Secret;
use tempfile::TempDir;

/// What the EBS direct APIs call a block.
pub const BLOCK: usize = 512 * 1024;
const PATIENCE: Duration = Duration::from_secs(300);

/// Plays the engine for one deployment.
pub struct Site {
    pub provider: Ec2,
    pub tags: Tags,
    pub images: BTreeMap<String, Image>,
    pub machines: Vec<WantedMachine>,
    pub handles: Mutex<BTreeMap<Resource, String>>,
    pub dir: TempDir,
    tokens: AtomicU32,
}

impl Site {
    pub fn new(endpoint: &str, keep_images: bool) -> Self {
        let dir = TempDir::new().expect("a temporary directory");
        let provider = provider(endpoint, keep_images, &dir.path().join("cache"));
        Self {
            provider,
            tags: Tags {
                owner: "0011223344556677".into(),
                deployment: "demo".into(),
                uid: "8899aabbccddeeff".into(),
            },
            images: BTreeMap::new(),
            machines: Vec::new(),
            handles: Mutex::new(BTreeMap::new()),
            dir,
            tokens: AtomicU32::new(0),
        }
    }

    /// A sparse image of this many MiB; the blocks with these numbers have random content.
    pub fn image(&mut self, version: u8, mib: u64, blocks: impl IntoIterator<Item = u32>) {
        let path = self.dir.path().join(format!("image-{version}"));
        let file = File::create(&path).expect("an image file");
        file.set_len(mib << 20).expect("room for holes");
        let mut random = File::open("/dev/urandom").expect("random bytes");
        let mut block = vec![0; BLOCK];
        for index in blocks {
            random.read_exact(&mut block).expect("random bytes");
            file.write_all_at(&block, u64::from(index) * BLOCK as u64)
                .expect("a block");
        }
        let image = Image {
            role: "worker".into(),
            hash: format!("{version:02x}").repeat(32),
            disk: path.clone(),
            kernel: path.clone(),
            initrd: None,
            cmdline: String::new(),
            whole: Some(path),
        };
        self.images.insert("worker".into(), image);
    }

    /// Wants this many workers.
    pub fn want(&mut self, workers: u32) {
        let worker = |slot| WantedMachine {
            node: NodeName(format!("worker-{slot}")),
            role: "worker".into(),
            image: "worker".into(),
            memory_mib: 1024,
            cpus: 1,
            disk_gib: 2,
            data_gib: None,
            slot,
        };
        self.machines = (0..workers).map(worker).collect();
    }

    pub fn steps(&self) -> Vec<Step> {
        let plan = SitePlan {
            tags: &self.tags,
            machines: &self.machines,
            members: &[],
            images: &self.images,
        };
        self.provider.plan(&plan).expect("a plan")
    }

    pub fn step(&self, kind: &str) -> Step {
        let mut steps = self.steps();
        let place = steps.iter().position(|step| step.resource.kind == kind);
        steps.swap_remove(place.expect("a step of this kind"))
    }

    /// Makes a thing with a token of its own.
    pub fn make(&self, step: &Step) -> Result<Made, CliError> {
        let token = format!("{:032x}", self.tokens.fetch_add(1, Ordering::Relaxed));
        self.make_as(step, &token, &Interrupt::default(), &|_: Event| {})
    }

    pub fn make_as(
        &self,
        step: &Step,
        token: &str,
        interrupt: &Interrupt,
        events: &dyn Sink,
    ) -> Result<Made, CliError> {
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
                deadline: Instant::now() + PATIENCE,
                interrupt,
                events,
            },
        )?;
        let handle = made.handle.clone().expect("EC2 gives identifiers");
        self.handles
            .lock()
            .expect("not poisoned")
            .insert(step.resource.clone(), handle);
        Ok(made)
    }

    pub fn make_all(&self) {
        for step in self.steps() {
            self.make(&step)
                .unwrap_or_else(|e| panic!("{:?}: {e}", step.resource));
        }
    }

    pub fn handle(&self, resource: &Resource) -> Option<String> {
        self.handles
            .lock()
            .expect("not poisoned")
            .get(resource)
            .cloned()
    }

    pub fn remove(&self, resource: &Resource, handle: Option<&str>) -> Result<(), CliError> {
        self.provider.remove(&Removing {
            tags: &self.tags,
            resource,
            handle,
            deadline: Instant::now() + PATIENCE,
            interrupt: &Interrupt::default(),
        })
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

pub fn provider(endpoint: &str, keep_images: bool, cache: &Path) -> Ec2 {
    let site = Ec2Site {
        region: REGION.into(),
        profile: None,
        instance_type: "t3.micro".into(),
        subnet: None,
        spot: false,
        keep_images,
        endpoint: Some(endpoint.into()),
        prices: None,
    };
    Ec2::with_key(
        site,
        cache,
        "AKIAIOSFODNN7EXAMPLE",
        &Secret::new("key".into()),
    )
    .expect("a provider")
}
