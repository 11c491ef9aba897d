//! What a scenario runs in, and how it does steps.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use queen::{
    Ack, AckOptions, AckResult, AnyPending, BrokerOptions, Client, ClockChange, ConsumeOptions,
    ConsumerSink, Delivery, EmbeddedBroker, Error, ErrorCode, Fault, FlushOptions, ItemOptions,
    MessageVerdict, Output, Pending, PopOptions, PushOptions, Settlement, Status,
};
use serde_json::{Map, Value, json};

use crate::pattern::{fill, matches};
use crate::step::{Rule, Rules, Step, payload, tell};
use crate::windows;

/// Bounds each step.
const PATIENCE: Duration = Duration::from_secs(30);

/// What came of a step: a result, an error, or both.
pub type Outcome = (Value, Option<Error>);

pub struct World(Arc<Inner>);

struct Inner {
    broker: Option<EmbeddedBroker>,
    url: String,
    saved: Mutex<Map<String, Value>>,
    clients: Mutex<HashMap<String, Client>>,
    pops: Mutex<HashMap<String, Vec<Delivery>>>,
    reports: Mutex<HashMap<String, Vec<Value>>>,
    running: Mutex<HashMap<String, Running>>,
}

/// A step in the background.
struct Running {
    /// What `cancel` cancels, as soon as it has begun.
    operation: Slot,
    thread: Option<JoinHandle<Outcome>>,
}

pub type Slot = Arc<Mutex<Option<Arc<dyn AnyPending>>>>;

pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn failed(error: Error) -> Outcome {
    (Value::Null, Some(error))
}

fn parsed(json: Option<String>) -> Value {
    json.and_then(|text| serde_json::from_str(&text).ok())
        .unwrap_or_default()
}

/// What nobody expects of a scenario.
fn odd(what: impl Into<String>) -> Outcome {
    failed(Error::new(ErrorCode::Internal, what))
}

/// Waits for an operation, which the slot lets others cancel.
pub fn finish<T: Output>(slot: &Slot, pending: Pending<T>) -> Outcome {
    let pending: Arc<dyn AnyPending> = Arc::new(pending);
    *lock(slot) = Some(pending.clone());
    match pending.wait_for(PATIENCE) {
        Ok(true) => (parsed(pending.to_json()), pending.error().cloned()),
        Ok(false) => odd("the step takes too long"),
        Err(error) => failed(error),
    }
}

/// As [`finish`], where the result does not matter.
fn finish_quietly<T: Output>(slot: &Slot, pending: Pending<T>) -> Outcome {
    (Value::Null, finish(slot, pending).1)
}

impl World {
    pub fn new(broker: &str, url: &str) -> Result<World, Error> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let broker = match broker {
            "embedded" => Some(EmbeddedBroker::start(BrokerOptions {
                testing: true,
                ..BrokerOptions::default()
            })?),
            _ => None,
        };
        let (process, count) = (std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let time = std::time::UNIX_EPOCH.elapsed().unwrap_or_default();
        let queue = format!("scenario-rust-{process}-{}-{count}", time.as_micros());
        let world = World(Arc::new(Inner {
            url: broker
                .as_ref()
                .map_or_else(|| url.to_owned(), |broker| broker.url().to_owned()),
            broker,
            saved: Mutex::new(Map::from_iter([("queue".into(), queue.into())])),
            clients: Mutex::default(),
            pops: Mutex::default(),
            reports: Mutex::default(),
            running: Mutex::default(),
        }));
        let config = json!({"retryDelayMillis": 5});
        world
            .0
            .open("main", config.as_object().unwrap_or(&Map::new()))?;
        Ok(world)
    }

    /// Does a step and looks at what comes of it.
    pub fn run(&self, raw: &Value) -> Result<(), String> {
        let step = self.read(raw)?;
        match &*step.r#do {
            "start" => {
                let inner = self.read(step.step.as_deref().unwrap_or(&Value::Null))?;
                let (world, operation) = (self.0.clone(), Slot::default());
                let slot = operation.clone();
                let thread = thread::spawn(move || world.act(&inner, &slot));
                let running = Running {
                    operation,
                    thread: Some(thread),
                };
                lock(&self.0.running).insert(step.name, running);
                Ok(())
            }
            "cancel" => {
                if let Some(running) = lock(&self.0.running).get(&step.name)
                    && let Some(operation) = &*lock(&running.operation)
                {
                    operation.cancel();
                }
                Ok(())
            }
            "join" => {
                let mut running = lock(&self.0.running);
                let thread = running.get_mut(&step.name).and_then(|r| r.thread.take());
                drop(running);
                let thread = thread.ok_or_else(|| format!("{} does not run", step.name))?;
                let outcome = thread.join().map_err(|_| "the step has panicked")?;
                self.judge(&step, &outcome)
            }
            _ => {
                let end = Instant::now() + Duration::from_millis(step.within);
                loop {
                    let outcome = self.0.act(&step, &Slot::default());
                    let judged = self.judge(&step, &outcome);
                    if judged.is_ok() || Instant::now() >= end {
                        return judged;
                    }
                    thread::sleep(Duration::from_millis(20));
                }
            }
        }
    }

    fn read(&self, raw: &Value) -> Result<Step, String> {
        let filled = fill(raw, &lock(&self.0.saved));
        serde_json::from_value(filled).map_err(|error| error.to_string())
    }

    fn judge(&self, step: &Step, (result, error): &Outcome) -> Result<(), String> {
        match (step.expect.get("error"), error) {
            (None, Some(error)) => return Err(format!("failed: {error}")),
            (Some(wanted), None) => {
                return Err(format!("went well with {result}, but {wanted} was wanted"));
            }
            (Some(Value::String(name)), Some(error)) => {
                matches(&json!(name), &json!(error.code().name()), "error")?;
            }
            (Some(wanted), Some(error)) => {
                matches(wanted, &parsed(Some(error.to_json())), "error")?;
            }
            (None, None) => {}
        }
        if let Some(pattern) = step.expect.get("result") {
            matches(pattern, result, "result")?;
        }
        for (name, path) in &step.save {
            let found = path.as_str().and_then(|path| result.pointer(path));
            let found = found.ok_or_else(|| format!("nothing to save at {path} in {result}"))?;
            lock(&self.0.saved).insert(name.clone(), found.clone());
        }
        Ok(())
    }

    /// Ends what is left.
    pub fn end(&self) -> Result<(), String> {
        for (_, running) in lock(&self.0.running).drain() {
            if let Some(operation) = &*lock(&running.operation) {
                operation.cancel();
            }
            if let Some(thread) = running.thread {
                let _ = thread.join();
            }
        }
        lock(&self.0.pops).clear();
        for (name, client) in lock(&self.0.clients).drain() {
            let closed = client.close(PATIENCE).wait(PATIENCE * 2);
            closed.map_err(|error| format!("the close of client {name}: {error}"))?;
        }
        Ok(())
    }
}

impl Inner {
    fn open(self: &Arc<Self>, name: &str, config: &Map<String, Value>) -> Result<(), Error> {
        let mut config = config.clone();
        config.insert("url".into(), self.url.clone().into());
        let client = Client::new(&Value::Object(config).to_string())?;
        let (world, told) = (Arc::downgrade(self), name.to_owned());
        client.set_reports(Some(Arc::new(move |reports| {
            if let Some(world) = world.upgrade() {
                let reports = reports.iter().map(|report| json!(report));
                let mut all = lock(&world.reports);
                all.entry(told.clone()).or_default().extend(reports);
            }
        })));
        lock(&self.clients).insert(name.into(), client);
        Ok(())
    }

    fn act(self: &Arc<Self>, step: &Step, slot: &Slot) -> Outcome {
        self.try_to(step, slot).unwrap_or_else(failed)
    }

    fn try_to(self: &Arc<Self>, step: &Step, slot: &Slot) -> Result<Outcome, Error> {
        if step.r#do == "open" {
            self.open(step.client(), &step.config)?;
            return Ok((Value::Null, None));
        }
        if let (Some(what), Some(broker)) = (step.r#do.strip_prefix("broker."), &self.broker) {
            return steer(broker, what, step, slot);
        }
        let Some(client) = lock(&self.clients).get(step.client()).cloned() else {
            return Ok(odd("there is no such client"));
        };
        let queue = step.queue.as_deref();
        Ok(match &*step.r#do {
            "close" => {
                let patience = step.timeout_millis.map_or(PATIENCE, Duration::from_millis);
                finish_quietly(slot, client.close(patience))
            }
            "push" => {
                let options = PushOptions::parse(&step.options())?;
                let (queue, items) = (queue.unwrap_or_default(), step.items.to_string());
                let pushing = client.push_json(queue, step.partition.as_deref(), &items, &options);
                finish(slot, pushing)
            }
            "pop" => {
                let options = PopOptions::parse(&step.options())?;
                let popping = client.pop(queue, step.partition.as_deref(), &options);
                let error = finish(slot, popping.clone()).1;
                let mut deliveries = Vec::new();
                if let Some(Ok(popped)) = popping.result() {
                    deliveries.extend(std::iter::from_fn(|| popped.take()));
                }
                let told = tell(&deliveries);
                if let Some(name) = &step.r#as {
                    lock(&self.pops).insert(name.clone(), deliveries);
                }
                (told, error)
            }
            "ack" => self.each(step, slot, Delivery::ack),
            "nack" => self.each(step, slot, |delivery| delivery.nack(step.reason.as_deref())),
            "settle" => {
                let verdicts = MessageVerdict::parse_list(&step.verdicts.to_string())?;
                self.each(step, slot, |delivery| delivery.settle(verdicts.clone()))
            }
            "release" => {
                lock(&self.pops).remove(&step.of);
                (Value::Null, None)
            }
            "lost" => {
                let lost = self.kept(&step.of).first().map(Delivery::is_lost);
                (json!(lost), None)
            }
            "ack.ids" => {
                let acks = Ack::parse_list(&step.acks.to_string())?;
                finish(slot, client.ack(acks, &AckOptions::parse(&step.options())?))
            }
            "transaction" => {
                let mut transaction = client.transaction();
                for operation in &step.operations {
                    let text = |name: &str| operation[name].as_str();
                    if let Some(of) = text("ack") {
                        let status = Status::parse(text("status").unwrap_or("completed"))?;
                        let index = operation["index"].as_u64().unwrap_or_default();
                        if let Some(delivery) = self.kept(of).first() {
                            transaction.ack_message(delivery, index as usize, status);
                        }
                    } else {
                        let (queue, items) = (text("push"), operation["items"].to_string());
                        transaction.push_json(
                            queue.unwrap_or_default(),
                            text("partition"),
                            &items,
                            &ItemOptions::default(),
                        );
                    }
                }
                finish(slot, transaction.commit())
            }
            "consume" => self.consume(step, slot, &client)?,
            "windows" => windows::consume(step, slot, &client)?,
            "flush" => {
                let options = json!({"queue": queue, "partition": step.partition});
                let options = FlushOptions::parse(&options.to_string())?;
                finish_quietly(slot, client.flush(&options))
            }
            "reports" => {
                let all = lock(&self.reports).get(step.client()).cloned();
                (json!(all.unwrap_or_default()), None)
            }
            "statistics" => (json!(client.stats()), None),
            "call" => {
                let parameters = step.parameters.clone().unwrap_or_else(|| json!({}));
                let pending = client.call(&step.operation, &parameters.to_string())?;
                match pending.wait_for(PATIENCE)? {
                    true => (parsed(pending.to_json()), pending.error().cloned()),
                    false => odd("the call takes too long"),
                }
            }
            "sleep" => {
                thread::sleep(Duration::from_millis(step.millis));
                (Value::Null, None)
            }
            other => odd(format!("no such step here: {other}")),
        })
    }

    fn kept(&self, of: &str) -> Vec<Delivery> {
        lock(&self.pops).get(of).cloned().unwrap_or_default()
    }

    /// Gives a verdict on each delivery of a pop.
    fn each(
        &self,
        step: &Step,
        slot: &Slot,
        verdict: impl Fn(&Delivery) -> Pending<Vec<AckResult>>,
    ) -> Outcome {
        let mut all = Vec::new();
        for delivery in self.kept(&step.of) {
            let (result, error) = finish(slot, verdict(&delivery));
            all.extend(result.as_array().cloned().unwrap_or_default());
            if error.is_some() {
                return (all.into(), error);
            }
        }
        (all.into(), None)
    }

    fn consume(&self, step: &Step, slot: &Slot, client: &Client) -> Result<Outcome, Error> {
        let mut options = step.options.clone().unwrap_or_else(|| json!({}));
        for (key, value) in [("queue", &step.queue), ("partition", &step.partition)] {
            if let Some(value) = value {
                options[key] = value.clone().into();
            }
        }
        let options = ConsumeOptions::parse(&options.to_string())?;
        let got: Arc<Mutex<Vec<Delivery>>> = Arc::default();
        let (stop, stopped) = mpsc::channel();
        let (rules, noted, own) = (Rules::of(step), got.clone(), client.clone());
        let handler = move |delivery: Delivery| {
            lock(&noted).push(delivery.clone());
            let first = delivery.messages().first().map(payload).unwrap_or_default();
            match rules.next(&first) {
                Some(rule) => react(rule, &own, &delivery, &stop),
                None => Settlement::Ack,
            }
        };
        let consumer = client.consume(options, ConsumerSink::Handler(Box::new(handler)))?;
        let finished = consumer.finished();
        let end = Instant::now() + PATIENCE;
        let stop_at = step.stop_millis.map(Duration::from_millis);
        let stop_at = stop_at.map(|after| Instant::now() + after);
        while !finished.wait_for(Duration::from_millis(5))? {
            let due = stop_at.is_some_and(|at| Instant::now() >= at);
            if due || stopped.try_recv().is_ok() || Instant::now() >= end {
                finish(slot, consumer.stop(PATIENCE));
            }
        }
        let (summary, error) = finish(slot, finished);
        let mut told = tell(&lock(&got));
        told["summary"] = summary;
        Ok((told, error))
    }
}

fn react(rule: &Rule, client: &Client, delivery: &Delivery, stop: &mpsc::Sender<()>) -> Settlement {
    let settled: Result<(), Error> = match &*rule.then {
        "" | "ack" => Ok(()),
        "nack" => return Settlement::NackWith(rule.reason.clone()),
        "throw" => panic!("{}", rule.reason),
        "stop" => {
            let _ = stop.send(());
            Ok(())
        }
        "settle" => {
            let verdict = json!([{"index": 0, "status": rule.status, "error": rule.reason}]);
            let settling = delivery.settle_json(&verdict.to_string());
            settling.wait(PATIENCE).map(drop)
        }
        "transaction" => {
            let mut transaction = client.transaction();
            transaction.ack_message(delivery, 0, Status::Completed);
            let items = rule.items.to_string();
            transaction.push_json(&rule.queue, None, &items, &ItemOptions::default());
            transaction.commit().wait(PATIENCE).map(drop)
        }
        other => panic!("no such rule: {other}"),
    };
    settled.into()
}

fn steer(broker: &EmbeddedBroker, what: &str, step: &Step, slot: &Slot) -> Result<Outcome, Error> {
    let null = |()| (Value::Null, None);
    Ok(match what {
        "add_faults" => {
            let faults = Fault::parse_all(&step.faults.to_string())?;
            (json!(broker.add_faults(faults)?), None)
        }
        "faults" => (json!(broker.faults()?), None),
        "remove_faults" => null(broker.clear_faults()?),
        "requests" => (json!(broker.requests()?), None),
        "reset_requests" => null(broker.reset_requests()?),
        "clock" => {
            let change = ClockChange::parse(&step.change.to_string())?;
            finish_quietly(slot, broker.move_clock(change))
        }
        "stop" => finish(slot, broker.stop(PATIENCE)),
        "kill" => finish(slot, broker.kill()),
        "restart" => finish(slot, broker.restart()),
        other => odd(format!("no such step: broker.{other}")),
    })
}
