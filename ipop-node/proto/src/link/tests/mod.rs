//! Links on a simulated underlay and virtual time.

mod hostile;
mod pair;
mod paths;
mod renewal;
mod setup;
