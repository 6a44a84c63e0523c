#pragma once

#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "core/json.h"
#include "method/chain.h"
#include "method/widths/dynamic.h"
#include "pass/calibration_mix.h"
#include "run/pins/options.h"
#include "run/width_plan.h"

namespace pennyweight {

/// What a run of `quantize` came to: enough to do it again, bit for bit by the
/// same kind of kernels and on any number of threads, without choosing
/// anything.
struct Recipe {
  std::string version;
  std::string kernels;  // their kind; empty in recipes of older versions
  std::string model;    // as the user named it
  std::string model_fingerprint;
  std::string assume_family;
  MixOptions mix;
  MixSize mix_size;
  std::string mix_fingerprint;
  Json target = Json::object();
  PinOptions pins;                          // which the widths keep
  std::map<std::string, Candidate> widths;  // by module path
  std::vector<std::string> stages;          // those kept, in their order
  StageSizes sizes;
};

Json to_json(const Recipe& recipe);

/// corrupt Error, naming the file, for what is no recipe.
Recipe read_recipe(const std::filesystem::path& file);

/// What to warn of before a recipe is followed by this version, since other
/// bytes may come of it than its own: another version, or kernels of another
/// kind.
std::vector<std::string> differences(
    const Recipe& recipe,
    const std::filesystem::path& file,
    const std::string& version);

/// Whether a fingerprint of a model is of the kind that is made now. Those of
/// the first recipes have 16 digits and were of some bytes of each tensor: such
/// a recipe is run, with a note.
bool is_comparable(const std::string& fingerprint);

/// The recipe's widths for a model; invalid_argument for a module that either
/// has and the other has not, and for a width that does not fit.
WidthPlan recipe_widths(const Model& model, const Recipe& recipe);

}  // namespace pennyweight
