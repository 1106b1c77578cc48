//! Runs one operation, for an instruction counter to watch: `scripts/instructions` does.
//!
//! Without arguments it prints every operation and how often it is run and for how many packets.

mod operations;

/// So often that what a run finds in its caches and tables is what it finds in the long run.
const RUNS: u64 = 100;

fn main() {
    // Cargo adds `--bench`.
    let wanted = std::env::args()
        .skip(1)
        .find(|argument| !argument.starts_with('-'));
    for mut operation in operations::all() {
        match &wanted {
            None => println!("{} {RUNS} {}", operation.name, operation.packets),
            Some(wanted) if wanted == operation.name => {
                // What is allocated or found out once is none of it.
                (operation.run)();
                watched(&mut operation.run);
            }
            Some(_) => {}
        }
    }
}

/// What the counter looks for.
#[unsafe(no_mangle)]
#[inline(never)]
fn watched(run: &mut dyn FnMut()) {
    for _ in 0..RUNS {
        run();
    }
}
