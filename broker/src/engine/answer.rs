//! What becomes of a command after the commit.

use std::sync::Arc;

use super::census::{Census, QueueDetail};
use super::command::{
    Acked, ClaimGuard, Command, Configured, Exhumed, Extended, Failure, Maintenance, PopReply,
    PopRequest, Pushed, Sought, Transacted,
};
use super::park::Waiter;
use super::reader::Job;
use super::views;
use super::windows::StreamAnswer;
use super::writer::{Claimed, Writer};
use crate::store::Db;

/// The answer of a command, held back until the commit.
pub(super) enum Answer {
    Pushed(Vec<Pushed>),
    Popped(Popped),
    Acked(Vec<Acked>),
    Extended(Extended),
    Configured(Configured),
    Counted(Arc<Census>),
    Described(Option<QueueDetail>),
    Deleted(bool),
    Transacted(Transacted),
    Exhumed(Option<Exhumed>),
    Sought(Sought),
    Count(usize),
    Maintained(Maintenance),
    Streamed(StreamAnswer),
    /// Where a message is, if it is not too old for that to be known.
    At(Option<i64>),
    Nothing,
}

pub(super) enum Popped {
    Claimed(Claimed),
    /// Wait for messages, or until a moment for more of them.
    Park(Option<i64>),
    Empty,
}

impl Writer {
    /// Hands over the answer of a command whose work is committed.
    pub(super) fn answer(&mut self, command: Command, answer: Answer) {
        // A reply whose receiver is gone is nobody's loss: the work is committed.
        match (command, answer) {
            (Command::Push(_, reply), Answer::Pushed(items)) => drop(reply.send(Ok(items))),
            (Command::Ack(_, reply), Answer::Acked(items)) => drop(reply.send(Ok(items))),
            (Command::Extend { reply, .. }, Answer::Extended(extended)) => {
                drop(reply.send(Ok(extended)))
            }
            (Command::Configure(_, reply), Answer::Configured(configured)) => {
                drop(reply.send(Ok(configured)))
            }
            (Command::Census(_, reply), Answer::Counted(census)) => drop(reply.send(Ok(census))),
            (Command::Detail(_, _, reply), Answer::Described(queue)) => drop(reply.send(Ok(queue))),
            (Command::Delete(_, reply), Answer::Deleted(existed)) => drop(reply.send(Ok(existed))),
            (Command::Pop(request, reply), Answer::Popped(popped)) => {
                self.counts_for(&request).pop_requests += 1;
                match popped {
                    Popped::Claimed(claimed) => self.deliver(claimed, reply),
                    Popped::Empty => {
                        self.count_empty(&request);
                        drop(reply.send(Ok(None)));
                    }
                    Popped::Park(fill) => self.park(request, reply, fill),
                }
            }
            (Command::Maintain(_, reply), Answer::Maintained(state)) => drop(reply.send(Ok(state))),
            (Command::Transact(_, reply), Answer::Transacted(done)) => drop(reply.send(Ok(done))),
            (Command::Bury(_, reply), Answer::Exhumed(found)) => drop(reply.send(Ok(found))),
            (Command::Stream(_, reply), Answer::Streamed(done)) => drop(reply.send(Ok(done))),
            (Command::Seek(_, reply), Answer::Sought(sought)) => drop(reply.send(Ok(sought))),
            (
                Command::DeleteGroup(_, reply) | Command::Resubscribe(_, _, reply),
                Answer::Count(count),
            ) => drop(reply.send(Ok(count))),
            (Command::Message(part, txn, reply), Answer::At(at)) => {
                let now = self.round.now;
                let view = Box::new(move |db: &Db| views::message(db, part, &txn, at, now));
                self.readers.run(Job::View(view, reply), &self.db);
            }
            (Command::View(view, reply), _) => {
                self.readers.run(Job::View(view, reply), &self.db);
            }
            (Command::DeadLetters(request, reply), _) => {
                self.readers.run(Job::DeadLetters(request, reply), &self.db);
            }
            (Command::Trace(_, reply) | Command::Ping(reply), _) => drop(reply.send(Ok(()))),
            (Command::Compare(reply), _) => {
                let found = self.disagreements();
                drop(reply.send(found.map_err(|e| Failure::from(&e))));
            }
            (Command::CatchUp(reply), _) => self.catching_up.push(reply),
            (Command::EndPolls, _) => self.end_polls(),
            (Command::DismissPolls, _) => self.dismiss_polls(),
            _ => {}
        }
    }

    fn park(&mut self, request: PopRequest, reply: PopReply, fill: Option<i64>) {
        let lane = (request.source.clone(), request.group.clone());
        let id = request.id;
        let deadline = self.round.now.saturating_add(request.wait.unwrap_or(0));
        self.parking.add(Waiter {
            request,
            deadline,
            reply,
        });
        if let Some(until) = fill {
            let until = self.parking.fill_until(id, until.min(deadline));
            self.parking.check_at(&lane, until);
        }
        self.plan_check(&lane);
    }

    /// Lets a reader fetch the messages of a claim.
    pub(super) fn deliver(&self, claimed: Claimed, reply: PopReply) {
        let guard = |release| ClaimGuard::new(release, self.commands.clone());
        let job = match claimed {
            Claimed::Messages(claim, key) => Job::Claim(claim, guard(Command::Release(key)), reply),
            Claimed::Window(claim) => {
                let guard = guard(Command::ReleaseWindow(claim.lease));
                Job::Window(claim, guard, reply)
            }
        };
        self.readers.run(job, &self.db);
    }

    pub(super) fn refuse(&mut self, command: Command, failure: Failure) {
        match command {
            Command::Push(_, reply) => drop(reply.send(Err(failure))),
            Command::Pop(_, reply) => drop(reply.send(Err(failure))),
            Command::Ack(_, reply) => drop(reply.send(Err(failure))),
            Command::Extend { reply, .. } => drop(reply.send(Err(failure))),
            Command::Configure(_, reply) => drop(reply.send(Err(failure))),
            Command::Census(_, reply) => drop(reply.send(Err(failure))),
            Command::Detail(_, _, reply) => drop(reply.send(Err(failure))),
            Command::Delete(_, reply) => drop(reply.send(Err(failure))),
            Command::Maintain(_, reply) => drop(reply.send(Err(failure))),
            Command::Transact(_, reply) => drop(reply.send(Err(failure))),
            Command::Bury(_, reply) => drop(reply.send(Err(failure))),
            Command::Seek(_, reply) => drop(reply.send(Err(failure))),
            Command::Stream(_, reply) => drop(reply.send(Err(failure))),
            Command::DeleteGroup(_, reply) | Command::Resubscribe(_, _, reply) => {
                drop(reply.send(Err(failure)))
            }
            Command::View(_, reply) | Command::Message(_, _, reply) => {
                drop(reply.send(Err(failure)))
            }
            Command::Compare(reply) => drop(reply.send(Err(failure))),
            Command::DeadLetters(_, reply) => drop(reply.send(Err(failure))),
            Command::Trace(_, reply) | Command::Ping(reply) | Command::CatchUp(reply) => {
                drop(reply.send(Err(failure)))
            }
            // These need no store.
            Command::Cancel(id) => drop(self.parking.remove(id)),
            Command::DismissPolls => self.dismiss_polls(),
            Command::EndPolls => self.end_polls(),
            // The lease then runs out by itself.
            Command::Release(_) | Command::ReleaseWindow(_) | Command::Close => {}
        }
    }
}
