//! Against a double of the service on loopback, strict where EC2's is.

use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use ipop_testbed::imds::{Imds, Manner};

use super::*;

const GOOD: &str = r#"{"version":1,"credentials":{"ipop.enrol-token":"c2VzYW1l"}}"#;

fn double(manner: Manner) -> Imds {
    Imds::start(manner, Some(GOOD.into()))
}

fn fetched(double: &Imds) -> (Result<Vec<u8>, MetadataError>, Vec<String>) {
    let result = fetch(double.address, Duration::from_secs(20));
    (result, double.log())
}

#[test]
fn the_user_data_is_asked_for_with_a_session_token() {
    let (user_data, log) = fetched(&double(Manner::Well));
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
    let double = double(Manner::Well);
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
        let (user_data, log) = fetched(&double(manner));
        assert_eq!(user_data.expect("in the end"), GOOD.as_bytes());
        assert!(log.len() > 3, "{log:?}");
    }
}

#[test]
fn what_will_not_change_is_not_asked_again() {
    let (forbidden, log) = fetched(&double(Manner::Forbidden));
    let error = forbidden.expect_err("switched off").to_string();
    assert_eq!(
        error,
        "the metadata service refused a session token: status 403"
    );
    assert_eq!(log.len(), 1);
    let (without, log) = fetched(&Imds::start(Manner::Well, None));
    assert_eq!(
        without.expect_err("none").to_string(),
        "this instance has no user data"
    );
    assert_eq!(log.len(), 2);
}

#[test]
fn silence_ends_at_the_time_limit() {
    let double = double(Manner::Silent);
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
