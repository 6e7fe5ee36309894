//! SQLite's own TCL tests over the VFS.
//!
//! Each test file runs in a process of its own: SQLite's testfixture, linked with `libmvsqlite.a`, in
//! a directory of its own, which gives its databases namespaces of their own. What a file says about
//! its cases is compared with the [lists](exceptions) of what does not apply: a case that fails
//! without being listed is a failure, and so is a listed one that does not fail.
//!
//! What a case expects and whether it got that is SQLite's to say (`tester.tcl`); nothing here turns
//! a failure into a pass.

pub mod catalog;
pub mod exceptions;
pub mod glob;
pub mod outcome;
pub mod process;
pub mod report;
pub mod store;
pub mod verdict;
