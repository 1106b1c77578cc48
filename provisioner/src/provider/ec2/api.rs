//! The connection to one region: SDK clients, their runtime, and how a call is made.

use std::error::Error as StdError;
use std::future::Future;
use std::time::{Duration, Instant};

use aws_config::{BehaviorVersion, Region};
use aws_credential_types::Credentials;
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_sdk_ec2::error::{ProvideErrorMetadata, SdkError};
use aws_smithy_types::retry::RetryConfig;
use aws_smithy_types::timeout::TimeoutConfig;
use rand::RngExt as _;
use tokio::runtime::Runtime;

use super::config::Ec2Site;
use super::error::{Class, Failure};
use crate::deploy::interrupt::Interrupt;
use crate::error::{CliError, ExitCode, Retry};

/// One try of one call. Describing a thousand instances takes seconds.
const TRY_LIMIT: Duration = Duration::from_secs(30);
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// Tries of a call that the service asks to repeat, before the engine is told to slow down.
const TRIES: u32 = 5;
/// First and longest pause between tries and between looks at something that is on its way.
const PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(8);
/// How long the API may not know what it has just made.
pub const CONSISTENT_AFTER: Duration = Duration::from_secs(90);

/// How often something with a known identifier is asked for before it counts as gone, as what was
/// just made may not be known yet.
pub const UNSEEN: u32 = 2;
/// Pauses between looks for something that may not show yet.
const LOOKS: [Duration; 3] = [
    Duration::from_millis(300),
    Duration::from_millis(700),
    Duration::from_millis(1500),
];

/// How long work may take, and who may stop it.
#[derive(Clone, Copy)]
pub struct Limits<'a> {
    /// When it must have ended.
    pub deadline: Instant,
    /// Set when the user wants to stop.
    pub interrupt: Option<&'a Interrupt>,
}

impl Limits<'_> {
    /// For questions that nobody interrupts.
    pub fn within(limit: Duration) -> Self {
        Self {
            deadline: Instant::now() + limit,
            interrupt: None,
        }
    }

    /// What is left.
    pub fn left(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    /// Sleeps, less when the deadline comes before, and ends early on an interrupt. An error when
    /// the deadline has passed; `what` says what was waited for.
    pub async fn pause(&self, pause: Duration, what: &str) -> Result<(), CliError> {
        let until = Instant::now() + pause.min(self.left());
        loop {
            if let Some(interrupt) = self.interrupt {
                interrupt.check()?;
            }
            if self.left().is_zero() {
                return Err(CliError::new(
                    ExitCode::Unavailable,
                    format!("{what}: not within the time given"),
                )
                .retry(Retry::Soon)
                .hint("`provision resume` goes on where this stopped"));
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            tokio::time::sleep(left.min(Duration::from_millis(200))).await;
        }
    }
}

/// Growing pauses with a random part, so that many that wait do not ask at once.
pub struct Backoff {
    next: Duration,
    longest: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self {
            next: PAUSE,
            longest: LONGEST_PAUSE,
        }
    }
}

impl Backoff {
    /// The next pause.
    pub fn pause(&mut self) -> Duration {
        let pause = self.next.mul_f64(rand::rng().random_range(0.6..1.4));
        self.next = (self.next * 2).min(self.longest);
        pause
    }
}

/// Looks a few times before it believes that there is nothing: what was just made shows late, and
/// what a killed process made last is what its successor looks for first.
pub async fn confirmed<T>(
    limits: Limits<'_>,
    look: impl AsyncFn() -> Result<Vec<T>, CliError>,
) -> Result<Vec<T>, CliError> {
    for pause in LOOKS {
        let found = look().await?;
        if !found.is_empty() || limits.left() <= pause {
            return Ok(found);
        }
        limits.pause(pause, "looking again").await?;
    }
    look().await
}

/// SDK clients of one region, with a runtime of their own.
pub struct Api {
    runtime: Runtime,
    /// EC2.
    pub ec2: aws_sdk_ec2::Client,
    /// EBS direct APIs.
    pub ebs: aws_sdk_ebs::Client,
    /// Where credentials come from.
    pub credentials: Option<SharedCredentialsProvider>,
    /// Region, and the endpoint if it is another: for messages.
    pub place: String,
}

impl Api {
    /// Reads the configuration of the AWS tools. Asks no server.
    pub fn new(site: &Ec2Site, credentials: Option<Credentials>) -> Result<Self, CliError> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("ec2")
            .enable_all()
            .build()
            .map_err(|e| {
                CliError::new(ExitCode::Internal, "cannot start the runtime for EC2").caused_by(e)
            })?;
        let timeouts = TimeoutConfig::builder()
            .connect_timeout(CONNECT_LIMIT)
            .operation_attempt_timeout(TRY_LIMIT)
            .build();
        let mut loader = aws_config::defaults(BehaviorVersion::v2026_01_12())
            .region(Region::new(site.region.clone()))
            // Repeating is done in one place, `Api::call`, where it can be seen and has an end.
            .retry_config(RetryConfig::disabled())
            .timeout_config(timeouts);
        if let Some(profile) = &site.profile {
            loader = loader.profile_name(profile);
        }
        if let Some(credentials) = credentials {
            loader = loader.credentials_provider(credentials);
        }
        let config = runtime.block_on(loader.load());
        let mut ec2 = aws_sdk_ec2::config::Builder::from(&config);
        let mut ebs = aws_sdk_ebs::config::Builder::from(&config);
        let mut place = site.region.clone();
        if let Some(endpoint) = &site.endpoint {
            ec2 = ec2.endpoint_url(endpoint);
            ebs = ebs.endpoint_url(endpoint);
            place = format!("{place} ({endpoint})");
        }
        Ok(Self {
            ec2: aws_sdk_ec2::Client::from_conf(ec2.build()),
            ebs: aws_sdk_ebs::Client::from_conf(ebs.build()),
            credentials: config.credentials_provider(),
            place,
            runtime,
        })
    }

    /// Runs asynchronous work on the caller's thread.
    pub fn run<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime.block_on(work)
    }

    /// Makes one try of a call.
    pub async fn once<T, E>(
        &self,
        operation: &'static str,
        limit: Duration,
        request: impl Future<Output = Result<T, SdkError<E>>>,
    ) -> Result<T, Failure>
    where
        E: ProvideErrorMetadata + StdError + 'static,
    {
        match tokio::time::timeout(limit.min(TRY_LIMIT), request).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(e)) => Err(Failure::new(operation, &self.place, &e)),
            Err(_) => Err(Failure::timeout(operation, &self.place)),
        }
    }

    /// Asks something. Any failure that passes by itself is asked again, a few times.
    pub async fn ask<T, E, F>(
        &self,
        operation: &'static str,
        limits: Limits<'_>,
        request: impl Fn() -> F,
    ) -> Result<T, Failure>
    where
        F: Future<Output = Result<T, SdkError<E>>>,
        E: ProvideErrorMetadata + StdError + 'static,
    {
        self.repeated(operation, limits, Failure::passes, request)
            .await
    }

    /// Changes something. Only what was refused for the number of calls is called again: after
    /// anything else the caller must look first whether the change was made.
    pub async fn change<T, E, F>(
        &self,
        operation: &'static str,
        limits: Limits<'_>,
        request: impl Fn() -> F,
    ) -> Result<T, Failure>
    where
        F: Future<Output = Result<T, SdkError<E>>>,
        E: ProvideErrorMetadata + StdError + 'static,
    {
        self.repeated(operation, limits, |f| f.is(Class::Throttled), request)
            .await
    }

    async fn repeated<T, E, F>(
        &self,
        operation: &'static str,
        limits: Limits<'_>,
        again: impl Fn(&Failure) -> bool,
        request: impl Fn() -> F,
    ) -> Result<T, Failure>
    where
        F: Future<Output = Result<T, SdkError<E>>>,
        E: ProvideErrorMetadata + StdError + 'static,
    {
        let mut backoff = Backoff::default();
        for _ in 1..TRIES {
            let failure = match self.once(operation, limits.left(), request()).await {
                Err(failure) if again(&failure) => failure,
                done => return done,
            };
            tracing::debug!(operation, %failure, "asking again");
            if limits.pause(backoff.pause(), operation).await.is_err() {
                return Err(failure);
            }
        }
        self.once(operation, limits.left(), request()).await
    }
}
