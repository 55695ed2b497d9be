//! A server that speaks as much S3 as the archive uses, and that fails as it is told: in this
//! process, over HTTP, so that the client's own retries are in play.

use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;

use foreword_archive::object_store::aws::AmazonS3Builder;
use foreword_archive::object_store::memory::InMemory;
use foreword_archive::object_store::path::Path;
use foreword_archive::object_store::{
    BackoffConfig, ClientOptions, ObjectStore, ObjectStoreExt, PutMode, PutOptions, RetryConfig,
};
use foreword_archive::{Atomicity, Store};
use futures_util::TryStreamExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// What becomes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    Right,
    /// It is done, and the connection ends without a word.
    Lost,
    /// It is not done.
    Status(u16),
    /// Not done: with this status, and what S3 says in the body.
    Says(u16, &'static str),
    /// Not done, for the server's clock is so many seconds ahead.
    Skewed(i64),
    /// It is done; the body ends in the middle.
    Cut,
    /// The body comes in small pieces.
    Slow,
    /// With an ETag that is not the object's, and changes each time.
    WrongEtag,
}

/// By the number of the request, its method and its object.
type Answers = Box<dyn FnMut(u64, &str, &str) -> Answer + Send>;

pub struct Server {
    pub inner: Arc<InMemory>,
    answers: Mutex<(u64, Answers)>,
}

struct Request {
    method: String,
    /// Without the bucket.
    key: String,
    query: String,
    headers: String,
    body: Vec<u8>,
}

impl Request {
    fn header(&self, name: &str) -> Option<&str> {
        let line = self.headers.lines().find(|line| line.split(':').next().is_some_and(|n| n.eq_ignore_ascii_case(name)));
        line.and_then(|line| Some(line.split_once(':')?.1.trim()))
    }

    fn query(&self, name: &str) -> Option<String> {
        let pair = self.query.split('&').find_map(|pair| pair.split_once('=').filter(|pair| pair.0 == name));
        pair.map(|(_, value)| value.replace("%2F", "/"))
    }

    async fn read(stream: &mut TcpStream) -> Option<Request> {
        let mut bytes = Vec::new();
        let end = loop {
            match bytes.windows(4).position(|four| four == b"\r\n\r\n") {
                Some(end) => break end,
                None if stream.read_buf(&mut bytes).await.ok()? == 0 => return None,
                None => {}
            }
        };
        let head = String::from_utf8(bytes[..end].to_vec()).ok()?;
        let (line, headers) = head.split_once("\r\n")?;
        let (method, target) = line.split_once(' ')?;
        let target = target.split(' ').next()?;
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let key = path.strip_prefix("/bucket").unwrap_or(path).trim_start_matches('/').to_owned();
        let mut request =
            Request { method: method.into(), key, query: query.into(), headers: headers.into(), body: bytes.split_off(end + 4) };
        let len: usize = request.header("content-length").and_then(|len| len.parse().ok()).unwrap_or(0);
        while request.body.len() < len {
            if stream.read_buf(&mut request.body).await.ok()? == 0 {
                return None;
            }
        }
        Some(request)
    }
}

/// An answer: its status, headers beside the length, and its body.
struct Said(u16, String, Vec<u8>);

impl Server {
    /// It, and a store that asks it over HTTP.
    pub async fn start() -> (Arc<Server>, Store) {
        // (What `Store::open` does.)
        let _ = rustls::crypto::ring::default_provider().install_default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let right: Answers = Box::new(|_, _, _| Answer::Right);
        let server = Arc::new(Server { inner: Arc::default(), answers: Mutex::new((0, right)) });
        let serving = server.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serving.clone().serve(stream));
            }
        });
        let backoff = BackoffConfig { init_backoff: Duration::from_millis(2), max_backoff: Duration::from_millis(20), base: 2.0 };
        let retry = RetryConfig { backoff, max_retries: 8, retry_timeout: Duration::from_secs(20) };
        let s3 = AmazonS3Builder::new()
            .with_endpoint(format!("http://{address}"))
            .with_bucket_name("bucket")
            .with_access_key_id("key")
            .with_secret_access_key("secret")
            .with_region("here")
            .with_client_options(ClientOptions::new().with_allow_http(true))
            .with_retry(retry);
        let store = Store::new(Arc::new(s3.build().unwrap()), "s3://bucket", Atomicity::Known("a test"));
        (server, store)
    }

    /// From here on it answers so.
    pub fn answer(&self, answers: impl FnMut(u64, &str, &str) -> Answer + Send + 'static) {
        *self.answers.lock().unwrap() = (0, Box::new(answers));
    }

    pub fn requests(&self) -> u64 {
        self.answers.lock().unwrap().0
    }

    async fn serve(self: Arc<Self>, mut stream: TcpStream) {
        while let Some(request) = Request::read(&mut stream).await {
            let answer = {
                let (count, answers) = &mut *self.answers.lock().unwrap();
                *count += 1;
                answers(*count - 1, &request.method, &request.key)
            };
            let Said(status, mut headers, body) = match answer {
                Answer::Status(status) => Said(status, "Retry-After: 0\r\n".into(), Vec::new()),
                Answer::Says(status, body) => Said(status, String::new(), format!("<Error>{body}</Error>").into_bytes()),
                Answer::Skewed(ahead) => {
                    let time = jiff::Timestamp::from_second(jiff::Timestamp::now().as_second() + ahead).unwrap();
                    let body = format!("<Error><Code>RequestTimeTooSkewed</Code><ServerTime>{time}</ServerTime></Error>");
                    Said(403, String::new(), body.into_bytes())
                }
                _ => self.act(&request).await,
            };
            if answer == Answer::Lost {
                return;
            }
            if answer == Answer::WrongEtag {
                headers = headers.replace("ETag: \"", &format!("ETag: \"wrong{}", self.requests()));
            }
            let head = format!("HTTP/1.1 {status} -\r\nContent-Length: {}\r\n{headers}\r\n", body.len());
            let body = if request.method == "HEAD" { &[][..] } else { &body };
            let body = if answer == Answer::Cut { &body[..body.len() / 2] } else { body };
            let mut sent = stream.write_all(head.as_bytes()).await;
            for piece in body.chunks(if answer == Answer::Slow { body.len() / 5 + 1 } else { usize::MAX }) {
                if answer == Answer::Slow {
                    tokio::time::sleep(Duration::from_millis(3)).await;
                }
                sent = sent.and(stream.write_all(piece).await);
            }
            if sent.is_err() || answer == Answer::Cut {
                return;
            }
        }
    }

    async fn act(&self, request: &Request) -> Said {
        let path = Path::from(request.key.as_str());
        match request.method.as_str() {
            "PUT" => {
                let create = request.header("if-none-match") == Some("*");
                let mode = if create { PutMode::Create } else { PutMode::Overwrite };
                let options = PutOptions { mode, ..PutOptions::default() };
                match self.inner.put_opts(&path, request.body.clone().into(), options).await {
                    Ok(put) => Said(200, format!("ETag: \"{}\"\r\n", put.e_tag.unwrap()), Vec::new()),
                    Err(_) => Said(412, String::new(), b"<Error><Code>PreconditionFailed</Code></Error>".to_vec()),
                }
            }
            "POST" => {
                let body = String::from_utf8_lossy(&request.body);
                let mut said = String::from("<DeleteResult>");
                for key in body.split("<Key>").skip(1).filter_map(|rest| rest.split("</Key>").next()) {
                    let _ = self.inner.delete(&Path::from(key)).await;
                    said += &format!("<Deleted><Key>{key}</Key></Deleted>");
                }
                Said(200, String::new(), (said + "</DeleteResult>").into_bytes())
            }
            _ if request.key.is_empty() => {
                let (prefix, after) = (request.query("prefix").unwrap_or_default(), request.query("start-after"));
                let mut said = String::from("<ListBucketResult><IsTruncated>false</IsTruncated>");
                let all: Vec<_> = self.inner.list(None).try_collect().await.unwrap();
                for meta in all {
                    let key = meta.location.as_ref();
                    if key.starts_with(&prefix) && after.as_ref().is_none_or(|after| key > after.as_str()) {
                        let (size, etag) = (meta.size, meta.e_tag.unwrap_or_default());
                        said += &format!("<Contents><Key>{key}</Key><LastModified>2026-11-30T00:00:00.000Z</LastModified>");
                        said += &format!("<ETag>\"{etag}\"</ETag><Size>{size}</Size></Contents>");
                    }
                }
                Said(200, String::new(), (said + "</ListBucketResult>").into_bytes())
            }
            _ => {
                let Ok(got) = self.inner.get(&path).await else {
                    return Said(404, String::new(), b"<Error><Code>NoSuchKey</Code></Error>".to_vec());
                };
                let etag = got.meta.e_tag.clone().unwrap_or_default();
                let mut headers = format!("ETag: \"{etag}\"\r\nLast-Modified: Mon, 30 Nov 2026 00:00:00 GMT\r\n");
                let bytes = got.bytes().await.unwrap();
                let Some(range) = request.header("range").and_then(|range| range.strip_prefix("bytes=")) else {
                    return Said(200, headers, bytes.to_vec());
                };
                let (from, to) = range.split_once('-').unwrap();
                let (from, to): (usize, usize) = (from.parse().unwrap(), to.parse().unwrap());
                let to = to.min(bytes.len().saturating_sub(1));
                if from > to {
                    return Said(416, String::new(), Vec::new());
                }
                headers += &format!("Content-Range: bytes {from}-{to}/{}\r\n", bytes.len());
                Said(206, headers, bytes[from..=to].to_vec())
            }
        }
    }
}
