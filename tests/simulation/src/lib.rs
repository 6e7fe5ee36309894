//! Clients, stores, network and disk in one seeded run that replays.
