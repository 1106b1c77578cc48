//! x

pub mod xmpp;
