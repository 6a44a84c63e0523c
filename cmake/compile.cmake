# How our sources are compiled, in one place: warnings and sanitizers, how hard
# each room is optimized, and how many sources the compiler is given at once.

# Sources of a room share what they include, which takes longer to read than
# most of them. Few enough that a change to one is compiled in some seconds.
# Precompiled headers would save another tenth, and have g++ 12 see overflows
# that are not there. 1 in the dev preset, where a source that forgets to
# include what it uses fails; joined to others it does not. 64, which is a whole
# room, where all is compiled at once: with sanitizers, and for macOS.
set(PENNYWEIGHT_BATCH 8 CACHE STRING "Sources that are compiled together")

# Folders of src/ without a loop over weights, activations or text. -O3 would
# take twice the time for nothing there; no result depends on it. With
# sanitizers these are all but those that read bytes of files or calculate.
set(PENNYWEIGHT_COLD "cli" "commands" "export" "model/families" "run")
if(PENNYWEIGHT_SANITIZE)
  list(APPEND PENNYWEIGHT_COLD "eval" "method" "model" "pass")
endif()

# pennyweight_flags(TARGET [KIND]): warnings and sanitizers; KIND as below.
function(pennyweight_flags target)
  target_compile_options(${target} PRIVATE -Wall -Wextra)
  if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
    # g++ 12 sees overlaps in std::string that are not there (GCC bug 105651).
    target_compile_options(${target} PRIVATE -Wno-restrict)
  endif()
  if(PENNYWEIGHT_WERROR)
    target_compile_options(${target} PRIVATE -Werror)
  endif()
  if(PENNYWEIGHT_SANITIZE)
    # ASan finds what UBSan's checks of pointers would, which take as long to
    # compile as all others. Those of alignment are for where bytes of files
    # become numbers, and tests are there to watch other code.
    set(checks address,undefined -fno-sanitize=null,vptr,object-size)
    if(ARGV1 STREQUAL "cold")
      list(APPEND checks -fno-sanitize=alignment)
    elseif(ARGV1 STREQUAL "test")
      set(checks address)
    endif()
    target_compile_options(
      ${target} PRIVATE -fsanitize=${checks} -fno-omit-frame-pointer
                        -fno-sanitize-recover=all)
    target_link_options(${target} PUBLIC -fsanitize=address,undefined)
  endif()
endfunction()

# pennyweight_compile(TARGET KIND): flags, and batches of sources. KIND is
# `hot` (as the configuration optimizes), `cold` or `test` (-Og, which takes a
# fifth less to compile than -O1).
function(pennyweight_compile target kind)
  pennyweight_flags(${target} ${kind})
  if(NOT kind STREQUAL "hot")
    target_compile_options(${target} PRIVATE -Og)
  endif()
  if(PENNYWEIGHT_BATCH GREATER 1)
    pennyweight_join(${target})
  endif()
endfunction()

# Compiles the sources of a target some at a time.
function(pennyweight_join target)
  set_target_properties(
    ${target} PROPERTIES UNITY_BUILD ON UNITY_BUILD_BATCH_SIZE
                                        ${PENNYWEIGHT_BATCH})
  if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
    # A test of a fixture without a name outside, which joined sources are.
    target_compile_options(${target} PRIVATE -Wno-subobject-linkage)
  endif()
  get_target_property(sources ${target} SOURCES)
  foreach(source IN LISTS sources)
    # Highway includes such a file once for each instruction set, which it can
    # do for one file at a time.
    if(source MATCHES "\\.cpp$" AND EXISTS "${source}")
      file(STRINGS "${source}" simd REGEX "HWY_TARGET_INCLUDE" LIMIT_COUNT 1)
      if(simd)
        set_source_files_properties(
          "${source}" TARGET_DIRECTORY ${target}
          PROPERTIES SKIP_UNITY_BUILD_INCLUSION ON)
      endif()
    endif()
  endforeach()
endfunction()
