//! Who may call, how often, and what goes wrong on demand.

use std::path::Path;
use std::time::{Duration, Instant};

use aws_sdk_ec2::error::SdkError;
use ipop_tests::ec2::{Behaviour, Ec2Process, Fault, FaultKind, Throttle};

use super::client::*;

#[tokio::test]
async fn only_the_right_key_with_the_right_secret_may_call() {
    let setup = setup(|_| {});
    let right = Behaviour::default();
    let endpoint = setup.double.endpoint();
    for (key, secret) in [
        ("AKIAOTHER", right.secret_key.as_str()),
        (right.access_key.as_str(), "wrong"),
    ] {
        let (code, message) = refused(ec2(endpoint, key, secret).describe_vpcs().send().await);
        assert_eq!(code, "AuthFailure");
        assert_eq!(
            message,
            "AWS was not able to validate the provided access credentials"
        );
        let start = ebs(endpoint, key, secret).start_snapshot().volume_size(1);
        assert_eq!(
            super::client::code(start.send().await),
            "AccessDeniedException"
        );
    }
}

#[tokio::test]
async fn calls_beyond_the_rate_are_refused() {
    let setup = setup(|b| {
        b.throttle = Some(Throttle {
            burst: 3.0,
            per_second: 0.0,
        });
    });
    for _ in 0..3 {
        setup
            .ec2
            .describe_vpcs()
            .send()
            .await
            .expect("within the rate");
    }
    let (code, message) = refused(setup.ec2.describe_vpcs().send().await);
    assert_eq!(code, "RequestLimitExceeded");
    assert_eq!(message, "Request limit exceeded.");
    assert_eq!(setup.double.audit().failed("RequestLimitExceeded"), 1);
}

#[tokio::test]
async fn a_lost_answer_leaves_the_thing_done() {
    let setup = setup(|_| {});
    let image = setup.image().await;
    setup
        .double
        .fault(Fault::next("RunInstances", FaultKind::LoseAnswer));
    let lost = setup.run(&image, "t").send().await;
    assert!(
        matches!(lost, Err(SdkError::DispatchFailure(_))),
        "{lost:?}"
    );
    let living = || {
        let left = setup.double.leftovers();
        left.into_iter()
            .filter(|line| line.starts_with("instance"))
            .count()
    };
    assert_eq!(living(), 1);
    setup.run(&image, "t").send().await.expect("the same one");
    assert_eq!(living(), 1);
    setup
        .double
        .fault(Fault::next("RunInstances", FaultKind::CloseBefore));
    setup.run(&image, "u").send().await.expect_err("closed");
    assert_eq!(living(), 1, "this one was not done");
    let audit = setup.double.audit();
    assert_eq!(
        (audit.count("RunInstances"), audit.succeeded("RunInstances")),
        (3, 1)
    );
}

#[tokio::test]
async fn a_call_may_hang_while_others_go_on() {
    let setup = setup(|_| {});
    setup
        .double
        .fault(Fault::next("DescribeVpcs", FaultKind::Hang));
    let hanging = setup.ec2.describe_vpcs().send();
    let began = Instant::now();
    let ended = tokio::time::timeout(Duration::from_millis(300), hanging).await;
    assert!(ended.is_err(), "it hangs");
    setup
        .ec2
        .describe_vpcs()
        .send()
        .await
        .expect("the next one does not");
    assert!(began.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn an_ordered_error_hits_only_what_mentions_its_value() {
    let setup = setup(|_| {});
    let image = setup.image().await;
    let text = "We currently do not have sufficient t3.micro capacity";
    let fault = Fault::error("RunInstances", 500, "InsufficientInstanceCapacity", text);
    setup.double.fault(fault.mentioning("unlucky"));
    setup
        .run(&image, "lucky")
        .send()
        .await
        .expect("another one");
    let (code, message) = refused(setup.run(&image, "unlucky").send().await);
    assert_eq!(
        (code.as_str(), message.as_str()),
        ("InsufficientInstanceCapacity", text)
    );
    setup
        .run(&image, "unlucky")
        .send()
        .await
        .expect("once only");
}

#[tokio::test]
async fn a_double_of_its_own_process_is_the_same_for_every_client() {
    let binary = Path::new(env!("CARGO_BIN_EXE_ec2-double"));
    let behaviour = Behaviour::default();
    let process = Ec2Process::start(binary, &behaviour);
    let client = || {
        ec2(
            process.endpoint(),
            &behaviour.access_key,
            &behaviour.secret_key,
        )
    };
    let create = client()
        .create_security_group()
        .group_name("g")
        .description("d");
    create.send().await.expect("made");
    let left = process.leftovers();
    assert!(left.len() == 1 && left[0].ends_with(" g"), "{left:?}");
    process.fault(&Fault::error(
        "DescribeVpcs",
        500,
        "InternalError",
        "An internal error",
    ));
    assert_eq!(code(client().describe_vpcs().send().await), "InternalError");
    process.fault(&Fault::error("*", 500, "InternalError", "An internal error").always());
    process.clear_faults();
    process.change(|b| b.denied.push("DescribeVpcs".into()));
    assert_eq!(
        code(client().describe_vpcs().send().await),
        "UnauthorizedOperation"
    );
    assert_eq!(process.audit().count("DescribeVpcs"), 2);
}
