//! A double of Amazon EC2: the query API of EC2 and the EBS direct API, as far as the provisioner
//! uses them, on a port of the loopback.
//!
//! It exists because neither EC2 itself can be had in tests nor does moto mind what EC2 minds. It
//! verifies signatures, checksums, lengths and tokens; keeps client tokens idempotent; shows new
//! things late, and addresses later; gives lists in small pages; refuses every action, parameter
//! and filter that it does not know; refuses to delete what is in use; and fails when a test says
//! so ([`Fault`]). What it answers follows the APIs' documentation.
//!
//! Instances run nothing by themselves: a [`Guests`] may start something for each.
//!
//! [`Ec2Double`] lives in the test's process; [`Ec2Process`] is the program `ec2-double`.

mod audit;
mod behaviour;
mod clock;
mod control;
mod ebs;
mod error;
mod faults;
mod filters;
mod groups;
mod http;
mod images;
mod instances;
mod launch;
mod params;
mod places;
mod reading;
mod remote;
mod server;
mod sigv4;
mod snapshots;
mod tagging;
mod world;
mod xml;

use std::net::Ipv4Addr;
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::runtime::Runtime;

pub use audit::{Audit, Call};
pub use behaviour::{Behaviour, Throttle};
pub use faults::{Fault, FaultKind};
pub use remote::Ec2Process;
pub use snapshots::BLOCK;
pub use world::Guest;

use server::Shared;
use world::World;

/// The version of the EC2 API that is spoken.
const VERSION: &str = "2016-11-15";

/// What runs in the instances. Called from the double's own threads; must not block.
pub trait Guests: Send + Sync {
    /// An instance has come to run.
    fn started(&self, guest: Guest);
    /// An instance is being shut down.
    fn stopped(&self, instance: &str);
}

/// A running double; it ends when dropped.
pub struct Ec2Double {
    shared: Arc<Shared>,
    endpoint: String,
    runtime: Option<Runtime>,
}

impl Ec2Double {
    /// Starts one whose instances run nothing.
    pub fn start(behaviour: Behaviour) -> Self {
        Self::start_with(behaviour, None)
    }

    /// Starts one.
    ///
    /// # Panics
    ///
    /// When there is no port or no thread to be had.
    pub fn start_with(behaviour: Behaviour, guests: Option<Box<dyn Guests>>) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("ec2-double")
            .enable_all()
            .build()
            .expect("a runtime");
        let shared = Arc::new(Shared::new(World::new(behaviour), guests));
        // Bound without the runtime, so that an asynchronous test may start one.
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        listener.set_nonblocking(true).expect("a socket");
        let addr = listener.local_addr().expect("it is bound");
        let serving = shared.clone();
        runtime.spawn(async move {
            let listener = TcpListener::from_std(listener).expect("a runtime with I/O");
            http::serve(listener, serving).await;
        });
        runtime.spawn(server::keep_ticking(shared.clone()));
        Self {
            shared,
            endpoint: format!("http://{addr}"),
            runtime: Some(runtime),
        }
    }

    /// `http://127.0.0.1:PORT`, for both APIs.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// Orders a fault.
    pub fn fault(&self, fault: Fault) {
        self.shared.lock().faults.add(fault);
    }

    /// Takes back all faults.
    pub fn clear_faults(&self) {
        self.shared.lock().faults.clear();
    }

    /// Changes how it behaves from now on.
    pub fn change(&self, change: impl FnOnce(&mut Behaviour)) {
        change(&mut self.shared.lock().world.behaviour);
    }

    /// What was called so far.
    pub fn audit(&self) -> Audit {
        self.shared.lock().audit.clone()
    }

    /// Everything that is neither terminated nor deleted, one line each.
    pub fn leftovers(&self) -> Vec<String> {
        self.shared.lock().world.leftovers()
    }
}

impl Drop for Ec2Double {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // Connections that hang would otherwise be waited for.
            runtime.shutdown_background();
        }
    }
}
