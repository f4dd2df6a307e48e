//! Any interleaving of what two ends may do, beside a plain model of what has to come of it.

use std::collections::VecDeque;

use proptest::prelude::*;

use super::super::taking::cost;
use super::*;

/// What one of the two ends does.
#[derive(Debug, Clone)]
enum Step {
    /// Sends a request of this length.
    Open {
        near: bool,
        length: usize,
    },
    /// Answers a call of the other end that came another way.
    Attach {
        near: bool,
    },
    /// Sends items of these lengths, and with the last of them the end.
    Items {
        call: usize,
        lengths: Vec<usize>,
        last: bool,
    },
    End {
        call: usize,
    },
    Fail {
        call: usize,
    },
    /// Lets go of the answers.
    Reset {
        call: usize,
    },
    /// Gives the call up.
    Cancel {
        call: usize,
    },
    /// Gives credit back for so many of the items that came.
    Consume {
        call: usize,
        items: usize,
    },
    /// Lets the links run.
    Run {
        turns: usize,
    },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let call = 0..32_usize;
    let length = prop_oneof![12 => 0..100_usize, 4 => 100..20_000_usize, 1 => 60_000..200_000_usize];
    let step = prop_oneof![
        4 => (any::<bool>(), length.clone()).prop_map(|(near, length)| Step::Open { near, length }),
        1 => any::<bool>().prop_map(|near| Step::Attach { near }),
        8 => (call.clone(), prop::collection::vec(length, 0..9), prop::bool::weighted(0.1))
            .prop_map(|(call, lengths, last)| Step::Items { call, lengths, last }),
        1 => call.clone().prop_map(|call| Step::End { call }),
        1 => call.clone().prop_map(|call| Step::Fail { call }),
        1 => call.clone().prop_map(|call| Step::Reset { call }),
        1 => call.clone().prop_map(|call| Step::Cancel { call }),
        4 => (call, 1..9_usize).prop_map(|(call, items)| Step::Consume { call, items }),
        6 => (1..6_usize).prop_map(|turns| Step::Run { turns }),
    ];
    prop::collection::vec(step, 1..120)
}

/// How the answers of a call ended, at the end that answers.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Ended {
    Whole,
    Failed,
    Reset,
}

/// A call, as both ends should see it.
struct Call {
    /// Did the near end ask?
    near: bool,
    sink: Arc<Kept>,
    inflow: Option<Inflow>,
    answers: Option<Outflow>,
    /// What was sent, in order, and how that ended.
    sent: Vec<Bytes>,
    ended: Option<Ended>,
    cancelled: bool,
    /// Of so many items credit was given back.
    consumed: usize,
    /// So many deliveries were checked.
    checked: usize,
}

impl Call {
    fn new(near: bool, sink: Arc<Kept>, inflow: Option<Inflow>, answers: Option<Outflow>) -> Self {
        let (sent, ended, cancelled, consumed, checked) = (Vec::new(), None, false, 0, 0);
        Self { near, sink, inflow, answers, sent, ended, cancelled, consumed, checked }
    }

    fn consume(&mut self, items: usize) {
        let arrived = self.sink.items();
        let some = &arrived[self.consumed..arrived.len().min(self.consumed.saturating_add(items))];
        if let Some(inflow) = &self.inflow
            && !some.is_empty()
        {
            inflow.consumed(some.iter().map(Bytes::len).sum(), some.len());
            self.consumed += some.len();
        }
    }

    /// What came is the beginning of what was sent, and no more of it than there was credit for.
    fn check(&mut self, window: usize) {
        let deliveries = self.sink.state.lock().unwrap().deliveries;
        if std::mem::replace(&mut self.checked, deliveries) == deliveries {
            return;
        }
        let arrived = self.sink.items();
        assert!(self.sent.starts_with(&arrived), "something else came");
        if let Some((_, others)) = arrived[self.consumed..].split_last() {
            let outstanding: i64 = others.iter().map(|item| cost(item.len())).sum();
            assert!(outstanding < window as i64, "{outstanding} bytes came without credit");
        }
    }

    /// Everything was consumed and all had the time to arrive.
    fn check_end(&self) {
        let (items, last) = (self.sink.items(), self.sink.arrivals().pop());
        if self.cancelled {
            return;
        }
        assert!(items == self.sent || self.ended == Some(Ended::Reset), "items are missing");
        let failed = matches!(last, Some(Arrival::Failed(_)));
        match self.ended.expect("every call was ended") {
            Ended::Whole => assert!(last.as_ref().is_some_and(is_end) && !failed, "{last:?}"),
            Ended::Failed => {
                assert!(matches!(&last, Some(Arrival::Failed(error)) if error.code() == "fault"), "{last:?}");
            }
            Ended::Reset => assert!(failed, "{last:?}"),
        }
    }
}

/// Two ends, and all calls between them.
struct World {
    near: End,
    far: End,
    window: usize,
    calls: Vec<Call>,
    /// Calls that were attached, from the near end and from the far one, and not adopted yet.
    attached: [VecDeque<usize>; 2],
}

impl World {
    async fn new(window: usize, pipe: usize) -> Self {
        let limits = LinkLimits {
            stream_window_bytes: window,
            assembling_bytes_max: 300_000,
            outbound_bytes_max: 1000,
            ..LinkLimits::default()
        };
        let (a, b) = tokio::io::duplex(pipe);
        let (near, far) = pair_over(Box::new(a), Box::new(b), [limits; 2]).await;
        Self { near, far, window, calls: Vec::new(), attached: Default::default() }
    }

    fn call(&mut self, call: usize) -> Option<&mut Call> {
        let calls = self.calls.len();
        if calls == 0 { None } else { self.calls.get_mut(call % calls) }
    }

    async fn run(&mut self, step: Step) {
        match step {
            Step::Open { near, length } => {
                let (sink, number) = (Kept::new(), self.calls.len());
                let payload = [&(number as u64).to_le_bytes()[..], &bytes(length, number as u8)].concat();
                let end = if near { &self.near } else { &self.far };
                let inflow = end.open(payload, &sink).unwrap();
                self.calls.push(Call::new(near, sink, Some(inflow), None));
            }
            Step::Attach { near } => {
                let number = self.calls.len();
                let (here, there) = if near { (&self.near, &self.far) } else { (&self.far, &self.near) };
                let sink = there.adopts(number as u64, 7);
                let answers = here.link.attach(number as u64, 7).unwrap();
                self.calls.push(Call::new(!near, sink, None, Some(answers)));
                self.attached[usize::from(near)].push_back(number);
            }
            Step::Items { call, lengths, last } => {
                let Some(call) = self.call(call) else { return };
                let Some(answers) = call.answers.as_ref().filter(|_| call.ended.is_none()) else { return };
                let first = call.sent.len();
                let items: Vec<_> = lengths
                    .iter()
                    .enumerate()
                    .map(|(at, length)| bytes(*length, (first + at) as u8))
                    .collect();
                let said = answers.items(&items, last, 0);
                assert!(said.is_ok() || call.cancelled, "{said:?}");
                call.sent.extend(items);
                call.ended = last.then_some(Ended::Whole);
            }
            Step::End { call } => self.end(call, Ended::Whole),
            Step::Fail { call } => self.end(call, Ended::Failed),
            Step::Reset { call } => self.end(call, Ended::Reset),
            Step::Cancel { call } => {
                if let Some(call) = self.call(call)
                    && let Some(inflow) = call.inflow.take()
                {
                    call.cancelled = !call.sink.arrivals().last().is_some_and(is_end);
                    drop(inflow);
                }
            }
            Step::Consume { call, items } => {
                if let Some(call) = self.call(call) {
                    call.consume(items);
                }
            }
            Step::Run { turns } => {
                for _ in 0..turns {
                    tokio::task::yield_now().await;
                }
            }
        }
        self.receive();
        let window = self.window;
        self.calls.iter_mut().for_each(|call| call.check(window));
    }

    fn end(&mut self, call: usize, how: Ended) {
        let Some(call) = self.call(call) else { return };
        let Some(answers) = call.answers.as_ref().filter(|_| call.ended.is_none()) else { return };
        match how {
            Ended::Whole => drop(answers.end(0)),
            Ended::Failed => answers.fail(&Error::fault("bad", "it failed"), 0),
            Ended::Reset => drop(call.answers.take()),
        }
        call.ended = Some(how);
    }

    /// Requests that came, and streams that were adopted, find their call.
    fn receive(&mut self) {
        for asked_near in [true, false] {
            let end = if asked_near { &mut self.far } else { &mut self.near };
            while let Ok(request) = end.requests.try_recv() {
                let (number, rest) = request.payload.split_first_chunk().unwrap();
                let number = u64::from_le_bytes(*number) as usize;
                assert!(*rest == bytes(rest.len(), number as u8), "another payload came");
                let call = &mut self.calls[number];
                assert!(call.near == asked_near && call.answers.is_none());
                call.answers = Some(request.answers);
            }
            let end = if asked_near { &self.near } else { &self.far };
            for inflow in end.desk.adopted.lock().unwrap().drain(..) {
                let number = self.attached[usize::from(!asked_near)].pop_front().unwrap();
                self.calls[number].inflow = Some(inflow);
            }
        }
    }

    /// Ends what is open, and lets everything arrive.
    async fn finish(&mut self) {
        loop {
            self.receive();
            for call in 0..self.calls.len() {
                self.end(call, Ended::Whole);
            }
            for call in &mut self.calls {
                call.check(self.window);
                call.consume(usize::MAX);
            }
            let is_over = |call: &Call| call.cancelled || call.sink.arrivals().last().is_some_and(is_end);
            if self.calls.iter().all(is_over) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        self.near.link.drained().await;
        self.far.link.drained().await;
        self.calls.iter().for_each(Call::check_end);
        for (end, other) in [(&self.near, &self.far), (&self.far, &self.near)] {
            assert!(end.link.is_usable(), "the protocol was broken");
            let [here, there] = [end, other].map(|end| end.link.snapshot());
            assert_eq!((here.streams_open, here.assembling_bytes), (0, 0));
            assert!(here.totals.streams_opened >= there.totals.streams_accepted);
            assert_eq!(here.totals.refused_overloaded, 0);
        }
    }

    /// Both ends let go of the link.
    async fn part(self) {
        self.near.link.go_away();
        let closed = [self.near.link.closed().await, self.far.link.closed().await];
        assert_eq!(closed, [CloseReason::Drained; 2]);
        let [here, there] = [&self.near, &self.far].map(|end| end.link.snapshot());
        for (here, there) in [(&here, &there), (&there, &here)] {
            // What was given up at once may have come after the other end had gone away.
            let taken = there.totals.streams_accepted + there.totals.refused_draining;
            assert_eq!(here.totals.streams_opened, taken);
        }
        assert_eq!((here.queued_bytes, there.queued_bytes), (0, 0));
    }
}

fn config() -> ProptestConfig {
    let asked =
        ProptestConfig { failure_persistence: None, max_shrink_iters: 2000, ..ProptestConfig::default() };
    if std::env::var_os("PROPTEST_CASES").is_some() { asked } else { ProptestConfig { cases: 100, ..asked } }
}

proptest! {
    #![proptest_config(config())]

    /// Whatever two ends do, in whatever order, with whatever windows and pipes: every stream brings what was sent
    /// on it, in order, to its own end; never more than there is credit for; and nothing is left in the end.
    #[test]
    fn any_interleaving_keeps_the_promises(
        window in prop_oneof![1..200_usize, 200..5000_usize, Just(1 << 20)],
        pipe in prop_oneof![1 => 1..100_usize, 4 => 1000..100_000_usize],
        steps in steps(),
    ) {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let mut world = World::new(window, pipe).await;
            let all = async {
                for step in steps {
                    world.run(step).await;
                }
                world.finish().await;
                world.part().await;
            };
            // Of the paused clock: nothing moves any more.
            tokio::time::timeout(Duration::from_secs(3600), all).await.expect("it is stuck");
        });
    }
}
