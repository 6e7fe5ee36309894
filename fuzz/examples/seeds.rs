//! Writes what the corpora begin with, for targets that are new or whose bytes have changed:
//! `cargo run -p mvsqlite-fuzz --example seeds`. Inputs of these names are replaced, no other is
//! touched.

use std::fs;
use std::io;
use std::path::Path;

fn main() -> io::Result<()> {
    let corpora = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    for target in mvsqlite_fuzz::TARGETS {
        let corpus = corpora.join(target.name);
        fs::create_dir_all(&corpus)?;
        for (name, bytes) in (target.seeds)() {
            fs::write(corpus.join(name), bytes)?;
        }
    }
    Ok(())
}
