#include "cli/run.h"

int main(int argc, char** argv) {
  return pennyweight::cli::run(argc, argv);
}
