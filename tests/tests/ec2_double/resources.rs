//! Images, snapshots, groups and what is there from the start.

use aws_sdk_ec2::types::*;

use super::client::*;

fn tagged(kind: ResourceType, value: &str) -> TagSpecification {
    let tag = Tag::builder().key("ipop:owner").value(value).build();
    TagSpecification::builder()
        .resource_type(kind)
        .tags(tag)
        .build()
}

fn filter(name: &str, value: &str) -> Filter {
    Filter::builder().name(name).values(value).build()
}

#[tokio::test]
async fn an_image_is_described_as_it_was_registered() {
    let setup = setup(|_| {});
    let snapshot = setup.snapshot(None, &[(0, 1)]).await;
    let id = setup
        .register("ipop-a", &snapshot)
        .tag_specifications(tagged(ResourceType::Image, "me"))
        .send()
        .await
        .expect("registered")
        .image_id
        .expect("an id");
    let images = setup.ec2.describe_images().owners("self");
    let images = images.filters(filter("tag:ipop:owner", "me"));
    let images = images
        .send()
        .await
        .expect("described")
        .images
        .expect("some");
    let [image] = images.as_slice() else {
        panic!("{images:?}")
    };
    assert_eq!(image.image_id.as_deref(), Some(id.as_str()));
    assert_eq!(image.state, Some(ImageState::Available));
    assert_eq!(image.boot_mode, Some(BootModeValues::UefiPreferred));
    assert_eq!(image.imds_support, Some(ImdsSupportValues::V20));
    assert_eq!(image.ena_support, Some(true));
    let ebs = image.block_device_mappings()[0]
        .ebs
        .clone()
        .expect("a volume");
    assert_eq!(ebs.snapshot_id.as_deref(), Some(snapshot.as_str()));
    assert_eq!(
        (ebs.volume_size, ebs.volume_type),
        (Some(1), Some(VolumeType::Gp3))
    );
    // What is in use stays.
    let delete = || setup.ec2.delete_snapshot().snapshot_id(&snapshot).send();
    assert_eq!(code(delete().await), "InvalidSnapshot.InUse");
    let deregister = || setup.ec2.deregister_image().image_id(&id).send();
    deregister().await.expect("deregistered");
    assert_eq!(code(deregister().await), "InvalidAMIID.Unavailable");
    delete().await.expect("free now");
    assert_eq!(code(delete().await), "InvalidSnapshot.NotFound");
    assert_eq!(setup.double.leftovers(), Vec::<String>::new());
}

#[tokio::test]
async fn an_unsound_image_is_refused() {
    let setup = setup(|_| {});
    let snapshot = setup.snapshot(None, &[(0, 1)]).await;
    let sound = |name: &str| setup.register(name, &snapshot);
    sound("taken").send().await.expect("sound");
    for (unsound, expected) in [
        (sound("taken"), "InvalidAMIName.Duplicate"),
        (sound("no!"), "InvalidAMIName.Malformed"),
        (
            sound("virt").virtualization_type("paravirtual"),
            "InvalidParameterValue",
        ),
        (
            sound("arch").architecture("vax".into()),
            "InvalidParameterValue",
        ),
        (
            sound("boot").boot_mode("floppy".into()),
            "InvalidParameterValue",
        ),
        (
            sound("imds").imds_support("v1".into()),
            "InvalidParameterValue",
        ),
        (
            sound("root").root_device_name("/dev/sda1"),
            "InvalidBlockDeviceMapping",
        ),
        (
            sound("none").set_block_device_mappings(None),
            "InvalidBlockDeviceMapping",
        ),
        (sound("odd").ramdisk_id("ari-1"), "UnknownParameter"),
        (
            setup.register("gone", "snap-0123456789abcdef0"),
            "InvalidSnapshot.NotFound",
        ),
    ] {
        assert_eq!(code(unsound.send().await), expected);
    }
}

#[tokio::test]
async fn a_group_is_unique_and_stays_while_it_is_used() {
    let setup = setup(|b| b.shutting_down = WHILE);
    let create = || {
        let create = setup.ec2.create_security_group().group_name("ipop-demo");
        create
            .description("for tests")
            .tag_specifications(tagged(ResourceType::SecurityGroup, "me"))
            .send()
    };
    let id = create().await.expect("made").group_id.expect("an id");
    assert_eq!(code(create().await), "InvalidGroup.Duplicate");
    let groups = setup.ec2.describe_security_groups();
    let groups = groups.filters(filter("tag:ipop:owner", "me")).send().await;
    let groups = groups.expect("described").security_groups.expect("some");
    assert_eq!(groups[0].group_id.as_deref(), Some(id.as_str()));
    assert!(groups[0].ip_permissions().is_empty(), "no inbound rule");
    let image = setup.image().await;
    let ran = setup.run(&image, "t").security_group_ids(&id).send().await;
    let instance = ran.expect("launched").instances.expect("one").remove(0);
    let delete = || setup.ec2.delete_security_group().group_id(&id).send();
    let (code, message) = refused(delete().await);
    assert_eq!(code, "DependencyViolation");
    assert_eq!(message, format!("resource {id} has a dependent object"));
    let terminate = setup.ec2.terminate_instances();
    let instance = instance.instance_id.expect("an id");
    terminate
        .instance_ids(&instance)
        .send()
        .await
        .expect("goes");
    assert_eq!(
        refused(delete().await).0,
        "DependencyViolation",
        "it shuts down still"
    );
    tokio::time::sleep(WHILE).await;
    delete().await.expect("free now");
    assert_eq!(refused(delete().await).0, "InvalidGroup.NotFound");
}

#[tokio::test]
async fn the_region_has_a_default_vpc_with_subnets_and_kinds_of_instances() {
    let setup = setup(|_| {});
    let vpcs = setup
        .ec2
        .describe_vpcs()
        .filters(filter("is-default", "true"));
    let vpcs = vpcs.send().await.expect("described").vpcs.expect("one");
    let vpc = vpcs[0].vpc_id.clone().expect("an id");
    let subnets = setup.ec2.describe_subnets().filters(filter("vpc-id", &vpc));
    let subnets = subnets
        .send()
        .await
        .expect("described")
        .subnets
        .expect("some");
    assert_eq!(subnets.len(), 3);
    let types = setup
        .ec2
        .describe_instance_types()
        .instance_types(InstanceType::T3Micro);
    let types = types
        .send()
        .await
        .expect("described")
        .instance_types
        .expect("one");
    let t = &types[0];
    assert_eq!(
        t.v_cpu_info.as_ref().and_then(|v| v.default_v_cpus),
        Some(2)
    );
    assert_eq!(
        t.memory_info.as_ref().and_then(|m| m.size_in_mib),
        Some(1024)
    );
    let arch = t
        .processor_info
        .as_ref()
        .map(|p| p.supported_architectures().to_vec());
    assert_eq!(arch, Some(vec![ArchitectureType::X8664]));
    assert!(t.supported_boot_modes().contains(&BootModeType::Uefi));
    let regions = setup
        .ec2
        .describe_regions()
        .send()
        .await
        .expect("described");
    assert_eq!(
        regions.regions()[0].region_name.as_deref(),
        Some("us-west-2")
    );
}

#[tokio::test]
async fn unknown_filters_parameters_and_actions_are_refused() {
    let setup = setup(|_| {});
    let images = setup.ec2.describe_images().owners("self");
    let (code, message) = refused(images.filters(filter("colour", "red")).send().await);
    assert_eq!(code, "InvalidParameterValue");
    assert_eq!(message, "The filter 'colour' is invalid");
    let (code, message) = refused(
        setup
            .ec2
            .describe_images()
            .executable_users("all")
            .send()
            .await,
    );
    assert_eq!(code, "UnknownParameter");
    assert_eq!(message, "The parameter ExecutableBy.1 is not recognized");
    let (code, message) = refused(setup.ec2.describe_images().send().await);
    assert_eq!(code, "InvalidParameterValue");
    assert!(message.contains("ask for that"), "{message}");
    let (code, _) = refused(setup.ec2.describe_hosts().send().await);
    assert_eq!(code, "InvalidAction");
}

#[tokio::test]
async fn tags_can_be_added_and_are_checked() {
    let setup = setup(|_| {});
    let id = setup.image().await;
    let tag = |key: &str| {
        let tag = Tag::builder().key(key).value("v").build();
        setup.ec2.create_tags().resources(&id).tags(tag).send()
    };
    tag("colour").await.expect("tagged");
    assert_eq!(code(tag("aws:mine").await), "InvalidParameterValue");
    let images = setup.ec2.describe_images().owners("self");
    let images = images.filters(filter("tag-key", "col*")).send().await;
    assert_eq!(images.expect("described").images().len(), 1);
}
