//! The JSON of the NATS micro protocol.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::json;

use super::{EndpointSpec, EndpointStats, ServiceName, ServiceSpec, StatsHandler};
use crate::environment::panic_message;
use crate::{Result, Subject};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verb {
    Ping,
    Info,
    Stats,
}

impl Verb {
    pub(super) const ALL: [Self; 3] = [Self::Ping, Self::Info, Self::Stats];

    fn name(self) -> &'static str {
        match self {
            Self::Ping => "PING",
            Self::Info => "INFO",
            Self::Stats => "STATS",
        }
    }

    /// Where services of this name (or all) are asked.
    pub(super) fn subject(self, name: Option<&ServiceName>) -> Result<Subject> {
        match name {
            None => Subject::new(format!("$SRV.{}", self.name())),
            Some(name) => Subject::new(format!("$SRV.{}.{name}", self.name())),
        }
    }

    /// The three subjects at which a service is asked.
    pub(super) fn subjects(self, spec: &ServiceSpec) -> Result<[Subject; 3]> {
        let own = Subject::new(format!("$SRV.{}.{}.{}", self.name(), spec.name, spec.id))?;
        Ok([self.subject(None)?, self.subject(Some(&spec.name))?, own])
    }
}

/// What a service instance did, as `$SRV.STATS` answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ServiceReport {
    /// `io.nats.micro.v1.stats_response`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The service's name.
    pub name: String,
    /// The instance.
    pub id: String,
    /// Its version.
    pub version: String,
    /// When it started, as RFC 3339 in UTC.
    pub started: String,
    /// Free text by name.
    #[serde(default, deserialize_with = "null_as_default")]
    pub metadata: BTreeMap<String, String>,
    /// For people; not part of the protocol's statistics.
    #[serde(skip)]
    pub description: String,
    /// Its endpoints, by name.
    #[serde(default, deserialize_with = "null_as_default")]
    pub endpoints: Vec<EndpointReport>,
}

impl ServiceReport {
    pub(super) fn of(spec: &ServiceSpec, started: &str, endpoints: Vec<EndpointReport>) -> Self {
        Self {
            kind: "io.nats.micro.v1.stats_response".to_owned(),
            name: spec.name.to_string(),
            id: spec.id.clone(),
            version: spec.version.clone(),
            started: started.to_owned(),
            metadata: spec.metadata.clone(),
            description: spec.description.clone(),
            endpoints,
        }
    }
}

/// What one endpoint did.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct EndpointReport {
    /// Its name.
    pub name: String,
    /// Its subject.
    pub subject: String,
    /// Its queue group; empty if it has none.
    #[serde(default)]
    pub queue_group: String,
    /// Free text by name; part of the protocol's information, not of its statistics.
    #[serde(skip)]
    pub metadata: BTreeMap<String, String>,
    /// Requests that ended.
    pub num_requests: u64,
    /// Requests that ended in an error.
    pub num_errors: u64,
    /// The text of the last error.
    #[serde(default)]
    pub last_error: String,
    /// Time spent, in nanoseconds.
    pub processing_time: u64,
    /// Time spent on one request on average, in nanoseconds.
    pub average_processing_time: u64,
    /// The endpoint's own statistics.
    #[serde(default, skip_serializing_if = "serde_json::Value::is_null")]
    pub data: serde_json::Value,
}

impl EndpointReport {
    pub(super) fn of(spec: &EndpointSpec, stats: &EndpointStats) -> Self {
        let (requests, time) = (stats.requests(), stats.processing());
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        Self {
            name: spec.name.clone(),
            subject: spec.subject.to_string(),
            queue_group: spec.queue.as_ref().map(ToString::to_string).unwrap_or_default(),
            metadata: spec.metadata.clone(),
            num_requests: requests,
            num_errors: stats.errors(),
            last_error: stats.last_error(),
            processing_time: nanos,
            average_processing_time: nanos.checked_div(requests).unwrap_or(0),
            data: spec.stats.as_ref().map(|stats| data(&spec.name, stats)).unwrap_or_default(),
        }
    }
}

/// What the user's handler says; one that panics must not silence the whole service.
fn data(endpoint: &str, stats: &StatsHandler) -> serde_json::Value {
    catch_unwind(AssertUnwindSafe(|| stats())).unwrap_or_else(|panic| {
        tracing::error!(endpoint, panic = panic_message(&*panic), "a statistics handler panicked");
        serde_json::Value::Null
    })
}

/// Services in other languages write an absent map or list as `null`.
fn null_as_default<'de, D, T>(deserializer: D) -> std::result::Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// What a service answers to a question.
pub(super) fn answer(verb: Verb, report: &ServiceReport) -> Bytes {
    let identity = |kind: &str| {
        json!({
            "type": kind, "name": report.name, "id": report.id, "version": report.version,
            "metadata": report.metadata,
        })
    };
    let answer = match verb {
        Verb::Ping => identity("io.nats.micro.v1.ping_response"),
        Verb::Info => {
            let mut info = identity("io.nats.micro.v1.info_response");
            info["description"] = json!(report.description);
            let described = |endpoint: &EndpointReport| {
                json!({
                    "name": endpoint.name, "subject": endpoint.subject,
                    "queue_group": endpoint.queue_group, "metadata": endpoint.metadata,
                })
            };
            info["endpoints"] = report.endpoints.iter().map(described).collect();
            info
        }
        Verb::Stats => json!(report),
    };
    Bytes::from(answer.to_string())
}

/// UTC with milliseconds, as `2026-01-31T08:05:09.250Z`.
pub(super) fn rfc3339(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (days, second) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    let (year, month, day) = civil(days);
    let (h, m, s) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{h:02}:{m:02}:{s:02}.{:03}Z", since.subsec_millis())
}

/// The Gregorian date a number of days after 1970-01-01, by counting eras of 400 years that begin in March,
/// so that a leap day is the last of its year.
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// The report of a service written in another language is read, with `null` for what it does not have.
    #[test]
    fn null_is_read_as_nothing() {
        let report: ServiceReport = serde_json::from_str(
            r#"{"type": "io.nats.micro.v1.stats_response", "name": "n", "id": "i", "version": "1.0.0",
                "started": "", "metadata": null, "endpoints": null, "unknown": 1}"#,
        )
        .unwrap();
        assert_eq!((report.metadata.len(), report.endpoints.len()), (0, 0));
    }

    /// Dates around leap days come out right.
    #[test]
    fn times_are_written_as_rfc3339() {
        for (second, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_400, "2000-02-29T00:00:00.000Z"),
            (1_709_251_199, "2024-02-29T23:59:59.000Z"),
            (1_795_360_000, "2026-11-22T15:06:40.000Z"),
        ] {
            assert_eq!(rfc3339(UNIX_EPOCH + Duration::from_secs(second)), text);
        }
    }
}
