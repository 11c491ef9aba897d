//! Notices of which only the newest counts: that a token is wanted, how a broker is.

use std::collections::HashMap;
use std::ffi::{c_char, c_void};
use std::sync::{Arc, Mutex, PoisonError};

use super::client::queen_client_t;
use super::event_queue::{Event, Newest, queen_event_queue_t};
use super::handle::{c_text, code, guard, lend, optional_text, panicked};
use super::user_data::{UserData, queen_user_data_free};
use crate::{BackendSink, BackendState, Client, Result, Secret, TokenSink, TokenWanted};

/// Receives a notice: a JSON object of `len` bytes, on loan for the time of the call. Runs on the client's dispatcher
/// thread.
pub type queen_notice_handler =
    Option<unsafe extern "C" fn(json: *const c_char, len: usize, user_data: *mut c_void)>;

/// Where notices go. Of those about one thing that wait to be seen only the newest is kept.
struct Route {
    deliver: Box<dyn Fn(Arc<Newest>) + Send + Sync>,
    waiting: Mutex<HashMap<String, Arc<Newest>>>,
}

impl Route {
    fn new(deliver: impl Fn(Arc<Newest>) + Send + Sync + 'static) -> Route {
        Route {
            deliver: Box::new(deliver),
            waiting: Mutex::default(),
        }
    }

    fn tell(&self, about: &str, json: String) {
        let newest = {
            let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            waiting.entry(about.to_owned()).or_default().clone()
        };
        if newest.put(json) {
            (self.deliver)(newest);
        }
    }

    /// To a callback.
    fn callback(
        client: &Client,
        handler: unsafe extern "C" fn(*const c_char, usize, *mut c_void),
        user_data: UserData,
    ) -> Route {
        let (dispatcher, user_data) = (client.dispatcher(), Arc::new(user_data));
        Route::new(move |newest| {
            let user_data = user_data.clone();
            let _ = dispatcher.run(Box::new(move || {
                let json = c_text(newest.take());
                // SAFETY: the host promised a function that takes these; the text lives until it returns.
                unsafe { handler(json.as_ptr(), json.as_bytes().len(), user_data.get()) }
            }));
        })
    }

    /// To an event queue.
    ///
    /// # Safety
    /// `queue` is a living handle.
    unsafe fn events(
        queue: *const queen_event_queue_t,
        tag: u64,
        event: fn(Arc<Newest>) -> Event,
    ) -> Result<Route> {
        // SAFETY: promised by the caller.
        let queue = unsafe { lend(queue) }?.queue.clone();
        Ok(Route::new(move |newest| {
            queue.push(event(newest), tag);
        }))
    }
}

fn tell_tokens(client: &Client, route: Option<Route>) {
    client.set_token_wanted(route.map(|route| {
        let sink: TokenSink =
            Arc::new(move |wanted: &TokenWanted| route.tell("token", wanted.to_json()));
        sink
    }));
}

fn tell_backends(client: &Client, route: Option<Route>) {
    client.set_backend_states(route.map(|route| {
        let sink: BackendSink =
            Arc::new(move |state: &BackendState| route.tell(&state.url, state.to_json()));
        sink
    }));
}

/// Sets the bearer token of all further requests, those that wait for one included. It replaces the `bearerToken` of the
/// configuration. NULL says that there is none to be had: who waits for it fails with QUEEN_E_UNAUTHORIZED.
///
/// Returns QUEEN_OK, QUEEN_E_INVALID_ARGUMENT when the token is not visible ASCII, or QUEEN_E_INVALID_UTF8.
///
/// Ownership: `client` is borrowed; `token` is copied.
/// Threads: any, callbacks and handlers included.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn queen_client_set_token(
    client: *const queen_client_t,
    token: *const c_char,
) -> i32 {
    guard(panicked(), || {
        let set = || {
            // SAFETY: `client` is NULL or a living handle, `token` NULL or a C string, by contract.
            let (client, token) =
                unsafe { (&lend(client)?.client, optional_text("token", token)?) };
            client.set_token(token.map(Secret::new).as_ref())
        };
        code(set())
    })
}

/// Asks a callback for a bearer token when there is none and when a broker refuses it (HTTP 401), instead of whoever was
/// asked before. A NULL `handler` asks nobody.
///
/// The notice is `{"reason"}`, "missing" or "refused". One question is put at a time; it is answered with
/// queen_client_set_token(), at once or later, from any thread. Requests wait for the answer until their deadline and then
/// fail with QUEEN_E_UNAUTHORIZED. A call puts one question at most: a second token that is refused is an error.
///
/// Returns QUEEN_OK, or QUEEN_E_INVALID_ARGUMENT, after which `user_data_free` has run.
///
/// Ownership: `client` is borrowed; `user_data` belongs to the library until `user_data_free`, which runs when the
/// callback is replaced or the client is closed.
/// Threads: any. The callback runs on the client's dispatcher thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn queen_token_callback(
    client: *const queen_client_t,
    handler: queen_notice_handler,
    user_data: *mut c_void,
    user_data_free: queen_user_data_free,
) -> i32 {
    let user_data = UserData::new(user_data, user_data_free);
    guard(panicked(), || {
        let set = || {
            // SAFETY: `client` is NULL or a living handle by contract.
            let client = &unsafe { lend(client) }?.client;
            let route = handler.map(|handler| Route::callback(client, handler, user_data));
            tell_tokens(client, route);
            Ok(())
        };
        code(set())
    })
}

/// Puts questions for a bearer token into an event queue, as QUEEN_EVENT_TOKEN_WANTED with this tag; see
/// queen_token_callback(). A NULL `queue` asks nobody.
///
/// Returns QUEEN_OK, or QUEEN_E_INVALID_ARGUMENT.
///
/// Ownership: both handles are borrowed; the queue may be freed at any time.
/// Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn queen_token_events(
    client: *const queen_client_t,
    queue: *const queen_event_queue_t,
    tag: u64,
) -> i32 {
    guard(panicked(), || {
        let set = || {
            // SAFETY: `client` is NULL or a living handle by contract.
            let client = &unsafe { lend(client) }?.client;
            let route = match queue.is_null() {
                true => None,
                // SAFETY: not NULL, so a living handle by contract.
                false => Some(unsafe { Route::events(queue, tag, Event::TokenWanted) }?),
            };
            tell_tokens(client, route);
            Ok(())
        };
        code(set())
    })
}

/// Tells a callback when a broker becomes unhealthy or recovers, instead of whom it told before. A NULL `handler` tells
/// nobody.
///
/// The notice is `{"url", "state", "error"?, "unhealthyMillis"?}`: "unhealthy" with the error, or "healthy" with how long
/// it was not. Of notices about one broker that wait, only the newest is kept. An embedded broker has none.
///
/// Returns QUEEN_OK, or QUEEN_E_INVALID_ARGUMENT, after which `user_data_free` has run.
///
/// Ownership: `client` is borrowed; `user_data` belongs to the library until `user_data_free`, which runs when the
/// callback is replaced or the client is closed.
/// Threads: any. The callback runs on the client's dispatcher thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn queen_backend_callback(
    client: *const queen_client_t,
    handler: queen_notice_handler,
    user_data: *mut c_void,
    user_data_free: queen_user_data_free,
) -> i32 {
    let user_data = UserData::new(user_data, user_data_free);
    guard(panicked(), || {
        let set = || {
            // SAFETY: `client` is NULL or a living handle by contract.
            let client = &unsafe { lend(client) }?.client;
            let route = handler.map(|handler| Route::callback(client, handler, user_data));
            tell_backends(client, route);
            Ok(())
        };
        code(set())
    })
}

/// Puts changes in the health of brokers into an event queue, as QUEEN_EVENT_BACKEND_STATE with this tag; see
/// queen_backend_callback(). A NULL `queue` tells nobody.
///
/// Returns QUEEN_OK, or QUEEN_E_INVALID_ARGUMENT.
///
/// Ownership: both handles are borrowed; the queue may be freed at any time.
/// Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn queen_backend_events(
    client: *const queen_client_t,
    queue: *const queen_event_queue_t,
    tag: u64,
) -> i32 {
    guard(panicked(), || {
        let set = || {
            // SAFETY: `client` is NULL or a living handle by contract.
            let client = &unsafe { lend(client) }?.client;
            let route = match queue.is_null() {
                true => None,
                // SAFETY: not NULL, so a living handle by contract.
                false => Some(unsafe { Route::events(queue, tag, Event::BackendState) }?),
            };
            tell_backends(client, route);
            Ok(())
        };
        code(set())
    })
}
