#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "core/options.h"
#include "run/session.h"

namespace pennyweight {

/// One call of a command: options that are set from outside, then run().
class Call {
 public:
  virtual ~Call() = default;
  virtual void visit(const OptionSink& option) = 0;
  virtual RunReport run(Session& session) = 0;
};

struct Command {
  std::string name;
  std::string summary;
  std::string examples;  // shown under --help
  std::function<std::unique_ptr<Call>()> call;
  bool in_package = false;  // Python's package runs it, and no function does
};

/// The command that runs `function` on Options.
template <class Options>
Command make_command(
    const char* name,
    const char* summary,
    const char* examples,
    RunReport (*function)(Session& session, const Options& options)) {
  class Own : public Call {
   public:
    explicit Own(RunReport (*run)(Session&, const Options&)) : run_(run) {}
    void visit(const OptionSink& option) override {
      visit_options(options_, option);
    }
    RunReport run(Session& session) override {
      return run_(session, options_);
    }

   private:
    RunReport (*run_)(Session&, const Options&);
    Options options_;
  };
  return {
      .name = name,
      .summary = summary,
      .examples = examples,
      .call = [function] { return std::make_unique<Own>(function); }};
}

Command convert_command();
Command dwq_command();
Command dynamic_quant_command();
Command evaluate_command();
Command inspect_command();
Command plan_command();
Command quantize_command();
Command sweep_command();
Command upload_command();

/// These and one for each method of the registry.
std::vector<Command> commands();

}  // namespace pennyweight
