# cmake -DFOLDER=src/export/report -DOUTPUT=x.cpp -P report_template.cmake
#
# page.html with its style sheet and scripts put in place of the tags that name
# them, as two C++ strings: what stands before the data, and after.

file(READ "${FOLDER}/page.html" page)
set(style_tag "<link rel=\"stylesheet\" href=\"([a-z_]+\\.css)\">")
set(script_tag "<script src=\"([a-z_]+\\.js)\"></script>")
foreach(kind style script)
  string(REGEX MATCHALL "${${kind}_tag}" tags "${page}")
  foreach(tag IN LISTS tags)
    string(REGEX REPLACE "${${kind}_tag}" "\\1" name "${tag}")
    file(READ "${FOLDER}/${name}" text)
    string(REPLACE "${tag}" "<${kind}>\n${text}</${kind}>" page "${page}")
  endforeach()
endforeach()
if(page MATCHES "(src|href)=\"[a-z_]+\\.(js|css)\"|\\)report\"")
  message(FATAL_ERROR "${FOLDER}: \"${CMAKE_MATCH_0}\" is left in the page")
endif()
set(mark "id=\"data\">")
string(FIND "${page}" "${mark}" at)
if(at EQUAL -1)
  message(FATAL_ERROR "${FOLDER}/page.html has no place for data: ${mark}")
endif()
string(LENGTH "${mark}" length)
math(EXPR at "${at} + ${length}")
string(SUBSTRING "${page}" 0 ${at} head)
string(SUBSTRING "${page}" ${at} -1 tail)
file(WRITE "${OUTPUT}" "#include \"export/report_template.h\"

namespace pennyweight {

const std::string_view kReportHead = R\"report(${head})report\";
const std::string_view kReportTail = R\"report(${tail})report\";

}  // namespace pennyweight
")
