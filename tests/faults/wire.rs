//! The wire between a worker and its two servers: a proxy that reads PostgreSQL's protocol, counts what passes and stops at a place.
//! Used by `world`. A place is a count, not a time: the same place in the same state is the same moment again.
//! Must not change a byte, and must forget no connection: all of them end with the wire.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{Error, ErrorKind};
use std::sync::{Arc, Mutex};

use godwit::contract::Side;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use crate::frames::Frames;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Way {
    /// To the server.
    Up,
    /// To the worker.
    Down,
}

/// Where the wire stops, counted over all connections of a side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// The server has given its n-th answer (counted from 0), and the worker has not seen it.
    Answer { side: Side, number: usize },
    /// The same, counting only answers after which the database may be another one: sessions that end may leave out a ROLLBACK.
    Checkpoint { side: Side, number: usize },
    /// So many bytes went this way, and not one more.
    Byte { side: Side, way: Way, at: u64 },
}

impl fmt::Display for Place {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Answer { side, number } => write!(formatter, "answer {number} of the {side:?}"),
            Self::Checkpoint { side, number } => write!(formatter, "checkpoint {number} of the {side:?}"),
            Self::Byte { side, way: Way::Up, at } => write!(formatter, "byte {at} to the {side:?}"),
            Self::Byte { side, way: Way::Down, at } => write!(formatter, "byte {at} from the {side:?}"),
        }
    }
}

/// What becomes of the connection that stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Pass,
    /// What was held is never delivered, and the connection is gone.
    Cut,
}

/// The wire has stopped here and waits for a verdict; dropped without one, it cuts.
pub struct Stopped(oneshot::Sender<Verdict>);

impl Stopped {
    pub fn go_on(self, verdict: Verdict) {
        // The worker may be dead already, and its connection with it.
        let _ = self.0.send(verdict);
    }
}

/// One answer of a server, up to the moment when it is ready for the next request.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    /// The beginning of what was asked.
    pub asked: String,
    pub tags: Vec<String>,
    /// No transaction is open after it.
    pub idle: bool,
}

impl Answer {
    /// Whether the database may be another one than before this answer.
    pub fn is_checkpoint(&self) -> bool {
        const READING: [&str; 8] = ["SELECT", "SET", "BEGIN", "START", "ROLLBACK", "RESET", "ANALYZE", "SHOW"];
        let writes = |tag: &String| !READING.iter().any(|word| tag.starts_with(word));
        // A transaction's COMMIT follows writes or none; which one is not looked for.
        self.idle && self.tags.iter().any(writes)
    }
}

/// What passed on one side.
#[derive(Clone, Debug, Default)]
pub struct Traffic {
    pub answers: Vec<Answer>,
    pub up: u64,
    pub down: u64,
    /// Bytes of rows (COPY data) that went up, among them.
    pub rows_up: u64,
}

impl Traffic {
    pub fn checkpoints(&self) -> impl Iterator<Item = &Answer> {
        self.answers.iter().filter(|answer| answer.is_checkpoint())
    }

    /// Where the last answer stands, counted as `like` counts.
    fn last_place(&self, like: Option<Place>, side: Side) -> Option<Place> {
        let last = self.answers.last()?;
        match like? {
            Place::Answer { .. } => Some(Place::Answer { side, number: self.answers.len() - 1 }),
            Place::Checkpoint { .. } if last.is_checkpoint() => {
                Some(Place::Checkpoint { side, number: self.checkpoints().count() - 1 })
            }
            Place::Checkpoint { .. } | Place::Byte { .. } => None,
        }
    }
}

struct Line {
    side: Side,
    server: u16,
    place: Option<Place>,
    traffic: Mutex<Traffic>,
    stops: mpsc::Sender<Stopped>,
}

pub struct Wire {
    lines: BTreeMap<Side, Arc<Line>>,
    ports: BTreeMap<Side, u16>,
    stops: mpsc::Receiver<Stopped>,
    _listening: JoinSet<()>,
}

impl Wire {
    /// Stands before the servers at these ports.
    pub async fn start(servers: [(Side, u16); 2], place: Option<Place>) -> Self {
        let (sender, stops) = mpsc::channel(1);
        let (mut lines, mut ports, mut listening) = (BTreeMap::new(), BTreeMap::new(), JoinSet::new());
        for (side, server) in servers {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            ports.insert(side, listener.local_addr().unwrap().port());
            let line = Line { side, server, place, traffic: Mutex::default(), stops: sender.clone() };
            let line = Arc::new(line);
            lines.insert(side, Arc::clone(&line));
            listening.spawn(listen(listener, line));
        }
        Self { lines, ports, stops, _listening: listening }
    }

    pub fn uri(&self, side: Side, database: &str) -> String {
        format!("postgresql://postgres@127.0.0.1:{}/{database}?sslmode=disable", self.ports[&side])
    }

    /// Returns when the wire has stopped; never, when it has no place or went past it.
    pub async fn stopped(&mut self) -> Stopped {
        match self.stops.recv().await {
            Some(stopped) => stopped,
            None => std::future::pending().await,
        }
    }

    pub fn traffic(&self, side: Side) -> Traffic {
        self.lines[&side].traffic.lock().unwrap().clone()
    }
}

async fn listen(listener: TcpListener, line: Arc<Line>) {
    let mut connections = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        let line = Arc::clone(&line);
        connections.spawn(async move {
            // Ends with either side's end, or with a cut: the worker notices, and the test looks at the worker.
            let _ = Connection::default().carry(client, line).await;
        });
        while connections.try_join_next().is_some() {}
    }
}

/// What is known about one connection's talk.
#[derive(Default)]
struct Connection {
    statements: BTreeMap<Vec<u8>, String>,
    answer: Answer,
}

impl Connection {
    async fn carry(mut self, mut client: TcpStream, line: Arc<Line>) -> std::io::Result<()> {
        let mut server = TcpStream::connect(("127.0.0.1", line.server)).await?;
        client.set_nodelay(true)?;
        server.set_nodelay(true)?;
        let (mut up, mut down) = (Frames::of_client(), Frames::of_server());
        let (mut from_client, mut from_server) = (vec![0; 64 << 10], vec![0; 64 << 10]);
        loop {
            tokio::select! {
                read = client.read(&mut from_client) => {
                    let bytes = some(&from_client, read?)?;
                    let stop = self.asked(&line, &mut up, bytes);
                    pass(&mut server, bytes, stop, &line).await?;
                }
                read = server.read(&mut from_server) => {
                    let bytes = some(&from_server, read?)?;
                    let stop = self.answered(&line, &mut down, bytes);
                    pass(&mut client, bytes, stop, &line).await?;
                }
            }
        }
    }

    /// Counts what goes up; where to stop in it, if the place is there.
    fn asked(&mut self, line: &Line, frames: &mut Frames, bytes: &[u8]) -> Option<usize> {
        let mut traffic = line.traffic.lock().unwrap();
        let stop = line.stop_in(Way::Up, traffic.up, bytes);
        traffic.up += bytes.len() as u64;
        frames.feed(bytes, |kind, body, length| match kind {
            b'Q' => self.answer.asked = text(body),
            b'P' => {
                let mut parts = body.splitn(3, |byte| *byte == 0);
                let (name, query) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
                self.statements.insert(name.to_owned(), text(query));
            }
            b'B' => {
                let statement = body.splitn(3, |byte| *byte == 0).nth(1).unwrap_or_default();
                self.answer.asked = self.statements.get(statement).cloned().unwrap_or_default();
            }
            b'd' => traffic.rows_up += length as u64,
            _ => {}
        });
        stop
    }

    fn answered(&mut self, line: &Line, frames: &mut Frames, bytes: &[u8]) -> Option<usize> {
        let mut traffic = line.traffic.lock().unwrap();
        let mut stop = line.stop_in(Way::Down, traffic.down, bytes);
        traffic.down += bytes.len() as u64;
        frames.feed(bytes, |kind, body, _| match kind {
            b'C' => self.answer.tags.push(text(body)),
            b'Z' => {
                let answer = std::mem::take(&mut self.answer);
                traffic.answers.push(Answer { idle: body == b"I", ..answer });
                if line.place.is_some() && line.place == traffic.last_place(line.place, line.side) {
                    stop = Some(0);
                }
            }
            _ => {}
        });
        stop
    }
}

impl Line {
    fn stop_in(&self, way: Way, before: u64, bytes: &[u8]) -> Option<usize> {
        let Some(Place::Byte { side, way: wanted, at }) = self.place else {
            return None;
        };
        let here = side == self.side && wanted == way && (before..before + bytes.len() as u64).contains(&at);
        here.then(|| usize::try_from(at - before).unwrap())
    }
}

async fn pass(into: &mut TcpStream, bytes: &[u8], stop: Option<usize>, line: &Line) -> std::io::Result<()> {
    let Some(at) = stop else {
        return into.write_all(bytes).await;
    };
    into.write_all(&bytes[..at]).await?;
    let (verdict, judged) = oneshot::channel();
    let told = line.stops.send(Stopped(verdict)).await;
    match judged.await {
        Ok(Verdict::Pass) if told.is_ok() => into.write_all(&bytes[at..]).await,
        _ => Err(Error::from(ErrorKind::ConnectionAborted)),
    }
}

fn some(buffer: &[u8], length: usize) -> std::io::Result<&[u8]> {
    if length == 0 { Err(Error::from(ErrorKind::UnexpectedEof)) } else { Ok(&buffer[..length]) }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim_end_matches('\0').split_whitespace().collect::<Vec<_>>().join(" ")
}
