# Third-party libraries. docs/architecture.md says why each was chosen.

if(NOT PENNYWEIGHT_KERNELS_ONLY)
  find_package(Python 3.10 REQUIRED COMPONENTS Interpreter)
  if(PENNYWEIGHT_PYTHON)
    find_package(Python 3.10 REQUIRED COMPONENTS Interpreter Development.Module
                 OPTIONAL_COMPONENTS Development.SABIModule)
  endif()
  # The MLX wheel carries headers, the library and its CMake package. For another
  # platform it is that one's wheel, unpacked, which no Python here can run.
  if(NOT PENNYWEIGHT_MLX_CMAKE_DIR)
    execute_process(
      COMMAND "${Python_EXECUTABLE}" -m mlx --cmake-dir
      OUTPUT_VARIABLE PENNYWEIGHT_MLX_CMAKE_DIR
      OUTPUT_STRIP_TRAILING_WHITESPACE
      RESULT_VARIABLE pennyweight_mlx_missing)
    if(pennyweight_mlx_missing)
      message(
        FATAL_ERROR
          "${Python_EXECUTABLE} has no mlx; run `make setup`, or pass "
          "-DPython_EXECUTABLE=<python with mlx installed>")
    endif()
  endif()
  list(APPEND CMAKE_PREFIX_PATH "${PENNYWEIGHT_MLX_CMAKE_DIR}")
  find_package(MLX CONFIG REQUIRED)
  find_package(CLI11 2.1 REQUIRED)
endif()

find_package(nlohmann_json 3.10 REQUIRED)
find_package(Threads REQUIRED)
find_package(hwy REQUIRED)
# Used as headers alone, for which no CMake package is needed.
find_path(XXHASH_INCLUDE_DIR NAMES xxhash.h)
if(NOT XXHASH_INCLUDE_DIR)
  message(FATAL_ERROR "xxHash is missing: install libxxhash-dev (or xxhash)")
endif()
add_library(pw_xxhash INTERFACE)
target_include_directories(pw_xxhash SYSTEM INTERFACE "${XXHASH_INCLUDE_DIR}")
# oneDNN is the CPU's matmul where it has fast kernels, which it lacks for
# Apple's cores and most of ARM's. Found by hand: Debian's CMake package asks
# for OpenCL's headers, which we don't use.
if(PENNYWEIGHT_ONEDNN)
  find_path(DNNL_INCLUDE_DIR NAMES oneapi/dnnl/dnnl.hpp)
  find_library(DNNL_LIBRARY NAMES dnnl)
  if(NOT DNNL_INCLUDE_DIR OR NOT DNNL_LIBRARY)
    message(
      FATAL_ERROR
        "oneDNN is missing: install libdnnl-dev (or onednn), or pass "
        "-DPENNYWEIGHT_ONEDNN=OFF, which takes a BLAS instead")
  endif()
  add_library(DNNL::dnnl UNKNOWN IMPORTED)
  set_target_properties(
    DNNL::dnnl PROPERTIES IMPORTED_LOCATION "${DNNL_LIBRARY}"
                          INTERFACE_INCLUDE_DIRECTORIES "${DNNL_INCLUDE_DIR}")
  # What oneDNN is built with, and nothing else here. Some builds of oneDNN for
  # macOS are without.
  if(APPLE)
    find_package(OpenMP QUIET COMPONENTS CXX)
  else()
    find_package(OpenMP REQUIRED COMPONENTS CXX)
  endif()
endif()
if(PENNYWEIGHT_BUILD_TESTS)
  find_package(GTest REQUIRED)
endif()
