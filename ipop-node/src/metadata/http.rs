//! As much of HTTP/1.1 as one small answer takes.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// Longest header of an answer, in bytes.
const HEADER_LIMIT: u64 = 8192;

/// A question without a body.
pub(super) struct Request<'a> {
    pub method: &'static str,
    pub path: &'static str,
    pub header: (&'static str, &'a str),
    /// Longest body to take.
    pub limit: usize,
}

/// An answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub status: u16,
    pub body: Vec<u8>,
}

/// Asks on a connection of its own.
pub(super) fn ask(to: SocketAddr, limit: Duration, request: &Request<'_>) -> io::Result<Answer> {
    let deadline = Instant::now() + limit;
    let mut stream = TcpStream::connect_timeout(&to, limit)?;
    stream.set_write_timeout(Some(limit))?;
    let (name, value) = request.header;
    let text = format!(
        "{} {} HTTP/1.1\r\nHost: {}\r\n{name}: {value}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
        request.method,
        request.path,
        to.ip()
    );
    stream.write_all(text.as_bytes())?;
    read(BufReader::new(Timed { stream, deadline }), request.limit)
}

/// A stream that ends at a deadline, however slowly the bytes come.
struct Timed {
    stream: TcpStream,
    deadline: Instant,
}

impl Read for Timed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        self.stream.set_read_timeout(Some(left))?;
        self.stream.read(buffer)
    }
}

/// Reads an answer whose body's length is told.
fn read(stream: impl BufRead, limit: usize) -> io::Result<Answer> {
    let bad = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
    let mut header = stream.take(HEADER_LIMIT);
    let mut line = String::new();
    let mut next = |line: &mut String| {
        line.clear();
        header.read_line(line)?;
        match line.strip_suffix('\n') {
            Some(text) => Ok(text.trim_end_matches('\r').to_owned()),
            None => Err(bad("the answer's header is cut short")),
        }
    };
    let status = next(&mut line)?;
    let status = status
        .strip_prefix("HTTP/1.1 ")
        .or_else(|| status.strip_prefix("HTTP/1.0 "))
        .and_then(|rest| rest.get(..3)?.parse().ok())
        .ok_or_else(|| bad("the answer is not HTTP"))?;
    let mut length = None;
    loop {
        let field = next(&mut line)?;
        if field.is_empty() {
            break;
        }
        let (name, value) = field
            .split_once(':')
            .ok_or_else(|| bad("a header without a colon"))?;
        if name.eq_ignore_ascii_case("transfer-encoding") {
            return Err(bad("the answer's length is not told"));
        }
        if name.eq_ignore_ascii_case("content-length") {
            let value = value.trim().parse::<usize>();
            let value = value.map_err(|_| bad("the answer's length is no number"))?;
            if length.replace(value).is_some() {
                return Err(bad("the answer has two lengths"));
            }
        }
    }
    let length = length.ok_or_else(|| bad("the answer's length is not told"))?;
    if length > limit {
        return Err(bad("the answer is too long"));
    }
    let mut body = vec![0; length];
    header.into_inner().read_exact(&mut body)?;
    Ok(Answer { status, body })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_its_status_and_as_many_bytes_as_it_says() {
        let answer = read(
            &b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\ncontent-length: 2\r\n\r\nabc"[..],
            10,
        );
        let expected = Answer {
            status: 200,
            body: b"ab".to_vec(),
        };
        assert_eq!(answer.expect("an answer"), expected);
    }

    #[test]
    fn what_cannot_be_relied_on_is_refused() {
        let long = format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "x".repeat(9000));
        for text in [
            "",
            "HTTP/2 200\r\n\r\n",
            "HTTP/1.1 20",
            "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nab",
            "HTTP/1.1 200 OK\r\n\r\nab",
            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
            "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\n01234567890",
            &long,
        ] {
            assert!(read(text.as_bytes(), 10).is_err(), "{text:?}");
        }
    }
}
