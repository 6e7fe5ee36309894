//! Judges histories of transactions.
