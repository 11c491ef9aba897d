//! A segment: the messages of one or more pushes to one partition, in one blob.
//!
//! Layout: a version byte, then for each message a flag byte (0 today), the id (16 bytes), and twice a length
//! (u32, little endian) with its bytes: the transaction id and the payload text.

use uuid::Uuid;

const VERSION: u8 = 1;

/// A segment is closed at this many messages or bytes, so that a small pop from a large push reads little.
pub(crate) const MAX_MESSAGES: i64 = 256;
/// See [`MAX_MESSAGES`]. A single message may be larger and then has a segment of its own.
pub(crate) const MAX_BYTES: usize = 256 * 1024;

/// One stored message, borrowed from its segment.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Record<'a> {
    pub(crate) id: Uuid,
    pub(crate) txn: &'a str,
    pub(crate) payload: &'a str,
}

/// A segment body that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("damaged segment: {0}")]
pub(crate) struct Damaged(&'static str);

/// Adds a message to a body, starting the body when it is empty.
pub(crate) fn append(body: &mut Vec<u8>, id: Uuid, txn: &str, payload: &[u8]) {
    if body.is_empty() {
        body.push(VERSION);
    }
    body.push(0);
    body.extend_from_slice(id.as_bytes());
    for field in [txn.as_bytes(), payload] {
        // Bodies are limited to 64 MiB at the door, so a length always fits.
        body.extend_from_slice(&(field.len() as u32).to_le_bytes());
        body.extend_from_slice(field);
    }
}

/// Reads a body from its first message to its last.
pub(crate) fn records(body: &[u8]) -> impl Iterator<Item = Result<Record<'_>, Damaged>> {
    let mut rest = body;
    let mut version = Some(take(&mut rest, 1));
    std::iter::from_fn(move || match version.take() {
        Some(Ok([VERSION])) | None if rest.is_empty() => None,
        Some(Ok([VERSION])) | None => {
            let read = record(&mut rest);
            if read.is_err() {
                rest = &[];
            }
            Some(read)
        }
        Some(_) => {
            rest = &[];
            Some(Err(Damaged("unknown version")))
        }
    })
}

fn record<'a>(rest: &mut &'a [u8]) -> Result<Record<'a>, Damaged> {
    if take(rest, 1)? != [0] {
        return Err(Damaged("unknown flags"));
    }
    let id = Uuid::from_slice(take(rest, 16)?).map_err(|_| Damaged("message id"))?;
    let txn = text(rest)?;
    let payload = text(rest)?;
    Ok(Record { id, txn, payload })
}

fn text<'a>(rest: &mut &'a [u8]) -> Result<&'a str, Damaged> {
    let length: [u8; 4] = take(rest, 4)?.try_into().map_err(|_| Damaged("length"))?;
    std::str::from_utf8(take(rest, u32::from_le_bytes(length) as usize)?)
        .map_err(|_| Damaged("text is not UTF-8"))
}

fn take<'a>(rest: &mut &'a [u8], n: usize) -> Result<&'a [u8], Damaged> {
    let (head, tail) = rest.split_at_checked(n).ok_or(Damaged("it ends early"))?;
    *rest = tail;
    Ok(head)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_come_back_as_they_went_in() {
        let (a, b) = (Uuid::now_v7(), Uuid::now_v7());
        let mut body = Vec::new();
        append(&mut body, a, "t é", b"{ \"n\" : 1.0 }");
        append(&mut body, b, "", b"null");
        let read: Vec<_> = records(&body).map(Result::unwrap).collect();
        assert_eq!(
            read,
            [
                Record {
                    id: a,
                    txn: "t é",
                    payload: "{ \"n\" : 1.0 }"
                },
                Record {
                    id: b,
                    txn: "",
                    payload: "null"
                }
            ]
        );
    }

    #[test]
    fn damage_is_reported_and_never_read_past() {
        let mut body = Vec::new();
        append(&mut body, Uuid::now_v7(), "t", b"1");
        for cut in 1..body.len() {
            assert!(records(&body[..cut]).all(|r| r.is_err()), "cut at {cut}");
        }
        body[0] = 9;
        assert!(records(&body).next().unwrap().is_err());
    }
}
