# pennyweight_room(NAME DEPENDS rooms... LIBRARIES libs...)
#
# A room is the folder src/NAME as the static library pw_NAME. The order of
# rooms is the table of docs/architecture.md; tests/room_order_test.py checks
# the #include lines against it.

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
    target_compile_options(
      ${target} PRIVATE -fsanitize=address,undefined -fno-omit-frame-pointer
                        -fno-sanitize-recover=undefined)
    target_link_options(${target} PUBLIC -fsanitize=address,undefined)
  endif()
endfunction()

function(pennyweight_room name)
  cmake_parse_arguments(ROOM "" "" "DEPENDS;LIBRARIES" ${ARGN})
  file(GLOB_RECURSE sources CONFIGURE_DEPENDS
       "${CMAKE_SOURCE_DIR}/src/${name}/*.cpp")
  if(NOT sources)
    return()
  endif()
  add_library(pw_${name} STATIC ${sources})
  target_include_directories(pw_${name} PUBLIC "${CMAKE_SOURCE_DIR}/src")
  pennyweight_flags(pw_${name})
  foreach(room IN LISTS ROOM_DEPENDS)
    if(TARGET pw_${room})
      target_link_libraries(pw_${name} PUBLIC pw_${room})
    endif()
  endforeach()
  target_link_libraries(pw_${name} PUBLIC ${ROOM_LIBRARIES})
  pennyweight_precompile(pw_${name} ${name})
endfunction()
