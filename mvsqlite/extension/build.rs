//! Exports the entry points and nothing else.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    // A symbol of ours that refers to itself is meant, never another library's of the same name.
    println!("cargo:rustc-cdylib-link-arg=-Wl,-Bsymbolic");
    // Missing symbols are to be found out here and not in somebody's program.
    println!("cargo:rustc-cdylib-link-arg=-Wl,-z,defs");
    // SQLite keeps addresses of the VFS for ever.
    println!("cargo:rustc-cdylib-link-arg=-Wl,-z,nodelete");
    println!("cargo:rustc-cdylib-link-arg=-Wl,--exclude-libs,ALL");
}
