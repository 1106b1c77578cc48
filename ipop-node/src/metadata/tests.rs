//! Against a double of the service on loopback, strict where EC2's is.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::*;

const GOOD: &str = r#"{"version":1,"credentials":{"ipop.enrol-token":"c2VzYW1l"}}"#;

/// What the double does that the service does only now and then.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Manner {
    Well,
    /// The first three questions are answered with 503.
    Busy,
    /// The hop limit is too low: nothing comes back.
    Silent,
    /// The service is switched off.
    Forbidden,
    /// No user data.
    Without,
    /// The first session token is forgotten at once.
    Forgetful,
}

struct Double {
    address: SocketAddr,
    log: Arc<Mutex<Vec<String>>>,
}

impl Double {
    fn start(manner: Manner) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
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
                answer(stream, manner, &said);
            }
        });
        Self { address, log }
    }

    fn log(&self) -> Vec<String> {
        self.log.lock().expect("unpoisoned").clone()
    }
}

fn answer(mut stream: TcpStream, manner: Manner, log: &Mutex<Vec<String>>) {
    let lines: Vec<String> = BufReader::new(stream.try_clone().expect("a descriptor"))
        .lines()
        .map_while(|line| line.ok().filter(|line| !line.is_empty()))
        .collect();
    let header = |name: &str| {
        lines.iter().find_map(|line| {
            let (key, value) = line.split_once(": ")?;
            key.eq_ignore_ascii_case(name).then(|| value.to_owned())
        })
    };
    let ttl = header("x-aws-ec2-metadata-token-ttl-seconds");
    let token = header("x-aws-ec2-metadata-token");
    let (status, body) = {
        let log = log.lock().expect("unpoisoned");
        let asked = log.len();
        let tokens = log.iter().filter(|l| l.starts_with("PUT")).count();
        match (manner, lines[0].as_str()) {
            (Manner::Forbidden, _) => (403, String::new()),
            (Manner::Busy, _) if asked < 3 => (503, String::new()),
            (_, "PUT /latest/api/token HTTP/1.1") => match ttl.and_then(|t| t.parse().ok()) {
                // As the service: 1 s to 6 h, and nothing that went through a proxy.
                Some(1..=21600u32) if header("x-forwarded-for").is_none() => {
                    (200, format!("token-{}==", tokens + 1))
                }
                _ => (400, String::new()),
            },
            (Manner::Without, "GET /latest/user-data HTTP/1.1") => (404, String::new()),
            (_, "GET /latest/user-data HTTP/1.1") => {
                let valid = match manner {
                    Manner::Forgetful => 2,
                    _ => tokens,
                };
                // Without a token this would be version 1.
                match token {
                    Some(token) if token == format!("token-{valid}==") => (200, GOOD.to_owned()),
                    _ => (401, String::new()),
                }
            }
            _ => (404, String::new()),
        }
    };
    log.lock()
        .expect("unpoisoned")
        .push(format!("{} {status}", lines[0]));
    let length = body.len();
    // The client may have gone.
    let _ = write!(
        stream,
        "HTTP/1.1 {status} X\r\nContent-Length: {length}\r\n\r\n{body}"
    );
}

fn fetched(manner: Manner) -> (Result<Vec<u8>, MetadataError>, Vec<String>) {
    let double = Double::start(manner);
    let result = fetch(double.address, Duration::from_secs(20));
    (result, double.log())
}

#[test]
fn the_user_data_is_asked_for_with_a_session_token() {
    let (user_data, log) = fetched(Manner::Well);
    assert_eq!(user_data.expect("there"), GOOD.as_bytes());
    assert_eq!(
        log,
        [
            "PUT /latest/api/token HTTP/1.1 200",
            "GET /latest/user-data HTTP/1.1 200"
        ]
    );
}

#[test]
fn the_double_refuses_version_1_and_a_wrong_token_as_the_service_does() {
    let double = Double::start(Manner::Well);
    let ask = |method, path, header| {
        let request = Request {
            method,
            path,
            header,
            limit: 1000,
        };
        http::ask(double.address, TRY, &request)
            .expect("an answer")
            .status
    };
    let path = "/latest/user-data";
    assert_eq!(ask("GET", path, ("Accept", "*/*")), 401);
    assert_eq!(ask("GET", path, ("X-aws-ec2-metadata-token", "mine")), 401);
    assert_eq!(ask("PUT", "/latest/api/token", ("Accept", "*/*")), 400);
}

#[test]
fn a_service_that_is_busy_or_forgot_the_token_is_asked_again() {
    for manner in [Manner::Busy, Manner::Forgetful] {
        let (user_data, log) = fetched(manner);
        assert_eq!(user_data.expect("in the end"), GOOD.as_bytes());
        assert!(log.len() > 3, "{log:?}");
    }
}

#[test]
fn what_will_not_change_is_not_asked_again() {
    let (forbidden, log) = fetched(Manner::Forbidden);
    let error = forbidden.expect_err("switched off").to_string();
    assert_eq!(
        error,
        "the metadata service refused a session token: status 403"
    );
    assert_eq!(log.len(), 1);
    let (without, log) = fetched(Manner::Without);
    assert_eq!(
        without.expect_err("none").to_string(),
        "this instance has no user data"
    );
    assert_eq!(log.len(), 2);
}

#[test]
fn silence_ends_at_the_time_limit() {
    let double = Double::start(Manner::Silent);
    let began = Instant::now();
    let error = fetch(double.address, Duration::from_secs(1)).expect_err("nothing comes");
    assert!(began.elapsed() < TRY * 3, "{:?}", began.elapsed());
    let text = format!(
        "the metadata service at {} gave no user data within 1 s",
        double.address
    );
    assert_eq!(error.to_string(), text);
}

#[test]
fn credentials_are_files_for_their_owner_alone_and_old_ones_go() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let store = dir.path().join("credstore");
    std::fs::create_dir(&store).expect("made");
    std::fs::write(store.join("old"), "x").expect("written");
    assert_eq!(install(GOOD.as_bytes(), &store).expect("written"), 1);
    let file = store.join("ipop.enrol-token");
    assert_eq!(std::fs::read(&file).expect("readable"), b"sesame");
    let mode = |path: &Path| std::fs::metadata(path).expect("there").permissions().mode() & 0o777;
    assert_eq!((mode(&store), mode(&file)), (0o700, 0o600));
    assert!(!store.join("old").exists());
    install(b"{}", &store).expect_err("not personal data");
    assert!(file.exists(), "bad user data leaves what is there");
}
