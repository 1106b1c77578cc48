use super::create::{self, Created};
use super::destroy::{self, Ended};
use super::list::{self, Kept, Line, Listed};
use super::machine::Space;
use super::members::{self, Changed};
use super::status::{self, Status};
use super::*;
use crate::event::Stage;
use crate::provider::{DATA, MachineState, Resource};

fn share() -> Share {
    Share {
        name: NodeName("lake-data".to_owned()),
        size_gib: 20,
        members: ["alice", "worker-0"].map(str::to_owned).into(),
        growing: false,
        restoring: None,
    }
}

fn volume() -> Resource {
    Resource {
        kind: DATA.to_owned(),
        id: "ipop/ipop-lake.lake-data.0123456789abcdef.data".to_owned(),
    }
}

#[test]
fn a_target_has_a_deployment_and_a_share() {
    let target: ShareTarget = "lake/lake-data".parse().expect("valid");
    assert_eq!(target.deployment, "lake");
    assert_eq!(target.share.0, "lake-data");
    let error = "lake".parse::<ShareTarget>().expect_err("no share");
    assert!(error.contains("NAME/SHARE"), "{error}");
}

#[test]
fn people_read_what_there_is_what_is_kept_and_how_to_mount_it() {
    let (ipv4, ipv6) = ("10.130.2.4".to_owned(), "fd5a:1:2:3::4".to_owned());
    let (deployment, site) = ("lake".to_owned(), "local".to_owned());
    let created = Created {
        deployment: deployment.clone(),
        share: share(),
        site: site.clone(),
        ipv4: ipv4.clone(),
        ipv6: ipv6.clone(),
        folder: FOLDER,
        joined: true,
        waited: true,
    };
    let listed = Listed {
        shares: vec![Line {
            deployment: deployment.clone(),
            share: share(),
            site: site.clone(),
            ipv4: ipv4.clone(),
            ipv6: ipv6.clone(),
        }],
        kept: vec![Kept {
            deployment: deployment.clone(),
            share: "old".to_owned(),
            site: site.clone(),
            volume: volume().id,
        }],
    };
    let status = Status {
        deployment: deployment.clone(),
        share: share(),
        site,
        ipv4,
        ipv6,
        folder: FOLDER,
        machine: Some(MachineState::Running),
        now: Some(Stage::Ready),
        space: Some(Space {
            size_bytes: 20 << 30,
            used_bytes: 5 << 30,
        }),
        mounted: Some(vec!["worker-0".to_owned()]),
        exported_to: vec!["10.130.2.2".to_owned()],
        unknown: Vec::new(),
    };
    let dead = Status {
        machine: None,
        now: None,
        space: None,
        mounted: None,
        share: Share {
            growing: true,
            ..share()
        },
        unknown: vec!["site local: no answer".to_owned()],
        deployment: deployment.clone(),
        site: "local".to_owned(),
        ipv4: "10.130.2.4".to_owned(),
        ipv6: "fd5a:1:2:3::4".to_owned(),
        folder: FOLDER,
        exported_to: Vec::new(),
    };
    let kept = Ended {
        deployment: deployment.clone(),
        share: "lake-data".to_owned(),
        machine_removed: true,
        deleted: Vec::new(),
        kept: vec![volume()],
    };
    let deleted = Ended {
        deployment,
        share: "lake-data".to_owned(),
        machine_removed: false,
        deleted: vec![volume()],
        kept: Vec::new(),
    };
    let changed = Changed {
        deployment: "lake".to_owned(),
        share: share(),
        exported_to: vec!["10.130.2.2".to_owned(), "fd5a:1:2:3::2".to_owned()],
    };
    let all = [
        create::text(&created),
        list::text(&listed),
        list::text(&Listed::default()),
        status::text(&status),
        status::text(&dead),
        destroy::text(&kept),
        destroy::text(&deleted),
        members::text(&changed),
    ];
    insta::assert_snapshot!(all.join("---\n"));
}
