//! What a build will do and the hashes its results are kept under. No I/O.

use std::collections::BTreeMap;

use super::hash::Hasher;
use super::recipe::Recipe;

/// Raised when the same recipe would give another package stage than before.
const PACKAGES_FORMAT: u32 = 1;
/// Raised when the same recipe would give another root file system than before.
const ROOT_FORMAT: u32 = 1;

/// Which package stage a recipe needs: equal key, same packages asked for.
pub fn packages_key(recipe: &Recipe) -> String {
    let mut hasher = Hasher::new("packages");
    hasher.field(&PACKAGES_FORMAT.to_le_bytes());
    hasher.field(recipe.suite.as_bytes());
    for package in &recipe.packages {
        hasher.field(package.as_bytes());
    }
    hasher.finish()
}

/// Hash of the recipe alone, as the manifest shows it.
pub fn recipe_hash(recipe: &Recipe) -> String {
    let mut hasher = Hasher::new("recipe");
    hasher.field(packages_key(recipe).as_bytes());
    hasher.field(recipe.cmdline.as_bytes());
    for (path, link) in links(recipe) {
        hasher.field(path.as_bytes()).field(link.as_bytes());
    }
    for (path, content) in files(recipe) {
        hasher.field(path.as_bytes()).field(&content);
    }
    hasher.finish()
}

/// Hash of everything that goes into the image: its name in the cache and its identity.
pub fn image_hash(recipe: &Recipe, packages_sha256: &str, node_sha256: &str) -> String {
    let mut hasher = Hasher::new("image");
    hasher.field(&ROOT_FORMAT.to_le_bytes());
    hasher.field(recipe_hash(recipe).as_bytes());
    hasher.field(packages_sha256.as_bytes());
    hasher.field(node_sha256.as_bytes());
    hasher.finish()
}

/// Files to write into the root, by absolute path.
pub fn files(recipe: &Recipe) -> BTreeMap<String, Vec<u8>> {
    let mut files = recipe.files.clone();
    let role = format!(
        "IPOP_IMAGE_ROLE={}\nIPOP_HEALTH_COMMAND={}\nIPOP_HEALTH_SECONDS={}\n",
        recipe.role, recipe.health.command, recipe.health.timeout_seconds
    );
    files.insert("/etc/ipop/role.env".to_owned(), role.into_bytes());
    // Empty and not absent: systemd makes one at boot without taking it for a first boot.
    files.insert("/etc/machine-id".to_owned(), Vec::new());
    files
}

/// Symbolic links to make in the root: absolute path to target.
pub fn links(recipe: &Recipe) -> BTreeMap<String, String> {
    const UNITS: &str = "/etc/systemd/system";
    const GENERATORS: &str = "/etc/systemd/system-generators";
    let mut links = BTreeMap::new();
    for unit in &recipe.mask {
        // systemd.generator(7) masks generators in the same way, in a folder of their own.
        let dir = if unit.ends_with("-generator") {
            GENERATORS
        } else {
            UNITS
        };
        links.insert(format!("{dir}/{unit}"), "/dev/null".to_owned());
    }
    for (target, units) in &recipe.enable {
        for unit in units {
            let at = format!("{UNITS}/{unit}");
            let to = if recipe.files.contains_key(&at) {
                at
            } else {
                format!("/usr/lib/systemd/system/{unit}")
            };
            links.insert(format!("{UNITS}/{target}.wants/{unit}"), to);
        }
    }
    links.insert(
        "/etc/resolv.conf".to_owned(),
        "/run/systemd/resolve/stub-resolv.conf".to_owned(),
    );
    links
}

/// Permission bits of a file: scripts may run.
pub fn mode(content: &[u8]) -> u32 {
    if content.starts_with(b"#!") {
        0o755
    } else {
        0o644
    }
}

#[cfg(test)]
mod tests {
    use super::super::source::Source;
    use super::*;

    fn worker() -> Recipe {
        Recipe::load(&Source::compiled_in(), "worker").expect("a usable recipe")
    }

    #[test]
    fn the_same_recipe_has_the_same_hash_whatever_the_order_it_was_written_in() {
        let mut shuffled = worker();
        let packages: Vec<_> = shuffled.packages.iter().rev().cloned().collect();
        shuffled.packages = packages.into_iter().collect();
        assert_eq!(
            image_hash(&shuffled, "p", "n"),
            image_hash(&worker(), "p", "n")
        );
    }

    #[test]
    fn a_changed_file_changes_the_image_but_not_the_packages() {
        let mut changed = worker();
        changed.files.insert("/etc/motd".into(), b"hello".to_vec());
        assert_eq!(packages_key(&changed), packages_key(&worker()));
        assert_ne!(
            image_hash(&changed, "p", "n"),
            image_hash(&worker(), "p", "n")
        );
    }

    #[test]
    fn a_changed_node_binary_changes_the_image_alone() {
        assert_ne!(
            image_hash(&worker(), "p", "n"),
            image_hash(&worker(), "p", "m")
        );
        assert_ne!(
            image_hash(&worker(), "p", "n"),
            image_hash(&worker(), "q", "n")
        );
    }

    #[test]
    fn moving_text_from_one_file_to_the_next_changes_the_hash() {
        let (mut a, mut b) = (worker(), worker());
        a.files
            .extend([("/a".into(), b"xy".to_vec()), ("/b".into(), b"".to_vec())]);
        b.files
            .extend([("/a".into(), b"x".to_vec()), ("/b".into(), b"y".to_vec())]);
        assert_ne!(recipe_hash(&a), recipe_hash(&b));
    }

    #[test]
    fn roles_that_ask_for_the_same_packages_share_them() {
        let mut other = worker();
        other.role = "other".into();
        assert_eq!(packages_key(&other), packages_key(&worker()));
        other.packages.insert("tmux".into());
        assert_ne!(packages_key(&other), packages_key(&worker()));
    }

    #[test]
    fn enabled_units_are_wanted_by_their_target_and_masked_ones_lead_nowhere() {
        let links = links(&worker());
        let units = "/etc/systemd/system";
        assert_eq!(links[&format!("{units}/rpcbind.service")], "/dev/null");
        assert_eq!(
            links["/etc/systemd/system-generators/systemd-ssh-generator"],
            "/dev/null"
        );
        assert_eq!(
            links[&format!("{units}/multi-user.target.wants/ssh.service")],
            "/usr/lib/systemd/system/ssh.service"
        );
        assert_eq!(
            links[&format!("{units}/multi-user.target.wants/ipop-node.service")],
            format!("{units}/ipop-node.service")
        );
    }

    #[test]
    fn the_image_holds_no_machine_id_and_no_key() {
        for role in Source::compiled_in().roles() {
            let recipe = Recipe::load(&Source::compiled_in(), &role).expect("a usable recipe");
            let files = files(&recipe);
            assert!(files["/etc/machine-id"].is_empty());
            assert!(
                !files
                    .values()
                    .any(|c| String::from_utf8_lossy(c).contains("PRIVATE KEY")),
                "{role}"
            );
        }
    }
}
