//! Where the server listens: TCP addresses and socket files.

use std::fmt;
use std::fs::{self, Permissions};
use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use tokio::net::{TcpSocket, UnixSocket};

use crate::Listener;

/// How many connections may wait to be accepted.
const BACKLOG: u32 = 1024;

/// An address to listen on: `host:port`, where port 0 stands for a free one, or `unix:/path`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address(Kind);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Kind {
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
                false => Ok(Address(Kind::Unix(path.into()))),
            };
        }
        let found = text
            .to_socket_addrs()
            .map_err(|error| format!("it must be host:port or unix:/path ({error})"))?;
        Ok(Address(Kind::Tcp(text.into(), found.collect())))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::Tcp(text, _) => f.write_str(text),
            Kind::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// The permissions of socket files, written as an octal number; 600 by default.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SocketMode(u32);

impl Default for SocketMode {
    fn default() -> SocketMode {
        SocketMode(0o600)
    }
}

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
#[derive(Debug)]
#[non_exhaustive]
pub struct Bound {
    /// What to hand to [`serve`](crate::serve).
    pub listener: Listener,
    /// What clients connect to: `http://host:port` or `unix:/path`.
    pub url: String,
    /// To be kept as long as the listener is.
    pub file: Option<SocketFile>,
}

impl Address {
    /// Whether only this machine can reach it.
    pub fn is_local(&self) -> bool {
        let is_loopback = |address: &SocketAddr| match address.ip() {
            IpAddr::V4(ip) => ip.is_loopback(),
            IpAddr::V6(ip) => ip.to_canonical().is_loopback(),
        };
        match &self.0 {
            Kind::Tcp(_, addresses) => addresses.iter().all(is_loopback),
            Kind::Unix(_) => true,
        }
    }

    /// Opens it. Does not block, and panics outside of a tokio runtime, which the listener belongs to.
    pub fn bind(&self, mode: SocketMode) -> io::Result<Bound> {
        match &self.0 {
            Kind::Tcp(_, addresses) => {
                let listener = bind_first(addresses)?;
                let url = format!("http://{}", listener.local_addr()?);
                Ok(Bound {
                    listener: listener.into(),
                    url,
                    file: None,
                })
            }
            Kind::Unix(path) => {
                take_over(path)?;
                let socket = UnixSocket::new_stream()?;
                socket.bind(path)?;
                let file = SocketFile::new(path)?;
                // Nobody can connect before it listens, so nobody slips in meanwhile.
                fs::set_permissions(path, Permissions::from_mode(mode.0))?;
                Ok(Bound {
                    listener: socket.listen(BACKLOG)?.into(),
                    url: format!("unix:{}", path.display()),
                    file: Some(file),
                })
            }
        }
    }
}

/// Listens on the first of the addresses that can be had.
fn bind_first(addresses: &[SocketAddr]) -> io::Result<tokio::net::TcpListener> {
    let mut last = io::Error::new(ErrorKind::InvalidInput, "the name has no address");
    for address in addresses {
        let bound = || {
            let socket = match address {
                SocketAddr::V4(_) => TcpSocket::new_v4()?,
                SocketAddr::V6(_) => TcpSocket::new_v6()?,
            };
            // A port is free again as soon as its last server has gone.
            socket.set_reuseaddr(true)?;
            socket.bind(*address)?;
            socket.listen(BACKLOG)
        };
        match bound() {
            Ok(listener) => return Ok(listener),
            Err(error) => last = error,
        }
    }
    Err(last)
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
#[derive(Debug)]
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
