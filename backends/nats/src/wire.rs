//! Messages of the contract, and those of the client library.

use async_nats::message::OutboundMessage;
use async_nats::{HeaderMap, StatusCode};
use slipring_core::{Headers, Message, Result, Subject};

/// A message as it is sent, with this reply subject.
pub(crate) fn outbound(message: Message, reply: Option<async_nats::Subject>) -> OutboundMessage {
    let headers = (!message.headers.is_empty()).then(|| {
        let mut map = HeaderMap::new();
        // Names and values were checked, by stricter rules, when they were added.
        message.headers.iter().for_each(|(name, value)| map.append(name, value));
        map
    });
    OutboundMessage { subject: message.subject.as_str().into(), reply, payload: message.payload, headers }
}

/// A message as it came.
///
/// # Errors
/// `Invalid` if another program sent something that the contract has no words for, such as a subject of more
/// than 255 bytes.
pub(crate) fn inbound(message: async_nats::Message) -> Result<Message> {
    let no_responders = says_no_responders(&message);
    let mut headers = Headers::new();
    if let Some(map) = &message.headers {
        headers = Headers::with_capacity(map.len());
        for (name, values) in map.iter() {
            for value in values {
                headers.append(AsRef::<str>::as_ref(name).to_owned(), value.as_str())?;
            }
        }
    }
    Ok(Message {
        subject: Subject::new(message.subject.as_str())?,
        reply: message.reply.map(|reply| Subject::new(reply.as_str())).transpose()?,
        headers,
        payload: message.payload,
        no_responders,
    })
}

/// Is this the server's answer to a message that nobody was subscribed to?
pub(crate) fn says_no_responders(message: &async_nats::Message) -> bool {
    message.status == Some(StatusCode::NO_RESPONDERS) && message.payload.is_empty()
}
