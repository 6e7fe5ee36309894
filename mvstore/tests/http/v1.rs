//! Data plane v1: what the original's clients send, byte for byte, and what they are answered.

mod client;
mod commits;
mod examples;
mod forks;
mod locks;
mod options;
mod refusals;
mod uploads;
