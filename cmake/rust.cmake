# The Rust crate in src/text/rust (tokenizers, minijinja, parquet) as one
# static library, target `pennyweight_rust`.

find_program(CARGO_PROGRAM cargo HINTS "$ENV{HOME}/.cargo/bin")
if(NOT CARGO_PROGRAM)
  message(FATAL_ERROR "cargo is missing: install Rust (cargo 1.85 or newer)")
endif()

set(PENNYWEIGHT_CARGO_TARGET_DIR
    "${CMAKE_BINARY_DIR}/rust"
    CACHE PATH "Where cargo builds; share it between presets to save time")
set(rust_dir "${CMAKE_SOURCE_DIR}/src/text/rust")
set(rust_library
    "${PENNYWEIGHT_CARGO_TARGET_DIR}/release/libpennyweight_rust.a")
file(GLOB_RECURSE rust_sources CONFIGURE_DEPENDS "${rust_dir}/src/*.rs")

add_custom_command(
  OUTPUT "${rust_library}"
  COMMAND
    "${CARGO_PROGRAM}" build --release --locked --quiet --manifest-path
    "${rust_dir}/Cargo.toml" --target-dir "${PENNYWEIGHT_CARGO_TARGET_DIR}"
  DEPENDS ${rust_sources} "${rust_dir}/Cargo.toml" "${rust_dir}/Cargo.lock"
  COMMENT "Building the Rust crate"
  USES_TERMINAL
  VERBATIM)
add_custom_target(pennyweight_rust_build DEPENDS "${rust_library}")

add_library(pennyweight_rust STATIC IMPORTED GLOBAL)
set_target_properties(pennyweight_rust PROPERTIES IMPORTED_LOCATION
                                                  "${rust_library}")
target_link_libraries(pennyweight_rust INTERFACE Threads::Threads
                                                 ${CMAKE_DL_LIBS} m)
if(APPLE)
  target_link_libraries(
    pennyweight_rust INTERFACE "-framework Security"
                               "-framework CoreFoundation" "-framework SystemConfiguration")
endif()
add_dependencies(pennyweight_rust pennyweight_rust_build)
