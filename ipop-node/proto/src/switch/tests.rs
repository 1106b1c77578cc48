//! Several switches, their LANs and the hosts on these, on virtual time.

mod arbitrary;
mod carried;
mod guarded;
mod looped;
mod owned;
mod world;
