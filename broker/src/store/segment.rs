//! A segment: the messages of one or more pushes to one partition, in one blob.
//!
//! Layout: a version byte, then for each message a flag byte, the id (16 bytes), and its texts, each with its length
//! (u32, little endian) before it: the transaction id and the payload. Flag 1 puts a trace id (16 bytes) behind the
//! message id, flag 2 the name of the producer behind the transaction id.

use uuid::Uuid;

const VERSION: u8 = 1;
const TRACED: u8 = 1;
const SIGNED: u8 = 2;

/// A segment is closed at this many messages or bytes, so that a small pop from a large push reads little.
pub(crate) const MAX_MESSAGES: i64 = 256;
/// See [`MAX_MESSAGES`]. A single message may be larger and then has a segment of its own.
pub(crate) const MAX_BYTES: usize = 256 * 1024;

/// One stored message, borrowed from its segment.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Record<'a> {
    pub(crate) id: Uuid,
    pub(crate) trace: Option<Uuid>,
    pub(crate) txn: &'a str,
    /// Who pushed it, where tokens tell.
    pub(crate) producer: Option<&'a str>,
    pub(crate) payload: &'a str,
}

/// A segment body that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("damaged segment: {0}")]
pub(crate) struct Damaged(&'static str);

/// Adds a message to a body, starting the body when it is empty.
pub(crate) fn append(body: &mut Vec<u8>, record: &Record) {
    if body.is_empty() {
        body.push(VERSION);
    }
    let traced = record.trace.map_or(0, |_| TRACED);
    let signed = record.producer.map_or(0, |_| SIGNED);
    body.push(traced | signed);
    body.extend_from_slice(record.id.as_bytes());
    if let Some(trace) = record.trace {
        body.extend_from_slice(trace.as_bytes());
    }
    for field in [Some(record.txn), record.producer, Some(record.payload)] {
        let Some(field) = field else { continue };
        // Bodies are limited to 64 MiB at the door, so a length always fits.
        body.extend_from_slice(&(field.len() as u32).to_le_bytes());
        body.extend_from_slice(field.as_bytes());
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
    let flags = match take(rest, 1)? {
        [flags] if flags & !(TRACED | SIGNED) == 0 => *flags,
        _ => return Err(Damaged("unknown flags")),
    };
    let id = uuid(rest)?;
    let trace = (flags & TRACED != 0).then(|| uuid(rest)).transpose()?;
    let txn = text(rest)?;
    let producer = (flags & SIGNED != 0).then(|| text(rest)).transpose()?;
    let payload = text(rest)?;
    Ok(Record {
        id,
        trace,
        txn,
        producer,
        payload,
    })
}

fn uuid(rest: &mut &[u8]) -> Result<Uuid, Damaged> {
    Uuid::from_slice(take(rest, 16)?).map_err(|_| Damaged("id"))
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

    fn plain(txn: &'static str, payload: &'static str) -> Record<'static> {
        Record {
            id: Uuid::now_v7(),
            trace: None,
            txn,
            producer: None,
            payload,
        }
    }

    #[test]
    fn messages_come_back_as_they_went_in() {
        let full = Record {
            trace: Some(Uuid::now_v7()),
            producer: Some("svc-a"),
            ..plain("t é", "{ \"n\" : 1.0 }")
        };
        let signed = Record {
            producer: Some(""),
            ..plain("s", "2")
        };
        let written = [full, plain("", "null"), signed];
        let mut body = Vec::new();
        for record in &written {
            append(&mut body, record);
        }
        let read: Vec<_> = records(&body).map(Result::unwrap).collect();
        assert_eq!(read, written);
    }

    #[test]
    fn damage_is_reported_and_never_read_past() {
        let mut body = Vec::new();
        let record = Record {
            trace: Some(Uuid::now_v7()),
            producer: Some("p"),
            ..plain("t", "1")
        };
        append(&mut body, &record);
        for cut in 1..body.len() {
            assert!(records(&body[..cut]).all(|r| r.is_err()), "cut at {cut}");
        }
        body[1] = 4;
        assert!(records(&body).next().unwrap().is_err());
        body[0] = 9;
        assert!(records(&body).next().unwrap().is_err());
    }
}
