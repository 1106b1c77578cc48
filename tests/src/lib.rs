//! What tests of several crates share: real servers, network namespaces and nodes, started and
//! stopped by the test itself.
//!
//! Tests with namespaces need root, `iproute2`, `nftables`, `iputils-ping`, `iperf3`, `tcpdump` and
//! `ejabberd`; without them they fail, they are not skipped. They touch nothing outside of their
//! namespaces, whose names contain the process id, and may run side by side.
//!
//! The `ipop-node` under test is the file that `IPOP_NODE_BINARY` names, otherwise the newer of the
//! static build (`scripts/build-node`) and the debug build (`cargo build -p ipop-node`).

pub mod answering;
pub mod capture;
pub mod deployed;
pub mod ec2;
pub mod kill;
pub mod lab;
pub mod light_node;
pub mod moto;
pub mod node;
pub mod outside;
pub mod portal;
pub mod rocks;
pub mod scale;
pub mod sshd;
pub mod tcp;

pub use ipop_testbed::{dhcp, dnsmasq, ejabberd, imds, netns, wait_until};
