//! The EC2 provider against the strict double: what moto lets pass, and every way in which EC2 may
//! be slow, forgetful or unwilling.

mod site;

use std::time::Duration;

use ipop_tests::ec2::{Fault, FaultKind, Throttle};
use ipop_tests::wait_until;
use provisioner::error::Retry;
use provisioner::provider::{MachineState, Provider};

use site::{BLOCKS, Site, printed};

#[test]
fn everything_is_made_once_and_removed_without_a_rest() {
    let site = Site::new(|_| {});
    let step = site.make_before("instance");
    site.make(&step).expect("launched");
    let found = site.provider.find(None).expect("found");
    assert_eq!(found.len(), 4, "{found:?}");
    site.remove_all();
    assert_eq!(site.double.leftovers(), Vec::<String>::new());
    assert!(site.provider.find(None).expect("found").is_empty());
}

#[test]
fn an_address_that_comes_late_is_no_failure() {
    let site = Site::new(|b| b.address_after = 4);
    let step = site.make_before("instance");
    site.make(&step).expect("launched without an address");
    let first = site.machine().expect("it is there");
    assert_eq!((first.state, first.underlay), (MachineState::Running, None));
    wait_until("the address", Duration::from_secs(10), || {
        site.machine()?.underlay
    });
}

#[test]
fn whatever_is_asked_for_is_found_though_it_shows_late() {
    let site = Site::new(|b| {
        b.unseen_calls = 3;
        b.snapshot_unseen = Duration::from_secs(1);
        b.image_pending = Duration::from_secs(1);
        b.pending = Duration::from_secs(1);
    });
    let step = site.make_before("instance");
    site.make(&step).expect("launched");
    assert_eq!(site.there("instance"), 1);
    assert_eq!(site.there("snapshot"), 1);
}

#[test]
fn an_answer_that_was_lost_makes_nothing_twice() {
    for kind in ["security-group", "image", "instance"] {
        let site = Site::new(|_| {});
        let step = site.make_before(kind);
        let (action, what) = match kind {
            "security-group" => ("CreateSecurityGroup", "group"),
            "image" => ("RegisterImage", "image"),
            _ => ("RunInstances", "instance"),
        };
        site.double
            .fault(Fault::next(action, FaultKind::LoseAnswer));
        let token = "ff".repeat(16);
        let lost = site.make_as(&step, &token, 60);
        if let Err(error) = &lost {
            assert_eq!(error.retry, Retry::Soon, "{}", printed(error));
        }
        // As the engine does: the same again, with the same token.
        site.make_as(&step, &token, 60)
            .unwrap_or_else(|e| panic!("{kind}: {}", printed(&e)));
        assert_eq!(site.there(what), 1, "{:?}", site.double.leftovers());
        site.remove_all();
        assert_eq!(site.double.leftovers(), Vec::<String>::new());
    }
}

#[test]
fn a_snapshot_survives_lost_answers_of_its_start_and_its_blocks() {
    for action in ["StartSnapshot", "PutSnapshotBlock", "CompleteSnapshot"] {
        let site = Site::new(|_| {});
        let step = site.step("snapshot");
        site.double
            .fault(Fault::next(action, FaultKind::LoseAnswer));
        let token = "ee".repeat(16);
        let first = site.make_as(&step, &token, 60);
        if let Err(error) = first {
            assert_eq!(error.retry, Retry::Soon, "{action}: {}", printed(&error));
            site.make_as(&step, &token, 60)
                .unwrap_or_else(|e| panic!("{action}: {}", printed(&e)));
        }
        let left = site.double.leftovers();
        assert!(
            left.len() == 1 && left[0].contains("completed"),
            "{action}: {left:?}"
        );
    }
}

#[test]
fn a_block_that_hangs_is_put_again_and_only_what_holds_something_is_put() {
    let site = Site::new(|_| {});
    let fault = Fault::next("PutSnapshotBlock", FaultKind::Delay(200));
    site.double.fault(fault);
    site.make(&site.step("snapshot")).expect("uploaded");
    let audit = site.double.audit();
    assert_eq!(audit.succeeded("PutSnapshotBlock"), BLOCKS.len());
    assert!(audit.most_at_once("PutSnapshotBlock") > 1, "in parallel");
}

#[test]
fn throttling_slows_down_and_ends_nothing() {
    let site = Site::new(|b| {
        b.throttle = Some(Throttle {
            burst: 3.0,
            per_second: 4.0,
        });
        b.throttle_blocks = Some(Throttle {
            burst: 2.0,
            per_second: 10.0,
        });
    });
    let step = site.make_before("instance");
    site.make(&step).expect("launched at last");
    let audit = site.double.audit();
    assert!(
        audit.failed("RequestLimitExceeded") > 0,
        "{:?}",
        audit.counts()
    );
}

#[test]
fn without_end_throttling_is_said_to_be_that() {
    let site = Site::new(|b| {
        b.throttle = Some(Throttle {
            burst: 0.0,
            per_second: 0.0,
        });
    });
    let error = site
        .make(&site.step("security-group"))
        .expect_err("throttled");
    assert_eq!(error.retry, Retry::Throttled);
    let text = printed(&error);
    assert!(
        text.contains("RequestLimitExceeded: Request limit exceeded"),
        "{text}"
    );
    assert!(
        text.contains("hint: the API asks for fewer calls"),
        "{text}"
    );
}

#[test]
fn a_group_in_use_is_removed_when_its_instance_is_gone() {
    let site = Site::new(|b| b.shutting_down = Duration::from_secs(2));
    let step = site.make_before("instance");
    site.make(&step).expect("launched");
    let group = site.step("security-group").resource;
    let error = site.remove(&group, 2).expect_err("it is in use");
    assert_eq!(error.retry, Retry::Soon);
    let text = printed(&error);
    assert!(
        text.contains("cannot remove security group ipop-demo-8899aabb"),
        "{text}"
    );
    assert!(text.contains("DependencyViolation: resource sg-"), "{text}");
    assert!(text.contains("hint: what uses it must go first"), "{text}");
    site.remove_all();
    assert_eq!(site.double.leftovers(), Vec::<String>::new());
}

#[test]
fn a_wrong_checksum_on_the_way_is_refused_and_said() {
    let site = Site::new(|_| {});
    let mut fault = Fault::error(
        "PutSnapshotBlock",
        400,
        "ValidationException",
        "The checksum is not the block's",
    );
    fault.times = None;
    site.double.fault(fault);
    let error = site.make(&site.step("snapshot")).expect_err("refused");
    let text = printed(&error);
    assert!(
        text.contains("ValidationException: The checksum is not the block's"),
        "{text}"
    );
}

#[test]
fn no_capacity_no_quota_and_no_permission_are_told_with_a_way_out() {
    let site = Site::new(|_| {});
    let step = site.make_before("instance");
    for (status, code, message, retry, hint) in [
        (
            500,
            "InsufficientInstanceCapacity",
            "We currently do not have sufficient t3.micro capacity in the Availability Zone you \
             requested (us-west-2a).",
            Retry::Never,
            "hint: choose another `instance_type`",
        ),
        (
            400,
            "VcpuLimitExceeded",
            "You have requested more vCPU capacity than your current vCPU limit of 32 allows",
            Retry::Never,
            "hint: ask for more in Service Quotas",
        ),
        (
            400,
            "MaxSpotInstanceCountExceeded",
            "Max spot instance count exceeded",
            Retry::Never,
            "hint: ask for more in Service Quotas",
        ),
        (
            403,
            "UnauthorizedOperation",
            "You are not authorized to perform this operation.",
            Retry::Never,
            "hint: allow `ec2:RunInstances`",
        ),
        (
            500,
            "InternalError",
            "An internal error has occurred",
            Retry::Soon,
            "hint: a fault at Amazon's",
        ),
    ] {
        let fault = Fault::error("RunInstances", status, code, message).always();
        site.double.fault(fault);
        let error = site.make(&step).expect_err(code);
        let text = printed(&error);
        assert!(
            text.starts_with("error: cannot launch worker-0\n"),
            "{text}"
        );
        let cause = format!("RunInstances: {code}: {}", message.trim_end_matches('.'));
        assert!(text.contains(&cause), "{text}");
        assert!(text.contains(hint), "{text}");
        assert_eq!(error.retry, retry, "{text}");
        site.double.clear_faults();
    }
    assert_eq!(site.there("instance"), 0);
    site.make(&step).expect("when there is room again");
}

#[test]
fn the_real_quota_of_the_account_is_met() {
    let site = Site::new(|b| b.vcpus = 1);
    let step = site.make_before("instance");
    let text = printed(&site.make(&step).expect_err("no quota"));
    assert!(
        text.contains("VcpuLimitExceeded: You have requested more"),
        "{text}"
    );
}

#[test]
fn an_instance_that_dies_at_once_says_why() {
    let site = Site::new(|_| {});
    let step = site.make_before("instance");
    let dies = FaultKind::Dies {
        code: "Client.VolumeLimitExceeded".into(),
        message: "Volume limit exceeded".into(),
    };
    // The first calls may be refused because the group cannot be seen yet.
    site.double
        .fault(Fault::next("RunInstances", dies).always());
    let text = printed(&site.make(&step).expect_err("it died"));
    assert!(text.contains("the instance of worker-0 (i-"), "{text}");
    assert!(
        text.contains("Client.VolumeLimitExceeded: Volume limit exceeded"),
        "{text}"
    );
    site.double.clear_faults();
    site.make(&step).expect("another one lives");
}

#[test]
fn a_wrong_key_and_a_missing_permission_are_seen_by_the_check() {
    let site = Site::new(|_| {});
    let lines = site.provider.check().expect("checked");
    let bad: Vec<_> = lines.iter().filter(|line| !line.ok).collect();
    assert!(bad.is_empty(), "{bad:?}");
    site.double
        .change(|b| b.denied.push("TerminateInstances".into()));
    let lines = site.provider.check().expect("checked");
    let bad: Vec<_> = lines.iter().filter(|line| !line.ok).collect();
    assert!(
        bad.len() == 1 && bad[0].found.contains("ec2:TerminateInstances"),
        "{bad:?}"
    );
    site.double.change(|b| b.access_key = "AKIAOTHER".into());
    let lines = site.provider.check().expect("checked");
    let bad = lines.iter().find(|line| !line.ok).expect("refused");
    assert_eq!(bad.what, "log-in");
    assert!(bad.found.contains("AuthFailure"), "{}", bad.found);
}
