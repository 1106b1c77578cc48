//! Links on a simulated underlay and virtual time.

mod authority;
mod hostile;
mod openssl;
mod pair;
mod paths;
mod renewal;
mod setup;
