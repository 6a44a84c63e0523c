# Precompiled headers of others' libraries for the sanitize build, half of whose
# time goes to reading them. Not for release, where a source that forgets to
# include what it uses has to fail.

function(pennyweight_precompile target)
  if(NOT PENNYWEIGHT_SANITIZE)
    return()
  endif()
  # One set of headers a set of libraries, made by the first that asks.
  # Those for programs have to be made as a program: -fPIE is not -fPIC.
  cmake_parse_arguments(PRE "PROGRAM" "NAME" "LIBRARIES;HEADERS" ${ARGN})
  if(NOT TARGET ${PRE_NAME})
    set(source "${CMAKE_BINARY_DIR}/${PRE_NAME}.cpp")
    file(WRITE "${source}" "int main() {}\n")
    if(PRE_PROGRAM)
      add_executable(${PRE_NAME} "${source}")
    else()
      add_library(${PRE_NAME} OBJECT "${source}")
    endif()
    pennyweight_flags(${PRE_NAME})
    target_link_libraries(${PRE_NAME} PRIVATE OpenMP::OpenMP_CXX
                                              ${PRE_LIBRARIES})
    target_precompile_headers(
      ${PRE_NAME} PRIVATE <mlx/ops.h> <mlx/transforms.h> <nlohmann/json.hpp>
      <algorithm> <filesystem> <fstream> <functional> <map> <random> <set>
      <sstream> ${PRE_HEADERS})
  endif()
  target_precompile_headers(${target} REUSE_FROM ${PRE_NAME})
endfunction()
