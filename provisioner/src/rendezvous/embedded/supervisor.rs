//! Keeps one ejabberd running: `provision rendezvous run NAME`.

use std::fs::File;
use std::io;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::pin::pin;
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant, SystemTime};

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::Child;
use tokio::signal::unix::{SignalKind, signal};

use super::erlang::Installation;
use super::owner::Owner;
use super::process::ProcessId;
use super::time::Clock;
use super::{Paths, RendezvousError, domain_of};
use crate::authority::registrar::Registrar;
use crate::layout::Layout;
use crate::power;
use crate::rendezvous::enrolment::Tokens;
use crate::rendezvous::http::connect_unix;

/// How long ejabberd may take to end after SIGTERM: it closes its clients' streams and tables.
pub const STOP_LIMIT: Duration = Duration::from_secs(15);
/// Wait before the first restart; doubled by every further one.
const FIRST_BACKOFF: Duration = Duration::from_millis(200);
/// Longest wait before a restart.
const MAX_BACKOFF: Duration = Duration::from_secs(30);
/// A server that ran this long starts with the first wait again.
const STEADY: Duration = Duration::from_secs(60);
/// How often enrolment tokens whose time is over are looked for.
const EXPIRY_INTERVAL: Duration = Duration::from_secs(10);
/// Size in bytes at which the supervisor's own log is emptied before a restart.
const LOG_LIMIT: u64 = 1 << 20;
const POLL: Duration = Duration::from_millis(100);

/// Runs the server of `deployment` in the foreground until SIGTERM or SIGINT, starting it again
/// when it dies. A server that dies before it ever answered is not started again: what is wrong
/// with it stays wrong.
pub fn supervise(layout: &Layout, deployment: &str) -> Result<(), RendezvousError> {
    // Fails for a process group's leader, such as a service of systemd: that is apart already.
    let _ = rustix::process::setsid();
    let paths = Paths::new(layout, deployment);
    if !paths.spec().exists() {
        return Err(RendezvousError::Absent(deployment.to_owned()));
    }
    let lock = File::create(paths.lock())
        .map_err(|source| RendezvousError::file(&paths.lock(), source))?;
    if lock.try_lock().is_err() {
        return Err(RendezvousError::process(
            format!("supervise the rendezvous of `{deployment}`"),
            io::Error::new(io::ErrorKind::AlreadyExists, "another process does"),
        ));
    }
    record(std::process::id(), &paths.supervisor_id())?;
    let result = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| RendezvousError::process("start a runtime", source))?
        .block_on(keep_running(&paths, layout, deployment));
    // Gone with the directory, or found stale by its start time: either is fine.
    let _ = std::fs::remove_file(paths.supervisor_id());
    result
}

/// Why waiting ended.
enum Ending {
    Died(ExitStatus),
    Told,
    /// The deployment's time is over.
    Over,
}

async fn keep_running(
    paths: &Paths,
    layout: &Layout,
    deployment: &str,
) -> Result<(), RendezvousError> {
    let handler = |source| RendezvousError::process("handle signals", source);
    let mut term = signal(SignalKind::terminate()).map_err(handler)?;
    let mut int = signal(SignalKind::interrupt()).map_err(handler)?;
    let (mut backoff, mut was_up) = (FIRST_BACKOFF, false);
    let mut clock = Clock::new(layout, deployment, SystemTime::now());
    let registrar = Registrar::new(layout, deployment);
    let mut power = pin!(power::keeper::keep(layout.clone(), deployment.to_owned()));
    while !clock.is_over() {
        let began = Instant::now();
        let mut child = launch(paths)?;
        eprintln!(
            "ejabberd of {deployment} started, process {}",
            child.id().unwrap_or_default()
        );
        let ending = tokio::select! {
            status = watch(&mut child, paths, &mut was_up) => Ending::Died(
                status.map_err(|source| RendezvousError::process("wait for ejabberd", source))?
            ),
            never = expire_tokens(paths, deployment) => match never {},
            never = registrar.serve() => match never {},
            // Goes on with what it does when the server is started again.
            never = &mut power => match never {},
            _ = term.recv() => Ending::Told,
            _ = int.recv() => Ending::Told,
            () = clock.over() => Ending::Over,
        };
        match ending {
            Ending::Told => {
                stop(&mut child, deployment).await?;
                // Stale otherwise, and harmless: it names the start time.
                let _ = std::fs::remove_file(paths.server_id());
                return Ok(());
            }
            Ending::Over => {
                stop(&mut child, deployment).await?;
                let _ = std::fs::remove_file(paths.server_id());
                break;
            }
            Ending::Died(status) if !was_up => {
                let what = format!("start ejabberd of {deployment}");
                return Err(RendezvousError::process(
                    what,
                    io::Error::other(describe(status)),
                ));
            }
            Ending::Died(status) => eprintln!(
                "ejabberd of {deployment} ended after {:?}: {}; starting it again in {backoff:?}",
                began.elapsed(),
                describe(status)
            ),
        }
        if began.elapsed() > STEADY {
            backoff = FIRST_BACKOFF;
        }
        tokio::select! {
            () = tokio::time::sleep(backoff) => {}
            _ = term.recv() => return Ok(()),
            _ = int.recv() => return Ok(()),
        }
        backoff = (backoff * 2).min(MAX_BACKOFF);
        bound(&paths.supervisor_log());
    }
    eprintln!("the time of {deployment} is over: its members are refused, and it is destroyed");
    tokio::select! {
        never = clock.destroy() => match never {},
        _ = term.recv() => Ok(()),
        _ = int.recv() => Ok(()),
    }
}

fn launch(paths: &Paths) -> Result<Child, RendezvousError> {
    // Left behind by a server that was killed.
    match std::fs::remove_file(paths.api_socket()) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            return Err(RendezvousError::file(&paths.api_socket(), source));
        }
        _ => {}
    }
    let mut command = Installation::find()?.command(paths);
    Owner::find()?.apply(&mut command);
    command.stdin(Stdio::null()).process_group(0);
    let child = tokio::process::Command::from(command)
        .spawn()
        .map_err(|source| RendezvousError::process("run erl", source))?;
    recorded(child, &paths.server_id())
}

/// Records a child, or kills it: one that is not recorded could not be stopped by anybody.
fn recorded(mut child: Child, path: &Path) -> Result<Child, RendezvousError> {
    let result = child.id().map_or(Ok(()), |pid| record(pid, path));
    if let Err(error) = result {
        // It fails only for one that has ended.
        let _ = child.start_kill();
        return Err(error);
    }
    Ok(child)
}

/// Waits for the end of ejabberd, noting whether it ever answered.
async fn watch(child: &mut Child, paths: &Paths, was_up: &mut bool) -> io::Result<ExitStatus> {
    while !*was_up {
        if connect_unix(&paths.api_socket()).is_ok() {
            *was_up = true;
            break;
        }
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        tokio::time::sleep(POLL).await;
    }
    child.wait().await
}

/// Kills enrolment tokens that were not used in time, again and again. While the server does not
/// answer there is nothing that a token could be used for.
async fn expire_tokens(paths: &Paths, deployment: &str) -> std::convert::Infallible {
    let mut said = None;
    loop {
        tokio::time::sleep(EXPIRY_INTERVAL).await;
        let (paths, domain) = (paths.clone(), domain_of(deployment));
        let expiry = tokio::task::spawn_blocking(move || {
            let api = paths.api(&domain)?;
            Tokens::new(&paths.dir).expire(&api, SystemTime::now())
        });
        match expiry.await {
            Ok(Ok(killed)) => {
                said = None;
                for user in killed {
                    eprintln!("the enrolment token of {user} was not used in time and is dead");
                }
            }
            Ok(Err(error)) => {
                let text = error.to_string();
                if said.as_ref() != Some(&text) {
                    eprintln!("enrolment tokens of {deployment} not looked at: {text}");
                    said = Some(text);
                }
            }
            Err(error) => eprintln!("enrolment tokens of {deployment} not looked at: {error}"),
        }
    }
}

/// Asks ejabberd to end, and kills it when it does not.
async fn stop(child: &mut Child, deployment: &str) -> Result<(), RendezvousError> {
    let failed = |source| RendezvousError::process("stop ejabberd", source);
    // Not reaped yet, so the number is still its own.
    if let Some(pid) = child
        .id()
        .and_then(|pid| i32::try_from(pid).ok())
        .and_then(Pid::from_raw)
    {
        kill_process(pid, Signal::TERM).map_err(|e| failed(e.into()))?;
    }
    match tokio::time::timeout(STOP_LIMIT, child.wait()).await {
        Ok(status) => status.map(drop).map_err(failed),
        Err(_) => {
            eprintln!("ejabberd of {deployment} did not end within {STOP_LIMIT:?}: killing it");
            child.kill().await.map_err(failed)
        }
    }
}

fn record(pid: u32, path: &Path) -> Result<(), RendezvousError> {
    ProcessId::of(pid)
        .and_then(|id| id.write(path))
        .map_err(|source| RendezvousError::file(path, source))
}

fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("status {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => "unknown status".to_owned(),
    }
}

/// Empties a log that grew too long; the writer appends.
fn bound(log: &Path) {
    if std::fs::metadata(log).is_ok_and(|metadata| metadata.len() > LOG_LIMIT) {
        let _ = std::fs::OpenOptions::new()
            .write(true)
            .truncate(true)
            .open(log);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_child_that_cannot_be_recorded_does_not_live_on() {
        let child = tokio::process::Command::new("sleep")
            .arg("600")
            .spawn()
            .expect("sleep");
        let id = ProcessId::of(child.id().expect("not waited for")).expect("its stat");
        recorded(child, Path::new("/nonexistent/server.json")).expect_err("no such directory");
        let began = Instant::now();
        while id.alive() {
            assert!(began.elapsed() < Duration::from_secs(10), "it lives");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}
