//! Templates (minijinja), compiled into the binary from `templates/`. No I/O.

use minijinja::syntax::SyntaxConfig;
use minijinja::value::Serde;
use minijinja::{AutoEscape, Environment, UndefinedBehavior};
use serde::Serialize;

/// The templates by name. A new file in `templates/` is added here.
const TEMPLATES: &[(&str, &str)] = &[
    (
        "ejabberd.yml.j2",
        include_str!("../../templates/ejabberd.yml.j2"),
    ),
    ("exports.j2", include_str!("../../templates/exports.j2")),
    (
        "libvirt-backup.xml.j2",
        include_str!("../../templates/libvirt-backup.xml.j2"),
    ),
    (
        "libvirt-domain.xml.j2",
        include_str!("../../templates/libvirt-domain.xml.j2"),
    ),
    (
        "libvirt-network.xml.j2",
        include_str!("../../templates/libvirt-network.xml.j2"),
    ),
    (
        "libvirt-pool.xml.j2",
        include_str!("../../templates/libvirt-pool.xml.j2"),
    ),
    (
        "libvirt-volume.xml.j2",
        include_str!("../../templates/libvirt-volume.xml.j2"),
    ),
    (
        "share-exports.j2",
        include_str!("../../templates/share-exports.j2"),
    ),
];

/// Renders a template. An undefined variable is an error, and values put into `.xml` templates are
/// escaped.
pub fn render(name: &str, context: impl Serialize) -> Result<String, minijinja::Error> {
    let mut env = environment()?;
    for (name, source) in TEMPLATES {
        env.add_template(name, source)?;
    }
    env.get_template(name)?.render(Serde(context))
}

/// Renders a template that is not compiled in; `name` is for messages.
pub fn render_source(
    name: &str,
    source: &str,
    context: impl Serialize,
) -> Result<String, minijinja::Error> {
    let mut env = environment()?;
    env.add_template(name, source)?;
    env.get_template(name)?.render(Serde(context))
}

fn environment<'a>() -> Result<Environment<'a>, minijinja::Error> {
    let mut env = Environment::new();
    env.set_undefined_behavior(UndefinedBehavior::Strict);
    env.set_syntax(
        SyntaxConfig::builder()
            .keep_trailing_newline(true)
            .trim_blocks(true)
            .lstrip_blocks(true)
            .build()?,
    );
    env.set_auto_escape_callback(|name| {
        if name.ends_with(".xml.j2") {
            AutoEscape::Html
        } else {
            AutoEscape::None
        }
    });
    Ok(env)
}
