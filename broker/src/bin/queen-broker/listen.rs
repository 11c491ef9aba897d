//! Where the server listens: TCP addresses and socket files.

use std::fmt;
use std::fs;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use queen_broker::Listener;
use rustix::fs::Mode;
use rustix::process::umask;
use tokio::net::{TcpListener, UnixListener};

/// An address to listen on.
pub enum Address {
    /// As it was written, and what it means.
    Tcp(String, Vec<SocketAddr>),
    Unix(PathBuf),
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Address, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            return match path.is_empty() {
                true => Err("a path must follow unix:".into()),
                false => Ok(Address::Unix(path.into())),
            };
        }
        let found = text
            .to_socket_addrs()
            .map_err(|error| format!("it must be host:port or unix:/path ({error})"))?;
        Ok(Address::Tcp(text.into(), found.collect()))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Tcp(text, _) => f.write_str(text),
            Address::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// The permissions of socket files.
#[derive(Clone, Copy)]
pub struct SocketMode(u32);

impl FromStr for SocketMode {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<SocketMode, Self::Err> {
        match u32::from_str_radix(text, 8) {
            Ok(mode) if mode <= 0o777 => Ok(SocketMode(mode)),
            _ => Err("it must be an octal number up to 777"),
        }
    }
}

/// A listener, and the socket file that goes with it.
pub struct Bound {
    pub listener: Listener,
    /// What clients connect to.
    pub url: String,
    pub file: Option<SocketFile>,
}

impl Address {
    /// Whether only this machine can reach it.
    pub fn is_local(&self) -> bool {
        let is_loopback = |address: &SocketAddr| match address.ip() {
            IpAddr::V4(ip) => ip.is_loopback(),
            IpAddr::V6(ip) => ip.to_canonical().is_loopback(),
        };
        match self {
            Address::Tcp(_, addresses) => addresses.iter().all(is_loopback),
            Address::Unix(_) => true,
        }
    }

    /// Opens it. Needs a running runtime, and no other thread that creates files.
    pub async fn bind(&self, mode: SocketMode) -> io::Result<Bound> {
        match self {
            Address::Tcp(_, addresses) => {
                let listener = TcpListener::bind(addresses.as_slice()).await?;
                let url = format!("http://{}", listener.local_addr()?);
                Ok(Bound {
                    listener: listener.into(),
                    url,
                    file: None,
                })
            }
            Address::Unix(path) => {
                take_over(path)?;
                // Set before the file is there, so that nobody slips in meanwhile.
                let before = umask(Mode::from_raw_mode(0o777 & !mode.0));
                let listener = UnixListener::bind(path);
                umask(before);
                let listener = listener?;
                let file = SocketFile::new(path)?;
                Ok(Bound {
                    listener: listener.into(),
                    url: format!("unix:{}", path.display()),
                    file: Some(file),
                })
            }
        }
    }
}

/// Removes the socket file of a server that has gone, and refuses to touch anything else.
fn take_over(path: &Path) -> io::Result<()> {
    let found = match fs::symlink_metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    if !found.file_type().is_socket() {
        let text = "there is a file that is no socket; name another path or remove it";
        return Err(io::Error::new(ErrorKind::AlreadyExists, text));
    }
    match UnixStream::connect(path) {
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => fs::remove_file(path),
        Err(error) if error.kind() == ErrorKind::PermissionDenied => Err(error),
        _ => Err(io::Error::new(
            ErrorKind::AddrInUse,
            "another process listens there",
        )),
    }
}

/// A socket file, removed when dropped, unless another server has put its own in its place.
pub struct SocketFile {
    path: PathBuf,
    identity: (u64, u64),
}

impl SocketFile {
    fn new(path: &Path) -> io::Result<SocketFile> {
        let found = fs::symlink_metadata(path)?;
        Ok(SocketFile {
            // A relative path would lead elsewhere if the folder changed.
            path: std::path::absolute(path)?,
            identity: (found.dev(), found.ino()),
        })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let found = fs::symlink_metadata(&self.path);
        if found.is_ok_and(|found| (found.dev(), found.ino()) == self.identity) {
            let _ = fs::remove_file(&self.path);
        }
    }
}
