//! Which steps a machine needs: facts in, steps out.

use std::fmt;

/// Version of bpf-linker that the recipe is known to work with.
pub(crate) const LINKER_VERSION: &str = "0.10.3";

/// The LLVM that this bpf-linker loads from a Rust toolchain. A compiler with a newer one writes bitcode that
/// it cannot read.
pub(crate) const LLVM_MAJOR: u32 = 22;

/// A toolchain known to bring that LLVM, for machines whose own are all older or newer.
const KNOWN_TOOLCHAIN: &str = "1.95.0";

/// Debian's packages with a recent compiler and the sources of its `core`.
const DEBIAN_COMPILER: [&str; 3] = ["rustc-web", "cargo-web", "rust-web-src"];

/// What the machine is to be made ready for. Later ones need all that earlier ones need.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Purpose {
    /// Build, and run the lab.
    Demo,
    /// Measure, beside others.
    Bench,
    /// Everything, the test suites included.
    Test,
}

/// A Rust compiler found on the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Compiler {
    /// Major version of its LLVM.
    pub(crate) llvm: u32,
    /// Whether the sources of its `core` are there too.
    pub(crate) has_sources: bool,
}

impl Compiler {
    /// Whether it can build `core` for the kernel, in a form that the linker reads.
    pub(crate) fn builds_bpf(self) -> bool {
        self.has_sources && self.llvm <= LLVM_MAJOR
    }
}

/// What exists on the machine.
#[derive(Clone, Debug, Default)]
pub(crate) struct Facts {
    /// Running as root.
    pub(crate) root: bool,
    /// `apt-get` is there.
    pub(crate) apt: bool,
    /// `rustup` is there.
    pub(crate) rustup: bool,
    /// rustup's toolchains, the active one first.
    pub(crate) toolchains: Vec<Compiler>,
    /// The distribution's compiler, `/usr/bin/rustc`.
    pub(crate) debian: Option<Compiler>,
    /// A bpf-linker of [`LINKER_VERSION`] is there.
    pub(crate) linker: bool,
    /// Programs of [`PROGRAMS`] that are there.
    pub(crate) programs: Vec<&'static str>,
    /// Components of [`COMPONENTS`] whose programs are there.
    pub(crate) components: Vec<&'static str>,
}

/// A program that must be there.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Program {
    /// Its name.
    pub(crate) name: &'static str,
    /// The Debian package that has it.
    pub(crate) package: &'static str,
    /// The service that the package would have the system run, which tests do not want: they start it themselves.
    pub(crate) service: Option<&'static str>,
    /// What it is for.
    why: &'static str,
    /// From which purpose on.
    from: Purpose,
}

impl Program {
    const fn new(
        name: &'static str,
        package: &'static str,
        why: &'static str,
        from: Purpose,
    ) -> Self {
        Self {
            name,
            package,
            service: None,
            why,
            from,
        }
    }

    /// A server that tests start, and nothing before them.
    const fn server(
        name: &'static str,
        package: &'static str,
        service: &'static str,
        why: &'static str,
    ) -> Self {
        Self {
            name,
            package,
            service: Some(service),
            why,
            from: Purpose::Test,
        }
    }
}

/// Why the servers of [`PROGRAMS`] are there that are not nginx.
const CHECKS: &str = "health checks are tried against it";

/// Why what a kernel IPVS boots with is there.
const IPVS: &str = "synchronisation is tried against the kernel's own, which boots as a process";

/// Why there are programs that make traffic.
const LOAD: &str = "the benchmark sends real connections through the lab with it";

/// All programs, in the order of installation.
pub(crate) const PROGRAMS: [Program; 22] = [
    Program::new(
        "ip",
        "iproute2",
        "the lab is made of network namespaces, virtual cables and routes",
        Purpose::Demo,
    ),
    Program::new(
        "ethtool",
        "ethtool",
        "virtual cables leave checksums unfinished unless told not to; a packet path that never enters the kernel's stack needs them whole",
        Purpose::Demo,
    ),
    Program::new(
        "nft",
        "nftables",
        "the benchmark measures its NAT beside the director's; the tests make networks with it that lose datagrams",
        Purpose::Bench,
    ),
    Program {
        from: Purpose::Bench,
        ..Program::server(
            "nginx",
            "nginx-light",
            "nginx",
            "the lab tests and the benchmark use it as the real server",
        )
    },
    Program {
        from: Purpose::Bench,
        ..Program::server(
            "haproxy",
            "haproxy",
            "haproxy",
            "the benchmark measures it beside the director",
        )
    },
    Program::new("iperf3", "iperf3", LOAD, Purpose::Bench),
    Program::new("wrk", "wrk", LOAD, Purpose::Bench),
    Program::server("master", "postfix", "postfix", CHECKS),
    Program::server("imap", "dovecot-imapd", "dovecot", CHECKS),
    Program::server("pop3", "dovecot-pop3d", "dovecot", CHECKS),
    Program::server("vsftpd", "vsftpd", "vsftpd", CHECKS),
    Program::server("unbound", "unbound", "unbound", CHECKS),
    // Without its clients and the packages that make it a service.
    Program::server("mariadbd", "mariadb-server-core", "mariadb", CHECKS),
    Program::new(
        "my_print_defaults",
        "mariadb-client-core",
        "MariaDB's first tables are made with it",
        Purpose::Test,
    ),
    Program::server("postgres", "postgresql", "postgresql", CHECKS),
    Program::server("redis-server", "redis-server", "redis-server", CHECKS),
    Program::server("slapd", "slapd", "slapd", CHECKS),
    Program::server(
        "keepalived",
        "keepalived",
        "keepalived",
        "failover is tried against it",
    ),
    Program::new("linux.uml", "user-mode-linux", IPVS, Purpose::Test),
    Program::server("ipvsadm", "ipvsadm", "ipvsadm", IPVS),
    Program::new("busybox", "busybox-static", IPVS, Purpose::Test),
    Program::new("modprobe", "kmod", IPVS, Purpose::Test),
];

/// rustup components of which the tests need the programs, and what for.
pub(crate) const COMPONENTS: [(&str, &str, &str); 2] = [
    ("rustfmt", "rustfmt", "the tests check the formatting"),
    ("clippy", "cargo-clippy", "the tests check the lints"),
];

/// One way of installing something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// `rustup component add COMPONENT`, to the active toolchain.
    Component(&'static str),
    /// `rustup toolchain install VERSION` with the sources of `core`.
    Toolchain(&'static str),
    /// `apt-get install` of these packages.
    Apt(Vec<&'static str>),
    /// `cargo install` of bpf-linker into the target directory.
    Linker,
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Component(component) => write!(f, "rustup component add {component}"),
            Self::Toolchain(version) => {
                write!(
                    f,
                    "rustup toolchain install {version} --profile minimal --component rust-src"
                )
            }
            Self::Apt(packages) => {
                write!(
                    f,
                    "apt-get install --no-install-recommends {}",
                    packages.join(" ")
                )
            }
            Self::Linker => write!(
                f,
                "cargo install bpf-linker@{LINKER_VERSION} --locked (about a minute)"
            ),
        }
    }
}

/// Something that is missing, and how to come by it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Step {
    /// What is missing.
    pub(crate) what: String,
    /// What it is needed for.
    pub(crate) why: &'static str,
    /// To be tried in this order; none where this machine or user cannot.
    pub(crate) ways: Vec<Way>,
    /// What to do without this program.
    pub(crate) by_hand: String,
}

/// The steps that make a machine with these facts ready for `purpose`, in order.
pub(crate) fn plan(facts: &Facts, purpose: Purpose) -> Vec<Step> {
    let mut steps = Vec::new();
    let can_apt = facts.root && facts.apt;
    let apt = |packages: &[&'static str]| can_apt.then(|| Way::Apt(packages.to_vec()));

    if !facts
        .toolchains
        .iter()
        .any(|toolchain| toolchain.llvm == LLVM_MAJOR)
    {
        steps.push(Step {
            what: format!("a Rust toolchain with LLVM {LLVM_MAJOR}"),
            why: "bpf-linker borrows LLVM from it",
            ways: facts
                .rustup
                .then_some(Way::Toolchain(KNOWN_TOOLCHAIN))
                .into_iter()
                .collect(),
            by_hand: format!(
                "Install rustup (https://rustup.rs), then: {}",
                Way::Toolchain(KNOWN_TOOLCHAIN)
            ),
        });
    } else if !facts
        .toolchains
        .iter()
        .chain(&facts.debian)
        .any(|compiler| compiler.builds_bpf())
    {
        // rustup first: it gives the very sources of the compiler in use. Debian's where rustup's servers
        // cannot be reached.
        let component = match facts.toolchains.first() {
            Some(active) if active.llvm <= LLVM_MAJOR => Way::Component("rust-src"),
            _ => Way::Toolchain(KNOWN_TOOLCHAIN),
        };
        steps.push(Step {
            what: "the sources of a Rust compiler's `core`".to_owned(),
            why: "the programs for the kernel need a `core` built for the BPF target, which no compiler ships",
            by_hand: format!(
                "As yourself: {component}\nor as root on Debian: {}",
                Way::Apt(DEBIAN_COMPILER.to_vec())
            ),
            ways: facts
                .rustup
                .then_some(component)
                .into_iter()
                .chain(apt(&DEBIAN_COMPILER))
                .collect(),
        });
    }

    if !facts.linker {
        steps.push(Step {
            what: format!("bpf-linker {LINKER_VERSION}"),
            why: "links the programs for the kernel into an object with type information",
            ways: vec![Way::Linker],
            by_hand: format!("Run: {}", Way::Linker),
        });
    }

    for program in PROGRAMS {
        if purpose >= program.from && !facts.programs.contains(&program.name) {
            let package = program.package;
            steps.push(Step {
                // `master` and `imap` say little by themselves.
                what: match program.service {
                    Some(_) if program.name != package => format!("{} ({package})", program.name),
                    _ => program.name.to_owned(),
                },
                why: program.why,
                ways: apt(&[package]).into_iter().collect(),
                by_hand: format!(
                    "Install the package `{package}` as root, on Debian: {}",
                    Way::Apt(vec![package])
                ),
            });
        }
    }

    if purpose >= Purpose::Test {
        for (component, _, why) in COMPONENTS {
            if !facts.components.contains(&component) {
                steps.push(Step {
                    what: component.to_owned(),
                    why,
                    ways: facts
                        .rustup
                        .then_some(Way::Component(component))
                        .into_iter()
                        .collect(),
                    by_hand: format!("Run: {}", Way::Component(component)),
                });
            }
        }
    }
    steps
}

#[cfg(test)]
mod tests {
    use super::*;

    const WITH_SOURCES: Compiler = Compiler {
        llvm: LLVM_MAJOR,
        has_sources: true,
    };
    const WITHOUT: Compiler = Compiler {
        llvm: LLVM_MAJOR,
        has_sources: false,
    };
    const TOO_NEW: Compiler = Compiler {
        llvm: LLVM_MAJOR + 1,
        has_sources: true,
    };

    /// A machine on which nothing is missing.
    fn complete() -> Facts {
        Facts {
            root: true,
            apt: true,
            rustup: true,
            toolchains: vec![WITH_SOURCES],
            debian: None,
            linker: true,
            programs: PROGRAMS.iter().map(|program| program.name).collect(),
            components: COMPONENTS.iter().map(|component| component.0).collect(),
        }
    }

    /// `expected`: one line for each step, ways separated by " | ".
    fn check(sentence: &str, purpose: Purpose, change: impl FnOnce(&mut Facts), expected: &[&str]) {
        let mut facts = complete();
        change(&mut facts);
        let found: Vec<String> = plan(&facts, purpose)
            .iter()
            .map(|step| {
                let ways: Vec<String> = step.ways.iter().map(ToString::to_string).collect();
                assert!(
                    !step.by_hand.is_empty() && !step.why.is_empty(),
                    "{sentence}"
                );
                format!("{}: {}", step.what, ways.join(" | "))
            })
            .collect();
        assert_eq!(found, expected, "{sentence}");
    }

    const CORE: &str = "the sources of a Rust compiler's `core`";
    const DEBIAN: &str = "apt-get install --no-install-recommends rustc-web cargo-web rust-web-src";
    const KNOWN: &str = "rustup toolchain install 1.95.0 --profile minimal --component rust-src";

    #[test]
    fn steps_for_every_kind_of_machine() {
        use Purpose::{Bench, Demo, Test};
        check("nothing missing", Test, |_| {}, &[]);
        check(
            "nothing missing, an ordinary user",
            Test,
            |f| {
                f.root = false;
            },
            &[],
        );
        check(
            "no sources: rustup first, Debian else",
            Test,
            |f| f.toolchains = vec![WITHOUT],
            &[&format!("{CORE}: rustup component add rust-src | {DEBIAN}")],
        );
        check(
            "no sources, no root: only rustup is left",
            Test,
            |f| {
                f.toolchains = vec![WITHOUT];
                f.root = false;
            },
            &[&format!("{CORE}: rustup component add rust-src")],
        );
        check(
            "Debian's compiler will do",
            Test,
            |f| {
                f.toolchains = vec![WITHOUT];
                f.debian = Some(WITH_SOURCES);
            },
            &[],
        );
        check(
            "Debian's compiler without its sources will not",
            Test,
            |f| {
                f.toolchains = vec![WITHOUT];
                f.debian = Some(WITHOUT);
            },
            &[&format!("{CORE}: rustup component add rust-src | {DEBIAN}")],
        );
        check(
            "the second toolchain has the sources",
            Test,
            |f| f.toolchains = vec![WITHOUT, WITH_SOURCES],
            &[],
        );
        check(
            "the active one is too new for the linker, another has no sources",
            Test,
            |f| f.toolchains = vec![TOO_NEW, WITHOUT],
            &[&format!("{CORE}: {KNOWN} | {DEBIAN}")],
        );
        check(
            "all toolchains are too new for the linker",
            Test,
            |f| f.toolchains = vec![TOO_NEW],
            &[&format!("a Rust toolchain with LLVM 22: {KNOWN}")],
        );
        check(
            "no rustup at all",
            Test,
            |f| {
                f.toolchains.clear();
                f.rustup = false;
            },
            &["a Rust toolchain with LLVM 22: "],
        );
        check(
            "no linker",
            Test,
            |f| f.linker = false,
            &["bpf-linker 0.10.3: cargo install bpf-linker@0.10.3 --locked (about a minute)"],
        );
        check(
            "no programs, for the demonstration",
            Demo,
            |f| f.programs.clear(),
            &[
                "ip: apt-get install --no-install-recommends iproute2",
                "ethtool: apt-get install --no-install-recommends ethtool",
            ],
        );
        check(
            "no programs, for the benchmark",
            Bench,
            |f| f.programs.clear(),
            &[
                "ip: apt-get install --no-install-recommends iproute2",
                "ethtool: apt-get install --no-install-recommends ethtool",
                "nft: apt-get install --no-install-recommends nftables",
                "nginx (nginx-light): apt-get install --no-install-recommends nginx-light",
                "haproxy: apt-get install --no-install-recommends haproxy",
                "iperf3: apt-get install --no-install-recommends iperf3",
                "wrk: apt-get install --no-install-recommends wrk",
            ],
        );
        check(
            "no programs, for the tests",
            Test,
            |f| f.programs.clear(),
            &[
                "ip: apt-get install --no-install-recommends iproute2",
                "ethtool: apt-get install --no-install-recommends ethtool",
                "nft: apt-get install --no-install-recommends nftables",
                "nginx (nginx-light): apt-get install --no-install-recommends nginx-light",
                "haproxy: apt-get install --no-install-recommends haproxy",
                "iperf3: apt-get install --no-install-recommends iperf3",
                "wrk: apt-get install --no-install-recommends wrk",
                "master (postfix): apt-get install --no-install-recommends postfix",
                "imap (dovecot-imapd): apt-get install --no-install-recommends dovecot-imapd",
                "pop3 (dovecot-pop3d): apt-get install --no-install-recommends dovecot-pop3d",
                "vsftpd: apt-get install --no-install-recommends vsftpd",
                "unbound: apt-get install --no-install-recommends unbound",
                "mariadbd (mariadb-server-core): apt-get install --no-install-recommends mariadb-server-core",
                "my_print_defaults: apt-get install --no-install-recommends mariadb-client-core",
                "postgres (postgresql): apt-get install --no-install-recommends postgresql",
                "redis-server: apt-get install --no-install-recommends redis-server",
                "slapd: apt-get install --no-install-recommends slapd",
                "keepalived: apt-get install --no-install-recommends keepalived",
                "linux.uml: apt-get install --no-install-recommends user-mode-linux",
                "ipvsadm: apt-get install --no-install-recommends ipvsadm",
                "busybox: apt-get install --no-install-recommends busybox-static",
                "modprobe: apt-get install --no-install-recommends kmod",
            ],
        );
        check(
            "no programs and no apt: said, not tried",
            Demo,
            |f| {
                f.programs.clear();
                f.apt = false;
            },
            &["ip: ", "ethtool: "],
        );
        check(
            "a minimal toolchain, for the tests",
            Test,
            |f| f.components.clear(),
            &[
                "rustfmt: rustup component add rustfmt",
                "clippy: rustup component add clippy",
            ],
        );
        check(
            "a minimal toolchain will do for the demonstration",
            Demo,
            |f| f.components.clear(),
            &[],
        );
    }
}
