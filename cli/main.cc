#include "cli/commands.h"

int main(int argc, char** argv) {
  std::vector<std::string> arguments(argv + (argc > 0 ? 1 : 0), argv + argc);
  return nodeleak::cli::Main(arguments);
}
