//! The EBS direct API.

use aws_sdk_ebs::types::{ChecksumAlgorithm, Tag};
use ipop_tests::ec2::{BLOCK, Throttle};

use super::client::*;

#[tokio::test]
async fn blocks_come_back_as_they_went_also_those_of_the_parent() {
    let setup = setup(|_| {});
    let parent = setup.snapshot(None, &[(0, 1), (7, 2)]).await;
    let child = setup.snapshot(Some(&parent), &[(7, 3), (9, 4)]).await;
    let list = setup.ebs.list_snapshot_blocks().snapshot_id(&child);
    let blocks = list.send().await.expect("listed").blocks.expect("some");
    let mut seen = Vec::new();
    for block in blocks {
        let index = block.block_index.expect("an index");
        let get = setup.ebs.get_snapshot_block().snapshot_id(&child);
        let got = get
            .block_index(index)
            .block_token(block.block_token.expect("a token"))
            .send()
            .await
            .expect("read");
        let data = got.block_data.collect().await.expect("data").to_vec();
        assert_eq!(data.len(), BLOCK);
        assert_eq!(got.checksum.as_deref(), Some(checksum(&data).as_str()));
        assert!(data.iter().all(|byte| *byte == data[0]));
        seen.push((index, data[0]));
    }
    assert_eq!(seen, [(0, 1), (7, 3), (9, 4)]);
    let changed = setup
        .ebs
        .list_changed_blocks()
        .first_snapshot_id(&parent)
        .second_snapshot_id(&child)
        .send()
        .await
        .expect("compared");
    let changed = changed.changed_blocks.expect("some");
    let indices: Vec<_> = changed.iter().map(|b| b.block_index).collect();
    assert_eq!(indices, [Some(7), Some(9)]);
    assert!(changed[1].first_block_token.is_none());
}

#[tokio::test]
async fn long_lists_come_in_pages() {
    let setup = setup(|_| {});
    let blocks: Vec<(i32, u8)> = (0..130).map(|index| (index, index as u8)).collect();
    let id = setup.snapshot(None, &blocks).await;
    let mut pages = Vec::new();
    let mut token = None;
    loop {
        let list = setup.ebs.list_snapshot_blocks().snapshot_id(&id);
        let page = list.set_next_token(token).send().await.expect("listed");
        pages.push(page.blocks.expect("some").len());
        token = page.next_token;
        if token.is_none() {
            break;
        }
    }
    assert_eq!(pages, [100, 30]);
}

#[tokio::test]
async fn a_block_of_another_length_or_checksum_or_place_is_refused() {
    let setup = setup(|_| {});
    let id = setup.start(None).await;
    let put = |length: usize, said: usize, sum: &str, index: i32| {
        let put = setup.ebs.put_snapshot_block().snapshot_id(&id);
        put.block_index(index)
            .data_length(said as i32)
            .checksum(sum)
            .checksum_algorithm(ChecksumAlgorithm::ChecksumAlgorithmSha256)
            .block_data(vec![0; length].into())
            .send()
    };
    let good = checksum(&vec![0; BLOCK]);
    put(BLOCK, BLOCK, &good, 0).await.expect("a good one");
    for (length, said, sum, index, why) in [
        (
            BLOCK - 1,
            BLOCK - 1,
            checksum(&vec![0; BLOCK - 1]),
            0,
            "bytes",
        ),
        (BLOCK, BLOCK - 1, good.clone(), 0, "bytes"),
        (BLOCK, BLOCK, checksum(b"other"), 0, "checksum"),
        (BLOCK, BLOCK, good.clone(), 2048, "behind the end"),
    ] {
        let (code, message) = refused(put(length, said, &sum, index).await);
        assert_eq!(code, "ValidationException");
        assert!(message.contains(why), "{message}");
    }
}

#[tokio::test]
async fn completion_counts_and_sums_what_was_written_and_ends_writing() {
    let setup = setup(|b| b.snapshot_pending = WHILE);
    let id = setup.start(None).await;
    setup.put(&id, 3, 1).await.expect("stored");
    setup.put(&id, 5, 2).await.expect("stored");
    let (_, message) = refused(setup.complete(&id, &[(3, 1)]).await);
    assert!(message.contains("2 blocks were written"), "{message}");
    let (_, message) = refused(setup.complete(&id, &[(5, 2), (3, 1)]).await);
    assert!(
        message.contains("checksum is not the snapshot's"),
        "{message}"
    );
    setup.complete(&id, &[(3, 1), (5, 2)]).await.expect("right");
    let (_, message) = refused(setup.put(&id, 3, 1).await);
    assert!(message.contains("completed already"), "{message}");
    let list = || setup.ebs.list_snapshot_blocks().snapshot_id(&id).send();
    let (_, message) = refused(list().await);
    assert!(message.contains("not completed"), "{message}");
    let (code, _) = refused(setup.register("early", &id).send().await);
    assert_eq!(code, "IncorrectState");
    tokio::time::sleep(WHILE).await;
    list().await.expect("it is completed by now");
}

#[tokio::test]
async fn a_token_starts_one_snapshot_and_only_for_the_same_request() {
    let setup = setup(|_| {});
    let start = |gib: i64| {
        let tag = Tag::builder().key("Name").value("x").build();
        let start = setup.ebs.start_snapshot().volume_size(gib).tags(tag);
        start.client_token("token-1").send()
    };
    let first = start(1).await.expect("started").snapshot_id;
    let second = start(1).await.expect("the same").snapshot_id;
    assert_eq!(first, second);
    assert_eq!(code(start(2).await), "ConflictException");
    assert_eq!(setup.double.leftovers().len(), 1);
}

#[tokio::test]
async fn a_new_snapshot_cannot_be_found_for_a_while() {
    let setup = setup(|b| b.snapshot_unseen = WHILE);
    let id = setup.start(None).await;
    let (code, message) = refused(setup.put(&id, 0, 0).await);
    assert_eq!(code, "ResourceNotFoundException");
    assert!(message.contains("does not exist"), "{message}");
    tokio::time::sleep(WHILE).await;
    setup.put(&id, 0, 0).await.expect("found by now");
}

#[tokio::test]
async fn a_parent_must_be_completed_and_not_larger() {
    let setup = setup(|_| {});
    let open = setup.start(None).await;
    let with = |parent: &str| {
        let start = setup.ebs.start_snapshot().volume_size(1);
        start.parent_snapshot_id(parent).send()
    };
    assert_eq!(code(with(&open).await), "ValidationException");
    assert_eq!(
        code(with("snap-0123456789abcdef0").await),
        "ResourceNotFoundException"
    );
}

#[tokio::test]
async fn blocks_are_throttled_by_themselves() {
    let setup = setup(|b| {
        b.throttle_blocks = Some(Throttle {
            burst: 2.0,
            per_second: 0.0,
        });
    });
    let id = setup.start(None).await;
    setup.put(&id, 0, 0).await.expect("the second call");
    assert_eq!(
        code(setup.put(&id, 1, 0).await),
        "RequestThrottledException"
    );
    setup.ec2.describe_vpcs().send().await.expect("another API");
}
