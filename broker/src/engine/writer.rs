//! The writer thread: takes what has gathered in its inbox, does it in one SQLite transaction, and answers after the
//! commit. What arrives during a commit makes up the next transaction; that is the whole of group commit.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};

use super::answer::{Answer, Popped};
use super::buffer::{Buffer, Fresh};
use super::census::Counted;
use super::command::{ClaimKey, Command, Failure, Need, PopReply, PopRequest, Reply, Source};
use super::history::{History, Tally};
use super::ids::Ids;
use super::model::{GroupId, Model, PartId, QueueId};
use super::park::{LaneKey, Parking, Waiter};
use super::reader::{Claim, Readers};
use super::subscription::finder_key;
use super::sweep::Sweep;
use super::txns::Txns;
use super::windows::{StreamCommand, WindowClaim};
use crate::clock::{Clock, SECOND};
use crate::store::{CursorRow, Db, Result, is_of_disk};
use crate::work::Meter;

/// The most commands in one transaction: bounds the wait of the first of them.
const GROUP: usize = 1024;

/// The state of the writer thread.
pub(crate) struct Writer {
    pub(super) db: Db,
    clock: Clock,
    pub(super) model: Model,
    pub(super) txns: Txns,
    pub(super) round: Round,
    pub(super) parking: Parking,
    pub(super) sweep: Sweep,
    pub(super) buffer: Buffer,
    pub(super) counted: Option<Counted>,
    history: Arc<History>,
    pub(super) meter: Meter,
    /// What is not in the history yet.
    pub(super) tally: Tally,
    pub(super) readers: Readers,
    inbox: Receiver<Command>,
    /// For the guards of claims, which send the claim back here.
    pub(super) commands: Sender<Command>,
    /// The model may show what was rolled back: read it anew before use.
    stale: bool,
    /// No pop is parked any more.
    ending: bool,
    /// Who waits until nothing is due any more.
    pub(super) catching_up: Vec<Reply<()>>,
}

/// What belongs to the transaction at hand.
#[derive(Default)]
pub(super) struct Round {
    pub(super) now: i64,
    /// Messages that are not in a row yet, so that small pushes to one partition share a segment.
    pub(super) segments: HashMap<PartId, super::push::OpenSegment>,
    /// Cursors to write before the commit.
    pub(super) cursors: BTreeSet<(GroupId, PartId)>,
    /// Partitions in which something may have become deliverable.
    pub(super) woken: HashSet<PartId>,
    /// How many messages the bounded queues may still take.
    pub(super) room: HashMap<QueueId, i64>,
    pub(super) fresh: Fresh,
    pub(super) ids: Ids,
    /// What counts if the transaction is committed.
    pub(super) tally: Tally,
    /// Lanes whose time has come.
    pub(super) lanes: Vec<LaneKey>,
    /// Parked pops that got something.
    served: Vec<(Waiter, Claimed)>,
}

/// What was claimed, and how to take it back.
pub(super) enum Claimed {
    Messages(Claim, ClaimKey),
    Window(WindowClaim),
}

impl Writer {
    pub(crate) fn new(
        db: Db,
        clock: Clock,
        inbox: Receiver<Command>,
        commands: Sender<Command>,
        readers: Readers,
        history: Arc<History>,
        meter: Meter,
    ) -> Result<Writer> {
        let now = clock.now();
        let model = Model::load(&db, now)?;
        let mut sweep = Sweep::default();
        sweep.plan(&model, now);
        let buffer = Buffer::load(&db, now)?;
        Ok(Writer {
            db,
            clock,
            model,
            txns: Txns::default(),
            sweep,
            buffer,
            counted: None,
            history,
            meter,
            tally: Tally::default(),
            round: Round::default(),
            parking: Parking::default(),
            readers,
            inbox,
            commands,
            stale: false,
            ending: false,
            catching_up: Vec::new(),
        })
    }

    /// Works until it is told to close.
    pub(crate) fn run(mut self, counting: Option<Meter>) {
        if let Some(meter) = counting {
            self.db.count_work(&meter);
        }
        loop {
            let mut commands = Vec::new();
            match self.wait() {
                Ok(first) => commands.push(first),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            commands.extend(self.inbox.try_iter().take(GROUP - commands.len()));
            let close = commands.iter().position(|c| matches!(c, Command::Close));
            // What came after the close is dropped, which its senders see as "closed".
            commands.truncate(close.unwrap_or(commands.len()));
            self.do_round(commands);
            while let Some(waiter) = self.parking.due_deadline(self.clock.now()) {
                self.count_empty(&waiter.request);
                let _ = waiter.reply.send(Ok(None));
            }
            let now = self.clock.now();
            self.history.add(now, &mut self.tally, &self.model);
            if !self.catching_up.is_empty() && self.due().is_none_or(|due| due > self.clock.now()) {
                for reply in self.catching_up.drain(..) {
                    let _ = reply.send(Ok(()));
                }
            }
            if close.is_some() {
                break;
            }
        }
        self.finish();
    }

    /// Sleeps until a command comes or a parked pop has something due. Costs nothing while nothing happens.
    fn wait(&self) -> std::result::Result<Command, RecvTimeoutError> {
        let now = self.clock.now();
        // A clock that stands still brings nothing about; whoever moves it sends a command.
        let due = self
            .due()
            .filter(|due| *due <= now || !self.clock.is_still());
        match due {
            None => self
                .inbox
                .recv()
                .map_err(|_| RecvTimeoutError::Disconnected),
            Some(due) => {
                let left = due.saturating_sub(now).clamp(0, 3600 * SECOND);
                // A little late rather than early: early would mean to look twice.
                let until = Instant::now() + Duration::from_micros(left as u64 + 200);
                self.inbox.recv_deadline(until)
            }
        }
    }

    /// The next moment at which there is something to do.
    fn due(&self) -> Option<i64> {
        let own = [self.parking.next_due(), self.sweep.due, self.buffer.due];
        own.into_iter().flatten().min()
    }

    fn finish(&mut self) {
        self.end_polls();
        self.readers.join();
        // Claims that nobody took come back now; nothing else is accepted.
        let late = self
            .inbox
            .try_iter()
            .filter(|c| matches!(c, Command::Release(_) | Command::ReleaseWindow(_)))
            .collect();
        self.do_round(late);
    }

    pub(super) fn end_polls(&mut self) {
        self.ending = true;
        self.dismiss_polls();
    }

    pub(super) fn dismiss_polls(&mut self) {
        for waiter in self.parking.drain() {
            let _ = waiter.reply.send(Ok(None));
        }
    }

    /// One transaction for all commands. If it fails, each gets a transaction of its own, so that the error reaches
    /// the guilty one alone. A failing disk is nobody's guilt: those who write most are refused without another try.
    fn do_round(&mut self, commands: Vec<Command>) {
        self.meter.round();
        match self.transact(&commands) {
            Ok(answers) => {
                self.tally.absorb(std::mem::take(&mut self.round.tally));
                for (waiter, claimed) in std::mem::take(&mut self.round.served) {
                    self.deliver(claimed, waiter.reply);
                }
                for (command, answer) in commands.into_iter().zip(answers) {
                    self.answer(command, answer);
                }
            }
            Err(error) => {
                self.undo();
                let (alone, of_disk) = (commands.len() == 1, is_of_disk(&error));
                let most = commands.iter().map(Command::need).max();
                let of_disk = of_disk && most > Some(Need::Look);
                let (guilty, rest): (Vec<_>, Vec<_>) = commands
                    .into_iter()
                    .partition(|command| alone || of_disk && Some(command.need()) == most);
                for command in guilty {
                    self.refuse(command, Failure::from(&error));
                }
                if of_disk && !rest.is_empty() {
                    self.do_round(rest);
                } else {
                    rest.into_iter()
                        .for_each(|command| self.do_round(vec![command]));
                }
            }
        }
    }

    fn transact(&mut self, commands: &[Command]) -> Result<Vec<Answer>> {
        self.round = Round {
            now: self.clock.now(),
            ..Round::default()
        };
        if self.stale {
            self.model = Model::load(&self.db, self.round.now)?;
            self.counted = None;
            self.stale = false;
            let parts = &self.model.parts;
            self.txns
                .settle(|part| parts.get(&part).map(|part| part.next));
            self.buffer.reload(&self.db, self.round.now)?;
        }
        while let Some(lane) = self.parking.due_check(self.round.now) {
            self.round.lanes.push(lane);
        }
        let sync = self.parking.has_auto_ack() || commands.iter().any(|c| self.needs_sync(c));
        self.db.begin(sync)?;
        // All commands of a round are concurrent, so their order is free: first what may make messages deliverable,
        // then the pops that have waited, then the new pops.
        let mut answers = Vec::with_capacity(commands.len());
        for command in commands {
            answers.push(self.apply(command)?);
        }
        self.drain()?;
        self.sweep()?;
        self.wake()?;
        for (command, answer) in commands.iter().zip(&mut answers) {
            if let Command::Pop(request, reply) = command {
                *answer = Answer::Popped(self.first_pop(request, reply)?);
            }
        }
        self.flush_all()?;
        self.write_cursors()?;
        self.db.commit()?;
        Ok(answers)
    }

    /// Whether losing this to a power failure would break a promise. A lost lease only redelivers.
    fn needs_sync(&self, command: &Command) -> bool {
        match command {
            Command::Push(..)
            | Command::Ack(..)
            | Command::Configure(..)
            | Command::Delete(..)
            | Command::Transact(..)
            | Command::Seek(..)
            | Command::DeleteGroup(..)
            | Command::Resubscribe(..)
            | Command::Trace(..)
            | Command::Bury(..) => true,
            Command::Stream(StreamCommand::Find(_) | StreamCommand::Renew { .. }, _) => false,
            Command::Stream(..) => true,
            // Where a group stands in a stream is known without having been written.
            Command::Pop(request, _) if matches!(request.source, Source::Stream(_)) => false,
            Command::Pop(request, _) => request.auto_ack || !self.knows_group(request),
            _ => false,
        }
    }

    fn knows_group(&self, request: &PopRequest) -> bool {
        match finder_key(request) {
            Some(key) => self.model.finders.contains_key(&key),
            None => !self
                .model
                .groups_of(&request.source, &request.group)
                .is_empty(),
        }
    }

    fn apply(&mut self, command: &Command) -> Result<Answer> {
        Ok(match command {
            Command::Push(request, _) if self.buffer.takes_pushes() => {
                Answer::Pushed(self.buffer(request)?)
            }
            Command::Push(request, _) => Answer::Pushed(self.push(request)?),
            Command::Maintain(switch, _) => Answer::Maintained(self.maintain(*switch)),
            Command::Ack(request, _) => Answer::Acked(self.ack(request)?),
            Command::Extend { lease, seconds, .. } => {
                Answer::Extended(self.extend(*lease, *seconds))
            }
            Command::Configure(request, _) => Answer::Configured(self.configure(request)?),
            Command::Census(anew, _) => Answer::Counted(self.census(*anew)),
            Command::Detail(queue, group, _) => {
                Answer::Described(self.detail(queue, group.as_deref()))
            }
            Command::Delete(queue, _) => Answer::Deleted(self.delete(queue)?),
            Command::Transact(request, _) => Answer::Transacted(self.do_transaction(request)?),
            Command::Bury(grave, _) => Answer::Exhumed(self.exhume(grave)?),
            Command::Seek(request, _) => Answer::Sought(self.seek(request)?),
            Command::DeleteGroup(request, _) => Answer::Count(self.delete_group(request)?),
            Command::Trace(row, _) => {
                self.db.insert_trace(row)?;
                Answer::Nothing
            }
            Command::Resubscribe(group, since, _) => {
                Answer::Count(self.resubscribe(group, *since)?)
            }
            Command::Message(part, txn, _) => Answer::At(self.newest(*part, txn)?),
            Command::Stream(command, _) => Answer::Streamed(self.on_stream(command)?),
            Command::Release(key) => {
                self.release(key);
                Answer::Nothing
            }
            Command::ReleaseWindow(lease) => {
                self.release_window(*lease)?;
                Answer::Nothing
            }
            Command::Cancel(id) => {
                self.parking.remove(*id);
                Answer::Nothing
            }
            Command::Pop(..)
            | Command::DeadLetters(..)
            | Command::View(..)
            | Command::Ping(_)
            | Command::Compare(_)
            | Command::CatchUp(_)
            | Command::EndPolls
            | Command::DismissPolls
            | Command::Close => Answer::Nothing,
        })
    }

    /// A pop that has just arrived.
    fn first_pop(&mut self, request: &PopRequest, reply: &PopReply) -> Result<Popped> {
        if reply.is_closed() {
            return Ok(Popped::Empty);
        }
        let may_wait = request.wait.is_some() && !self.ending;
        if may_wait {
            // The group must be there before what it may get can be counted.
            self.enter(request, false)?;
            if let Some(until) = self.fill_until(request) {
                return Ok(Popped::Park(Some(until)));
            }
        }
        Ok(match self.claim(request, false)? {
            Some(claimed) => Popped::Claimed(claimed),
            None if may_wait => Popped::Park(None),
            None => Popped::Empty,
        })
    }

    /// Hands what has become deliverable to the parked pops, in the order of their arrival.
    fn wake(&mut self) -> Result<()> {
        for part in std::mem::take(&mut self.round.woken) {
            let Some(found) = self.model.parts.get(&part) else {
                continue;
            };
            let Some(queue) = self.model.queues.get(&found.queue) else {
                continue;
            };
            let name = found.name.clone();
            let streams = self.model.streams.readers(found.queue).into_iter();
            for source in queue
                .sources()
                .into_iter()
                .chain(streams.map(Source::Stream))
            {
                for lane in self.parking.lanes_of(&source) {
                    self.serve_lane(&lane, Some(&name))?;
                    self.serve_lane(&lane, None)?;
                    self.plan_check(&lane);
                }
            }
        }
        for lane in self.round.lanes.clone() {
            for name in self.parking.named_parts(&lane) {
                self.serve_lane(&lane, Some(&name))?;
            }
            self.serve_lane(&lane, None)?;
            self.plan_check(&lane);
        }
        Ok(())
    }

    /// Serves the pops of a lane that want one partition, or those that take any, until there is nothing left.
    fn serve_lane(&mut self, lane: &LaneKey, part: Option<&str>) -> Result<()> {
        let mut after = 0;
        while let Some(id) = self.parking.next(lane, part, after) {
            if !self.serve(lane, id)? {
                break;
            }
            after = id;
        }
        Ok(())
    }

    /// Tries to serve a parked pop; false means that there is nothing for it or for those behind it.
    fn serve(&mut self, lane: &LaneKey, id: u64) -> Result<bool> {
        self.meter.poll();
        let Some(waiter) = self.parking.get(id) else {
            return Ok(false);
        };
        if waiter.reply.is_closed() {
            self.parking.remove(id);
            return Ok(true);
        }
        let (request, deadline) = (waiter.request.clone(), waiter.deadline);
        if let Some(until) = self.fill_until(&request) {
            let until = self.parking.fill_until(id, until.min(deadline));
            if until > self.round.now {
                self.parking.check_at(lane, until);
                return Ok(true);
            }
        }
        let Some(claimed) = self.claim(&request, true)? else {
            return Ok(false);
        };
        if let Some(waiter) = self.parking.remove(id) {
            self.round.served.push((waiter, claimed));
        }
        Ok(true)
    }

    /// Looks again when the next lease of the group runs out or the next delay ends.
    pub(super) fn plan_check(&mut self, lane: &LaneKey) {
        if let Source::Stream(name) = &lane.0 {
            return self.plan_window(name, lane);
        }
        for group in self.model.groups_of(&lane.0, &lane.1) {
            // What is over already needs no second look, and would make the writer spin.
            self.unblock(group);
            let group = self.model.groups.get(&group);
            if let Some((at, _)) = group.and_then(|group| group.first_blocked()) {
                self.parking.check_at(lane, at);
            }
        }
    }

    fn write_cursors(&mut self) -> Result<()> {
        for (group, part) in std::mem::take(&mut self.round.cursors) {
            let Some(cursor) = self
                .model
                .groups
                .get(&group)
                .and_then(|g| g.cursors.get(&part))
            else {
                continue;
            };
            self.db.put_cursor(&CursorRow {
                group,
                part,
                committed: cursor.committed,
                delivered: cursor.delivered,
                retries: cursor.retries,
                consumed: cursor.consumed,
                lease: cursor
                    .lease
                    .map(|lease| (lease.id, lease.expires, lease.batch_end)),
            })?;
        }
        Ok(())
    }

    /// Puts everything back as it was before a transaction that failed.
    fn undo(&mut self) {
        self.db.rollback();
        self.stale = true;
        self.sweep.postpone(self.round.now);
        let round = std::mem::take(&mut self.round);
        self.txns.doubt(round.segments.keys().copied());
        for (waiter, _) in round.served {
            self.parking.add(waiter);
        }
        for lane in round.lanes {
            self.parking.check_at(&lane, round.now + SECOND);
        }
    }

    /// Marks that pops on a partition should look again.
    pub(super) fn wake_part(&mut self, part: PartId) {
        self.round.woken.insert(part);
    }

    /// Puts a cursor in its place after a change, and has it written.
    pub(super) fn changed(&mut self, group: GroupId, part: PartId) {
        let next = self.model.next(part);
        if let Some(found) = self.model.groups.get_mut(&group) {
            found.settle(part, next, self.round.now);
        }
        self.round.cursors.insert((group, part));
    }

    /// The name of a queue, shared.
    pub(super) fn queue_name(&self, queue: i64) -> Arc<str> {
        self.model
            .queues
            .get(&queue)
            .map_or_else(|| Arc::from(""), |q| q.name.clone())
    }
}
