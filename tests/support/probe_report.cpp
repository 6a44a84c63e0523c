// Writes the report's page for some data: probe_report DATA.json PAGE.html

#include <fstream>
#include <iostream>

#include "core/json.h"
#include "export/report_page.h"

int main(int argc, char** argv) {
  if (argc != 3) {
    std::cerr << "probe_report DATA.json PAGE.html\n";
    return 2;
  }
  try {
    std::ofstream out(argv[2], std::ios::binary);
    out << pennyweight::report_page(pennyweight::read_json(argv[1]));
    return out.flush() ? 0 : 1;
  } catch (const std::exception& error) {
    std::cerr << error.what() << "\n";
    return 1;
  }
}
