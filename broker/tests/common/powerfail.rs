//! Disks that fail: libraries that stand between the broker and its files.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The disk that loses its power, `tests/powerfail/disk.c`.
pub fn disk_library() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| build("powerfail"))
}

/// The disk that is full at times, `tests/fulldisk/disk.c`.
pub fn full_disk_library() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| build("fulldisk"))
}

fn build(name: &str) -> PathBuf {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests");
    let source = Path::new(root).join(name).join("disk.c");
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let library = folder.join(format!("{name}.so"));
    // Under a name of its own first: several test programs may build it at once.
    let fresh = folder.join(format!("{name}-{}.so", std::process::id()));
    let built = Command::new("cc")
        .args(["-std=c11", "-Wall", "-Wextra", "-Werror", "-O1"])
        .args(["-shared", "-fPIC", "-o"])
        .args([&fresh, &source])
        .args(["-ldl", "-lpthread"])
        .status()
        .unwrap();
    assert!(built.success());
    std::fs::rename(fresh, &library).unwrap();
    library
}
