//! The judge on trial: histories that must be refused, histories that must be accepted, and its
//! verdict beside that of one that tries every order.

#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

mod brute_force;
mod build;
mod generate;
mod planted;
mod planted_versions;
mod random;
mod size;
