//! A double of EC2's instance metadata service, version 2, strict where the service is: no token,
//! no answer; a token only for a PUT with a life of 1 s to 6 h that came through no proxy.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};

/// What the double does that the service does only now and then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    /// Nothing.
    Well,
    /// The first three questions are answered with 503.
    Busy,
    /// The hop limit is too low: nothing comes back.
    Silent,
    /// The service is switched off.
    Forbidden,
    /// The first session token is forgotten at once.
    Forgetful,
}

/// A running double; it ends with the process.
#[derive(Debug)]
pub struct Imds {
    /// Where it answers.
    pub address: SocketAddr,
    log: Arc<Mutex<Vec<String>>>,
}

impl Imds {
    /// One on a loopback port of its own. Without user data it answers as the service does on an
    /// instance that was started without.
    pub fn start(manner: Manner, user_data: Option<Vec<u8>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
        Self::start_on(listener, manner, user_data)
    }

    /// One on a listener, which may be of another network namespace.
    pub fn start_on(listener: TcpListener, manner: Manner, user_data: Option<Vec<u8>>) -> Self {
        let address = listener.local_addr().expect("bound");
        let log = Arc::new(Mutex::new(Vec::new()));
        let said = log.clone();
        std::thread::spawn(move || {
            let mut held = Vec::new();
            for stream in listener.incoming() {
                let stream = stream.expect("a connection");
                if manner == Manner::Silent {
                    held.push(stream);
                    continue;
                }
                answer(stream, manner, user_data.as_deref(), &said);
            }
        });
        Self { address, log }
    }

    /// Every question's first line with the status it was answered with.
    pub fn log(&self) -> Vec<String> {
        self.log
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

fn answer(
    mut stream: TcpStream,
    manner: Manner,
    user_data: Option<&[u8]>,
    log: &Mutex<Vec<String>>,
) {
    let lines: Vec<String> = BufReader::new(stream.try_clone().expect("a descriptor"))
        .lines()
        .map_while(|line| line.ok().filter(|line| !line.is_empty()))
        .collect();
    let Some(question) = lines.first() else {
        return;
    };
    let header = |name: &str| {
        lines.iter().find_map(|line| {
            let (key, value) = line.split_once(": ")?;
            key.eq_ignore_ascii_case(name).then(|| value.to_owned())
        })
    };
    let mut log = log.lock().unwrap_or_else(PoisonError::into_inner);
    let tokens = log.iter().filter(|l| l.starts_with("PUT")).count();
    let (status, body) = match (manner, question.as_str()) {
        (Manner::Forbidden, _) => (403, Vec::new()),
        (Manner::Busy, _) if log.len() < 3 => (503, Vec::new()),
        (_, "PUT /latest/api/token HTTP/1.1") => {
            let ttl = header("x-aws-ec2-metadata-token-ttl-seconds").and_then(|t| t.parse().ok());
            match ttl {
                Some(1..=21600u32) if header("x-forwarded-for").is_none() => {
                    (200, format!("token-{}==", tokens + 1).into_bytes())
                }
                _ => (400, Vec::new()),
            }
        }
        (_, "GET /latest/user-data HTTP/1.1") => {
            let valid = match manner {
                Manner::Forgetful => 2,
                _ => tokens,
            };
            // Without a token this would be version 1.
            let known = header("x-aws-ec2-metadata-token") == Some(format!("token-{valid}=="));
            match user_data {
                _ if !known => (401, Vec::new()),
                Some(user_data) => (200, user_data.to_vec()),
                None => (404, Vec::new()),
            }
        }
        _ => (404, Vec::new()),
    };
    log.push(format!("{question} {status}"));
    // The client may have gone.
    let _ = write!(
        stream,
        "HTTP/1.1 {status} X\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    let _ = stream.write_all(&body);
}
