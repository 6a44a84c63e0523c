# Third-party libraries. docs/architecture.md says why each was chosen.

find_package(Python 3.9 REQUIRED COMPONENTS Interpreter)
# The MLX wheel carries headers, the library and its CMake package.
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
list(APPEND CMAKE_PREFIX_PATH "${PENNYWEIGHT_MLX_CMAKE_DIR}")
find_package(MLX CONFIG REQUIRED)

find_package(nlohmann_json 3.10 REQUIRED)
find_package(CLI11 2.1 REQUIRED)
find_package(OpenMP REQUIRED COMPONENTS CXX)
find_package(Threads REQUIRED)
find_package(hwy REQUIRED)
# oneDNN is the CPU's matmul; on a Metal Mac the ops call MLX's own.
find_package(dnnl QUIET)
if(NOT dnnl_FOUND AND NOT APPLE)
  message(FATAL_ERROR "oneDNN is missing: install libdnnl-dev (or onednn)")
endif()
if(PENNYWEIGHT_BUILD_TESTS)
  find_package(GTest REQUIRED)
endif()
