//! Writes `queen.h` from `src/ffi`, and tells the linker how the shared library is named and that it stays loaded.

use std::env;
use std::path::PathBuf;

fn main() {
    println!("cargo:rerun-if-changed=src/ffi");
    println!("cargo:rerun-if-changed=cbindgen.toml");
    println!("cargo:rerun-if-env-changed=QUEEN_WRITE_HEADER");

    // Threads of the library may still run when a host calls dlclose, so unloading is switched off.
    println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,libqueen.so.0");
    println!("cargo:rustc-cdylib-link-arg=-Wl,-z,nodelete");

    let root =
        PathBuf::from(env::var("CARGO_MANIFEST_DIR").expect("cargo sets the manifest folder"));
    let config =
        cbindgen::Config::from_file(root.join("cbindgen.toml")).expect("cbindgen.toml is read");
    let mut builder = cbindgen::Builder::new().with_config(config);
    // In this order, which is that of the header.
    for file in [
        "codes",
        "version",
        "error",
        "user_data",
        "event_queue",
        "event",
        "future",
        "client",
        "operations",
        "delivery",
        "consumer",
        "transaction",
        "window",
        "stream",
        "log",
        "report",
        "statistics",
        "notice",
        "broker",
    ] {
        builder = builder.with_src(root.join("src/ffi").join(file).with_extension("rs"));
    }
    let header = builder.generate().expect("the header is generated");
    let out = PathBuf::from(env::var("OUT_DIR").expect("cargo sets the output folder"));
    header.write_to_file(out.join("queen.h"));
    // The committed copy is only written when asked for: a build does not change the sources.
    if env::var_os("QUEEN_WRITE_HEADER").is_some_and(|value| value == "1") {
        header.write_to_file(root.join("include/queen.h"));
    }
}
