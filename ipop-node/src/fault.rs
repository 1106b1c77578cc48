//! Places where tests kill the process, to see what the next start makes of what is left.

/// Ends this process as SIGKILL would when `IPOP_NODE_FAULT` names this place. Only in debug
/// builds: a release has no such places.
pub fn point(name: &str) {
    if !cfg!(debug_assertions) {
        return;
    }
    if std::env::var_os("IPOP_NODE_FAULT").is_some_and(|wanted| wanted == name) {
        // It fails only for a process that does not exist.
        let _ =
            rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    }
}
