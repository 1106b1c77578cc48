//! What the API answered, put into classes, and each class as an error with what to do.

use std::error::Error as StdError;
use std::fmt;

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_ec2::error::{ProvideErrorMetadata, SdkError};

use crate::error::{CliError, ExitCode, Retry};

/// Classes of failure; what to do depends on the class alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// No credentials were found.
    NoCredentials,
    /// The credentials are not known or do not serve.
    Auth,
    /// Temporary credentials that ended.
    Expired,
    /// This machine's clock is wrong.
    Clock,
    /// The credentials' permissions do not allow the call.
    Denied,
    /// A dry run that would have succeeded.
    DryRun,
    /// A limit of the account.
    Quota,
    /// Too many calls.
    Throttled,
    /// There is no such thing (yet).
    NotFound,
    /// Something else still uses it.
    InUse,
    /// The site has no room at the moment.
    Capacity,
    /// The spot market gives none, or not at this price.
    Spot,
    /// The instance type does not do this, or not here.
    Unsupported,
    /// The name is taken.
    Duplicate,
    /// The subnet or VPC does not serve.
    Network,
    /// A token was used before for something else.
    Token,
    /// A parameter was refused.
    Refused,
    /// The service failed.
    Server,
    /// No connection.
    Unreachable,
    /// No answer in time.
    Timeout,
    /// Anything else.
    Other,
}

/// A call that failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Failure {
    /// Its class.
    pub class: Class,
    /// The API's operation (`RunInstances`).
    pub operation: &'static str,
    /// The API's error code, when it answered.
    pub code: Option<String>,
    /// In the API's words, or the system's.
    pub message: String,
    /// The endpoint or region, for the hints.
    pub place: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.operation)?;
        if let Some(code) = &self.code {
            write!(f, "{code}: ")?;
        }
        f.write_str(self.message.trim_end_matches('.'))
    }
}

impl Failure {
    /// From what the SDK returned.
    pub fn new<E>(operation: &'static str, place: &str, error: &SdkError<E>) -> Self
    where
        E: ProvideErrorMetadata + StdError + 'static,
    {
        let mut failure = Self {
            class: Class::Other,
            operation,
            code: None,
            message: innermost(error),
            place: place.to_owned(),
        };
        if has_cause::<CredentialsError>(error) {
            failure.class = Class::NoCredentials;
            return failure;
        }
        match error {
            SdkError::TimeoutError(_) => failure.class = Class::Timeout,
            SdkError::DispatchFailure(e) if e.is_timeout() => failure.class = Class::Timeout,
            SdkError::DispatchFailure(_) => failure.class = Class::Unreachable,
            SdkError::ResponseError(_) => failure.class = Class::Server,
            SdkError::ServiceError(e) => {
                let status = e.raw().status().as_u16();
                let code = error.code().unwrap_or_default();
                let message = error.message().unwrap_or_default();
                failure.class = classify(code, message, status);
                failure.code = Some(match code {
                    "" => format!("HTTP {status}"),
                    code => code.to_owned(),
                });
                message.clone_into(&mut failure.message);
                if message.is_empty() {
                    failure.message = "the service gave no reason".into();
                }
            }
            _ => {}
        }
        failure
    }

    /// A call that had no answer within its time.
    pub fn timeout(operation: &'static str, place: &str) -> Self {
        Self {
            class: Class::Timeout,
            operation,
            code: None,
            message: "no answer in time".into(),
            place: place.to_owned(),
        }
    }

    /// Whether it is of this class.
    pub fn is(&self, class: Class) -> bool {
        self.class == class
    }

    /// Whether the same call may succeed soon, nothing else being done.
    pub fn passes(&self) -> bool {
        matches!(
            self.class,
            Class::Throttled | Class::Server | Class::Unreachable | Class::Timeout
        )
    }

    /// As a person sees it; `what` names the object: `cannot launch worker-3`.
    pub fn context(self, what: impl Into<String>) -> CliError {
        let (code, retry) = match self.class {
            Class::Unsupported | Class::Network => (ExitCode::Config, Retry::Never),
            Class::DryRun | Class::Token | Class::Refused | Class::Other => {
                (ExitCode::Internal, Retry::Never)
            }
            Class::Throttled => (ExitCode::Unavailable, Retry::Throttled),
            Class::Server
            | Class::Unreachable
            | Class::Timeout
            | Class::NotFound
            | Class::InUse => (ExitCode::Unavailable, Retry::Soon),
            _ => (ExitCode::Unavailable, Retry::Never),
        };
        let mut error = CliError::new(code, what).retry(retry);
        for hint in hints(&self) {
            error = error.hint(hint);
        }
        error.caused_by(self)
    }
}

fn hints(failure: &Failure) -> Vec<String> {
    let place = &failure.place;
    let one = |hint: &str| vec![hint.to_owned()];
    match failure.class {
        Class::NoCredentials => one(
            "give credentials as the AWS tools take them: AWS_ACCESS_KEY_ID and \
             AWS_SECRET_ACCESS_KEY, or `profile` of the site in sites.toml; `aws configure` makes one",
        ),
        Class::Auth => vec![
            "check the access key and its secret; `aws sts get-caller-identity` tries them".into(),
            format!("a region that is not enabled for the account says this too: is {place}?"),
        ],
        Class::Expired => one("get new temporary credentials (`aws sso login`), then run it again"),
        Class::Clock => one(
            "this machine's clock is off by more than five minutes: set it (`timedatectl`), \
             then run it again",
        ),
        Class::Denied => vec![
            format!(
                "allow `{}` to the user or role in IAM",
                action(failure.operation)
            ),
            "an encoded message is read by `aws sts decode-authorization-message`".into(),
        ],
        Class::Quota => vec![
            format!("ask for more in Service Quotas (Amazon EC2, {place}), or launch fewer"),
            "`provision gc` finds machines that nothing uses any more".into(),
        ],
        Class::Throttled => one("the API asks for fewer calls; `provision resume` goes on later"),
        Class::NotFound => {
            one("perhaps it is not visible yet, or somebody removed it: run it again")
        }
        Class::InUse => {
            one("what uses it must go first; `provision destroy` again tries once more")
        }
        Class::Capacity => one(
            "choose another `instance_type` or a `subnet` in another availability zone in \
             sites.toml, or try later",
        ),
        Class::Spot => {
            one("try later, choose another `instance_type`, or set `spot = false` for the site")
        }
        Class::Unsupported => one(
            "choose an `instance_type` that the region has, for x86_64, with ENA and NVMe \
             (t3, m5, c6i and later); `provision site check` tells",
        ),
        Class::Duplicate => {
            one("something else has this name: remove or rename it, then run it again")
        }
        Class::Network => one(
            "name an existing `subnet` with free addresses in sites.toml, or make a default VPC \
             (`aws ec2 create-default-vpc`)",
        ),
        Class::Server => one("a fault at Amazon's: try again"),
        Class::Unreachable | Class::Timeout => vec![format!(
            "is {place} reachable from here, and `region` or `endpoint` right? A proxy is taken \
             from HTTPS_PROXY"
        )],
        Class::DryRun | Class::Token | Class::Refused | Class::Other => Vec::new(),
    }
}

/// The IAM action of an operation.
fn action(operation: &str) -> String {
    let service = match operation {
        "StartSnapshot" | "PutSnapshotBlock" | "CompleteSnapshot" | "ListSnapshotBlocks" => "ebs",
        _ => "ec2",
    };
    format!("{service}:{operation}")
}

/// The class of an error code; the codes of the EC2 query API and of the EBS direct APIs.
fn classify(code: &str, message: &str, status: u16) -> Class {
    let clock = [
        "Signature expired",
        "Signature not yet current",
        "must be within",
    ];
    match code {
        "DryRunOperation" => Class::DryRun,
        "RequestExpired" | "RequestInTheFuture" | "RequestTimeTooSkewed" => Class::Clock,
        "SignatureDoesNotMatch" | "InvalidSignatureException" | "AuthFailure"
            if clock.iter().any(|words| message.contains(words)) =>
        {
            Class::Clock
        }
        "ExpiredToken" | "ExpiredTokenException" | "TokenRefreshRequired" => Class::Expired,
        "AuthFailure"
        | "InvalidClientTokenId"
        | "UnrecognizedClientException"
        | "SignatureDoesNotMatch"
        | "InvalidSignatureException"
        | "IncompleteSignature"
        | "MissingAuthenticationToken"
        | "MissingAuthenticationTokenException"
        | "InvalidAccessKeyId"
        | "OptInRequired"
        | "Blocked"
        | "PendingVerification" => Class::Auth,
        "UnauthorizedOperation" | "AccessDenied" | "AccessDeniedException" => Class::Denied,
        "RequestLimitExceeded"
        | "Throttling"
        | "ThrottlingException"
        | "RequestThrottled"
        | "RequestThrottledException"
        | "TooManyRequestsException"
        | "EC2ThrottledException"
        | "BandwidthLimitExceeded"
        | "SlowDown" => Class::Throttled,
        "DependencyViolation" | "ResourceInUseException" | "IncorrectState" => Class::InUse,
        "InsufficientInstanceCapacity"
        | "InsufficientCapacity"
        | "InsufficientHostCapacity"
        | "InsufficientAddressCapacity" => Class::Capacity,
        "SpotMaxPriceTooLow"
        | "SpotInstanceCapacityNotAvailable"
        | "InvalidSpotInstanceRequestID" => Class::Spot,
        "Unsupported"
        | "UnsupportedOperation"
        | "InvalidInstanceType"
        | "InstanceTypeNotSupported"
        | "UnsupportedInstanceTypeOnDedicatedHosts" => Class::Unsupported,
        "InvalidParameterValue" if message.contains("instance type") => Class::Unsupported,
        "InvalidSubnet"
        | "InvalidSubnetID.NotFound"
        | "InvalidSubnetId.Malformed"
        | "InvalidSubnetID.Malformed"
        | "InsufficientFreeAddressesInSubnet"
        | "VPCIdNotSpecified"
        | "DefaultVpcDoesNotExist"
        | "InvalidVpcID.NotFound"
        | "InvalidVpcId.NotFound"
        | "VPCResourceNotSpecified"
        | "MissingInput" => Class::Network,
        "IdempotentParameterMismatch" | "ConflictException" => Class::Token,
        "ResourceNotFoundException" => Class::NotFound,
        // Just registered and not visible everywhere yet, or no longer there.
        "InvalidAMIID.Unavailable" => Class::NotFound,
        "ServiceQuotaExceededException" | "ResourceCountExceeded" | "ResourceLimitExceeded" => {
            Class::Quota
        }
        code if code.ends_with("LimitExceeded") || code.ends_with("CountExceeded") => Class::Quota,
        code if code.ends_with(".NotFound") => Class::NotFound,
        code if code.ends_with(".Duplicate") => Class::Duplicate,
        code if code.ends_with(".InUse") => Class::InUse,
        "ValidationException" => Class::Refused,
        _ if status == 429 => Class::Throttled,
        _ if status >= 500 => Class::Server,
        _ if status == 404 => Class::NotFound,
        _ if status == 401 || status == 403 => Class::Denied,
        code if code.starts_with("Invalid") || code.starts_with("Missing") => Class::Refused,
        _ => Class::Other,
    }
}

/// The last cause, which says it without the SDK's wrapping.
fn innermost(error: &(dyn StdError + 'static)) -> String {
    let mut cause = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}

fn has_cause<T: StdError + 'static>(error: &(dyn StdError + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(e) = cause {
        if e.is::<T>() {
            return true;
        }
        cause = e.source();
    }
    false
}

#[cfg(test)]
mod tests;
