//! The disk that loses its power, `tests/powerfail/disk.c`.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The library that stands between the broker and its files.
pub fn disk_library() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/powerfail/disk.c");
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let library = folder.join("powerfail.so");
        // Under a name of its own first: several test programs may build it at once.
        let fresh = folder.join(format!("powerfail-{}.so", std::process::id()));
        let built = Command::new("cc")
            .args(["-std=c11", "-Wall", "-Wextra", "-Werror", "-O1"])
            .args(["-shared", "-fPIC", "-o"])
            .args([fresh.as_os_str(), source.as_ref()])
            .args(["-ldl", "-lpthread"])
            .status()
            .unwrap();
        assert!(built.success());
        std::fs::rename(fresh, &library).unwrap();
        library
    })
}
