//! Instances: launching, waiting, terminating.

use std::time::{Duration, Instant};

use aws_sdk_ec2::types::*;
use ipop_tests::ec2::{Fault, FaultKind};

use super::client::*;

impl Setup {
    async fn described(&self, id: &str) -> Instance {
        let described = self.ec2.describe_instances().instance_ids(id).send().await;
        described.expect("described").reservations()[0].instances()[0].clone()
    }

    async fn launched(&self, image: &str, token: &str) -> String {
        let ran = self.run(image, token).send().await.expect("launched");
        ran.instances()[0].instance_id.clone().expect("an id")
    }

    async fn terminate(&self, id: &str) {
        let terminate = self.ec2.terminate_instances().instance_ids(id);
        terminate.send().await.expect("terminated");
    }
}

fn state(instance: &Instance) -> InstanceStateName {
    let state = instance.state.as_ref().expect("a state");
    state.name.clone().expect("a name")
}

async fn until(setup: &Setup, id: &str, wanted: InstanceStateName) -> Instance {
    let deadline = Instant::now() + LIMIT;
    while Instant::now() < deadline {
        let instance = setup.described(id).await;
        if state(&instance) == wanted {
            return instance;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{id} never came to {wanted}");
}

#[tokio::test]
async fn a_token_launches_once_and_even_after_the_end() {
    let setup = setup(|_| {});
    let image = setup.image().await;
    let first = setup.launched(&image, "token").await;
    assert_eq!(setup.launched(&image, "token").await, first);
    assert_ne!(setup.launched(&image, "another").await, first);
    let other = setup.run(&image, "token").max_count(2).send().await;
    assert_eq!(code(other), "IdempotentParameterMismatch");
    setup.terminate(&first).await;
    until(&setup, &first, InstanceStateName::Terminated).await;
    let again = setup.run(&image, "token").send().await.expect("the same");
    assert_eq!(
        again.instances()[0].instance_id.as_deref(),
        Some(first.as_str())
    );
    assert_eq!(state(&again.instances()[0]), InstanceStateName::Terminated);
}

#[tokio::test]
async fn an_instance_is_seen_late_and_its_address_later() {
    let setup = setup(|b| {
        b.address_after = 2;
        b.pending = WHILE;
    });
    let snapshot = setup.snapshot(None, &[(0, 1)]).await;
    setup.double.change(|b| b.unseen_calls = 2);
    let registered = setup.register("ipop-test", &snapshot).send().await;
    let image = registered.expect("registered").image_id.expect("an id");
    // The image, too, is not there at first.
    for _ in 0..2 {
        let early = setup.run(&image, "t").send().await;
        assert_eq!(code(early), "InvalidAMIID.NotFound");
    }
    let id = setup.launched(&image, "t").await;
    for _ in 0..2 {
        let early = setup
            .ec2
            .describe_instances()
            .instance_ids(&id)
            .send()
            .await;
        let (code, message) = refused(early);
        assert_eq!(code, "InvalidInstanceID.NotFound");
        assert_eq!(message, format!("The instance ID '{id}' does not exist"));
    }
    assert_eq!(
        state(&setup.described(&id).await),
        InstanceStateName::Pending
    );
    let running = until(&setup, &id, InstanceStateName::Running).await;
    assert_eq!(running.private_ip_address, None);
    assert_eq!(setup.described(&id).await.private_ip_address, None);
    let address = setup.described(&id).await.private_ip_address;
    assert!(address.expect("now").starts_with("172.31."));
}

#[tokio::test]
async fn a_terminated_instance_is_forgotten() {
    let setup = setup(|b| b.forgotten_after = WHILE);
    let image = setup.image().await;
    let id = setup.launched(&image, "t").await;
    setup.terminate(&id).await;
    let gone = until(&setup, &id, InstanceStateName::Terminated).await;
    assert_eq!(
        gone.state_reason.and_then(|r| r.code).as_deref(),
        Some("Client.UserInitiatedShutdown")
    );
    assert_eq!(gone.private_ip_address, None);
    tokio::time::sleep(WHILE).await;
    let late = setup
        .ec2
        .describe_instances()
        .instance_ids(&id)
        .send()
        .await;
    assert_eq!(code(late), "InvalidInstanceID.NotFound");
}

#[tokio::test]
async fn lists_come_in_pages_and_by_tag_and_state() {
    let setup = setup(|b| b.page = 5);
    let image = setup.image().await;
    let tag = Tag::builder().key("node").value("w").build();
    let tags = TagSpecification::builder()
        .resource_type(ResourceType::Instance)
        .tags(tag);
    let ran = setup.run(&image, "t").min_count(12).max_count(12);
    ran.tag_specifications(tags.build())
        .send()
        .await
        .expect("launched");
    setup.launched(&image, "untagged").await;
    let mut pages = Vec::new();
    let mut token = None;
    loop {
        let page = setup
            .ec2
            .describe_instances()
            .filters(Filter::builder().name("tag:node").values("w").build())
            .filters(
                Filter::builder()
                    .name("instance-state-name")
                    .values("running")
                    .values("pending")
                    .build(),
            )
            .set_next_token(token)
            .send()
            .await
            .expect("described");
        pages.push(page.reservations().len());
        token = page.next_token;
        if token.is_none() {
            break;
        }
    }
    assert_eq!(pages, [5, 5, 2]);
    let few = setup.ec2.describe_instances().max_results(2).send().await;
    assert_eq!(code(few), "InvalidParameterValue");
}

#[tokio::test]
async fn an_unsound_launch_is_refused() {
    let setup = setup(|b| b.vcpus = 4);
    let image = setup.image().await;
    let sound = || setup.run(&image, "t");
    let volume = |gib: i32| {
        let ebs = EbsBlockDevice::builder().volume_size(gib).build();
        BlockDeviceMapping::builder()
            .device_name("/dev/xvda")
            .ebs(ebs)
            .build()
    };
    for (unsound, expected) in [
        (
            setup.run("ami-0123456789abcdef0", "t"),
            "InvalidAMIID.NotFound",
        ),
        (setup.run("ami-1", "t"), "InvalidAMIID.Malformed"),
        (
            sound().instance_type(InstanceType::T4gMicro),
            "InvalidParameterValue",
        ),
        (
            sound().instance_type("t9.huge".into()),
            "InvalidParameterValue",
        ),
        (sound().key_name("mine"), "InvalidKeyPair.NotFound"),
        (sound().subnet_id("subnet-1"), "InvalidSubnetID.NotFound"),
        (
            sound().security_group_ids("sg-0123456789abcdef0"),
            "InvalidGroup.NotFound",
        ),
        (sound().user_data("%%"), "InvalidParameterValue"),
        (
            sound().block_device_mappings(volume(0)),
            "InvalidBlockDeviceMapping",
        ),
        (sound().max_count(3).min_count(3), "VcpuLimitExceeded"),
        (sound().min_count(2), "InvalidParameterCombination"),
        (
            sound().instance_type(InstanceType::C7i48xlarge),
            "VcpuLimitExceeded",
        ),
        (sound().dry_run(true), "DryRunOperation"),
    ] {
        assert_eq!(code(unsound.send().await), expected);
    }
    assert!(
        !setup
            .double
            .leftovers()
            .iter()
            .any(|line| line.starts_with("instance"))
    );
    let denied = |b: &mut ipop_tests::ec2::Behaviour| b.denied.push("RunInstances".into());
    setup.double.change(denied);
    assert_eq!(
        code(sound().dry_run(true).send().await),
        "UnauthorizedOperation"
    );
}

#[tokio::test]
async fn spot_and_metadata_options_are_kept() {
    let setup = setup(|_| {});
    let image = setup.image().await;
    let market = InstanceMarketOptionsRequest::builder()
        .market_type(MarketType::Spot)
        .build();
    let metadata = InstanceMetadataOptionsRequest::builder()
        .http_tokens(HttpTokensState::Required)
        .http_put_response_hop_limit(1)
        .build();
    let run = setup.run(&image, "t").instance_market_options(market);
    let ran = run
        .metadata_options(metadata)
        .send()
        .await
        .expect("launched");
    let id = ran.instances()[0].instance_id.clone().expect("an id");
    let instance = until(&setup, &id, InstanceStateName::Running).await;
    assert_eq!(
        instance.instance_lifecycle,
        Some(InstanceLifecycleType::Spot)
    );
    let tokens = instance.metadata_options.and_then(|o| o.http_tokens);
    assert_eq!(tokens, Some(HttpTokensState::Required));
    let console = setup.ec2.get_console_output().instance_id(&id).send().await;
    assert!(console.expect("answered").output.is_some());
}

#[tokio::test]
async fn a_volume_that_is_to_outlive_its_instance_is_left_over() {
    let setup = setup(|_| {});
    let image = setup.image().await;
    let ebs = EbsBlockDevice::builder()
        .delete_on_termination(false)
        .build();
    let mapping = BlockDeviceMapping::builder()
        .device_name("/dev/xvda")
        .ebs(ebs)
        .build();
    let run = setup.run(&image, "t").block_device_mappings(mapping);
    let ran = run.send().await.expect("launched");
    let id = ran.instances()[0].instance_id.clone().expect("an id");
    setup.terminate(&id).await;
    until(&setup, &id, InstanceStateName::Terminated).await;
    let left = setup.double.leftovers();
    assert!(
        left.iter().any(|line| line.starts_with("volume vol-")),
        "{left:?}"
    );
}

#[tokio::test]
async fn an_instance_may_die_at_once_and_says_why() {
    let setup = setup(|b| b.pending = Duration::from_millis(50));
    let image = setup.image().await;
    setup.double.fault(Fault::next(
        "RunInstances",
        FaultKind::Dies {
            code: "Server.InternalError".into(),
            message: "Internal error on launch".into(),
        },
    ));
    let id = setup.launched(&image, "t").await;
    let dead = until(&setup, &id, InstanceStateName::Terminated).await;
    let reason = dead.state_reason.expect("a reason");
    assert_eq!(reason.code.as_deref(), Some("Server.InternalError"));
    assert_eq!(
        reason.message.as_deref(),
        Some("Server.InternalError: Internal error on launch")
    );
}
