//! What a workload measured, and the table it goes into.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::workload::{Goal, Workload};

/// The result of one workload on one side, in microseconds per operation.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Measured {
    /// The median operation; for throughput workloads the wall time divided by the operations.
    pub typical_us: f64,
    /// The 99th percentile; equal to `typical_us` where operations are not timed one by one.
    pub p99_us: f64,
}

impl Measured {
    /// From the times of single operations. At least one.
    pub fn from_samples(mut samples: Vec<Duration>) -> Self {
        samples.sort_unstable();
        let at = |percent: usize| {
            let index = (samples.len() * percent / 100).min(samples.len() - 1);
            samples[index].as_secs_f64() * 1e6
        };
        Self {
            typical_us: at(50),
            p99_us: at(99),
        }
    }

    /// From the time that `operations` took together.
    pub fn from_total(total: Duration, operations: u64) -> Self {
        let each = total.as_secs_f64() * 1e6 / operations as f64;
        Self {
            typical_us: each,
            p99_us: each,
        }
    }
}

/// Times `operation` once for each of `0..count`.
///
/// # Errors
/// The first that the operation returns.
pub fn time_each<E>(
    count: u64,
    mut operation: impl FnMut(u64) -> Result<(), E>,
) -> Result<Measured, E> {
    let mut samples = Vec::new();
    for i in 0..count {
        let start = Instant::now();
        operation(i)?;
        samples.push(start.elapsed());
    }
    Ok(Measured::from_samples(samples))
}

/// The table, row by row.
pub struct Report {
    echo_us: f64,
    rows: Vec<[String; 6]>,
}

impl Report {
    /// A table whose "echo" is this long.
    pub fn new(echo: Duration) -> Self {
        Self {
            echo_us: echo.as_secs_f64() * 1e6,
            rows: Vec::new(),
        }
    }

    /// Adds a workload measured on both sides.
    pub fn add(&mut self, workload: Workload, local: &Measured, ours: &Measured) {
        let (ratio, goal, reached) = match workload.goal() {
            Goal::SpeedOfLocal(factor) => {
                let ratio = local.typical_us / ours.typical_us;
                (
                    format!("{ratio:.2} x local"),
                    format!(">= {factor} x local"),
                    ratio >= factor,
                )
            }
            Goal::TimeOfLocal(factor) => {
                let ratio = ours.typical_us / local.typical_us;
                (
                    format!("{ratio:.2} x local"),
                    format!("<= {factor} x local"),
                    ratio <= factor,
                )
            }
            Goal::TimeOfEcho(factor) => {
                let ratio = ours.typical_us / self.echo_us;
                (
                    format!("{ratio:.2} x echo"),
                    format!("<= {factor} x echo"),
                    ratio <= factor,
                )
            }
        };
        self.rows.push([
            workload.title().to_owned(),
            format!("{:.1}", local.typical_us),
            format!("{:.1} (p99 {:.1})", ours.typical_us, ours.p99_us),
            ratio,
            goal,
            if reached { "reached" } else { "missed" }.to_owned(),
        ]);
    }

    /// Prints it as Markdown.
    pub fn print(&self) {
        println!(
            "\nBare loopback HTTP exchange (\"echo\"), p50: {:.0} us\n",
            self.echo_us
        );
        println!("| workload | local, us | mvSQLite, us | ratio | goal | |");
        println!("|---|---|---|---|---|---|");
        for row in &self.rows {
            println!("| {} |", row.join(" | "));
        }
        println!();
    }
}
