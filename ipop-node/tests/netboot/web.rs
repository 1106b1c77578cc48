//! A web server that tells what it was asked for.

use std::fs;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{IpAddr, TcpListener, TcpStream};
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use ipop_testbed::netns::Netns;

/// Most of a request's body, bytes.
const LONGEST: usize = 64 << 20;

/// A request that was answered in full.
#[derive(Debug, Clone)]
pub struct Request {
    /// Whose.
    pub client: IpAddr,
    /// `GET` or `POST`.
    pub method: String,
    /// What for, with its query.
    pub target: String,
    /// What came with it.
    pub body: Vec<u8>,
    /// Bytes of the file that was the answer; `None`: there is none.
    pub served: Option<u64>,
}

/// The server. It ends with the process.
pub struct Web {
    requests: Arc<Mutex<Vec<Request>>>,
}

impl Web {
    /// One on port 80 of an address of a namespace, for the files below `root`. What is posted, to
    /// anywhere, is kept.
    pub fn start(netns: &Netns, address: &str, root: &Path) -> Self {
        let bind = || TcpListener::bind((address, 80));
        let listener = netns.inside(bind).expect("an address of the namespace");
        let requests: Arc<Mutex<Vec<Request>>> = Arc::default();
        let (all, root) = (Arc::clone(&requests), root.to_owned());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (all, root) = (Arc::clone(&all), root.clone());
                std::thread::spawn(move || {
                    // A client that goes away has not made a request.
                    if let Ok(request) = answer(stream, &root) {
                        lock(&all).push(request);
                    }
                });
            }
        });
        Self { requests }
    }

    /// What was asked so far.
    pub fn requests(&self) -> Vec<Request> {
        lock(&self.requests).clone()
    }
}

fn lock<T>(all: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    all.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Takes a request and answers it; one each connection.
fn answer(mut stream: TcpStream, root: &Path) -> io::Result<Request> {
    let client = stream.peer_addr()?.ip();
    let mut input = BufReader::new(stream.try_clone()?);
    let head = head(&mut input)?;
    let mut words = head.first().into_iter().flat_map(|line| line.split(' '));
    let mut word = || words.next().unwrap_or_default().to_owned();
    let (method, target) = (word(), word());
    let length = head.iter().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        let is_length = name.eq_ignore_ascii_case("content-length");
        is_length.then(|| value.trim().parse().ok())?
    });
    let mut body = vec![0; length.unwrap_or(0).min(LONGEST)];
    input.read_exact(&mut body)?;
    let file = match method.as_str() {
        "GET" => path(root, &target).and_then(|path| fs::read(path).ok()),
        _ => None,
    };
    let status = match (method.as_str(), &file) {
        ("POST", _) | ("GET", Some(_)) => "200 OK",
        _ => "404 Not Found",
    };
    let content = file.as_deref().unwrap_or_default();
    let length = content.len();
    write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
    )?;
    stream.write_all(content)?;
    Ok(Request {
        client,
        method,
        target,
        body,
        served: file.map(|file| file.len() as u64),
    })
}

/// The lines up to the first empty one.
fn head(input: &mut impl io::BufRead) -> io::Result<Vec<String>> {
    let mut lines = Vec::new();
    for line in input.lines() {
        match line? {
            line if line.is_empty() => break,
            line => lines.push(line),
        }
    }
    Ok(lines)
}

/// The file below `root` that is asked for.
fn path(root: &Path, target: &str) -> Option<PathBuf> {
    let name = target.split('?').next()?.strip_prefix('/')?;
    let path = Path::new(name);
    let is_below = path
        .components()
        .all(|part| matches!(part, Component::Normal(_)));
    is_below.then(|| root.join(path))
}
