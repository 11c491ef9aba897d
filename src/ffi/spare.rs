//! Room of futures that a thread has freed, for those that it makes next. Nothing is shared, so that a fork or another thread
//! is of no concern.
#![allow(clippy::disallowed_methods)]

use std::cell::RefCell;
use std::mem::MaybeUninit;
use std::sync::Arc;

use super::future::{FutureInner, queen_future_t};

/// A loop that submits on completion needs as many as it takes out of its event queue at once.
const MOST: usize = 256;

#[derive(Default)]
#[allow(clippy::vec_box)] // the room is what is kept
struct Spare {
    handles: Vec<Box<MaybeUninit<queen_future_t>>>,
    inners: Vec<Arc<MaybeUninit<FutureInner>>>,
}

thread_local! {
    static SPARE: RefCell<Spare> = RefCell::default();
}

/// Does something with what is spare; nothing while the thread ends.
fn spare<R>(work: impl FnOnce(&mut Spare) -> Option<R>) -> Option<R> {
    SPARE
        .try_with(|spare| work(&mut *spare.try_borrow_mut().ok()?))
        .ok()
        .flatten()
}

/// A handle, in used room if there is some.
pub(super) fn boxed(future: queen_future_t) -> Box<queen_future_t> {
    match spare(|spare| spare.handles.pop()) {
        Some(room) => Box::write(room, future),
        None => Box::new(future),
    }
}

/// Drops a handle and keeps its room.
pub(super) fn unbox(future: Box<queen_future_t>) {
    let raw = Box::into_raw(future).cast::<MaybeUninit<queen_future_t>>();
    // SAFETY: both have one layout, and the box was whole until now.
    let room = unsafe { Box::from_raw(raw) };
    // SAFETY: it holds a future, which is taken out once; what is left is only room.
    let future = unsafe { room.assume_init_read() };
    spare(|spare| (spare.handles.len() < MOST).then(|| spare.handles.push(room)));
    let queen_future_t { stamp, inner } = future;
    drop(stamp);
    let_go(inner);
}

/// What is behind a handle, in used room if there is some.
pub(super) fn shared(inner: FutureInner) -> Arc<FutureInner> {
    let Some(mut room) = spare(|spare| spare.inners.pop()) else {
        return Arc::new(inner);
    };
    match Arc::get_mut(&mut room) {
        Some(place) => {
            place.write(inner);
            // SAFETY: it is written.
            unsafe { room.assume_init() }
        }
        None => Arc::new(inner),
    }
}

/// Lets go of what is behind a handle. The last one that does keeps its room.
pub(super) fn let_go(mut inner: Arc<FutureInner>) {
    if Arc::get_mut(&mut inner).is_none() {
        return;
    }
    let raw = Arc::into_raw(inner).cast::<MaybeUninit<FutureInner>>();
    // SAFETY: both have one layout, and nobody else has it.
    let mut room = unsafe { Arc::from_raw(raw) };
    if let Some(place) = Arc::get_mut(&mut room) {
        // SAFETY: it was whole until now, and nobody sees it again before it is written anew. What is dropped may run code of
        // the host and come here again: nothing is borrowed.
        unsafe { place.assume_init_drop() };
    }
    spare(|spare| (spare.inners.len() < MOST).then(|| spare.inners.push(room)));
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use std::collections::{BTreeMap, HashSet};

    use super::*;
    use crate::Pending;
    use crate::ffi::future::future;
    use crate::ffi::handle::{free_with, lend};

    fn made(number: u32) -> *mut queen_future_t {
        future(None, || {
            Ok(Box::new(Pending::ready(BTreeMap::from([(
                "n",
                u64::from(number),
            )]))))
        })
    }

    fn json(future: *const queen_future_t) -> String {
        // SAFETY: it lives.
        let future = unsafe { lend(future) }.unwrap();
        future.inner.json().unwrap().to_str().unwrap().to_owned()
    }

    fn free(future: *mut queen_future_t) {
        // SAFETY: its last use.
        unsafe { free_with(future, unbox) }
    }

    #[test]
    fn room_is_used_again_and_what_was_in_it_is_gone() {
        let first: Vec<_> = (0..3).map(made).collect();
        assert_eq!(json(first[2]), r#"{"n":2}"#);
        let rooms: HashSet<usize> = first.iter().map(|one| one.addr()).collect();
        first.into_iter().for_each(free);
        let second: Vec<_> = (10..13).map(made).collect();
        let again: HashSet<usize> = second.iter().map(|one| one.addr()).collect();
        assert_eq!(rooms, again);
        let told: Vec<String> = second.iter().map(|one| json(*one)).collect();
        assert_eq!(told, [r#"{"n":10}"#, r#"{"n":11}"#, r#"{"n":12}"#]);
        second.into_iter().for_each(free);
    }

    #[test]
    fn what_somebody_else_holds_is_not_used_again() {
        let first = made(1);
        // SAFETY: it lives.
        let held = unsafe { lend(first) }.unwrap().inner.clone();
        free(first);
        let second = made(2);
        assert_eq!(held.json().unwrap().to_str(), Ok(r#"{"n":1}"#));
        assert_eq!(json(second), r#"{"n":2}"#);
        let_go(held);
        assert_eq!(json(second), r#"{"n":2}"#);
        free(second);
    }

    #[test]
    fn no_more_is_kept_than_a_bound() {
        let many: Vec<_> = (0..2 * MOST as u32).map(made).collect();
        many.into_iter().for_each(free);
        let kept = spare(|spare| Some((spare.handles.len(), spare.inners.len())));
        assert_eq!(kept, Some((MOST, MOST)));
    }
}
