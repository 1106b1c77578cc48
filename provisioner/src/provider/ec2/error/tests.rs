use super::*;

/// One case: the operation, the code, what the API says with it, the HTTP status, the context.
type Case = (&'static str, &'static str, &'static str, u16, &'static str);

const CASES: &[Case] = &[
    (
        "DescribeRegions",
        "AuthFailure",
        "AWS was not able to validate the provided access credentials",
        401,
        "cannot use region us-west-2",
    ),
    (
        "DescribeRegions",
        "UnrecognizedClientException",
        "The security token included in the request is invalid.",
        403,
        "cannot use region us-west-2",
    ),
    (
        "RunInstances",
        "ExpiredToken",
        "The security token included in the request is expired",
        400,
        "cannot launch worker-3",
    ),
    (
        "RunInstances",
        "RequestExpired",
        "Request has expired.",
        400,
        "cannot launch worker-3",
    ),
    (
        "StartSnapshot",
        "InvalidSignatureException",
        "Signature expired: 20260101T000000Z is now earlier than 20260101T001000Z (20260101T001500Z - 5 min.)",
        403,
        "cannot start the upload of image worker",
    ),
    (
        "RunInstances",
        "UnauthorizedOperation",
        "You are not authorized to perform this operation. Encoded authorization failure message: AbC123",
        403,
        "cannot launch worker-3",
    ),
    (
        "PutSnapshotBlock",
        "AccessDeniedException",
        "User is not authorized to perform: ebs:PutSnapshotBlock",
        403,
        "cannot upload image worker",
    ),
    (
        "RunInstances",
        "InstanceLimitExceeded",
        "You have requested more instances (1) than your current instance limit of 0 allows",
        400,
        "cannot launch worker-3",
    ),
    (
        "RunInstances",
        "VcpuLimitExceeded",
        "You have requested more vCPU capacity than your current vCPU limit of 32 allows",
        400,
        "cannot launch worker-3",
    ),
    (
        "RunInstances",
        "MaxSpotInstanceCountExceeded",
        "Max spot instance count exceeded",
        400,
        "cannot launch worker-3",
    ),
    (
        "StartSnapshot",
        "ServiceQuotaExceededException",
        "Your current service quotas do not allow you to perform this action.",
        402,
        "cannot start the upload of image worker",
    ),
    (
        "DescribeInstances",
        "RequestLimitExceeded",
        "Request limit exceeded.",
        503,
        "cannot list the instances",
    ),
    (
        "PutSnapshotBlock",
        "RequestThrottledException",
        "The number of API requests has exceeded the maximum allowed API request throttling limit for the snapshot.",
        400,
        "cannot upload image worker",
    ),
    (
        "DescribeInstances",
        "InvalidInstanceID.NotFound",
        "The instance ID 'i-0abc' does not exist",
        400,
        "cannot find worker-3",
    ),
    (
        "PutSnapshotBlock",
        "ResourceNotFoundException",
        "The snapshot 'snap-0abc' does not exist.",
        404,
        "cannot upload image worker",
    ),
    (
        "DeleteSecurityGroup",
        "DependencyViolation",
        "resource sg-0abc has a dependent object",
        400,
        "cannot remove security group ipop-demo-8899aabb",
    ),
    (
        "DeleteSnapshot",
        "InvalidSnapshot.InUse",
        "The snapshot snap-0abc is currently in use by ami-0abc",
        400,
        "cannot remove snapshot snap-0abc",
    ),
    (
        "RunInstances",
        "InsufficientInstanceCapacity",
        "We currently do not have sufficient t3.micro capacity in the Availability Zone you requested (us-west-2a).",
        500,
        "cannot launch worker-3",
    ),
    (
        "RunInstances",
        "SpotMaxPriceTooLow",
        "Your Spot request price of 0.001 is lower than the minimum required Spot request fulfillment price of 0.003.",
        400,
        "cannot launch worker-3",
    ),
    (
        "RunInstances",
        "Unsupported",
        "Your requested instance type (t3.micro) is not supported in your requested Availability Zone (us-west-2d).",
        400,
        "cannot launch worker-3",
    ),
    (
        "DescribeInstanceTypes",
        "InvalidInstanceType",
        "The following supplied instance types do not exist: [t9.nano]",
        400,
        "instance type t9.nano does not serve",
    ),
    (
        "RegisterImage",
        "InvalidAMIName.Duplicate",
        "AMI name ipop-worker is already in use by AMI ami-0abc",
        400,
        "cannot register AMI ipop-worker",
    ),
    (
        "CreateSecurityGroup",
        "InvalidGroup.Duplicate",
        "The security group 'ipop-demo-8899aabb' already exists for VPC 'vpc-0abc'",
        400,
        "cannot make security group ipop-demo-8899aabb",
    ),
    (
        "RunInstances",
        "InvalidSubnetID.NotFound",
        "The subnet ID 'subnet-0abc' does not exist",
        400,
        "cannot launch worker-3",
    ),
    (
        "RunInstances",
        "InsufficientFreeAddressesInSubnet",
        "Not enough free addresses in subnet subnet-0abc",
        400,
        "cannot launch worker-3",
    ),
    (
        "RunInstances",
        "VPCIdNotSpecified",
        "No default VPC for this user",
        400,
        "cannot launch worker-3",
    ),
    (
        "RunInstances",
        "IdempotentParameterMismatch",
        "The client token you have provided is associated with a resource that is already deleted.",
        400,
        "cannot launch worker-3",
    ),
    (
        "CompleteSnapshot",
        "ValidationException",
        "The checksum does not match.",
        400,
        "cannot complete the upload of image worker",
    ),
    (
        "RunInstances",
        "InternalError",
        "An internal error has occurred",
        500,
        "cannot launch worker-3",
    ),
    (
        "RunInstances",
        "OptInRequired",
        "You are not subscribed to this service.",
        403,
        "cannot launch worker-3",
    ),
    (
        "RunInstances",
        "SomethingNew",
        "Never heard of",
        400,
        "cannot launch worker-3",
    ),
];

fn failure(case: &Case) -> Failure {
    let (operation, code, message, status, _) = *case;
    Failure {
        class: classify(code, message, status),
        operation,
        code: Some(code.to_owned()),
        message: message.to_owned(),
        place: "us-west-2".into(),
    }
}

#[test]
fn every_class_of_error_names_the_object_the_cause_and_what_to_do() {
    let mut text = String::new();
    for case in CASES {
        let failure = failure(case);
        let class = failure.class;
        let error = failure.context(case.4);
        text += &format!(
            "{class:?}, exit code {}, retry {:?}\n{error}\n\n",
            error.code as u8, error.retry
        );
    }
    for (class, message) in [
        (
            Class::NoCredentials,
            "no providers in chain provided credentials",
        ),
        (Class::Unreachable, "Connection refused (os error 111)"),
        (Class::Timeout, "no answer in time"),
    ] {
        let failure = Failure {
            class,
            operation: "DescribeRegions",
            code: None,
            message: message.to_owned(),
            place: "http://127.0.0.1:9".into(),
        };
        let error = failure.context("cannot use region us-west-2");
        text += &format!(
            "{class:?}, exit code {}, retry {:?}\n{error}\n\n",
            error.code as u8, error.retry
        );
    }
    insta::assert_snapshot!(text);
}

#[test]
fn only_what_passes_by_itself_is_called_again() {
    for case in CASES {
        let failure = failure(case);
        let expected = matches!(
            case.1,
            "RequestLimitExceeded" | "RequestThrottledException" | "InternalError"
        );
        assert_eq!(failure.passes(), expected, "{failure}");
    }
}
