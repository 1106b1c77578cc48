//! HTTP/1.1 as far as the SDK's client needs it, with the power to misbehave: an answer can be
//! withheld for ever, or lost with its connection.

use std::io;
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Longer heads than this are nobody's we serve.
const MAX_HEAD: usize = 64 * 1024;
/// Longest body: a block and its form-encoded cousins are far smaller.
const MAX_BODY: usize = 4 * 1024 * 1024;

/// A request, read completely.
#[derive(Debug, Clone, Default)]
pub(super) struct Request {
    pub method: String,
    /// As sent, still percent-encoded.
    pub path: String,
    /// Without the question mark.
    pub query: String,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Request {
    /// A header's value; `name` in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }
}

/// An answer.
#[derive(Debug, Clone, Default)]
pub(super) struct Answer {
    pub status: u16,
    pub headers: Vec<(&'static str, String)>,
    pub body: Vec<u8>,
}

/// What becomes of a request.
#[derive(Debug)]
pub(super) enum Reply {
    Answer(Answer),
    /// The connection ends without an answer.
    Close,
    /// The connection stays open until the client gives up.
    Hang,
}

/// Who answers.
pub(super) trait Service: Send + Sync + 'static {
    fn call(&self, request: Request) -> impl Future<Output = Reply> + Send;
}

/// Serves every connection in a task of its own, for ever.
pub(super) async fn serve<S: Service>(listener: TcpListener, service: Arc<S>) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            // Out of file descriptors, most likely: others will be closed.
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            continue;
        };
        let service = service.clone();
        tokio::spawn(async move {
            // An error means that the client closed the connection, or speaks no HTTP.
            let _ = connection(stream, &*service).await;
        });
    }
}

async fn connection<S: Service>(mut stream: TcpStream, service: &S) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = Vec::new();
    while let Some(request) = read_request(&mut stream, &mut buffer).await? {
        match service.call(request).await {
            Reply::Answer(answer) => write_answer(&mut stream, &answer).await?,
            Reply::Close => return Ok(()),
            Reply::Hang => {
                let mut rest = [0; 1024];
                while stream.read(&mut rest).await? > 0 {}
                return Ok(());
            }
        }
    }
    Ok(())
}

/// The next request, or none when the client is done. What follows it stays in `buffer`.
async fn read_request(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> io::Result<Option<Request>> {
    loop {
        if let Some((request, head, length)) = parse_head(buffer)? {
            while buffer.len() < head + length {
                if stream.read_buf(buffer).await? == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
            }
            let body = buffer[head..head + length].to_vec();
            buffer.drain(..head + length);
            return Ok(Some(Request { body, ..request }));
        }
        if stream.read_buf(buffer).await? == 0 {
            return Ok(None);
        }
    }
}

/// The request without its body, where the body begins, and its length.
fn parse_head(buffer: &[u8]) -> io::Result<Option<(Request, usize, usize)>> {
    let bad = |text: &str| io::Error::new(io::ErrorKind::InvalidData, text.to_owned());
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut parsed = httparse::Request::new(&mut headers);
    let head = match parsed.parse(buffer).map_err(io::Error::other)? {
        httparse::Status::Complete(head) => head,
        httparse::Status::Partial if buffer.len() > MAX_HEAD => return Err(bad("head too long")),
        httparse::Status::Partial => return Ok(None),
    };
    let target = parsed.path.unwrap_or("/");
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let request = Request {
        method: parsed.method.unwrap_or_default().to_owned(),
        path: path.to_owned(),
        query: query.to_owned(),
        headers: parsed
            .headers
            .iter()
            .map(|header| {
                let value = String::from_utf8_lossy(header.value).trim().to_owned();
                (header.name.to_ascii_lowercase(), value)
            })
            .collect(),
        body: Vec::new(),
    };
    if request.header("transfer-encoding").is_some() {
        return Err(bad("a body without a length"));
    }
    let length = match request.header("content-length") {
        Some(text) => text.parse().map_err(|_| bad("unreadable length"))?,
        None => 0,
    };
    if length > MAX_BODY {
        return Err(bad("body too long"));
    }
    Ok(Some((request, head, length)))
}

async fn write_answer(stream: &mut TcpStream, answer: &Answer) -> io::Result<()> {
    let mut bytes = format!("HTTP/1.1 {} -\r\n", answer.status).into_bytes();
    for (name, value) in &answer.headers {
        bytes.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
    }
    bytes.extend_from_slice(format!("Content-Length: {}\r\n\r\n", answer.body.len()).as_bytes());
    bytes.extend_from_slice(&answer.body);
    stream.write_all(&bytes).await
}
