//! What handles ask of the session's task.

use ipop_proto::signal::Signal;
use ipop_proto::stanza::certificate::CertificateRequest;
use ipop_proto::stanza::services::Service;
use ipop_proto::status::{Advertisement, NodeStatus};
use tokio::sync::oneshot;

use super::{QueryError, RevocationsAnswer};

/// Where the answer to a status query goes.
pub(super) type StatusReply = oneshot::Sender<Result<Box<NodeStatus>, QueryError>>;
/// Where the answer to a services query goes.
pub(super) type ServicesReply = oneshot::Sender<Result<Vec<Service>, QueryError>>;
/// Where the answer to a question for a certificate goes.
pub(super) type CertificateReply = oneshot::Sender<Result<String, QueryError>>;

/// Where it goes that a revocation list is in force.
pub(super) type RevocationsReply = oneshot::Sender<Result<(), QueryError>>;

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
    AnswerCertificate {
        to: String,
        id: String,
        /// None refuses it.
        certificate: Option<String>,
    },
    QueryCertificate {
        issuer: String,
        request: CertificateRequest,
        reply: CertificateReply,
    },
    TellRevocations {
        jid: String,
        /// DER.
        list: Vec<u8>,
        reply: RevocationsReply,
    },
    AnswerRevocations {
        to: String,
        id: String,
        answer: RevocationsAnswer,
    },
    Leave {
        done: oneshot::Sender<()>,
    },
}
