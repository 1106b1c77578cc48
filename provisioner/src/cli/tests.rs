use clap::CommandFactory;

use super::*;

/// The help of every subcommand, as wide as a usual terminal.
fn help(path: &[&str]) -> String {
    let mut command = Cli::command().term_width(100);
    command.build();
    let mut found = &mut command;
    for name in path {
        found = found.find_subcommand_mut(name).expect("a subcommand");
    }
    found.render_help().to_string()
}

#[test]
fn the_help_of_every_subcommand_teaches() {
    let paths: [&[&str]; 41] = [
        &[],
        &["cluster"],
        &["resume"],
        &["scale"],
        &["status"],
        &["list"],
        &["ssh"],
        &["logs"],
        &["user"],
        &["user", "invite"],
        &["user", "list"],
        &["user", "remove"],
        &["group"],
        &["group", "list"],
        &["group", "add"],
        &["group", "remove"],
        &["policy"],
        &["policy", "explain"],
        &["audit"],
        &["authority"],
        &["authority", "encrypt"],
        &["share"],
        &["share", "create"],
        &["share", "list"],
        &["share", "status"],
        &["share", "members"],
        &["share", "grow"],
        &["share", "snapshot"],
        &["share", "mount"],
        &["share", "unmount"],
        &["share", "destroy"],
        &["destroy"],
        &["extend"],
        &["gc"],
        &["site"],
        &["site", "list"],
        &["site", "check"],
        &["site", "prune"],
        &["image"],
        &["image", "build"],
        &["image", "list"],
    ];
    for path in paths {
        let name = format!("help_{}", path.join("_"));
        insta::assert_snapshot!(name, help(path));
    }
}

#[test]
fn no_subcommand_is_without_a_snapshot_of_its_help() {
    let command = Cli::command();
    let names: Vec<_> = command
        .get_subcommands()
        .filter(|c| !c.is_hide_set())
        .map(|c| c.get_name())
        .collect();
    let known = [
        "cluster",
        "resume",
        "scale",
        "status",
        "list",
        "ssh",
        "logs",
        "user",
        "group",
        "policy",
        "audit",
        "authority",
        "share",
        "destroy",
        "extend",
        "gc",
        "site",
        "image",
    ];
    assert_eq!(names, known);
}

#[test]
fn wrong_arguments_say_what_would_be_right() {
    let lines = [
        "cluster",
        "cluster --frontend 2@local",
        "cluster --frontend local --workers 2",
        "cluster --frontend local --workers 0@local",
        "cluster --frontend local --memory 512",
        "cluster --frontend local --timeout 15",
        "cluster --frontend local --cpus 0",
        "cluster --frontend local --name Demo",
        "scale demo",
        "scale demo --workers 2",
        "ssh demo",
        "share create demo/data --on local --size 20",
        "share destroy demo",
        "clutser",
    ];
    let refuse = |line: &str| {
        let words = std::iter::once("provision").chain(line.split(' '));
        let error = Cli::try_parse_from(words).expect_err(line);
        assert_eq!(error.exit_code(), 2, "{line}");
        format!("$ provision {line}\n{error}")
    };
    let all: Vec<_> = lines.iter().map(|line| refuse(line)).collect();
    insta::assert_snapshot!(all.join("\n"));
}

/// `provision` in a state directory of its own.
fn context(dir: &std::path::Path, line: &str) -> (Context, Command) {
    let words = std::iter::once("provision").chain(line.split(' '));
    let mut cli = Cli::try_parse_from(words).expect(line);
    cli.global.state_dir = Some(dir.join("state"));
    cli.global
        .sites
        .get_or_insert_with(|| dir.join("sites.toml"));
    let layout = crate::layout::Layout {
        state: dir.join("state"),
        cache: dir.join("cache"),
    };
    let context = Context {
        layout,
        global: cli.global,
    };
    (context, cli.command)
}

/// Runs `provision` in a state directory of its own.
fn run(dir: &std::path::Path, line: &str) -> Result<u8, CliError> {
    let (context, command) = context(dir, line);
    command.run(&context)
}

#[test]
fn names_that_nothing_has_are_errors_with_suggestions() {
    let dir = tempfile::tempdir().expect("temporary directory");
    std::fs::write(dir.path().join("sites.toml"), "").expect("written");
    let lines = [
        "destroy demo",
        "resume demo",
        "scale demo --workers +1@local",
        "cluster --frontend local --workers 2@local --quorum 3",
        "status demo",
        "share create demo/data --on local --size 20G",
        "share grow demo/data --size 40G",
        "share snapshot demo/data",
        "share status demo/data",
        "share destroy demo/data",
        "share list demo",
        "ssh demo/worker-0 -- true",
        "logs demo/worker-0",
        "audit demo",
        "audit ../state",
        "cluster --frontend locale --workers 2@local",
        "site check lokal",
        "site prune lokal",
        "cluster --frontend local --sites /nonexistent/sites.toml",
    ];
    let refuse = |line: &str| {
        let error = run(dir.path(), line).expect_err(line);
        format!(
            "$ provision {line}\n{error}\nexit code {}\n",
            error.code as u8
        )
    };
    let all: Vec<_> = lines.iter().map(|line| refuse(line)).collect();
    insta::assert_snapshot!(all.join("\n"));
    assert_eq!(run(dir.path(), "list").expect("an empty list"), 0);
}

#[test]
fn locking_a_deployment_that_was_destroyed_meanwhile_leaves_no_directory() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let context = context(dir.path(), "list").0;
    let database = context.database().expect("opens");
    let new = crate::state::record::NewDeployment {
        name: "demo".to_owned(),
        uid: "00112233445566ff".to_owned(),
        quorum: None,
        domain: "demo.ipop".to_owned(),
        net4: "10.200.7.0/24".to_owned(),
        net6: "fd12::/64".to_owned(),
        settings: "{}".to_owned(),
        nodes: Vec::new(),
    };
    let now = std::time::SystemTime::now();
    let id = database.create(&new, now).expect("recorded");
    let (lock, found) = context
        .locked(&database, "demo")
        .expect("free")
        .expect("there");
    assert_eq!(found.id, id);
    drop(lock);
    std::fs::remove_dir_all(context.layout.deployment("demo")).expect("removed");
    database.bury(id, now).expect("buried");
    let late = context.locked(&database, "demo").expect("free");
    assert!(late.is_none());
    assert!(!context.layout.deployment("demo").exists());
}

#[test]
fn errors_of_the_machine_have_their_own_code_and_say_what_to_do() {
    let path = std::path::Path::new("/var/lib/ipop-provision/deployments/demo/ssh/known_hosts");
    let io = |kind| std::io::Error::from(kind);
    let mut command = std::process::Command::new("sh");
    command.args(["-c", "echo one >&2; echo two >&2; exit 3"]);
    let output = command.output().expect("a shell");
    let errors = [
        CliError::file("write", path, io(std::io::ErrorKind::StorageFull)),
        CliError::file("create", path, io(std::io::ErrorKind::PermissionDenied)),
        CliError::program(
            "ssh-keygen",
            "openssh-client",
            io(std::io::ErrorKind::NotFound),
        ),
        CliError::child(crate::error::ExitCode::Internal, &command, &output),
        crate::state::name_taken("demo"),
    ];
    let all: Vec<_> = errors
        .iter()
        .map(|e| format!("{e}\nexit code {}\n", e.code as u8))
        .collect();
    insta::assert_snapshot!(all.join("\n"));
}

#[test]
fn pruning_a_site_without_anything_uploaded_succeeds() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let sites = "[site.fake]\nkind = \"libvirt\"\nuri = \"test:///default\"\n";
    std::fs::write(dir.path().join("sites.toml"), sites).expect("written");
    for line in ["site prune fake", "site prune fake --json"] {
        assert_eq!(run(dir.path(), line).expect(line), 0);
    }
}
