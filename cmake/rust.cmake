# The Rust crate in rust (tokenizers, minijinja, parquet) as one
# static library, target `pennyweight_rust`.

find_program(CARGO_PROGRAM cargo HINTS "$ENV{HOME}/.cargo/bin")
if(NOT CARGO_PROGRAM)
  message(FATAL_ERROR "cargo is missing: install Rust (cargo 1.85 or newer)")
endif()

set(PENNYWEIGHT_CARGO_TARGET_DIR
    "${CMAKE_BINARY_DIR}/rust"
    CACHE PATH "Where cargo builds; share it between presets to save time")
set(rust_dir "${CMAKE_SOURCE_DIR}/rust")
set(rust_library
    "${PENNYWEIGHT_CARGO_TARGET_DIR}/release/libpennyweight_rust.a")
file(GLOB_RECURSE rust_sources CONFIGURE_DEPENDS "${rust_dir}/src/*.rs")

# Cargo is one of ninja's jobs, which are as many as there are cores: half of them
# are its own while C++ is compiled on the others. Only programs wait for it.
set(cores "$ENV{CMAKE_BUILD_PARALLEL_LEVEL}")
if(NOT cores)
  cmake_host_system_information(RESULT cores QUERY NUMBER_OF_LOGICAL_CORES)
endif()
math(EXPR rust_jobs "(${cores} + 1) / 2")
add_custom_command(
  OUTPUT "${rust_library}"
  COMMAND
    "${CARGO_PROGRAM}" build --release --locked --quiet --jobs ${rust_jobs}
    --manifest-path "${rust_dir}/Cargo.toml" --target-dir
    "${PENNYWEIGHT_CARGO_TARGET_DIR}"
  DEPENDS ${rust_sources} "${rust_dir}/Cargo.toml" "${rust_dir}/Cargo.lock"
  COMMENT "Building the Rust crate"
  VERBATIM)
add_custom_target(pennyweight_rust_build DEPENDS "${rust_library}")

# By the file's name: a dependency on the target would have all C++ wait.
add_library(pennyweight_rust INTERFACE)
target_link_libraries(
  pennyweight_rust INTERFACE "${rust_library}" Threads::Threads
                             ${CMAKE_DL_LIBS} m)
if(APPLE)
  target_link_libraries(
    pennyweight_rust INTERFACE "-framework Security"
                               "-framework CoreFoundation" "-framework SystemConfiguration")
endif()
