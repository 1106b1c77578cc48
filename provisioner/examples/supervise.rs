//! The supervisor of an embedded rendezvous as a program of its own: `supervise STATE_DIR NAME`.
//! Tests start it in place of `provision rendezvous run NAME`.

use std::path::PathBuf;

use provisioner::layout::Layout;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args_os().skip(1);
    let (Some(state), Some(name)) = (args.next(), args.next()) else {
        return Err("usage: supervise STATE_DIR NAME".into());
    };
    let state = PathBuf::from(state);
    let layout = Layout {
        cache: state.join("cache"),
        state,
    };
    provisioner::rendezvous::supervise(&layout, &name.to_string_lossy())?;
    Ok(())
}
