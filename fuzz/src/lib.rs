//! One function for each decoder that takes bytes from outside.
