//! Texts and what becomes of them.

use std::collections::BTreeSet;
use std::path::PathBuf;

use proptest::prelude::*;
use serde_json::Value as Json;

use super::*;

mod bad;
mod checks;
mod good;

const EXAMPLE: &str = include_str!("../../examples/director.yaml");

#[test]
fn the_example_loads() {
    let config = good("the example", EXAMPLE);
    assert_eq!(config.instance, "edge");
    assert_eq!(config.services.len(), 9);
    let from_file =
        load(&PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("examples/director.yaml")).unwrap();
    assert_eq!(from_file, config);
}

/// The example says that it shows the defaults: nothing changes without these sections.
#[test]
fn the_examples_defaults_are_the_defaults() {
    let config = good("the example", EXAMPLE);
    let bare = good("a bare one", "interfaces: [eth0]");
    assert_eq!(config.tunnel, bare.tunnel);
    assert_eq!(config.connections, bare.connections);
    assert_eq!(config.icmp_per_second, bare.icmp_per_second);
    assert_eq!(config.fragment_timeout_ms, bare.fragment_timeout_ms);
    assert_eq!(
        bare.control_socket,
        PathBuf::from("/run/director/default.sock")
    );
}

#[test]
fn the_example_shows_every_key() {
    let schema = schema();
    let example: Json = serde_saphyr::from_str(EXAMPLE).unwrap();
    let mut shown = BTreeSet::new();
    collect_keys(&schema, &schema, &example, "", &mut shown);
    // Keys that cannot stand beside each other are shown in sections of their own.
    for section in EXAMPLE.lines().filter_map(|line| line.strip_prefix("# ")) {
        if section.starts_with("sync: ") {
            good(section, &format!("interfaces: [eth0]\n{section}\n"));
            let other: Json = serde_saphyr::from_str(section).unwrap();
            collect_keys(&schema, &schema, &other, "", &mut shown);
        }
    }
    let mut known = BTreeSet::new();
    for (name, definition) in schema["$defs"].as_object().unwrap() {
        known.extend(
            definition["properties"]
                .as_object()
                .unwrap()
                .keys()
                .map(|key| format!("{name}.{key}")),
        );
    }
    known.extend(
        schema["properties"]
            .as_object()
            .unwrap()
            .keys()
            .map(|key| format!(".{key}")),
    );
    assert!(known.len() > 30, "the schema is not read: {known:?}");
    let missing: Vec<_> = known.difference(&shown).collect();
    assert!(missing.is_empty(), "not in the example: {missing:?}");
}

/// What README shows can be copied: whole files, and sections of the director's or of heartbeat's file.
#[test]
fn the_readmes_files_are_right() {
    let readme = include_str!("../../../README.md");
    let blocks = readme.split("```yaml\n").skip(1);
    let blocks: Vec<&str> = blocks
        .filter_map(|it| Some(it.split_once("```")?.0))
        .collect();
    assert!(blocks.len() > 10, "README is not read: {blocks:?}");
    for block in blocks {
        let has = |key: &str| block.lines().any(|line| line.starts_with(key));
        if has("groups:") {
            let node = if has("node:") { "" } else { "node: lb1\n" };
            let links = if has("links:") {
                ""
            } else {
                "links: [{udp: {interface: eth0, peers: [192.0.2.2]}}]\n"
            };
            let text = format!("{node}{links}{block}");
            let read = heartbeat::config::parse("README.md", &text, "lb1");
            read.unwrap_or_else(|error| panic!("{error}\n{block}"));
        } else {
            let interfaces = if has("interfaces:") {
                ""
            } else {
                "interfaces: [eth0]\n"
            };
            good(block, &format!("{interfaces}{block}"));
        }
    }
}

/// What the reader refuses as missing, an editor underlines.
#[test]
fn the_schema_knows_what_is_required() {
    let schema = schema();
    for (name, key, expected) in [
        ("Interface", "required", r#"["name"]"#),
        (
            "Service",
            "oneOf",
            r#"[{"required":["address"]},{"required":["endpoints"]}]"#,
        ),
        ("Endpoint", "required", r#"["address"]"#),
        ("RealServer", "required", r#"["address"]"#),
        ("Tunnel", "required", r#"["type"]"#),
    ] {
        let found = &schema["$defs"][name][key];
        assert_eq!(found.to_string(), expected, "{name}");
    }
    assert_eq!(schema["required"].to_string(), r#"["interfaces"]"#);
}

/// Notes `Definition.key` for every key of the instance that a definition of the schema describes.
fn collect_keys(
    root: &Json,
    schema: &Json,
    instance: &Json,
    name: &str,
    shown: &mut BTreeSet<String>,
) {
    if let Some(reference) = schema["$ref"].as_str() {
        let name = reference.rsplit('/').next().unwrap();
        collect_keys(root, &root["$defs"][name], instance, name, shown);
    }
    for alternative in schema["anyOf"].as_array().into_iter().flatten() {
        collect_keys(root, alternative, instance, name, shown);
    }
    for element in instance.as_array().into_iter().flatten() {
        collect_keys(root, &schema["items"], element, name, shown);
    }
    let Some(properties) = schema["properties"].as_object() else {
        return;
    };
    for (key, value) in instance.as_object().into_iter().flatten() {
        if let Some(property) = properties.get(key) {
            shown.insert(format!("{name}.{key}"));
            collect_keys(root, property, value, name, shown);
        }
    }
}

/// The configuration of a text without mistakes.
fn good(sentence: &str, text: &str) -> Config {
    parse("director.yaml", text).unwrap_or_else(|error| panic!("{sentence}:\n{error}"))
}

#[test]
fn a_file_that_cannot_be_read() {
    let directory =
        std::env::temp_dir().join(format!("director-config-test-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let missing = load(&directory.join("missing.yaml")).unwrap_err();
    let latin = directory.join("latin1.yaml");
    std::fs::write(&latin, b"interfaces: [eth0]\ninstance: caf\xe9\n").unwrap();
    let latin = load(&latin).unwrap_err();
    let large = directory.join("large.yaml");
    std::fs::File::create(&large)
        .unwrap()
        .set_len(limits::FILE_BYTES + 1)
        .unwrap();
    let large = load(&large).unwrap_err();
    std::fs::remove_dir_all(&directory).unwrap();

    assert!(
        missing.to_string().contains("missing.yaml: No such file"),
        "{missing}"
    );
    assert_eq!(
        latin.mistakes()[0].place,
        Place {
            line: 2,
            column: 14
        },
        "{latin}"
    );
    assert!(latin.to_string().contains("latin1.yaml:2:14"), "{latin}");
    assert!(large.to_string().contains("larger than 16 MiB"), "{large}");
}

#[test]
fn a_large_configuration_loads() {
    use std::fmt::Write;
    let mut text = "interfaces: [eth0]\ndefaults: {port: 80}\nservices:\n".to_owned();
    for service in 0..2000 {
        writeln!(
            text,
            "- address: 10.1.{}.{}\n  real_servers:",
            service / 250,
            service % 250 + 1
        )
        .unwrap();
        for real_server in 0..10 {
            writeln!(
                text,
                "  - address: 10.2.{}.{}",
                service / 250,
                service % 250 + 1
            )
            .unwrap();
            writeln!(
                text,
                "    port: {}\n    weight: {}\n    method: nat",
                8000 + real_server,
                1 + real_server % 3
            )
            .unwrap();
        }
    }
    let config = good("2,000 services", &text);
    assert_eq!(
        config
            .services
            .iter()
            .map(|service| service.real_servers.len())
            .sum::<usize>(),
        20_000
    );
}

/// What an operator sees, as a whole.
#[test]
fn a_mistake_is_shown_like_a_compilers() {
    let text = "interfaces: [eth0]\nservices:\n  - address: 192.0.2.10\n    port: 80\n    scheduler: wr # fair\n";
    let expected = "\
error: found \"wr\"
 --> /etc/director/director.yaml:5:16
  |
5 |     scheduler: wr # fair
  |                ^^ expected one of rr, wrr, lc, wlc, lblc, lblcr, dh, sh, mh, sed, nq, fo, ovf, twos
  |
  = help: did you mean \"wrr\"?";
    assert_eq!(
        parse("/etc/director/director.yaml", text)
            .unwrap_err()
            .to_string(),
        expected
    );
}

#[test]
fn all_mistakes_are_told_and_only_so_many_shown() {
    let mut text = "services:\n".to_owned();
    for _ in 0..100 {
        text.push_str("- {address: 192.0.2.256, port: 0}\n");
    }
    let error = parse("director.yaml", &text).unwrap_err();
    assert_eq!(error.mistakes().len(), 1 + 2 * 100);
    let places: Vec<Place> = error
        .mistakes()
        .iter()
        .map(|mistake| mistake.place)
        .collect();
    assert!(places.is_sorted(), "{places:?}");
    let shown = error.to_string();
    assert_eq!(shown.matches("error: ").count(), limits::MISTAKES_SHOWN);
    assert!(shown.ends_with("... and 181 more mistakes"), "{shown}");
}

/// A terminal must not be steered by a configuration's text.
#[test]
fn control_characters_are_not_shown() {
    let error = parse(
        "director.yaml",
        "interfaces: [\"\\e[31mred\"]\ninstance: \"a\\u0007b\"\n",
    )
    .unwrap_err();
    let shown = error.to_string();
    assert!(
        !shown.chars().any(|c| c.is_control() && c != '\n'),
        "{shown:?}"
    );
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(text in any::<String>()) {
        let _ = parse("any", &text).map_err(|error| error.to_string());
    }

    #[test]
    fn no_text_of_yamls_own_characters_makes_it_panic(text in "([ -~\n\t]|interfaces|services|: |\n  |\n- |[\\[\\]{}&*<!|>'\"%#,?]){0,60}") {
        let _ = parse("any", &text).map_err(|error| error.to_string());
    }

    /// Close to a good one, so that all of it is reached.
    #[test]
    fn no_damage_to_the_example_makes_it_panic(
        damages in proptest::collection::vec((0..EXAMPLE.len(), 0usize..20, "[ -~\n]{0,6}|[^ -~]"), 1..4),
    ) {
        let mut text: Vec<char> = EXAMPLE.chars().collect();
        for (start, length, replacement) in damages {
            let start = start.min(text.len());
            let end = (start + length).min(text.len());
            text.splice(start..end, replacement.chars());
        }
        let text: String = text.into_iter().collect();
        if let Err(error) = parse("damaged", &text) {
            prop_assert!(!error.mistakes().is_empty());
            prop_assert!(!error.to_string().is_empty());
            for mistake in error.mistakes() {
                prop_assert!(mistake.place.line <= text.lines().count() + 1, "{mistake:?}");
            }
        }
    }
}
