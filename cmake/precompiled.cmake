# Precompiled headers of others' libraries for the sanitize build, half of whose
# time goes to reading them. Not for release, where a source that forgets to
# include what it uses has to fail.

# pennyweight_precompile(TARGET ROOM [TESTS]): for a room's library or its tests.
function(pennyweight_precompile target room)
  # These rooms are compiled without OpenMP, or without MLX.
  if(NOT PENNYWEIGHT_SANITIZE OR room MATCHES "^(core|text|kernels|checkpoint)$")
    return()
  endif()
  cmake_parse_arguments(PRE "TESTS" "" "" ${ARGN})
  set(headers pw_headers)
  if(PRE_TESTS)
    set(headers pw_test_headers)
  endif()
  # Made by the first that asks. Those for programs have to be made as a
  # program: -fPIE is not -fPIC.
  if(NOT TARGET ${headers})
    set(source "${CMAKE_BINARY_DIR}/${headers}.cpp")
    # Not WRITE, which would make it newer at each run of CMake.
    file(CONFIGURE OUTPUT "${source}" CONTENT "int main() {}\n")
    if(PRE_TESTS)
      add_executable(${headers} "${source}")
      target_link_libraries(${headers} PRIVATE GTest::gtest)
      target_precompile_headers(${headers} PRIVATE <gtest/gtest.h>)
    else()
      add_library(${headers} OBJECT "${source}")
    endif()
    pennyweight_flags(${headers})
    target_link_libraries(
      ${headers} PRIVATE OpenMP::OpenMP_CXX pw_mlx nlohmann_json::nlohmann_json)
    target_precompile_headers(
      ${headers} PRIVATE <mlx/ops.h> <mlx/transforms.h> <nlohmann/json.hpp>
      <algorithm> <filesystem> <fstream> <functional> <map> <random> <set>
      <sstream>)
  endif()
  target_precompile_headers(${target} REUSE_FROM ${headers})
endfunction()
