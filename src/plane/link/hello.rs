//! The handshake: who is there, what each end allows, and whether both know the secret.
//!
//! The dialler says hello, the other end answers with its own or a refusal, the dialler proves that it knows the
//! secret, and the other end does the same or refuses. Whoever listens proves last, so that nobody who merely
//! dials gets anything to guess the secret from. A proof covers both hellos, and with them both nonces: what was
//! recorded proves nothing later.

use std::io;

use hmac::{Hmac, Mac};
use sha2::Sha256;
use slipring_core::{ByteStream, Effect, Error, Result, Secret};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{LinkLimits, Local, Peer};
use crate::plane::tls::{TlsFault, fault_of};

/// What every connection begins with.
pub(super) const MAGIC: [u8; 8] = *b"slipring";
/// The newest version of the protocol that this end speaks.
const VERSION: u16 = 1;
/// The oldest.
const VERSION_MIN: u16 = 1;
/// Both ends know a secret, and prove it.
const SECRET: u16 = 1;
/// What a record of TLS begins with, if it is one of a handshake or an alert.
const TLS_BEGINS: [u8; 2] = [0x16, 0x15];
pub(super) const HELLO_BYTES: usize = 88;
const PROOF_BYTES: usize = 32;
const VERDICT_BYTES: usize = 2 + PROOF_BYTES;

/// What the peer allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Allowance {
    pub(super) window_bytes: u32,
    pub(super) streams: u32,
    pub(super) message_bytes: u32,
    pub(super) assembling_bytes: u64,
}

/// Why there is no link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// What came is no hello.
    NotSlipring,
    /// A hello with parts that this version does not know.
    Malformed,
    /// No version that both ends speak.
    Version,
    /// The address leads to another instance than the dialler wanted.
    Instance,
    /// The instance is there in an earlier epoch than the dialler knows of.
    Epoch,
    /// The secret is wrong, or known at one end alone.
    Secret,
    /// The connection ended or broke.
    Cut,
    /// It took too long.
    Slow,
    /// The peer speaks TLS, and this end was not told to.
    TlsWanted,
    /// The peer offers no TLS, and this end speaks nothing else.
    TlsMissing,
    /// There is no TLS with the peer.
    Tls(TlsFault),
}

/// A hello, from either end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Hello {
    version: u16,
    version_min: u16,
    flags: u16,
    /// From the end that was dialled: 0, or the code of a refusal.
    verdict: u16,
    peer: Peer,
    expected: Peer,
    nonce: [u8; 16],
    allowance: Allowance,
}

/// Runs the handshake as the dialler.
pub(super) async fn dial(
    local: &Local,
    stream: &mut Box<dyn ByteStream>,
    expected: Peer,
) -> Result<(Peer, Allowance)> {
    let shaken = tokio::time::timeout(local.limits.handshake_timeout, shake_out(local, stream, expected));
    let refusal = match shaken.await {
        Ok(Ok(established)) => return Ok(established),
        Ok(Err(refusal)) => refusal,
        Err(_) => Refusal::Slow,
    };
    Err(local.refuse(refusal, &format!("instance {:x}", expected.instance)))
}

/// Runs the handshake as the one who was dialled.
pub(super) async fn accept(local: &Local, stream: &mut Box<dyn ByteStream>) -> Result<(Peer, Allowance)> {
    let shaken = tokio::time::timeout(local.limits.handshake_timeout, shake_in(local, stream));
    let refusal = match shaken.await {
        Ok(Ok(established)) => return Ok(established),
        Ok(Err(refusal)) => refusal,
        Err(_) => Refusal::Slow,
    };
    Err(local.refuse(refusal, "a dialler"))
}

async fn shake_out(
    local: &Local,
    stream: &mut Box<dyn ByteStream>,
    expected: Peer,
) -> Result<(Peer, Allowance), Refusal> {
    let ours = Hello::new(local, expected, 0).bytes();
    send(stream, &ours).await?;
    let theirs = read_hello(stream).await?;
    let hello = Hello::read(&theirs)?;
    if let Some(refusal) = Refusal::of(hello.verdict)? {
        return Err(refusal);
    }
    if !(VERSION_MIN..=VERSION).contains(&hello.version) {
        return Err(Refusal::Version);
    }
    check_peer(hello.peer, expected)?;
    if (hello.flags & SECRET != 0) != local.secret.is_some() {
        return Err(Refusal::Secret);
    }
    send(stream, &prove(local, Role::Dialler, &ours, &theirs)).await?;
    let mut verdict = [0; VERDICT_BYTES];
    receive(stream, &mut verdict).await?;
    let (code, proof) = verdict.split_at(2);
    if let Some(refusal) = Refusal::of(u16::from_le_bytes([code[0], code[1]]))? {
        return Err(refusal);
    }
    check_proof(local, Role::Dialled, &ours, &theirs, proof)?;
    Ok((hello.peer, hello.allowance))
}

async fn shake_in(local: &Local, stream: &mut Box<dyn ByteStream>) -> Result<(Peer, Allowance), Refusal> {
    let theirs = read_hello(stream).await?;
    let judged = Hello::read(&theirs).and_then(|hello| judge(local, &hello).map(|()| hello));
    let verdict = judged.as_ref().err().map_or(0, |refusal| refusal.wire());
    let ours = Hello::new(local, judged.map_or(Peer { instance: 0, epoch: 0 }, |hello| hello.peer), verdict);
    let ours = ours.bytes();
    send(stream, &ours).await?;
    let hello = judged?;
    let mut proof = [0; PROOF_BYTES];
    receive(stream, &mut proof).await?;
    let proved = check_proof(local, Role::Dialler, &theirs, &ours, &proof);
    let mut verdict = [0; VERDICT_BYTES];
    match proved {
        Ok(()) => verdict[2..].copy_from_slice(&prove(local, Role::Dialled, &theirs, &ours)),
        Err(refusal) => verdict[..2].copy_from_slice(&refusal.wire().to_le_bytes()),
    }
    send(stream, &verdict).await?;
    proved.map(|()| (hello.peer, hello.allowance))
}

/// Is this the dialler that we want, and are we whom it wants?
fn judge(local: &Local, hello: &Hello) -> Result<(), Refusal> {
    if hello.verdict != 0 {
        return Err(Refusal::Malformed);
    }
    if hello.version < VERSION_MIN || hello.version_min > VERSION {
        return Err(Refusal::Version);
    }
    check_peer(local.peer(), hello.expected)?;
    if (hello.flags & SECRET != 0) != local.secret.is_some() {
        return Err(Refusal::Secret);
    }
    Ok(())
}

fn check_peer(peer: Peer, expected: Peer) -> Result<(), Refusal> {
    if peer.instance != expected.instance {
        return Err(Refusal::Instance);
    }
    if peer.epoch < expected.epoch {
        return Err(Refusal::Epoch);
    }
    Ok(())
}

/// Which end proves.
#[derive(Clone, Copy)]
enum Role {
    Dialler,
    Dialled,
}

/// The code that shows that this end knows the secret; `None` where there is none.
fn code(secret: &Option<Secret>, role: Role, dialler: &[u8], dialled: &[u8]) -> Option<Hmac<Sha256>> {
    let secret = secret.as_ref()?;
    let mut code =
        Hmac::<Sha256>::new_from_slice(secret.expose().as_bytes()).expect("a key of any length will do");
    code.update(match role {
        Role::Dialler => b"slipring link: dialler",
        Role::Dialled => b"slipring link: dialled",
    });
    code.update(dialler);
    code.update(dialled);
    Some(code)
}

fn prove(local: &Local, role: Role, dialler: &[u8], dialled: &[u8]) -> [u8; PROOF_BYTES] {
    let code = code(&local.secret, role, dialler, dialled);
    code.map_or([0; PROOF_BYTES], |code| code.finalize().into_bytes().into())
}

fn check_proof(
    local: &Local,
    role: Role,
    dialler: &[u8],
    dialled: &[u8],
    proof: &[u8],
) -> Result<(), Refusal> {
    match code(&local.secret, role, dialler, dialled) {
        Some(code) => code.verify_slice(proof).map_err(|_| Refusal::Secret),
        None if proof.iter().all(|byte| *byte == 0) => Ok(()),
        None => Err(Refusal::Secret),
    }
}

/// Reads a hello. What does not begin like one is told at once, however little came.
async fn read_hello(stream: &mut Box<dyn ByteStream>) -> Result<[u8; HELLO_BYTES], Refusal> {
    let mut hello = [0; HELLO_BYTES];
    let (magic, rest) = hello.split_at_mut(MAGIC.len());
    let mut read = 0;
    while read < magic.len() {
        let n = stream.read(&mut magic[read..]).await.map_err(|error| Refusal::broken(&error))?;
        read += n;
        if magic[..read] != MAGIC[..read] {
            let is_tls = TLS_BEGINS.contains(&magic[0]);
            return Err(if is_tls { Refusal::TlsWanted } else { Refusal::NotSlipring });
        }
        if n == 0 {
            return Err(Refusal::Cut);
        }
    }
    receive(stream, rest).await?;
    Ok(hello)
}

async fn send(stream: &mut Box<dyn ByteStream>, bytes: &[u8]) -> Result<(), Refusal> {
    let sending = async {
        stream.write_all(bytes).await?;
        stream.flush().await
    };
    if sending.await.is_ok() {
        return Ok(());
    }
    // A peer that did not accept our certificate said so before it closed.
    match stream.read(&mut [0]).await {
        Ok(_) => Err(Refusal::Cut),
        Err(error) => Err(Refusal::broken(&error)),
    }
}

async fn receive(stream: &mut Box<dyn ByteStream>, bytes: &mut [u8]) -> Result<(), Refusal> {
    stream.read_exact(bytes).await.map(drop).map_err(|error| Refusal::broken(&error))
}

impl Hello {
    fn new(local: &Local, expected: Peer, verdict: u16) -> Self {
        let mut nonce = [0; 16];
        nonce[..8].copy_from_slice(&local.environment.random("link nonce").to_le_bytes());
        nonce[8..].copy_from_slice(&local.environment.random("link nonce").to_le_bytes());
        let flags = if local.secret.is_some() { SECRET } else { 0 };
        let allowance = Allowance::of(&local.limits);
        let peer = local.peer();
        Self { version: VERSION, version_min: VERSION_MIN, flags, verdict, peer, expected, nonce, allowance }
    }

    fn bytes(&self) -> [u8; HELLO_BYTES] {
        let mut bytes = [0; HELLO_BYTES];
        bytes[..8].copy_from_slice(&MAGIC);
        for (at, number) in [self.version, self.version_min, self.flags, self.verdict].iter().enumerate() {
            bytes[8 + 2 * at..][..2].copy_from_slice(&number.to_le_bytes());
        }
        let Self { peer, expected, allowance, .. } = self;
        for (at, number) in [peer.instance, peer.epoch, expected.instance, expected.epoch].iter().enumerate()
        {
            bytes[16 + 8 * at..][..8].copy_from_slice(&number.to_le_bytes());
        }
        bytes[48..64].copy_from_slice(&self.nonce);
        let numbers = [allowance.window_bytes, allowance.streams, allowance.message_bytes, 0];
        for (at, number) in numbers.iter().enumerate() {
            bytes[64 + 4 * at..][..4].copy_from_slice(&number.to_le_bytes());
        }
        bytes[80..].copy_from_slice(&allowance.assembling_bytes.to_le_bytes());
        bytes
    }

    fn read(bytes: &[u8; HELLO_BYTES]) -> Result<Self, Refusal> {
        let u16 = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        let u64 = |at: usize| u64::from(u16(at)) | u64::from(u16(at + 2)) << 16;
        let u32 = |at: usize| u64(at) as u32;
        let u64 = |at: usize| u64(at) | u64(at + 4) << 32;
        if bytes[..8] != MAGIC {
            return Err(Refusal::NotSlipring);
        }
        let allowance = Allowance {
            window_bytes: u32(64),
            streams: u32(68),
            message_bytes: u32(72),
            assembling_bytes: u64(80),
        };
        let mut nonce = [0; 16];
        nonce.copy_from_slice(&bytes[48..64]);
        let hello = Self {
            version: u16(8),
            version_min: u16(10),
            flags: u16(12),
            verdict: u16(14),
            peer: Peer { instance: u64(16), epoch: u64(24) },
            expected: Peer { instance: u64(32), epoch: u64(40) },
            nonce,
            allowance,
        };
        // A later version may give more of it a meaning, and says so by its least version.
        if hello.version_min <= VERSION && (hello.flags & !SECRET != 0 || u32(76) != 0) {
            return Err(Refusal::Malformed);
        }
        Ok(hello)
    }
}

/// What is accepted as a hello is written again as it was read.
#[cfg(feature = "_fuzz")]
pub(super) fn check(bytes: &[u8; HELLO_BYTES]) {
    let Ok(hello) = Hello::read(bytes) else { return };
    // Of a later version not all is understood.
    assert!(hello.version_min > VERSION || hello.bytes() == *bytes);
}

impl Allowance {
    pub(super) fn of(limits: &LinkLimits) -> Self {
        let clamp = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        Self {
            window_bytes: clamp(limits.stream_window_bytes).max(1),
            streams: clamp(limits.streams_max),
            message_bytes: clamp(limits.message_bytes_max),
            assembling_bytes: limits.assembling_bytes_max as u64,
        }
    }
}

impl Refusal {
    const ON_THE_WIRE: [Self; 5] =
        [Self::Malformed, Self::Version, Self::Instance, Self::Epoch, Self::Secret];

    /// A stable word, for counters.
    pub(crate) fn code(self) -> &'static str {
        match self {
            Self::NotSlipring => "not_slipring",
            Self::Malformed => "hello_malformed",
            Self::Version => "version",
            Self::Instance => "instance",
            Self::Epoch => "epoch",
            Self::Secret => "secret",
            Self::Cut => "hello_cut",
            Self::Slow => "hello_slow",
            Self::TlsWanted => "tls_wanted",
            Self::TlsMissing => "tls_missing",
            Self::Tls(fault) => fault.code(),
        }
    }

    /// The connection broke.
    fn broken(error: &io::Error) -> Self {
        fault_of(error).map_or(Self::Cut, Self::Tls)
    }

    /// Does it come of how the two ends are set up, and not of whoever happens to knock?
    fn is_disagreement(self) -> bool {
        !matches!(self, Self::NotSlipring | Self::Malformed | Self::Cut | Self::Slow)
    }

    fn wire(self) -> u16 {
        let at = Self::ON_THE_WIRE.iter().position(|refusal| *refusal == self);
        at.map_or(1, |at| at as u16 + 1)
    }

    /// The refusal that a number stands for; 0 is none.
    fn of(number: u16) -> Result<Option<Self>, Self> {
        let Some(at) = usize::from(number).checked_sub(1) else { return Ok(None) };
        Self::ON_THE_WIRE.get(at).copied().map(Some).ok_or(Self::Malformed)
    }

    fn error(self, who: String, local: &Local) -> Error {
        let unavailable = |cause: &str| Error::unavailable(who.clone(), cause, Effect::None);
        match self {
            Self::NotSlipring => unavailable("whoever is there does not speak slipring's link protocol"),
            Self::Malformed => unavailable("the hello has parts that are not known"),
            Self::Version => Error::unsupported(
                format!("the link protocol of {who}"),
                format!("this end speaks versions {VERSION_MIN} to {VERSION}"),
            ),
            Self::Instance => unavailable("its address leads to another instance now: it was recycled"),
            Self::Epoch => unavailable("it is there in an earlier epoch than the one expected"),
            Self::Secret => Error::unauthorized(who, "the shared secrets of both ends are not the same"),
            Self::Cut => unavailable("the connection was cut in the handshake"),
            Self::Slow => unavailable(&format!(
                "the handshake was not over within {:?}",
                local.limits.handshake_timeout
            )),
            Self::TlsWanted => unavailable("it speaks TLS, and this end was not told to"),
            Self::TlsMissing => unavailable("it offers no TLS, and this end speaks nothing else"),
            Self::Tls(fault) => fault.error(who),
        }
    }
}

impl Local {
    /// Counts and tells that there is no link, and why.
    pub(crate) fn refuse(&self, refusal: Refusal, who: &str) -> Error {
        let reason = refusal.code();
        self.counters.refused(reason);
        let error = refusal.error(who.to_owned(), self);
        if refusal.is_disagreement() {
            tracing::info!(reason, "no connection: {error}");
        } else {
            tracing::debug!(reason, "no connection: {error}");
        }
        error
    }
}
