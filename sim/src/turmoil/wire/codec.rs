//! How values stand on the wire: numbers big-endian, lists with their length, choices with a tag.

use std::time::Duration;

use bytes::{Buf, Bytes};
use slipring_core::{
    Base, Batch, Change, Commit, Effect, Entry, Error, Guard, Headers, Key, Lease, LeaseId, Message, Op,
    Pattern, Prefix, QueueGroup, Range, Revision, Snapshot, Start, Subject, Subscription, Txn,
};

use super::{Down, Item, Malformed, Reply, Request, Up, Wire};

type Read<T> = Result<T, Malformed>;

/// A struct: its fields, one after the other.
macro_rules! record {
    ($type:ident { $($field:tt),* }) => {
        impl Wire for $type {
            fn write(&self, out: &mut Vec<u8>) {
                $(self.$field.write(out);)*
            }

            fn read(from: &mut Bytes) -> Read<Self> {
                Ok(Self { $($field: Wire::read(from)?),* })
            }
        }
    };
}

/// An enum: a tag, and the fields of the variant. What has no tag is written as something that has one.
macro_rules! choice {
    ($type:ident { $($tag:literal => $variant:ident { $($field:tt: $name:ident),* }),* $(, $other:ident => $as:expr)? }) => {
        impl Wire for $type {
            fn write(&self, out: &mut Vec<u8>) {
                match self {
                    $(Self::$variant { $($field: $name),* } => {
                        out.push($tag);
                        $($name.write(out);)*
                    })*
                    $($other => Wire::write(&$as, out),)?
                }
            }

            fn read(from: &mut Bytes) -> Read<Self> {
                match u8::read(from)? {
                    $($tag => Ok(Self::$variant { $($field: Wire::read(from)?),* }),)*
                    _ => Err(Malformed { what: stringify!($type) }),
                }
            }
        }
    };
}

/// A name that is text, checked by its constructor.
macro_rules! name {
    ($($type:ident),*) => {$(
        impl Wire for $type {
            fn write(&self, out: &mut Vec<u8>) {
                write_bytes(self.as_str().as_bytes(), out);
            }

            fn read(from: &mut Bytes) -> Read<Self> {
                Self::new(String::read(from)?).map_err(|_| Malformed { what: stringify!($type) })
            }
        }
    )*};
}

choice!(Up {
    0 => Beat {},
    1 => Call { id: id, request: request },
    2 => Publish { message: message },
    3 => Stop { id: id },
    4 => Forget { id: id }
});
choice!(Request {
    0 => Read { range: range },
    1 => Commit { number: number, txn: txn },
    2 => Watch { range: range, start: start },
    3 => Grant { ttl: ttl },
    4 => KeepAlive { lease: lease },
    5 => Revoke { lease: lease },
    6 => Subscribe { subscription: subscription },
    7 => Ask { message: message, timeout: timeout },
    8 => Flush {},
    9 => Close {}
});
choice!(Down {
    0 => Beat { heard: heard },
    1 => Answer { id: id, answer: answer },
    2 => Item { id: id, item: item },
    3 => End { id: id }
});
choice!(Reply {
    0 => Done {},
    1 => Snapshot { snapshot: snapshot },
    2 => Commit { commit: commit },
    3 => Base { base: base },
    4 => Lease { lease: lease },
    5 => Ttl { ttl: ttl },
    6 => Message { message: message }
});
choice!(Item { 0 => Batch { batch: batch }, 1 => Message { message: message } });

name!(Key, Prefix, Subject, Pattern, QueueGroup);
record!(Revision { 0 });
record!(LeaseId { 0 });
record!(Lease { id, ttl });
record!(Entry { key, value, modified, lease });
record!(Snapshot { revision, entries });
record!(Batch { revision, changes });
record!(Txn { guards, ops });
record!(Message { subject, reply, headers, payload, no_responders });
choice!(Range { 0 => All {}, 1 => Key { 0: key }, 2 => Prefix { 0: prefix } });
choice!(Start { 0 => Snapshot {}, 1 => After { 0: revision } });
choice!(Base { 0 => Snapshot { 0: snapshot }, 1 => Resumed { 0: revision } });
choice!(Change { 0 => Put { 0: entry }, 1 => Delete { 0: key } });
choice!(Guard { 0 => Absent { 0: key }, 1 => Unchanged { 0: key, 1: revision } });
choice!(Op { 0 => Put { key: key, value: value, lease: lease }, 1 => Delete { key: key } });
choice!(Commit { 0 => Applied { 0: revision }, 1 => Refused {} });
choice!(Effect { 0 => None {}, 1 => Unknown {}, 2 => Applied {} });
choice!(Error {
    0 => Invalid { what: what, input: input, position: position, problem: problem, effect: effect },
    1 => NoResponders { subject: subject, effect: effect },
    2 => DeadlineExceeded { what: what, after: after, effect: effect },
    3 => PayloadTooLarge { limit: limit, actual: actual, effect: effect },
    4 => LeaseLost { lease: lease, effect: effect },
    5 => Compacted { oldest: oldest, effect: effect },
    6 => Lagged { missed: missed, effect: effect },
    7 => Unavailable { what: what, cause: cause, effect: effect },
    8 => Unsupported { what: what, hint: hint, effect: effect },
    // What no store and no bus says.
    other => Error::unavailable("the broker", other.to_string(), other.effect())
});

impl Wire for Subscription {
    fn write(&self, out: &mut Vec<u8>) {
        self.pattern.write(out);
        self.queue.write(out);
        self.messages_max.write(out);
    }

    fn read(from: &mut Bytes) -> Read<Self> {
        let subscription = Self::new(Pattern::read(from)?);
        let queue: Option<QueueGroup> = Wire::read(from)?;
        let subscription = match queue {
            Some(queue) => subscription.with_queue(queue),
            None => subscription,
        };
        Ok(subscription.with_messages_max(Wire::read(from)?))
    }
}

impl Wire for Headers {
    fn write(&self, out: &mut Vec<u8>) {
        let headers: Vec<_> = self.iter().collect();
        write_length(headers.len(), out);
        for (name, value) in headers {
            write_bytes(name.as_bytes(), out);
            write_bytes(value.as_bytes(), out);
        }
    }

    fn read(from: &mut Bytes) -> Read<Self> {
        let mut headers = Self::new();
        for _ in 0..read_length(from)? {
            let (name, value) = (String::read(from)?, String::read(from)?);
            headers.append(name, value).map_err(|_| Malformed { what: "header" })?;
        }
        Ok(headers)
    }
}

impl<T: Wire> Wire for slipring_core::Result<T> {
    fn write(&self, out: &mut Vec<u8>) {
        out.push(self.is_ok().into());
        match self {
            Ok(value) => value.write(out),
            Err(error) => error.write(out),
        }
    }

    fn read(from: &mut Bytes) -> Read<Self> {
        Ok(if bool::read(from)? { Ok(T::read(from)?) } else { Err(Error::read(from)?) })
    }
}

impl<T: Wire> Wire for Option<T> {
    fn write(&self, out: &mut Vec<u8>) {
        out.push(self.is_some().into());
        if let Some(value) = self {
            value.write(out);
        }
    }

    fn read(from: &mut Bytes) -> Read<Self> {
        bool::read(from)?.then(|| T::read(from)).transpose()
    }
}

impl<T: Wire> Wire for Vec<T> {
    fn write(&self, out: &mut Vec<u8>) {
        write_length(self.len(), out);
        self.iter().for_each(|item| item.write(out));
    }

    /// Room is made as items are read: a length alone costs nothing.
    fn read(from: &mut Bytes) -> Read<Self> {
        (0..read_length(from)?).map(|_| T::read(from)).collect()
    }
}

impl Wire for Bytes {
    fn write(&self, out: &mut Vec<u8>) {
        write_bytes(self, out);
    }

    fn read(from: &mut Bytes) -> Read<Self> {
        let length = read_length(from)?;
        if length > from.remaining() {
            return Err(Malformed { what: "bytes" });
        }
        Ok(from.split_to(length))
    }
}

impl Wire for String {
    fn write(&self, out: &mut Vec<u8>) {
        write_bytes(self.as_bytes(), out);
    }

    fn read(from: &mut Bytes) -> Read<Self> {
        String::from_utf8(Bytes::read(from)?.into()).map_err(|_| Malformed { what: "text" })
    }
}

/// What the store and the bus call their arguments.
const ARGUMENTS: [&str; 6] =
    ["transaction", "time to live", "subject", "reply subject", "pattern", "argument"];

impl Wire for &'static str {
    fn write(&self, out: &mut Vec<u8>) {
        write_bytes(self.as_bytes(), out);
    }

    fn read(from: &mut Bytes) -> Read<Self> {
        let text = String::read(from)?;
        Ok(ARGUMENTS.into_iter().find(|name| *name == text).unwrap_or("argument"))
    }
}

impl Wire for u8 {
    fn write(&self, out: &mut Vec<u8>) {
        out.push(*self);
    }

    fn read(from: &mut Bytes) -> Read<Self> {
        from.try_get_u8().map_err(|_| Malformed { what: "tag" })
    }
}

impl Wire for bool {
    fn write(&self, out: &mut Vec<u8>) {
        out.push((*self).into());
    }

    fn read(from: &mut Bytes) -> Read<Self> {
        match u8::read(from)? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Malformed { what: "yes or no" }),
        }
    }
}

impl Wire for u64 {
    fn write(&self, out: &mut Vec<u8>) {
        out.extend(self.to_be_bytes());
    }

    fn read(from: &mut Bytes) -> Read<Self> {
        from.try_get_u64().map_err(|_| Malformed { what: "number" })
    }
}

impl Wire for usize {
    fn write(&self, out: &mut Vec<u8>) {
        (*self as u64).write(out);
    }

    fn read(from: &mut Bytes) -> Read<Self> {
        u64::read(from)?.try_into().map_err(|_| Malformed { what: "number" })
    }
}

/// In seconds and nanoseconds: any duration.
impl Wire for Duration {
    fn write(&self, out: &mut Vec<u8>) {
        self.as_secs().write(out);
        u64::from(self.subsec_nanos()).write(out);
    }

    fn read(from: &mut Bytes) -> Read<Self> {
        let (seconds, nanos) = (u64::read(from)?, u64::read(from)?);
        let nanos = u32::try_from(nanos).ok().filter(|nanos| *nanos < 1_000_000_000);
        Ok(Self::new(seconds, nanos.ok_or(Malformed { what: "time" })?))
    }
}

fn write_length(length: usize, out: &mut Vec<u8>) {
    length.write(out);
}

fn read_length(from: &mut Bytes) -> Read<usize> {
    usize::read(from)
}

fn write_bytes(bytes: &[u8], out: &mut Vec<u8>) {
    write_length(bytes.len(), out);
    out.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is written; and the same value, read again.
    fn there_and_back<T: Wire>(value: &T) -> (Vec<u8>, Read<T>) {
        let mut out = Vec::new();
        value.write(&mut out);
        let mut bytes = Bytes::from(out.clone());
        let read = T::read(&mut bytes);
        assert!(bytes.is_empty(), "{} bytes are left", bytes.len());
        (out, read)
    }

    fn key(text: &str) -> Key {
        Key::new(text).unwrap()
    }

    fn ups() -> Vec<Up> {
        let mut headers = Headers::new();
        headers.append("a", "1").unwrap();
        headers.append("a", "").unwrap();
        let (lease, ttl) = (LeaseId(u64::MAX), Duration::MAX);
        let message = Message::new(Subject::new("a.b").unwrap(), vec![0, 255]).with_headers(headers);
        let message = message.with_reply(Subject::new("c").unwrap());
        let subscription = Subscription::new(Pattern::new("a.>").unwrap()).with_messages_max(3);
        let grouped = subscription.clone().with_queue(QueueGroup::new("q").unwrap());
        let txn = Txn::new().absent(key("a")).unchanged(key("b"), Revision(7));
        let txn = txn.put(key("c"), "v", Some(lease)).put(key("d"), "", None).delete(key("e"));
        let requests = [
            Request::Read { range: Range::All },
            Request::Commit { number: 3, txn },
            Request::Watch { range: key("a").into(), start: Start::Snapshot },
            Request::Watch { range: Prefix::new("a/").unwrap().into(), start: Start::After(Revision(1)) },
            Request::Grant { ttl },
            Request::KeepAlive { lease },
            Request::Revoke { lease },
            Request::Subscribe { subscription },
            Request::Subscribe { subscription: grouped },
            Request::Ask { message: message.clone(), timeout: Duration::from_nanos(1) },
            Request::Flush,
            Request::Close,
        ];
        let calls = requests.into_iter().zip(1..).map(|(request, id)| Up::Call { id, request });
        let others = [Up::Beat, Up::Publish { message }, Up::Stop { id: 1 }, Up::Forget { id: u64::MAX }];
        calls.chain(others).collect()
    }

    fn downs() -> Vec<Down> {
        let entry =
            Entry { key: key("é"), value: "v".into(), modified: Revision(2), lease: Some(LeaseId(1)) };
        let snapshot = Snapshot { revision: Revision(3), entries: vec![entry.clone(), entry.clone()] };
        let changes = vec![Change::Put(entry), Change::Delete(key("gone"))];
        let message = Message::new(Subject::new("a").unwrap(), "");
        let errors = [
            Error::invalid("transaction", "k", "twice"),
            slipring_core::reject_at("pattern", "a..b", 2, "empty"),
            Error::no_responders("s"),
            Error::deadline_exceeded("x", Duration::from_secs(1), Effect::Applied),
            Error::payload_too_large(1, 2),
            Error::lease_lost(LeaseId(3)),
            Error::compacted(Revision(4)),
            Error::lagged(5),
            Error::unavailable("x", "y", Effect::Unknown),
            Error::unsupported("x", "y"),
        ];
        let replies = [
            Ok(Reply::Done),
            Ok(Reply::Snapshot { snapshot: snapshot.clone() }),
            Ok(Reply::Commit { commit: Commit::Applied(Revision(1)) }),
            Ok(Reply::Commit { commit: Commit::Refused }),
            Ok(Reply::Base { base: Base::Snapshot(snapshot) }),
            Ok(Reply::Base { base: Base::Resumed(Revision(9)) }),
            Ok(Reply::Lease { lease: Lease { id: LeaseId(1), ttl: Duration::from_millis(1) } }),
            Ok(Reply::Ttl { ttl: Duration::ZERO }),
            Ok(Reply::Message { message: message.clone() }),
        ];
        let answers = replies.into_iter().chain(errors.map(Err)).zip(1..);
        let answers = answers.map(|(answer, id)| Down::Answer { id, answer });
        let batch = Batch { revision: Revision(5), changes };
        let items = [Ok(Item::Batch { batch }), Ok(Item::Message { message }), Err(Error::lagged(0))];
        let items = items.map(|item| Down::Item { id: 7, item });
        answers.chain(items).chain([Down::Beat { heard: 3 }, Down::End { id: 1 }]).collect()
    }

    /// Every kind of frame is read as it was written.
    #[test]
    fn frames_are_read_as_they_were_written() {
        ups().into_iter().for_each(|up| assert_eq!(there_and_back(&up).1, Ok(up)));
        downs().into_iter().for_each(|down| assert_eq!(there_and_back(&down).1, Ok(down)));
    }

    /// An error that no store knows keeps its effect and its words.
    #[test]
    fn other_errors_keep_their_effect() {
        let read = there_and_back(&Error::fault("f", "broken")).1.unwrap();
        assert_eq!(read.effect(), Effect::Applied);
        assert!(read.to_string().contains("broken"), "{read}");
    }

    /// No beginning of a frame, and no frame with one byte changed, is read as something that was not written
    /// there, panics, or makes room for what is not there.
    #[test]
    fn broken_frames_are_refused_or_read_as_others() {
        for up in ups() {
            let (bytes, _) = there_and_back(&up);
            for end in 0..bytes.len() {
                assert!(Up::read(&mut Bytes::copy_from_slice(&bytes[..end])).is_err(), "{up:?} up to {end}");
            }
            for at in 0..bytes.len() {
                let mut changed = bytes.clone();
                changed[at] ^= 0xff;
                assert_ne!(Up::read(&mut Bytes::from(changed)), Ok(up.clone()), "byte {at}");
            }
        }
    }
}
