//! What this needs of NATS: requests on one connection, and of JetStream a stream, a publication that
//! is acknowledged, and who leads. The protocol is of lines, so it is spoken here by hand.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use futures_util::future::try_join_all;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedReadHalf;
use tokio::sync::{OnceCell, mpsc, oneshot};

use crate::Result;

/// The stream, and the subject that it stores.
const STREAM: &str = "records";
/// Where answers come: behind it, the request's number.
const INBOX: &str = "_INBOX.bench.";

/// A connection to one server. Clones share it.
#[derive(Clone)]
pub(crate) struct Connection {
    address: Arc<str>,
    open: Arc<OnceCell<Open>>,
}

struct Open {
    /// What is to be written. Its task ends with the connection.
    out: mpsc::UnboundedSender<Bytes>,
    waiting: Arc<Mutex<Waiting>>,
}

/// Requests without an answer, by their numbers. Without the map, the connection has ended.
#[derive(Default)]
struct Waiting {
    next: u64,
    answers: Option<HashMap<u64, oneshot::Sender<Bytes>>>,
}

/// What a server says of the stream.
pub(crate) struct Info {
    /// The name of the server that leads.
    pub(crate) leader: String,
    /// How many others have all of it.
    pub(crate) current: usize,
    pub(crate) last: u64,
}

impl Connection {
    /// Connects when it is used.
    pub(crate) fn new(address: &str) -> Connection {
        Connection { address: address.into(), open: Arc::default() }
    }

    async fn open(&self) -> Result<&Open> {
        self.open.get_or_try_init(|| open(&self.address)).await.map_err(|error| format!("{}: {error}", self.address))
    }

    async fn request(&self, subject: &str, payload: &[u8]) -> Result<Bytes> {
        let open = self.open().await?;
        let (answer, answered) = oneshot::channel();
        let number = {
            let mut waiting = open.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            waiting.next += 1;
            let number = waiting.next;
            waiting.answers.as_mut().ok_or("the connection has ended")?.insert(number, answer);
            number
        };
        let mut line = BytesMut::with_capacity(payload.len() + 80);
        line.put_slice(format!("PUB {subject} {INBOX}{number} {}\r\n", payload.len()).as_bytes());
        line.put_slice(payload);
        line.put_slice(b"\r\n");
        open.out.send(line.freeze()).map_err(|_| "the connection has ended")?;
        answered.await.map_err(|_| "the connection has ended".to_owned())
    }

    async fn ask(&self, subject: &str, payload: &[u8]) -> Result<Value> {
        let answer = self.request(subject, payload).await?;
        let answer: Value = serde_json::from_slice(&answer).map_err(|error| format!("{subject}: {error}: {answer:?}"))?;
        match answer.get("error") {
            Some(error) => Err(error.to_string()),
            None => Ok(answer),
        }
    }

    /// Publishes records. Each is acknowledged by itself, when a majority has it on the disk.
    pub(crate) async fn publish(&self, records: &[Bytes]) -> Result<()> {
        let each = records.iter().map(|record| async {
            let answer = self.ask(STREAM, record).await?;
            answer["seq"].as_u64().map(drop).ok_or_else(|| format!("not an acknowledgement: {answer}"))
        });
        try_join_all(each).await.map(drop)
    }

    /// Makes the stream, with so many replicas.
    pub(crate) async fn create(&self, replicas: usize) -> Result<()> {
        let stream =
            json!({"name": STREAM, "subjects": [STREAM], "storage": "file", "retention": "limits", "num_replicas": replicas});
        self.ask(&format!("$JS.API.STREAM.CREATE.{STREAM}"), stream.to_string().as_bytes()).await.map(drop)
    }

    pub(crate) async fn info(&self) -> Result<Info> {
        let said = self.ask(&format!("$JS.API.STREAM.INFO.{STREAM}"), b"").await?;
        let cluster = &said["cluster"];
        let others = cluster["replicas"].as_array().map(Vec::as_slice).unwrap_or_default();
        Ok(Info {
            leader: cluster["leader"].as_str().unwrap_or_default().to_owned(),
            current: others.iter().filter(|other| other["current"] == true && other["offline"] != true).count(),
            last: said["state"]["last_seq"].as_u64().unwrap_or(0),
        })
    }
}

/// What a server is to know: where it listens, where the others are, and that an acknowledgement
/// waits for the disk.
pub(crate) fn config(name: &str, address: &str, peer: &str, peers: &[String], dir: &Path) -> String {
    let routes: Vec<String> = peers.iter().map(|peer| format!("nats://{peer}")).collect();
    let dir = dir.display().to_string();
    format!(
        "server_name: {name:?}\nlisten: {address:?}\njetstream {{ store_dir: {dir:?}, sync_interval: always }}\n\
         cluster {{ name: bench, listen: {peer:?}, routes: {routes:?} }}\n"
    )
}

async fn open(address: &str) -> std::io::Result<Open> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let (from, mut to) = stream.into_split();
    let hello = r#"CONNECT {"verbose":false,"pedantic":false,"headers":true,"no_responders":true}"#;
    to.write_all(format!("{hello}\r\nSUB {INBOX}* 1\r\n").as_bytes()).await?;
    let (out, mut outgoing) = mpsc::unbounded_channel::<Bytes>();
    let waiting = Arc::new(Mutex::new(Waiting { next: 0, answers: Some(HashMap::new()) }));
    tokio::spawn(async move {
        // What is ready goes in one write.
        let mut batch = BytesMut::new();
        while let Some(first) = outgoing.recv().await {
            batch.put(first);
            while batch.len() < 1 << 16
                && let Ok(next) = outgoing.try_recv()
            {
                batch.put(next);
            }
            if to.write_all(&batch.split()).await.is_err() {
                return;
            }
        }
    });
    let (pong, answers) = (out.clone(), waiting.clone());
    tokio::spawn(async move {
        _ = receive(BufReader::with_capacity(1 << 16, from), &pong, &answers).await;
        answers.lock().unwrap_or_else(PoisonError::into_inner).answers = None;
    });
    Ok(Open { out, waiting })
}

/// Hands out answers, until the connection ends.
async fn receive(
    mut from: BufReader<OwnedReadHalf>,
    out: &mpsc::UnboundedSender<Bytes>,
    waiting: &Mutex<Waiting>,
) -> std::io::Result<()> {
    let mut line = String::new();
    loop {
        line.clear();
        if from.read_line(&mut line).await? == 0 {
            return Ok(());
        }
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        match words[..] {
            ["PING"] => _ = out.send(Bytes::from_static(b"PONG\r\n")),
            // MSG subject sid length; HMSG subject sid headers length
            ["MSG" | "HMSG", subject, _, .., length] => {
                let mut payload = vec![0; length.parse::<usize>().map_err(std::io::Error::other)? + 2];
                from.read_exact(&mut payload).await?;
                payload.truncate(payload.len() - 2);
                let number = subject.strip_prefix(INBOX).and_then(|number| number.parse().ok());
                let mut waiting = waiting.lock().unwrap_or_else(PoisonError::into_inner);
                let answer = number.and_then(|number: u64| waiting.answers.as_mut()?.remove(&number));
                if let Some(answer) = answer {
                    _ = answer.send(payload.into());
                }
            }
            _ => {} // INFO, PONG; an error, after which the server closes the connection.
        }
    }
}

/// Whether a server of this version (`nats-server: v2.15.1`) can be told to sync before it
/// acknowledges.
pub(crate) fn syncs(version: &str) -> bool {
    let numbers = version.rsplit_once('v').map(|(_, numbers)| numbers.splitn(3, '.').map_while(|n| n.parse::<u32>().ok()));
    numbers.is_some_and(|numbers| numbers.take(2).collect::<Vec<_>>() >= vec![2, 10])
}

/// How long a server is given to be asked something.
pub(crate) const ASKED: Duration = Duration::from_millis(300);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_that_cannot_sync_first_are_known() {
        assert!(syncs("nats-server: v2.15.1") && syncs("nats-server: v2.10.0") && syncs("nats-server: v3.0.0-beta"));
        assert!(!syncs("nats-server: v2.9.10") && !syncs("nats-server") && !syncs(""));
    }

    #[test]
    fn a_server_is_told_where_all_are_and_to_sync() {
        let said =
            config("1", "127.0.0.1:5", "127.0.0.1:6", &["127.0.0.1:6".to_owned(), "127.0.0.1:8".to_owned()], Path::new("/d"));
        for part in ["sync_interval: always", r#"store_dir: "/d""#, r#"["nats://127.0.0.1:6", "nats://127.0.0.1:8"]"#] {
            assert!(said.contains(part), "{part}: {said}");
        }
    }
}
