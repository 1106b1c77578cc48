//! From a request to an answer: who asks, how often, what, and what goes wrong with it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::audit::Audit;
use super::behaviour::{Bucket, Throttle};
use super::control;
use super::ebs::{self, internal};
use super::error::Refusal;
use super::faults::{FaultKind, Faults};
use super::http::{Answer, Reply, Request, Service};
use super::params::Params;
use super::sigv4::Keys;
use super::world::{Effect, World};
use super::xml::Xml;
use super::{Guests, VERSION};

/// The double, as its connections share it.
pub(super) struct Shared {
    state: Mutex<State>,
    guests: Option<Box<dyn Guests>>,
}

/// Everything that changes.
pub(super) struct State {
    pub world: World,
    pub faults: Faults,
    pub audit: Audit,
    calls: Bucket,
    blocks: Bucket,
    requests: u64,
}

/// A call that was begun, and has to be ended in the audit however it ends.
struct Begun<'a> {
    shared: &'a Shared,
    index: usize,
    failed: Option<String>,
}

impl Drop for Begun<'_> {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        let now = state.world.now();
        state.audit.end(self.index, now, self.failed.take());
    }
}

impl Service for Shared {
    async fn call(&self, request: Request) -> Reply {
        if let Some(answer) = control::answer(self, &request) {
            return Reply::Answer(answer);
        }
        match ebs::Call::of(&request) {
            Some(call) => self.block_api(&request, &call).await,
            None => self.query_api(&request).await,
        }
    }
}

impl Shared {
    pub fn new(world: World, guests: Option<Box<dyn Guests>>) -> Self {
        Self {
            state: Mutex::new(State {
                world,
                faults: Faults::default(),
                audit: Audit::default(),
                calls: Bucket::default(),
                blocks: Bucket::default(),
                requests: 0,
            }),
            guests,
        }
    }

    pub fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets time pass, and tells the guests what happened meanwhile.
    pub fn tick(&self) {
        let effects = {
            let mut state = self.lock();
            state.world.tick();
            std::mem::take(&mut state.world.effects)
        };
        let Some(guests) = &self.guests else { return };
        for effect in effects {
            match effect {
                Effect::Started(guest) => guests.started(guest),
                Effect::Stopped(instance) => guests.stopped(&instance),
            }
        }
    }

    async fn query_api(&self, request: &Request) -> Reply {
        let request_id = self.request_id();
        let parsed = Params::parse(&request.body).and_then(|mut params| {
            let action = params.require("Action")?;
            Ok((action, params))
        });
        let (action, params) = match parsed {
            Ok(parsed) => parsed,
            Err(refusal) => return Reply::Answer(refusal.xml(&request_id)),
        };
        let mentions = |value: &str| params.mentions(value);
        let (begun, fault) = self.begin(&action, mentions).await;
        let result = match self.admit(request, &action, "ec2") {
            Ok(()) => match fault_before(fault.as_ref()) {
                None => self.query(&action, params.clone(), fault.as_ref()),
                Some(Ok(refusal)) => Err(refusal),
                Some(Err(reply)) => return lost(begun, reply),
            },
            Err(refusal) => Err(refusal),
        };
        let (result, failed) = match result {
            Ok(xml) => (xml.answer(&action, &request_id), None),
            Err(refusal) => (refusal.xml(&request_id), Some(refusal.code)),
        };
        finish(begun, result, failed, fault).await
    }

    async fn block_api(&self, request: &Request, call: &ebs::Call) -> Reply {
        let request_id = self.request_id();
        let mentions = |value: &str| request.path.split('/').any(|part| part == value);
        let (begun, fault) = self.begin(call.name(), mentions).await;
        let result = match self.admit(request, call.name(), "ebs") {
            Ok(()) => match fault_before(fault.as_ref()) {
                None => self.blocks(request, call),
                Some(Ok(refusal)) => Err(refusal),
                Some(Err(reply)) => return lost(begun, reply),
            },
            Err(refusal) => Err(refusal),
        };
        let (answer, failed) = match result {
            Ok(answer) => (answer, None),
            Err(refusal) => (refusal.json(&request_id), Some(refusal.code)),
        };
        finish(begun, answer, failed, fault).await
    }

    fn request_id(&self) -> String {
        let mut state = self.lock();
        state.requests += 1;
        format!("00000000-0000-4000-8000-{:012x}", state.requests)
    }

    async fn begin(
        &self,
        action: &str,
        mentions: impl Fn(&str) -> bool,
    ) -> (Begun<'_>, Option<FaultKind>) {
        let (begun, fault, latency) = {
            let mut state = self.lock();
            let now = state.world.now();
            let index = state.audit.begin(action, now);
            let fault = state.faults.hit(action, mentions);
            let begun = Begun {
                shared: self,
                index,
                failed: None,
            };
            (begun, fault, state.world.behaviour.latency)
        };
        if !latency.is_zero() {
            tokio::time::sleep(latency).await;
        }
        (begun, fault)
    }

    /// Whether the caller may call, now.
    fn admit(&self, request: &Request, action: &str, service: &str) -> Result<(), Refusal> {
        let keys = {
            let state = self.lock();
            let behaviour = &state.world.behaviour;
            Keys {
                access: behaviour.access_key.clone(),
                secret: behaviour.secret_key.clone(),
                region: behaviour.region.clone(),
            }
        };
        let block_api = service == "ebs";
        keys.verify(request, service).map_err(|refusal| {
            let code = match refusal.code.as_str() {
                "AuthFailure" | "SignatureDoesNotMatch" if block_api => "AccessDeniedException",
                code => code,
            };
            Refusal {
                code: code.to_owned(),
                ..refusal
            }
        })?;
        let mut state = self.lock();
        let now = state.world.now();
        let behaviour = state.world.behaviour.clone();
        if behaviour.denied.iter().any(|denied| denied == action) {
            let text = format!(
                "You are not authorized to perform this operation. User: \
                 arn:aws:iam::123456789012:user/double is not authorized to perform: \
                 {service}:{action} because no identity-based policy allows the {service}:{action} \
                 action"
            );
            let code = match block_api {
                true => "AccessDeniedException",
                false => "UnauthorizedOperation",
            };
            return Err(Refusal::with_status(403, code, text));
        }
        let enough = |bucket: &mut Bucket, throttle: Option<Throttle>| {
            throttle.is_none_or(|throttle| bucket.take(throttle, now))
        };
        if block_api && !enough(&mut state.blocks, behaviour.throttle_blocks) {
            return Err(Refusal {
                reason: Some("ACCOUNT_THROTTLED".to_owned()),
                ..Refusal::new("RequestThrottledException", "Rate exceeded")
            });
        }
        if !block_api && !enough(&mut state.calls, behaviour.throttle) {
            let text = "Request limit exceeded.";
            return Err(Refusal::with_status(503, "RequestLimitExceeded", text));
        }
        Ok(())
    }

    /// Does what is asked; a dry run does it to a copy.
    fn query(
        &self,
        action: &str,
        mut params: Params,
        fault: Option<&FaultKind>,
    ) -> Result<Xml, Refusal> {
        let version = params.require("Version")?;
        if version != VERSION {
            let text = format!("The version {version} is not {VERSION}");
            return Err(Refusal::new("NoSuchVersion", text));
        }
        self.tick();
        let result = {
            let mut state = self.lock();
            state.world.tick_images();
            if params.parsed("DryRun")? == Some(true) {
                let mut copy = state.world.clone();
                copy.dispatch(action, &mut params, None)?;
                let text = "Request would have succeeded, but DryRun flag is set.";
                return Err(Refusal::with_status(412, "DryRunOperation", text));
            }
            state.world.dispatch(action, &mut params, fault)
        };
        self.tick();
        result
    }

    fn blocks(&self, request: &Request, call: &ebs::Call) -> Result<Answer, Refusal> {
        self.tick();
        match call {
            ebs::Call::Put(id, index) => {
                let block = ebs::arrived(index, request)?;
                let store = self.lock().world.open_store(id, &block)?;
                store
                    .write(block.index(), &request.body)
                    .map_err(internal)?;
                self.lock().world.put_block(id, &block)
            }
            ebs::Call::Start => self.lock().world.start_snapshot(request),
            ebs::Call::Complete(id) => self.lock().world.complete_snapshot(id, request),
            ebs::Call::Get(id, index) => self.lock().world.get_block(id, index, request),
            ebs::Call::List(id) => self.lock().world.list_blocks(id, request),
            ebs::Call::Changed(id) => self.lock().world.list_changed(id, request),
        }
    }
}

impl World {
    fn dispatch(
        &mut self,
        action: &str,
        params: &mut Params,
        fault: Option<&FaultKind>,
    ) -> Result<Xml, Refusal> {
        match action {
            "CreateSecurityGroup" => self.create_security_group(params),
            "CreateTags" => self.create_tags(params),
            "DeleteSecurityGroup" => self.delete_security_group(params),
            "DeleteSnapshot" => self.delete_snapshot(params),
            "DeleteTags" => self.delete_tags(params),
            "DeleteVolume" => self.delete_volume(params),
            "DeregisterImage" => self.deregister_image(params),
            "DescribeAccountAttributes" => self.describe_account_attributes(params),
            "DescribeAvailabilityZones" => self.describe_availability_zones(params),
            "DescribeImages" => self.describe_images(params),
            "DescribeInstanceStatus" => self.describe_instance_status(params),
            "DescribeInstanceTypeOfferings" => self.describe_instance_type_offerings(params),
            "DescribeInstanceTypes" => self.describe_instance_types(params),
            "DescribeInstances" => self.describe_instances(params),
            "DescribeRegions" => self.describe_regions(params),
            "DescribeSecurityGroups" => self.describe_security_groups(params),
            "DescribeSnapshots" => self.describe_snapshots(params),
            "DescribeSubnets" => self.describe_subnets(params),
            "DescribeVolumes" => self.describe_volumes(params),
            "DescribeVpcs" => self.describe_vpcs(params),
            "GetConsoleOutput" => self.get_console_output(params),
            "RegisterImage" => self.register_image(params),
            "RevokeSecurityGroupEgress" => self.revoke_security_group_egress(params),
            "RunInstances" => self.run_instances(params, fault),
            "TerminateInstances" => self.terminate_instances(params),
            _ => {
                let text = format!("The action {action} is not valid for this web service.");
                Err(Refusal::new("InvalidAction", text))
            }
        }
    }
}

/// What a fault does in place of the call: an error, or no answer at all.
fn fault_before(fault: Option<&FaultKind>) -> Option<Result<Refusal, Reply>> {
    match fault? {
        FaultKind::Error {
            status,
            code,
            message,
        } => Some(Ok(Refusal::with_status(*status, code, message))),
        FaultKind::Hang => Some(Err(Reply::Hang)),
        FaultKind::CloseBefore => Some(Err(Reply::Close)),
        _ => None,
    }
}

async fn finish(
    mut begun: Begun<'_>,
    answer: Answer,
    failed: Option<String>,
    fault: Option<FaultKind>,
) -> Reply {
    match fault {
        Some(FaultKind::LoseAnswer) => return lost(begun, Reply::Close),
        Some(FaultKind::HangAfter) => return lost(begun, Reply::Hang),
        Some(FaultKind::Delay(ms)) => {
            tokio::time::sleep(std::time::Duration::from_millis(ms)).await;
        }
        _ => {}
    }
    begun.failed = failed;
    Reply::Answer(answer)
}

fn lost(mut begun: Begun<'_>, reply: Reply) -> Reply {
    begun.failed = Some("lost".to_owned());
    reply
}

/// Lets time pass for as long as the double lives.
pub(super) async fn keep_ticking(shared: Arc<Shared>) {
    loop {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        shared.tick();
    }
}
