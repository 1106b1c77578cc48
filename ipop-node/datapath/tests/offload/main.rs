//! Segmentation and coalescing against packets built and summed in the plainest way.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod coalesce;
mod inet;
mod order;
mod packets;
mod properties;
mod segment;
mod streams;
