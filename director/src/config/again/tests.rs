//! Whatever is done to a text, it means what it means when it is read for the first time.

use proptest::prelude::*;

use super::*;
use crate::config;

/// Texts of services, by number; each is a few lines.
fn service(number: u32, weight: u32) -> String {
    format!(
        "  - name: service-{number}\n    address: 192.0.2.{}\n    port: {}\n    real_servers:\n      - {{address: \
         10.0.0.{}, port: 80, weight: {weight}}}\n      # The other one.\n      - 10.0.1.1:80\n",
        1 + number % 5,
        1000 + number,
        1 + number % 7,
    )
}

const HEAD: &str = "interfaces: [eth0]\ndefaults: {scheduler: wlc}\nservices:\n";

fn text(services: impl IntoIterator<Item = (u32, u32)>, tail: &str) -> String {
    let services = services.into_iter();
    let services: String = services
        .map(|(number, weight)| service(number, weight))
        .collect();
    format!("{HEAD}{services}{tail}")
}

/// What comes of a text after another one, and whether only a part of it was read.
fn after(first: &str, second: &str) -> (Result<Config, String>, bool) {
    let mut reader = Reader::default();
    reader.parse("test.yaml", first.to_owned()).unwrap();
    let known = reader.known.as_ref();
    let is_part = known.is_some_and(|known| known.again(second).is_some());
    let config = reader.parse("test.yaml", second.to_owned());
    // A third time, by what the second time found.
    let once_more = reader.parse("test.yaml", second.to_owned());
    let words = |result: Result<Config, ConfigError>| result.map_err(|error| error.to_string());
    let config = words(config);
    assert_eq!(words(once_more), config);
    (config, is_part)
}

fn whole(text: &str) -> Result<Config, String> {
    config::parse("test.yaml", text).map_err(|error| error.to_string())
}

#[test]
fn changes() {
    const TAIL: &str = "watch: true\n";
    let same = |number: u32| (number, 1);
    let base = || (0..6).map(same);
    let with_tail = |tail: &'static str| (text(base(), TAIL), text(base(), tail));
    let first = text(base(), "");
    let to = |second: String| (first.clone(), second);
    let replaced = |from: &str, by: &str| to(first.replacen(from, by, 1));
    // (the text and another one, whether only a part of it is read, what it is)
    let cases = [
        (to(first.clone()), true, "nothing"),
        (to(text([0, 1, 3, 4, 5].map(same), "")), true, "one goes"),
        (
            to(text([0, 1, 9, 2, 3, 4, 5].map(same), "")),
            true,
            "one comes",
        ),
        (
            to(text([0, 1, 2, 3, 4, 5, 9].map(same), "")),
            true,
            "one comes last",
        ),
        (
            to(text([0, 1, 2, 3, 4].map(same), "")),
            true,
            "the last goes",
        ),
        (
            to(text([1, 2, 3, 4, 5].map(same), "")),
            false,
            "the first goes",
        ),
        (
            to(text(base().map(|(it, _)| (it, 1 + it / 3 % 2)), "")),
            true,
            "some weights",
        ),
        (to(text(base().rev(), "")), false, "another order"),
        (replaced("name: service-3", "name: other"), true, "a name"),
        (
            replaced("name: service-3", "name: service-1"),
            false,
            "the same name twice",
        ),
        (
            replaced("name: service-3", "nmae: service-3"),
            false,
            "a wrong key",
        ),
        (
            replaced("port: 1003", "port: 1001\n    # port: 1003"),
            true,
            "two services on one port, not one address",
        ),
        (
            replaced("port: 1003\n", "port: 1003\n\n\n"),
            true,
            "empty lines",
        ),
        (replaced("wlc", "rr"), false, "the defaults"),
        (
            replaced("name: service-3", "name: \"service\n      - 3\""),
            false,
            "a text of two lines",
        ),
        (
            replaced("  - name: service-3", "  - name: &it service-3"),
            false,
            "an anchor",
        ),
        (
            replaced(
                "    port: 1003",
                "    real_servers: [10.0.0.9\n  - name: x\n    port: 1003",
            ),
            false,
            "a bracket",
        ),
        (
            replaced(
                "  - name: service-3",
                "      - 10.0.3.3:80\n  - name: service-3",
            ),
            true,
            "one more real server",
        ),
        (
            replaced("  - name: service-3", "watch: true\n  - name: service-3"),
            false,
            "a key between",
        ),
        (
            replaced("  - name: service-3", "   - name: service-3"),
            false,
            "out of line",
        ),
        ((first.clone(), text(base(), TAIL)), false, "a key behind"),
        (with_tail("watch: false\n"), false, "another value behind"),
        (with_tail(""), false, "no key behind"),
        (
            (text(base(), TAIL), text([0, 1, 9, 3, 4, 5].map(same), TAIL)),
            true,
            "another one before a key",
        ),
    ];
    for ((first, second), expected, what) in cases {
        let (found, is_part) = after(&first, &second);
        assert_eq!(found, whole(&second), "{what}");
        assert_eq!(is_part, expected, "{what}: {second}");
    }
}

/// Parts of YAML that a change may put anywhere.
fn piece() -> impl Strategy<Value = String> {
    let some = prop::sample::select(vec![
        "",
        "\n",
        " ",
        "  ",
        "-",
        "- ",
        "  - ",
        "\"",
        "'",
        "[",
        "]",
        "{",
        "}",
        ":",
        ",",
        "#",
        " # ",
        "|\n",
        ">\n",
        "&a ",
        "*a",
        "port: 1",
        "address: 192.0.2.9\n",
        "10.0.0.3",
        "watch: true\n",
        "services:\n",
        "    ",
        "name: service-2\n",
        "---\n",
        "é",
    ]);
    prop_oneof![
        3 => some.prop_map(str::to_owned),
        1 => (0..8u32, 1..3u32).prop_map(|(number, weight)| service(number, weight)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(512) })]

    /// Any part of the text is replaced by anything.
    #[test]
    fn any_change_is_read_as_for_the_first_time(
        numbers in prop::collection::btree_set(0..8u32, 1..6),
        has_tail in any::<bool>(),
        from in any::<prop::sample::Index>(),
        length in prop_oneof![Just(0_usize), 0..4_usize, 0..400_usize],
        at_line in any::<bool>(),
        pieces in prop::collection::vec(piece(), 0..3),
    ) {
        let first = text(numbers.into_iter().map(|it| (it, 1)), if has_tail { "watch: false\n" } else { "" });
        let mut from = from.index(first.len() + 1);
        let mut to = (from + length).min(first.len());
        if at_line {
            let line = |at: usize| first[..at].rfind('\n').map_or(0, |it| it + 1);
            (from, to) = (line(from), line(to));
        }
        let second = format!("{}{}{}", &first[..from], pieces.concat(), &first[to..]);
        prop_assert_eq!(after(&first, &second).0, whole(&second), "{}", second);
    }
}
