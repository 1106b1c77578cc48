//! Amazon EC2: an AMI made from the role's image, and instances that enrol themselves.

pub mod config;
