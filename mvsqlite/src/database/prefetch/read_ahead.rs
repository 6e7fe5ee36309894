//! Notices sequential reading and asks for the next pages in the same request.
//!
//! A few runs are followed at once, since a scan alternates between a table, its interior pages
//! and perhaps an index. A run's window doubles with each of its cache misses.

use mvsqlite_protocol::PageIndex;

/// Runs followed at once.
const RUNS: usize = 4;
/// How far a run may skip: interior pages lie between the leaves of a table.
const SKIP: u32 = 4;
/// The window of a run when it is noticed, in pages.
const FIRST_WINDOW: u32 = 4;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Run {
    /// The first page behind what was asked for.
    next: PageIndex,
    window: u32,
}

/// The runs of one handle.
#[derive(Debug, Default)]
pub(super) struct ReadAhead {
    /// The most recent last.
    runs: Vec<Run>,
}

impl ReadAhead {
    /// How many pages to ask for when this one is missing from the cache; at least one, at most
    /// `most`.
    pub(super) fn window(&mut self, missing: PageIndex, most: u32) -> u32 {
        let most = most.max(1);
        let continues = |run: &Run| missing >= run.next && missing - run.next <= SKIP;
        let window = match self.runs.iter().position(continues) {
            Some(at) => {
                let run = self.runs.remove(at);
                run.window
                    .saturating_mul(2)
                    .clamp(FIRST_WINDOW, most.max(FIRST_WINDOW))
            }
            None => 1,
        };
        let window = window.min(most);
        if self.runs.len() == RUNS {
            self.runs.remove(0);
        }
        self.runs.push(Run {
            next: missing.saturating_add(window),
            window,
        });
        window
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scan_doubles_its_window_up_to_the_limit() {
        let mut read_ahead = ReadAhead::default();
        let mut page = 10;
        let mut windows = Vec::new();
        for _ in 0..6 {
            let window = read_ahead.window(page, 20);
            windows.push(window);
            page += window;
        }
        assert_eq!(windows, [1, 4, 8, 16, 20, 20]);
    }

    #[test]
    fn two_scans_and_a_page_between_do_not_disturb_each_other() {
        let mut read_ahead = ReadAhead::default();
        read_ahead.window(10, 100);
        read_ahead.window(5000, 100);
        assert_eq!(read_ahead.window(12, 100), 4);
        assert_eq!(read_ahead.window(77_000, 100), 1);
        assert_eq!(read_ahead.window(5001, 100), 4);
    }

    #[test]
    fn random_reads_ask_for_single_pages() {
        let mut read_ahead = ReadAhead::default();
        for page in [900, 3, 400, 77, 500, 20] {
            assert_eq!(read_ahead.window(page, 100), 1);
        }
        assert_eq!(read_ahead.window(u32::MAX, 100), 1);
    }
}
