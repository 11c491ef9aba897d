# Sourced by the scripts: where things are. Everything below QUEEN_CACHE can be deleted at any time.
# shellcheck shell=bash
QUEEN_ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
export QUEEN_CACHE=${QUEEN_CACHE:-$HOME/.cache/libqueen}
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$QUEEN_CACHE/target}
export QUEEN_ROOT LC_ALL=C.UTF-8 # one sort order everywhere
cd "$QUEEN_ROOT" || exit

# The Rust toolchain is the one thing that no script here installs.
need_rust() {
  command -v cargo >/dev/null && return
  echo "Rust is missing: install it from https://rustup.rs, then run this again." >&2
  exit 1
}
