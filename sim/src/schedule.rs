use std::fmt;
use std::ops::Range;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use slipring_core::{Error, Result};

use crate::fault::millis;
use crate::{Fault, Operation};

/// What nodes are asked to do and what goes wrong, each in the order of its times. A value that is written to
/// a file as JSON, and replays after the code around it has changed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Schedule {
    operations: Vec<Operation>,
    faults: Vec<Timed>,
}

/// A fault with its time since the schedule began to play.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Timed {
    /// When, in whole milliseconds.
    #[serde(rename = "at_ms", with = "millis")]
    pub at: Duration,
    /// What.
    pub fault: Fault,
}

/// What stands in a file.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    version: u64,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    operations: Vec<Operation>,
    faults: Vec<Timed>,
}

/// What every version of the file has.
#[derive(Deserialize)]
struct Head {
    version: u64,
}

impl Schedule {
    /// The version of the files that are written, and the only one that is read.
    pub const VERSION: u64 = 1;

    /// Nothing goes wrong.
    pub fn new() -> Self {
        Self::default()
    }

    /// With one more fault, after those of the same time. Parts of a millisecond are dropped.
    #[must_use]
    pub fn with(mut self, at: Duration, mut fault: Fault) -> Self {
        let at = whole_millis(at);
        fault.times().into_iter().for_each(|time| *time = whole_millis(*time));
        let place = self.faults.partition_point(|timed| timed.at <= at);
        self.faults.insert(place, Timed { at, fault });
        self
    }

    /// With one more operation, after those of the same time. Parts of a millisecond are dropped.
    #[must_use]
    pub fn with_operation(mut self, at: Duration, node: impl Into<String>, what: impl Into<String>) -> Self {
        let operation = Operation { at: whole_millis(at), node: node.into(), what: what.into() };
        let place = self.operations.partition_point(|other| other.at <= operation.at);
        self.operations.insert(place, operation);
        self
    }

    /// The faults, in order.
    pub fn faults(&self) -> &[Timed] {
        &self.faults
    }

    /// The operations, in order.
    pub fn operations(&self) -> &[Operation] {
        &self.operations
    }

    /// When the last operation was given and the last fault is over, since it began to play. What ends only
    /// with the world, such as a crash for good, counts from its beginning.
    pub fn end(&self) -> Duration {
        let faults = self.faults.iter().map(Timed::end);
        self.operations.iter().map(|operation| operation.at).chain(faults).max().unwrap_or_default()
    }

    /// Each operation and each fault in words, in the order of their times, with the schedule that lacks it.
    pub fn parts(&self) -> Vec<(String, Self)> {
        let asked = self.operations.iter().map(|operation| (operation.at, operation.to_string()));
        let struck = self.faults.iter().map(|timed| (timed.at, timed.to_string()));
        let without = |(part, (at, words))| (at, words, self.without(part..part + 1));
        let mut parts: Vec<_> = asked.chain(struck).enumerate().map(without).collect();
        parts.sort_by_key(|(at, _, _)| *at);
        parts.into_iter().map(|(_, words, rest)| (words, rest)).collect()
    }

    /// Both, in the order of their times; operations first.
    pub(crate) fn steps(&self) -> Vec<Step<'_>> {
        let operations = self.operations.iter().map(Step::Operation);
        let mut steps: Vec<Step<'_>> = operations.chain(self.faults.iter().map(Step::Fault)).collect();
        steps.sort_by_key(Step::at);
        steps
    }

    /// As JSON: a version, and operations and faults with times in milliseconds.
    pub fn to_json(&self) -> String {
        let operations = self.operations.clone();
        let file = File { version: Self::VERSION, operations, faults: self.faults.clone() };
        serde_json::to_string_pretty(&file).expect("there are only texts and numbers in it")
    }

    /// Reads what [`to_json`](Self::to_json) wrote.
    ///
    /// # Errors
    /// `Invalid`: not JSON, another version, a fault or a field that this version does not know. It says which
    /// and where.
    pub fn from_json(text: &str) -> Result<Self> {
        let version = serde_json::from_str::<Head>(text).map_err(invalid)?.version;
        if version != Self::VERSION {
            let problem = format!("this simulator reads version {} only", Self::VERSION);
            return Err(Error::invalid("schedule", format!("version {version}"), problem));
        }
        let file: File = serde_json::from_str(text).map_err(invalid)?;
        let asked =
            file.operations.into_iter().fold(Self::new(), |schedule, Operation { at, node, what }| {
                schedule.with_operation(at, node, what)
            });
        Ok(file.faults.into_iter().fold(asked, |schedule, timed| schedule.with(timed.at, timed.fault)))
    }

    /// The smallest schedule found that still fails: with as few operations and faults as it takes, and round
    /// times.
    ///
    /// `fails` runs a schedule and says whether it shows the failure; it has to give the same answer for the
    /// same schedule. It is called at most [`SHRINK_RUNS_MAX`](Self::SHRINK_RUNS_MAX) times. A schedule that
    /// does not fail is returned as it is.
    #[must_use]
    pub fn shrink(&self, mut fails: impl FnMut(&Self) -> bool) -> Self {
        let mut runs_left = Self::SHRINK_RUNS_MAX;
        let mut fails = |schedule: &Self| {
            let run = runs_left > 0;
            runs_left -= usize::from(run);
            run && fails(schedule)
        };
        let mut smallest = self.clone();
        if !fails(&smallest) {
            return smallest;
        }
        loop {
            let before = smallest.clone();
            smallest = smallest.with_fewer_steps(&mut fails);
            smallest = smallest.with_rounder_times(&mut fails);
            if smallest == before {
                return smallest;
            }
        }
    }

    /// How often [`shrink`](Self::shrink) runs a schedule at most.
    pub const SHRINK_RUNS_MAX: usize = 2_000;

    /// Operations and faults.
    fn len(&self) -> usize {
        self.operations.len() + self.faults.len()
    }

    /// Without the steps of these numbers: first come the operations, then the faults.
    fn without(&self, steps: Range<usize>) -> Self {
        let border = self.operations.len();
        let mut fewer = self.clone();
        fewer.operations.drain(steps.start.min(border)..steps.end.min(border));
        let faults = steps.start.max(border) - border..steps.end.max(border) - border;
        fewer.faults.drain(faults);
        fewer
    }

    /// Takes away parts of the steps, smaller ones as larger ones do not go (Zeller's delta debugging).
    fn with_fewer_steps(&self, fails: &mut impl FnMut(&Self) -> bool) -> Self {
        let mut smallest = self.clone();
        let mut part = smallest.len().max(1);
        loop {
            let mut from = 0;
            while from < smallest.len() {
                let fewer = smallest.without(from..(from + part).min(smallest.len()));
                if fails(&fewer) {
                    smallest = fewer;
                } else {
                    from += part;
                }
            }
            if part == 1 {
                return smallest;
            }
            part = part.div_ceil(2);
        }
    }

    /// Makes each time as round as it can be: nothing, seconds, tenths.
    fn with_rounder_times(&self, fails: &mut impl FnMut(&Self) -> bool) -> Self {
        let mut smallest = self.clone();
        for step in 0..smallest.len() {
            for time in 0..smallest.times(step).len() {
                for unit_ms in [u64::MAX, 1_000, 100, 10] {
                    let mut rounder = smallest.clone();
                    // A step whose time has changed may have another place, and another number of times: what
                    // stood there is looked at again in the next round.
                    if !rounder.times(step).into_iter().nth(time).is_some_and(|time| round(time, unit_ms)) {
                        break;
                    }
                    rounder.operations.sort_by_key(|operation| operation.at);
                    rounder.faults.sort_by_key(|timed| timed.at);
                    if fails(&rounder) {
                        smallest = rounder;
                        break;
                    }
                }
            }
        }
        smallest
    }

    /// When a step happens, and the times in it.
    fn times(&mut self, step: usize) -> Vec<&mut Duration> {
        match step.checked_sub(self.operations.len()) {
            None => vec![&mut self.operations[step].at],
            Some(fault) => {
                let Timed { at, fault } = &mut self.faults[fault];
                let mut times = vec![at];
                times.extend(fault.times());
                times
            }
        }
    }
}

/// One thing that happens when a schedule is played.
pub(crate) enum Step<'a> {
    Operation(&'a Operation),
    Fault(&'a Timed),
}

impl Step<'_> {
    /// When, since the schedule began to play.
    pub(crate) fn at(&self) -> Duration {
        match self {
            Self::Operation(operation) => operation.at,
            Self::Fault(timed) => timed.at,
        }
    }
}

impl Timed {
    /// When it is over.
    fn end(&self) -> Duration {
        let mut fault = self.fault.clone();
        self.at + fault.times().into_iter().map(|time| *time).sum::<Duration>()
    }
}

/// Rounds down to a multiple; was it none before?
fn round(time: &mut Duration, unit_ms: u64) -> bool {
    let millis = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let rounded = millis - millis % unit_ms;
    *time = Duration::from_millis(rounded);
    rounded != millis
}

fn whole_millis(time: Duration) -> Duration {
    Duration::from_millis(u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
}

fn invalid(error: serde_json::Error) -> Error {
    let place = format!("line {}, column {}", error.line(), error.column());
    Error::invalid("schedule", place, error.to_string())
}

/// A line for each operation and fault, in the order of their times.
impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.steps().iter().try_for_each(|step| match step {
            Step::Operation(operation) => writeln!(f, "{operation}"),
            Step::Fault(timed) => writeln!(f, "{timed}"),
        })
    }
}

impl fmt::Display for Timed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at {:?}: {}", self.at, self.fault)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn cut(node: &str, lasts: Duration) -> Fault {
        Fault::Cut { node: node.to_owned(), lasts }
    }

    /// Faults stand in the order of their times, and those of one time in the order of their adding.
    #[test]
    fn faults_are_in_order() {
        let schedule = Schedule::new()
            .with(seconds(2), Fault::Compact)
            .with(seconds(1), Fault::Save)
            .with(seconds(2), Fault::Restore);
        assert_eq!(schedule.to_string(), "at 1s: save the store\nat 2s: compact\nat 2s: restore the store\n");
    }

    /// A file is readable, and reads back as what it was.
    #[test]
    fn a_file_reads_back() {
        let schedule = Schedule::new()
            .with(Duration::from_micros(1_500_999), cut("a", seconds(3)))
            .with(seconds(4), Fault::Crash { node: "b".to_owned(), down: None })
            .with(seconds(5), Fault::Compact);
        let json = schedule.to_json();
        assert_eq!(Schedule::from_json(&json), Ok(schedule));
        let compact: String = json.split_whitespace().collect();
        let expected = concat!(
            r#"{"version":1,"faults":[{"at_ms":1500,"fault":{"cut":{"node":"a","lasts_ms":3000}}},"#,
            r#"{"at_ms":4000,"fault":{"crash":{"node":"b","down_ms":null}}},{"at_ms":5000,"fault":"compact"}]}"#
        );
        assert_eq!(compact, expected);
    }

    /// What this version does not know is refused by name, and never skipped.
    #[test]
    fn unknown_input_is_a_clear_error() {
        let file = |faults: &str| format!(r#"{{"version":1,"faults":[{faults}]}}"#);
        let refused = [
            ("nonsense".to_owned(), "expected"),
            (r#"{"faults":[]}"#.to_owned(), "missing field `version`"),
            (r#"{"version":2,"faults":[],"more":1}"#.to_owned(), "version 2"),
            (r#"{"version":1,"faults":[],"more":1}"#.to_owned(), "unknown field `more`"),
            (file(r#"{"at_ms":1,"fault":"melt"}"#), "unknown variant `melt`"),
            (file(r#"{"at_ms":1,"fault":{"cut":{"node":"a"}}}"#), "missing field `lasts_ms`"),
            (file(r#"{"at_ms":1,"fault":{"cut":{"node":"a","lasts_ms":1,"how":2}}}"#), "unknown field `how`"),
            (file(r#"{"at_ms":-1,"fault":"compact"}"#), "invalid value"),
        ];
        for (text, culprit) in refused {
            let error = Schedule::from_json(&text).unwrap_err();
            assert_eq!(error.code(), "invalid");
            assert!(error.to_string().contains(culprit), "{error} does not name {culprit}");
        }
    }

    /// Of many faults the two remain that make the failure, with the roundest times that do.
    #[test]
    fn shrinking_leaves_what_matters() {
        let mut schedule = (0..30).fold(Schedule::new(), |schedule, number| {
            schedule
                .with(Duration::from_millis(777 * number), Fault::LoseReply { node: format!("n{number}") })
        });
        schedule = schedule.with(Duration::from_millis(4_321), cut("a", Duration::from_millis(2_718)));
        schedule = schedule.with(Duration::from_millis(9_876), Fault::Compact);
        let mut runs = 0;
        let smallest = schedule.shrink(|schedule| {
            runs += 1;
            let mut faults = schedule.faults().iter();
            let long = |timed: &Timed| matches!(timed.fault, Fault::Cut { lasts, .. } if lasts >= seconds(2));
            faults.any(long) && faults.any(|timed| timed.fault == Fault::Compact && timed.at > seconds(4))
        });
        let expected =
            Schedule::new().with(Duration::ZERO, cut("a", seconds(2))).with(seconds(9), Fault::Compact);
        assert_eq!(smallest, expected);
        assert!(runs < 100, "{runs} runs");
    }

    /// Operations are written, read back, and shrink beside the faults: of many of both the two remain that
    /// make the failure.
    #[test]
    fn operations_shrink_with_the_faults() {
        let schedule = (0..20).fold(Schedule::new(), |schedule, number| {
            let at = Duration::from_millis(700 * number);
            let verb = if number == 11 { "stop" } else { "serve" };
            schedule.with_operation(at, "a", verb).with(at, Fault::Compact)
        });
        assert_eq!(Schedule::from_json(&schedule.to_json()), Ok(schedule.clone()));
        let smallest = schedule.shrink(|schedule| {
            let stopped = schedule.operations().iter().find(|operation| operation.what == "stop");
            stopped.is_some_and(|stopped| schedule.faults().iter().any(|timed| timed.at > stopped.at))
        });
        let expected = Schedule::new().with_operation(Duration::ZERO, "a", "stop");
        assert_eq!(smallest, expected.with(seconds(13), Fault::Compact));
        assert_eq!(smallest.to_string(), "at 0ns: a is asked: stop\nat 13s: compact\n");
        assert_eq!(smallest.end(), seconds(13));
    }

    /// A schedule is over when its last fault has ended.
    #[test]
    fn a_schedule_has_an_end() {
        let schedule =
            Schedule::new().with(seconds(1), cut("a", seconds(5))).with(seconds(4), Fault::Compact);
        assert_eq!(schedule.end(), seconds(6));
        assert_eq!(Schedule::new().end(), Duration::ZERO);
    }

    /// The parts of a schedule are in the order of their times, each with a schedule that lacks it alone.
    #[test]
    fn a_schedule_has_parts() {
        let stop = |schedule: Schedule| schedule.with_operation(seconds(2), "a", "stop");
        let schedule = stop(Schedule::new().with(seconds(1), Fault::Save)).with(seconds(3), Fault::Restore);
        let expected = [
            ("at 1s: save the store", stop(Schedule::new()).with(seconds(3), Fault::Restore)),
            (
                "at 2s: a is asked: stop",
                Schedule::new().with(seconds(1), Fault::Save).with(seconds(3), Fault::Restore),
            ),
            ("at 3s: restore the store", stop(Schedule::new()).with(seconds(1), Fault::Save)),
        ];
        assert_eq!(schedule.parts(), expected.map(|(words, rest)| (words.to_owned(), rest)));
    }

    /// A schedule that does not fail stays as it is, and one that always fails becomes empty.
    #[test]
    fn shrinking_knows_its_ends() {
        let schedule = Schedule::new().with(seconds(1), Fault::Compact);
        assert_eq!(schedule.shrink(|_| false), schedule);
        assert_eq!(schedule.shrink(|_| true), Schedule::new());
    }
}
