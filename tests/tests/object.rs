//! What the programs for the kernel are made of.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use director_tests::paths;
use object::{Object as _, ObjectSection as _, ObjectSymbol as _, RelocationTarget};

/// Bytes of an instruction.
const INSTRUCTION: usize = 8;
/// `BPF_JMP | BPF_CALL`, and the source register of one that calls a function of the object (`BPF_PSEUDO_CALL`).
const CALL: u8 = 0x85;
const PSEUDO_CALL: u8 = 1;
/// What the compiler makes of a move or fill of memory that it does not write out: loops over bytes.
const LOOPS: [&str; 5] = ["memcpy", "memmove", "memset", "memcmp", "bcmp"];

/// Who calls a function of [`LOOPS`]: "caller: callee".
fn calls_of_loops(object: &object::File<'_>) -> BTreeSet<String> {
    let mut functions: BTreeMap<(usize, u64), &str> = BTreeMap::new();
    for symbol in object.symbols() {
        if let (Some(section), Ok(name)) = (symbol.section_index(), symbol.name())
            && !name.is_empty()
        {
            functions.insert((section.0, symbol.address()), name);
        }
    }
    let mut found = BTreeSet::new();
    for section in object.sections() {
        let within = |at: u64| {
            let before = functions.range((section.index().0, 0)..=(section.index().0, at));
            before.last().map_or("?", |(_, name)| name)
        };
        let mut note = |at: u64, callee: &str| {
            if LOOPS.contains(&callee) && !LOOPS.contains(&within(at)) {
                found.insert(format!("{}: {callee}", within(at)));
            }
        };
        for (at, relocation) in section.relocations() {
            if let RelocationTarget::Symbol(symbol) = relocation.target() {
                let symbol = object.symbol_by_index(symbol).unwrap();
                note(at, symbol.name().unwrap_or_default());
            }
        }
        for (index, instruction) in section
            .data()
            .unwrap()
            .chunks_exact(INSTRUCTION)
            .enumerate()
        {
            if instruction[0] != CALL || instruction[1] >> 4 != PSEUDO_CALL {
                continue;
            }
            let distance = i32::from_le_bytes(instruction[4..].try_into().unwrap());
            let target = (index as i64 + 1 + i64::from(distance)) * INSTRUCTION as i64;
            if let Some(callee) = functions.get(&(section.index().0, target as u64)) {
                note((index * INSTRUCTION) as u64, callee);
            }
        }
    }
    found
}

/// A loop over the twelve bytes of a frame's addresses cost some 4 ns of a hit's 28, and one filled forty bytes of each SYN in a
/// full table with zeroes.
#[test]
fn no_program_moves_memory_by_bytes() {
    for name in ["director-xdp.o", "bench-xdp.o"] {
        let bytes = fs::read(paths::bpf_object(name).unwrap()).unwrap();
        let object = object::File::parse(&*bytes).unwrap();
        let programs = object.section_by_name("xdp").unwrap();
        assert!(programs.size() > 0, "{name} has programs");
        assert_eq!(calls_of_loops(&object), BTreeSet::new(), "{name}");
    }
}
