//! What handles ask of the session's task.

use ipop_proto::signal::Signal;
use ipop_proto::stanza::services::Service;
use ipop_proto::status::{Advertisement, NodeStatus};
use tokio::sync::oneshot;

use super::QueryError;

/// Where the answer to a status query goes.
pub(super) type StatusReply = oneshot::Sender<Result<Box<NodeStatus>, QueryError>>;
/// Where the answer to a services query goes.
pub(super) type ServicesReply = oneshot::Sender<Result<Vec<Service>, QueryError>>;

#[derive(Debug)]
pub(super) enum Command {
    Advertise(Advertisement),
    Signal {
        to: String,
        signal: Signal,
    },
    AnswerStatus {
        to: String,
        id: String,
        status: Box<NodeStatus>,
    },
    QueryStatus {
        jid: String,
        reply: StatusReply,
    },
    QueryServices {
        reply: ServicesReply,
    },
    Leave {
        done: oneshot::Sender<()>,
    },
}
