#include "commands/method_command.h"

#include "export/conversion.h"
#include "run/method_run.h"
#include "run/pins/pinned_widths.h"

namespace pennyweight {

namespace {

class MethodCall : public Call {
 public:
  explicit MethodCall(const MethodEntry& entry) : settings_(entry.settings()) {
    walk_.data.num_samples = entry.num_samples;
  }

  void visit(const OptionSink& option) override {
    visit_options(walk_, option);
    visit_options(pins_, option);
    settings_->visit(option);
  }

  RunReport run(Session& session) override {
    settings_->check();
    walk_.fit_embed = walk_.fit_embed && settings_->fits_embedding();
    const auto folder = session.model_folder(walk_.model);
    const auto model =
        open_source(folder, walk_.assume_family, session.progress());
    MethodRun run(session, model, folder, walk_);
    session.describe_input(model);
    const bool holds_out = settings_->holds_text_out();
    auto plan = settings_->plan(model);
    const PinnedWidths pins(
        model,
        pins_,
        {session.command(), plan.common, !settings_->knows_all_modes()});
    pins.apply(plan);
    session.note(pins.notes());
    run.calibrate(std::move(plan), holds_out);
    run.add_to_card(pins.sentence());
    session.report().figures["pins"] = pins.json();
    session.report().text += pins.text();
    const bool held_out = holds_out && !run.note_unchecked();
    const auto method = settings_->make(held_out || !holds_out);
    const auto options =
        visited_to_json([&](const OptionSink& option) { visit(option); }, true);
    run.run(*method, options, settings_->title());
    return session.finish();
  }

 private:
  WalkOptions walk_;
  PinOptions pins_;
  std::unique_ptr<MethodSettings> settings_;
};

}  // namespace

Command method_command(const MethodEntry& entry) {
  return {
      .name = entry.name,
      .summary = entry.summary,
      .examples = entry.examples,
      .call = [&entry] { return std::make_unique<MethodCall>(entry); }};
}

}  // namespace pennyweight
