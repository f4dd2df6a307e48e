//! What is said to a server, byte by byte, and what it answers.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// How long an answer may take.
const ANSWER_MAX: Duration = Duration::from_secs(20);

/// What up to two clients say in turn.
#[derive(Debug, Clone)]
pub(crate) struct Exchange {
    steps: Vec<Step>,
}

#[derive(Debug, Clone)]
struct Step {
    client: usize,
    says: Vec<u8>,
    /// Is it to be waited for what everybody is answered? It is not in the midst of a line or a message.
    settles: bool,
}

impl Exchange {
    pub(crate) fn new() -> Self {
        Self { steps: Vec::new() }
    }

    /// One of the clients says this, with whole line ends.
    pub(crate) fn says(self, client: usize, text: &str) -> Self {
        self.sends(client, text.replace('\n', "\r\n"))
    }

    /// One of the clients sends exactly this.
    pub(crate) fn sends(self, client: usize, bytes: impl Into<Vec<u8>>) -> Self {
        self.step(client, bytes.into(), true)
    }

    /// One of the clients begins to send something, which the next step goes on with.
    pub(crate) fn begins(self, client: usize, bytes: impl Into<Vec<u8>>) -> Self {
        self.step(client, bytes.into(), false)
    }

    fn step(mut self, client: usize, says: Vec<u8>, settles: bool) -> Self {
        self.steps.push(Step { client, says, settles });
        self
    }

    /// What was said, in short.
    pub(crate) fn name(&self) -> String {
        let said = self.steps.iter().map(|step| format!("{}: {}", step.client, shown(&step.says)));
        said.collect::<Vec<_>>().join(" / ")
    }

    /// What a server answers, a line for each client and step.
    pub(crate) async fn with(&self, endpoint: &str) -> Vec<String> {
        let mut clients: Vec<Client> = Vec::new();
        let mut answers = Vec::new();
        for (number, step) in self.steps.iter().enumerate() {
            while clients.len() <= step.client {
                clients.push(Client::connect(endpoint).await);
            }
            clients[step.client].send(&step.says, step.settles).await;
            if !step.settles {
                continue;
            }
            // The speaker first: what it said has come to the others' ears by the time that it is answered.
            let (speaker, mut answered) = (step.client, vec![String::new(); clients.len()]);
            answered[speaker] = shown(&clients[speaker].answered().await);
            for other in (0..clients.len()).filter(|other| *other != speaker) {
                clients[other].send(b"", true).await;
                answered[other] = shown(&clients[other].answered().await);
            }
            let lines = answered.iter().enumerate();
            answers.extend(lines.map(|(client, answer)| format!("{number} {client}: {answer}")));
        }
        answers
    }
}

/// One raw client.
struct Client {
    stream: TcpStream,
    said: Vec<u8>,
    questions: usize,
    is_over: bool,
}

impl Client {
    const QUESTION: &[u8] = b"PING\r\n";
    const ANSWER: &[u8] = b"PONG\r\n";

    /// A client that was greeted.
    async fn connect(endpoint: &str) -> Self {
        let stream = TcpStream::connect(endpoint).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let mut client = Self { stream, said: Vec::new(), questions: 0, is_over: false };
        while !client.said.ends_with(b"\r\n") {
            client.read().await;
        }
        client.said.clear();
        client
    }

    /// Sends this, and after it, if it is to be answered, a question that everybody answers: twice, since to the
    /// first a server may add something; and in one piece, since it may close the connection after this.
    async fn send(&mut self, bytes: &[u8], is_answered: bool) {
        let questions = Self::QUESTION.repeat(if is_answered { 2 } else { 0 });
        let bytes = [bytes, &questions].concat();
        self.questions += count(&bytes, Self::QUESTION);
        // One that is closed is read to its end.
        let _ = self.stream.write_all(&bytes).await;
    }

    /// All that came until the last question was answered, or the connection closed.
    async fn answered(&mut self) -> Vec<u8> {
        while !self.is_over && count(&self.said, Self::ANSWER) < self.questions {
            self.read().await;
        }
        self.questions = 0;
        std::mem::take(&mut self.said)
    }

    async fn read(&mut self) {
        let read = timeout(ANSWER_MAX, self.stream.read_buf(&mut self.said)).await;
        match read.unwrap_or_else(|_| panic!("no answer after {}", shown(&self.said))) {
            Ok(1..) => {}
            _ => {
                self.is_over = true;
                self.said.extend(b"<closed>");
            }
        }
    }
}

fn count(text: &[u8], wanted: &[u8]) -> usize {
    text.windows(wanted.len()).filter(|window| *window == wanted).count()
}

/// As a text, without what names the server and the connection; long stretches of one byte are counted.
pub(crate) fn shown(bytes: &[u8]) -> String {
    let mut text = String::new();
    for stretch in bytes.chunk_by(|one, other| one == other) {
        let byte = stretch[0].escape_ascii().to_string();
        match stretch.len() {
            0..20 => text.extend(std::iter::repeat_n(byte, stretch.len())),
            many => text.push_str(&format!("{byte}*{many}")),
        }
    }
    for field in ["server_id", "server_name", "port", "client_id", "xkey"] {
        text = masked(&text, field);
    }
    text
}

fn masked(text: &str, field: &str) -> String {
    let name = format!("\\\"{field}\\\":");
    let mut parts = text.split(&name);
    let mut masked = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let end = part.find([',', '}']).unwrap_or(part.len());
        masked = format!("{masked}{name}..{}", &part[end..]);
    }
    masked
}
