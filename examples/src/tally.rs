//! What became of many calls, and how that is told.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

/// What became of one call.
#[derive(Debug)]
pub enum Outcome {
    /// It was answered, so long after its start.
    Ok(Duration),
    /// It ended in the error of this code.
    Failed(&'static str),
    /// It did not end.
    Hung,
}

/// What became of the calls so far.
#[derive(Debug, Default)]
pub struct Tally {
    latencies_us: Vec<u64>,
    failed: BTreeMap<&'static str, u64>,
    hung: u64,
}

impl Tally {
    /// With one more call.
    #[must_use]
    pub fn with(mut self, outcome: Outcome) -> Self {
        match outcome {
            Outcome::Ok(took) => self.latencies_us.push(u64::try_from(took.as_micros()).unwrap_or(u64::MAX)),
            Outcome::Failed(code) => *self.failed.entry(code).or_default() += 1,
            Outcome::Hung => self.hung += 1,
        }
        self
    }

    /// All calls as one line of JSON. Latencies are those of the calls that were answered, in microseconds; 0 if
    /// there are none.
    pub fn report(mut self) -> String {
        /// Its fields are written in this order.
        #[derive(Serialize)]
        struct Report {
            requests: u64,
            ok: u64,
            failed: BTreeMap<&'static str, u64>,
            hung: u64,
            p50_us: u64,
            p99_us: u64,
        }
        self.latencies_us.sort_unstable();
        let ok = self.latencies_us.len();
        // The smallest latency that so many per cent of the calls did not exceed.
        let percentile = |percent: usize| {
            let rank = (ok * percent).div_ceil(100);
            self.latencies_us.get(rank.saturating_sub(1)).copied().unwrap_or(0)
        };
        let report = Report {
            requests: ok as u64 + self.failed.values().sum::<u64>() + self.hung,
            ok: ok as u64,
            p50_us: percentile(50),
            p99_us: percentile(99),
            failed: self.failed,
            hung: self.hung,
        };
        serde_json::to_string(&report).expect("numbers and texts are always JSON")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every call is counted once, failures by their code; latencies are those that so many per cent of the
    /// calls did not exceed.
    #[test]
    fn outcomes_are_counted() {
        let failed =
            [Outcome::Failed("unavailable"), Outcome::Failed("draining"), Outcome::Failed("unavailable")];
        let answered = (1..=200).rev().map(|us| Outcome::Ok(Duration::from_micros(us)));
        let tally =
            failed.into_iter().chain(answered).chain([Outcome::Hung]).fold(Tally::default(), Tally::with);
        let expected = r#"{"requests":204,"ok":200,"failed":{"draining":1,"unavailable":2},"hung":1,"p50_us":100,"p99_us":198}"#;
        assert_eq!(tally.report(), expected);
        let nothing = r#"{"requests":0,"ok":0,"failed":{},"hung":0,"p50_us":0,"p99_us":0}"#;
        assert_eq!(Tally::default().report(), nothing);
    }
}
