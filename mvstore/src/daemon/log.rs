//! The log: lines for people or JSON, on stderr.

use std::io::IsTerminal;

use tracing::error;
use tracing_subscriber::EnvFilter;

use super::DaemonError;
use crate::config::Log;

/// Begins to log. A log that was begun before, by a test, stays as it is.
pub(super) fn start(config: &Log) -> Result<(), DaemonError> {
    let filter = EnvFilter::try_new(&config.log).map_err(|error| DaemonError::LogFilter {
        filter: config.log.clone(),
        reason: error.to_string(),
    })?;
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    let _ = if config.json {
        lines.json().flatten_event(true).try_init()
    } else {
        lines.with_ansi(std::io::stderr().is_terminal()).try_init()
    };
    // A panic ends its connection or task and nothing else; it is a line of the log like others.
    std::panic::set_hook(Box::new(|panic| {
        let location = panic.location().map(ToString::to_string);
        let payload = panic.payload();
        let owned = payload.downcast_ref::<String>().map(String::as_str);
        let message = payload.downcast_ref::<&str>().copied().or(owned);
        let message = message.unwrap_or("no message");
        error!(location, "panic: {message}");
    }));
    Ok(())
}
