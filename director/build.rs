//! Puts the BPF objects into the program, where they have been built (`cargo xtask build`).
//!
//! Without them the director still builds, so that everything that needs no kernel can be worked on and tested with
//! plain `cargo test`; `director run` then says what is missing.

use std::path::PathBuf;
use std::{env, fs, io};

/// Name of the object, name of the constant.
const OBJECTS: [(&str, &str); 2] = [("director-xdp.o", "DIRECTOR"), ("decap-xdp.o", "DECAP")];

fn main() -> io::Result<()> {
    println!("cargo::rerun-if-env-changed=DIRECTOR_BPF_DIR");
    let manifest = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default());
    let directory = match env::var_os("DIRECTOR_BPF_DIR") {
        Some(directory) => PathBuf::from(directory),
        None => manifest.join("../target/bpf"),
    };
    // Cargo takes a missing file as changed always and would build the director each time, so the directory that the
    // objects will appear in is watched. Where it cannot be made the cost is only that.
    if let Err(error) = fs::create_dir_all(&directory) {
        println!(
            "cargo::warning=cannot make {}: {error}",
            directory.display()
        );
    }
    println!("cargo::rerun-if-changed={}", directory.display());
    let out = PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default());
    let mut code = String::new();
    for (file, name) in OBJECTS {
        let object = directory.join(file);
        // The copy makes a change of the object between this and the compiler harmless.
        let copy = out.join(file);
        let value = if object.is_file() {
            fs::copy(&object, &copy)?;
            format!(
                "Some(aya::include_bytes_aligned!({:?}))",
                copy.display().to_string()
            )
        } else {
            "None".to_owned()
        };
        code.push_str(&format!(
            "pub(super) const {name}: Option<&[u8]> = {value};\n"
        ));
    }
    fs::write(out.join("objects.rs"), code)
}
