//! Gives the shared library the soname that the header's RINGGEAR_ABI says, so that the two can't part.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=ringgear.h");
    let header = std::fs::read_to_string("ringgear.h")?;
    let abi = header
        .lines()
        .find_map(|line| line.strip_prefix("#define RINGGEAR_ABI "))
        .ok_or("ringgear.h defines no RINGGEAR_ABI")?
        .trim()
        .parse::<u32>()?;
    println!("cargo::rustc-env=RINGGEAR_ABI={abi}");
    println!("cargo::rustc-cdylib-link-arg=-Wl,-soname,libringgear.so.{abi}");
    Ok(())
}
