//! What tests of several crates share: real servers, started and stopped by the test itself.

pub mod ejabberd;
mod http;
