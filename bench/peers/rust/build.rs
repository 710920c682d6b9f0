//! Compiles the descriptors that the variable DESCRIPTORS names.

use prost::Message;
use std::{env, fs};

fn main() {
    println!("cargo::rerun-if-env-changed=DESCRIPTORS");
    let path = env::var("DESCRIPTORS").expect("DESCRIPTORS names a file");
    println!("cargo::rerun-if-changed={path}");
    let bytes = fs::read(path).expect("the descriptors can be read");
    let set = prost_types::FileDescriptorSet::decode(&*bytes).expect("they are descriptors");
    tonic_prost_build::configure()
        .build_client(false)
        .bytes(".") // a body is not copied
        .include_file("protos.rs")
        .compile_fds(set)
        .expect("they can be compiled");
}
