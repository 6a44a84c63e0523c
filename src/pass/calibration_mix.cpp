#include "pass/calibration_mix.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <random>

#include "core/error.h"
#include "core/json.h"
#include "core/text.h"
#include "pass/sample.h"
#include "pass/token_batches.h"
#include "text/data_files.h"

namespace pennyweight {

namespace {

[[noreturn]] void refuse(const std::string& what) {
  throw argument_error("mix", what);
}

std::map<std::string, double> parse_weights(const std::string& list) {
  std::map<std::string, double> weights;
  for (const auto& entry : split(list, ',')) {
    const size_t equals = entry.rfind('=');
    const double weight = equals == std::string::npos
        ? -1
        : number_in<double>(entry.substr(equals + 1)).value_or(-1);
    if (!(weight >= 0 && std::isfinite(weight)) || equals == 0) {
      refuse(
          "--mix has '" + one_line(entry, 60) +
          "' where name=weight is wanted, such as code=2");
    }
    weights[entry.substr(0, equals)] = weight;
  }
  return weights;
}

/// A file, or all there is where nothing names files.
struct Source {
  std::string name;
  std::string path;
  double weight = 1;
};

/// Notes in `use` which files of a folder hold no text.
std::vector<Source> list_sources(const MixOptions& options, DataUse& use) {
  const auto weights = parse_weights(options.weights);
  const fs::path path = options.data_path;
  std::vector<Source> sources;
  std::map<std::string, int> used;
  const bool folder = !options.data_path.empty() && fs::is_directory(path);
  if (folder && !is_dataset_folder(path)) {
    auto found = choose_folder_files(path);
    use.add(found.use);
    for (const auto& file : found.files) {
      const auto name = file.stem().string();
      const auto it = weights.find(name);
      ++used[name];
      sources.push_back(
          {name, file.string(), it == weights.end() ? 1 : it->second});
    }
  } else if (!folder && !options.data_path.empty() && fs::exists(path)) {
    sources.push_back({path.stem().string(), options.data_path});
  } else {
    sources.push_back({"", options.data_path});  // load_data names it
  }
  for (const auto& [name, weight] : weights) {
    if (!used.contains(name)) {
      refuse(
          "--mix names '" + one_line(name, 60) + "', and no file of " +
          (options.data_path.empty() ? "--data-path" : options.data_path) +
          " is called so");
    }
  }
  std::erase_if(
      sources, [](const Source& source) { return source.weight <= 0; });
  if (sources.empty()) {
    refuse(
        options.data_path +
        " has no file of text whose --mix weight is above "
        "0");
  }
  double total = 0;
  for (const auto& source : sources) {
    total += source.weight;
  }
  for (auto& source : sources) {
    source.weight /= total;
  }
  return sources;
}

/// Sequences of one part, by domain, in turn: each domain's are spread evenly
/// over the whole.
TokenSequences interleave(std::vector<TokenSequences> domains) {
  struct Entry {
    double at;
    size_t domain;
    size_t index;
  };
  std::vector<Entry> order;
  for (size_t d = 0; d < domains.size(); ++d) {
    for (size_t i = 0; i < domains[d].size(); ++i) {
      order.push_back({(double(i) + 0.5) / double(domains[d].size()), d, i});
    }
  }
  std::stable_sort(
      order.begin(), order.end(), [](auto& a, auto& b) { return a.at < b.at; });
  TokenSequences all;
  for (const auto& entry : order) {
    all.push_back(std::move(domains[entry.domain][entry.index]));
  }
  return all;
}

/// Shares of `total` by weight, by largest remainders; among equal ones those
/// that the seed picks, so that other parts' are of other files.
std::vector<int>
shares(const std::vector<Source>& sources, int total, uint64_t seed) {
  std::vector<int> counts;
  std::vector<std::pair<double, size_t>> rest;
  int given = 0;
  for (size_t i = 0; i < sources.size(); ++i) {
    const double exact = sources[i].weight * total;
    counts.push_back(static_cast<int>(exact));
    given += counts.back();
    rest.emplace_back(double(counts.back()) - exact, i);
  }
  std::mt19937_64 random(seed);
  for (size_t i = rest.size(); i > 1; --i) {
    std::swap(rest[i - 1], rest[random() % i]);
  }
  std::ranges::stable_sort(rest, {}, [](const auto& own) { return own.first; });
  for (int i = 0; given < total; ++i, ++given) {
    ++counts[rest[static_cast<size_t>(i)].second];
  }
  return counts;
}

/// What a domain gives, divided: where it has too little, each part gets as
/// much less.
struct Divided {
  TokenSequences fit, gate, report;
};

Divided divide(TokenSequences all, int fit, int gate, int report) {
  const auto wanted = static_cast<size_t>(fit + gate + report);
  auto held = static_cast<size_t>(gate);
  auto last = static_cast<size_t>(report);
  if (all.size() < wanted) {
    const double share = double(all.size()) / double(wanted);
    held = static_cast<size_t>(std::ceil(share * gate));
    last = static_cast<size_t>(std::ceil(share * report));
    held = std::min(held, all.size());
    last = std::min(last, all.size() - held);
  }
  Divided parts;
  for (size_t i = 0; i < all.size(); ++i) {
    auto& part = i < last ? parts.report
        : i < last + held ? parts.gate
                          : parts.fit;
    part.push_back(std::move(all[i]));
  }
  return parts;
}

}  // namespace

CalibrationMix load_mix(
    const Model& model,
    TextReader& reader,
    const MixOptions& options,
    const MixSize& size,
    const FetchDatasetFn& fetch_dataset,
    const ProgressFn& progress) {
  CalibrationMix mix;
  const auto sources = list_sources(options, mix.use);
  const auto fit = shares(sources, size.fit, options.seed);
  const auto gate = shares(sources, size.gate, options.seed + 1);
  const auto reported = shares(sources, size.report, options.seed + 2);
  int unused = 0;
  const auto note = [&](const std::string& text) {
    mix.notes.push_back(text);
    warn(progress, "mix", text);
  };
  const auto read = [&](const Source& source, int wanted, bool only) {
    TokenData data;
    try {
      data = load_data(
          reader,
          {.data_path = source.path,
           .num_samples = wanted,
           .sequence_length = options.sequence_length,
           .seed = options.seed,
           .judged = only},
          self_sampler(model, reader.facts(), progress),
          fetch_dataset,
          progress);
    } catch (const Error& error) {
      if (only || error.code() == ErrorCode::cancelled) {
        throw;
      }
      note(std::string(error.what()) + "; it is left out");
      mix.use.leave_file("without text that can be used", source.name);
      return data;
    }
    mix.use.add(data.use);
    mix.notes.insert(
        mix.notes.end(), data.warnings.begin(), data.warnings.end());
    if (data.sequences.empty()) {
      note(source.path + " holds no text that can be used; it is left out");
    }
    return data;
  };
  mix.sequence_length = options.sequence_length;
  auto listed = mix.use;
  listed.files = static_cast<int64_t>(sources.size());
  for (const auto& text : listed.warnings()) {
    note(text);
  }
  std::vector<TokenSequences> parts[3];
  for (size_t i = 0; i < sources.size(); ++i) {
    const int wanted = fit[i] + gate[i] + reported[i];
    if (wanted == 0) {
      ++unused;
      continue;
    }
    TokenData data = read(sources[i], wanted, sources.size() == 1);
    if (data.sequences.empty()) {
      continue;
    }
    auto divided =
        divide(std::move(data.sequences), fit[i], gate[i], reported[i]);
    mix.domains.push_back(
        {sources[i].name.empty() ? data.source : sources[i].name,
         sources[i].weight,
         static_cast<int64_t>(divided.fit.size()),
         static_cast<int64_t>(divided.gate.size()),
         static_cast<int64_t>(divided.report.size())});
    parts[0].push_back(std::move(divided.fit));
    parts[1].push_back(std::move(divided.gate));
    parts[2].push_back(std::move(divided.report));
  }
  if (unused > 0) {
    note(
        std::to_string(unused) + " of " + std::to_string(sources.size()) +
        " files were not read: there are fewer sequences than files");
  }
  require_half(mix.use, options.data_path);
  mix.fit = interleave(std::move(parts[0]));
  mix.gate = interleave(std::move(parts[1]));
  mix.report = interleave(std::move(parts[2]));
  for (const auto& domain : mix.domains) {
    mix.source += (mix.source.empty() ? "" : ", ") + domain.name;
  }
  if (mix.fit.empty() || mix.gate.empty() || mix.report.empty()) {
    refuse(
        mix.source +
        ": the text is too little to divide into a part to fit, "
        "one to decide by and one to report on; give more of it, or a smaller "
        "--sequence-length");
  }
  return mix;
}

TokenSequences first_of(const TokenSequences& all, int count) {
  const auto taken = std::min(all.size(), static_cast<size_t>(count));
  return {all.begin(), all.begin() + static_cast<std::ptrdiff_t>(taken)};
}

Json to_json(const CalibrationMix& mix) {
  Json domains = Json::array();
  for (const auto& domain : mix.domains) {
    domains.push_back(
        {{"name", domain.name},
         {"weight", domain.weight},
         {"fit", domain.fit},
         {"gate", domain.gate},
         {"report", domain.report}});
  }
  return {
      {"sequence_length", mix.sequence_length},
      {"domains", domains},
      {"use", to_json(mix.use)},
      {"fit_tokens", count_tokens(mix.fit)},
      {"gate_tokens", count_tokens(mix.gate)},
      {"report_tokens", count_tokens(mix.report)}};
}

}  // namespace pennyweight
