//! Clients for the double, without retries of their own.

use std::time::Duration;

use aws_credential_types::Credentials;
use aws_sdk_ebs::config::{BehaviorVersion, Region, retry::RetryConfig};
use aws_sdk_ec2::error::{ProvideErrorMetadata, SdkError};
use ipop_tests::ec2::{Behaviour, Ec2Double};
use sha2::{Digest, Sha256};

/// How long a state lasts that a test looks at before it passes: longer than a busy machine takes
/// for a few calls.
pub const WHILE: Duration = Duration::from_secs(2);
/// For what comes by itself.
pub const LIMIT: Duration = Duration::from_secs(30);

/// A double and clients of it.
pub struct Setup {
    pub double: Ec2Double,
    pub ec2: aws_sdk_ec2::Client,
    pub ebs: aws_sdk_ebs::Client,
}

/// One that hides nothing and is never slow, as far as `change` lets it.
pub fn setup(change: impl FnOnce(&mut Behaviour)) -> Setup {
    let mut behaviour = Behaviour {
        unseen_calls: 0,
        address_after: 0,
        pending: Default::default(),
        shutting_down: Default::default(),
        snapshot_unseen: Default::default(),
        snapshot_pending: Default::default(),
        image_pending: Default::default(),
        ..Behaviour::default()
    };
    change(&mut behaviour);
    let keys = (behaviour.access_key.clone(), behaviour.secret_key.clone());
    let double = Ec2Double::start(behaviour);
    Setup {
        ec2: ec2(double.endpoint(), &keys.0, &keys.1),
        ebs: ebs(double.endpoint(), &keys.0, &keys.1),
        double,
    }
}

/// An EC2 client.
pub fn ec2(endpoint: &str, key: &str, secret: &str) -> aws_sdk_ec2::Client {
    aws_sdk_ec2::Client::from_conf(
        aws_sdk_ec2::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new("us-west-2"))
            .endpoint_url(endpoint)
            .credentials_provider(Credentials::new(key, secret, None, None, "test"))
            .retry_config(RetryConfig::disabled())
            .build(),
    )
}

/// An EBS client.
pub fn ebs(endpoint: &str, key: &str, secret: &str) -> aws_sdk_ebs::Client {
    aws_sdk_ebs::Client::from_conf(
        aws_sdk_ebs::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new("us-west-2"))
            .endpoint_url(endpoint)
            .credentials_provider(Credentials::new(key, secret, None, None, "test"))
            .retry_config(RetryConfig::disabled())
            .build(),
    )
}

/// Code and message of a call that was refused.
#[track_caller]
pub fn refused<T, E: ProvideErrorMetadata + std::fmt::Debug, R: std::fmt::Debug>(
    result: Result<T, SdkError<E, R>>,
) -> (String, String) {
    let error = result.err().expect("a refusal");
    let meta = error.meta();
    let text = |part: Option<&str>| part.unwrap_or_default().to_owned();
    assert!(meta.code().is_some(), "no refusal: {error:?}");
    (text(meta.code()), text(meta.message()))
}

/// The code alone.
#[track_caller]
pub fn code<T, E: ProvideErrorMetadata + std::fmt::Debug, R: std::fmt::Debug>(
    result: Result<T, SdkError<E, R>>,
) -> String {
    refused(result).0
}

/// SHA-256 in base64.
pub fn checksum(data: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(Sha256::digest(data))
}

impl Setup {
    /// A completed snapshot of 1 GiB with these blocks.
    pub async fn snapshot(&self, parent: Option<&str>, blocks: &[(i32, u8)]) -> String {
        let id = self.start(parent).await;
        for (index, byte) in blocks {
            self.put(&id, *index, *byte).await.expect("stored");
        }
        self.complete(&id, blocks).await.expect("completed");
        let reads = || async {
            let listed = self.ebs.list_snapshot_blocks().snapshot_id(&id).send();
            listed.await.is_ok()
        };
        while !reads().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        id
    }

    /// A snapshot of 1 GiB that is open.
    pub async fn start(&self, parent: Option<&str>) -> String {
        let start = self.ebs.start_snapshot().volume_size(1);
        let started = start.set_parent_snapshot_id(parent.map(Into::into));
        let started = started.send().await.expect("started");
        started.snapshot_id.expect("an identifier")
    }

    /// Puts a block full of one byte.
    pub async fn put(
        &self,
        id: &str,
        index: i32,
        byte: u8,
    ) -> Result<(), SdkError<aws_sdk_ebs::operation::put_snapshot_block::PutSnapshotBlockError>>
    {
        let data = vec![byte; ipop_tests::ec2::BLOCK];
        self.ebs
            .put_snapshot_block()
            .snapshot_id(id)
            .block_index(index)
            .data_length(data.len() as i32)
            .checksum(checksum(&data))
            .checksum_algorithm(aws_sdk_ebs::types::ChecksumAlgorithm::ChecksumAlgorithmSha256)
            .block_data(data.into())
            .send()
            .await
            .map(|_| ())
    }

    /// Completes a snapshot with these blocks.
    pub async fn complete(
        &self,
        id: &str,
        blocks: &[(i32, u8)],
    ) -> Result<(), SdkError<aws_sdk_ebs::operation::complete_snapshot::CompleteSnapshotError>>
    {
        let digests: Vec<u8> = blocks
            .iter()
            .flat_map(|(_, byte)| Sha256::digest(vec![*byte; ipop_tests::ec2::BLOCK]))
            .collect();
        self.ebs
            .complete_snapshot()
            .snapshot_id(id)
            .changed_blocks_count(blocks.len() as i32)
            .checksum(checksum(&digests))
            .checksum_algorithm(aws_sdk_ebs::types::ChecksumAlgorithm::ChecksumAlgorithmSha256)
            .checksum_aggregation_method(
                aws_sdk_ebs::types::ChecksumAggregationMethod::ChecksumAggregationLinear,
            )
            .send()
            .await
            .map(|_| ())
    }

    /// An image of a snapshot of its own.
    pub async fn image(&self) -> String {
        let snapshot = self.snapshot(None, &[(0, 1)]).await;
        let registered = self.register("ipop-test", &snapshot).send().await;
        registered.expect("registered").image_id.expect("an id")
    }

    /// What registers a sound image.
    pub fn register(
        &self,
        name: &str,
        snapshot: &str,
    ) -> aws_sdk_ec2::operation::register_image::builders::RegisterImageFluentBuilder {
        use aws_sdk_ec2::types::*;
        let ebs = EbsBlockDevice::builder()
            .snapshot_id(snapshot)
            .volume_type(VolumeType::Gp3)
            .delete_on_termination(true)
            .build();
        self.ec2
            .register_image()
            .name(name)
            .architecture(ArchitectureValues::X8664)
            .virtualization_type("hvm")
            .ena_support(true)
            .boot_mode(BootModeValues::UefiPreferred)
            .imds_support(ImdsSupportValues::V20)
            .root_device_name("/dev/xvda")
            .block_device_mappings(
                BlockDeviceMapping::builder()
                    .device_name("/dev/xvda")
                    .ebs(ebs)
                    .build(),
            )
    }

    /// What launches one instance of an image.
    pub fn run(
        &self,
        image: &str,
        token: &str,
    ) -> aws_sdk_ec2::operation::run_instances::builders::RunInstancesFluentBuilder {
        self.ec2
            .run_instances()
            .image_id(image)
            .instance_type(aws_sdk_ec2::types::InstanceType::T3Micro)
            .min_count(1)
            .max_count(1)
            .client_token(token)
    }
}
