//! The EC2 double, seen through the clients it is made for: what is right passes, and everything
//! that it claims to be strict about is refused.

mod blocks;
mod client;
mod faults;
mod instances;
mod resources;
