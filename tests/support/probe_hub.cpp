// What the hub tests drive:
//
//   probe_hub model|dataset NAME [STOP]
//
// Prints `event DONE TOTAL UNIT MESSAGE` and `warning MESSAGE` lines, then
// `folder PATH`; an Error as `CODE TEXT` on stderr. Cancels once STOP bytes are
// done.

#include <cstdlib>
#include <iostream>

#include "checkpoint/hub.h"
#include "core/error.h"

namespace {

using namespace pennyweight;

int run(int argc, char** args) {
  int64_t stop = argc > 3 ? std::atoll(args[3]) : -1;
  auto progress = [stop](const ProgressEvent& event) {
    if (event.warning) {
      std::cout << "warning " << event.message << "\n";
    } else {
      std::cout << "event " << event.done << " " << event.total << " "
                << event.unit << " " << event.message << "\n";
    }
    return stop < 0 || event.done < stop;
  };
  bool dataset = args[1] == std::string("dataset");
  auto folder = dataset ? resolve_dataset(args[2], progress)
                        : resolve_model(args[2], progress);
  std::cout << "folder " << folder.string() << "\n";
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 3 || argc > 4) {
    std::cerr << "probe_hub model|dataset NAME [STOP]\n";
    return 2;
  }
  try {
    return run(argc, argv);
  } catch (const Error& error) {
    std::cerr << error_code_name(error.code()) << " " << error.what() << "\n";
    return 1;
  }
}
