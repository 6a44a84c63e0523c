// GPTQ (arXiv 2210.17323) in the form of QuIP's LDLQ (arXiv 2307.13304),
// which is the same pass: for rows w of W, H = sum x x^T + lambda I,
//   min_Q tr((T - Q) H (T - Q)^T),   H = (A + I)^T D^2 (A + I),
//   q_i = round to grid(t_i + sum_{j<i} A_ij (t_j - q_j)),
//   loss = sum_i D_i^2 (rounding error of step i)^2.
// T = W, or what GPTAQ's objective (arXiv 2504.02692) comes to when its square
// is completed: |W X_full - Q X|^2 + lambda |W - Q|^2 is that loss and a
// constant with T = W + W (X_full - X) X^T H^-1.

#include "method/gptq/gptq.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "kernels/threads.h"
#include "method/gptq/factor.h"
#include "method/gptq/tile.h"

namespace pennyweight {

namespace {

kernels::QuantMode mode_of(const QuantSpec& spec) {
  using kernels::QuantMode;
  if (spec.mode == "mxfp4" || spec.mode == "nvfp4") {
    return spec.mode == "mxfp4" ? QuantMode::mxfp4 : QuantMode::nvfp4;
  }
  if (spec.mode == "mxfp8") {
    return QuantMode::mxfp8;
  }
  if (spec.mode != "affine" || spec.bits < 1 || spec.bits > 8) {
    throw not_supported_error(
        "gptq",
        "mode " + spec.mode + " at " + std::to_string(spec.bits) + " bits");
  }
  return QuantMode::affine;
}

void check(const GptqHessian& hessian, const QuantSpec& spec, int64_t rows) {
  if (rows <= 0 || spec.group_size <= 0 ||
      hessian.columns() % spec.group_size != 0) {
    throw argument_error(
        "gptq",
        std::to_string(rows) + " x " + std::to_string(hessian.columns()) +
            " weights don't divide into groups of " +
            std::to_string(spec.group_size));
  }
}

/// H 1_g for each group g; H is symmetric, so sums along rows.
std::vector<float> sum_groups(
    const GptqHessian::Factor& factor,
    int64_t group_size) {
  const int64_t n = factor.columns;
  const int64_t groups = n / group_size;
  std::vector<float> sums(size_t(groups * n));
  kernels::parallel_ranges(groups, 1, [&](int64_t first, int64_t last) {
    for (int64_t g = first; g < last; ++g) {
      float* out = sums.data() + g * n;
      for (int64_t i = g * group_size; i < (g + 1) * group_size; ++i) {
        const float* row = factor.damped.data() + i * n;
        for (int64_t j = 0; j < n; ++j) {
          out[j] += row[j];
        }
      }
    }
  });
  return sums;
}

void sum_up(
    const std::vector<gptq::TileFigures>& tiles,
    int64_t rows,
    int64_t columns,
    GptqFigures& all) {
  double weight_energy = 0;
  double shift_energy = 0;
  int64_t moved = 0;
  int64_t judged = 0;
  for (const gptq::TileFigures& tile : tiles) {
    all.loss_nearest += tile.loss_nearest;
    all.loss_rounded += tile.loss_rounded;
    all.loss += tile.loss;
    all.rounds = std::max(all.rounds, tile.rounds);
    weight_energy += tile.weight;
    shift_energy += tile.shift;
    moved += tile.moved;
    judged += tile.judged;
  }
  // Those of some rows stand for all.
  const double share = judged > 0 ? double(rows) / double(judged) : 1;
  for (double* loss : {&all.loss_nearest, &all.loss_rounded, &all.loss}) {
    *loss *= share;
  }
  all.shift = weight_energy > 0 ? std::sqrt(shift_energy / weight_energy) : 0;
  all.codes_moved = double(moved) / double(rows * columns);
}

void check_finite(const GptqResult& result) {
  const auto bad = [](float value) { return !std::isfinite(value); };
  if (std::any_of(result.scales.begin(), result.scales.end(), bad) ||
      std::any_of(result.biases.begin(), result.biases.end(), bad)) {
    throw numeric_error(
        "gptq",
        "a scale or bias is not finite in the output type; the weight holds "
        "values that are not finite or too large for it");
  }
}

void finish(
    const std::vector<gptq::TileFigures>& tiles,
    const gptq::TileSetup& setup,
    int64_t rows,
    GptqResult& result) {
  check_finite(result);
  if (setup.format.levels != gptq::Levels::affine) {
    result.biases.clear();
    for (float scale : result.scales) {
      result.scale_codes.push_back(gptq::scale_code(setup.format.mode, scale));
    }
  }
  sum_up(tiles, rows, setup.factor->columns, result.figures);
  result.figures.lambda = setup.factor->lambda;
  result.figures.dead_inputs = setup.factor->dead_inputs;
}

/// Tiles whose targets stand in memory at once, where they are not W.
constexpr int64_t kShiftedTiles = 16;

/// The losses are those of every n-th tile. Plain GPTQ needs none, and they
/// would take four times its time: of many rows, some tell enough.
int64_t judged_every(const GptqOptions& options, int64_t tiles) {
  constexpr int64_t kFewest = 4;
  constexpr int64_t kMost = 8;
  return options.plain ? std::clamp<int64_t>(tiles / kFewest, 1, kMost) : 1;
}

/// What becomes of a weight's rows, tile by tile.
struct Outcome {
  Outcome(int64_t rows, const gptq::TileSetup& setup, bool keeps_rounded)
      : result(make(rows, setup)),
        keeps_rounded(keeps_rounded),
        figures(size_t((rows + gptq::kLanes - 1) / gptq::kLanes)),
        early(figures.size()) {
    if (keeps_rounded) {
      rounded = make(rows, setup);
    }
  }

  static GptqResult make(int64_t rows, const gptq::TileSetup& setup) {
    return gptq::make_result(rows, setup.factor->columns, setup.group_size);
  }

  GptqResult result;
  bool keeps_rounded;
  GptqResult rounded;  // before refit and descent
  std::vector<gptq::TileFigures> figures, early;
};

/// Tiles start .. stop - 1, whose rows' W and T are given from the first on.
void round_tiles(
    const gptq::TileSetup& setup,
    int64_t start,
    int64_t stop,
    const float* weight,
    const float* target,
    Outcome& outcome) {
  const auto tiles = int64_t(outcome.figures.size());
  const int64_t every = judged_every(*setup.options, tiles);
  // A tile's buffers serve all that a thread does.
  kernels::parallel_ranges(stop - start, 1, [&](int64_t begin, int64_t end) {
    gptq::RowTile tile(setup);
    for (int64_t t = start + begin; t < start + end; ++t) {
      const int64_t first = t * gptq::kLanes;
      const int64_t count = std::min(gptq::kLanes, outcome.result.rows - first);
      const int64_t at = (t - start) * gptq::kLanes * setup.factor->columns;
      tile.load(weight + at, target + at, count);
      outcome.early[size_t(t)] =
          tile.round(setup.options->figures && t % every == 0);
      if (outcome.keeps_rounded) {
        tile.store(first, count, outcome.rounded);
      }
      outcome.figures[size_t(t)] = tile.improve(outcome.early[size_t(t)]);
      tile.store(first, count, outcome.result);
    }
  });
}

}  // namespace

void check_options(const GptqOptions& options) {
  auto refuse = [](const std::string& what) {
    throw argument_error("gptq", what);
  };
  if (options.damp <= 0 || options.damp > 10) {
    refuse("--damp must be above 0 and at most 10");
  }
  if (options.shift < 0 || options.shift > 1) {
    refuse("--shift must be between 0 and 1");
  }
  if (options.rounds < 0) {
    refuse("--rounds is negative");
  }
  if (options.gate_every < 1) {
    refuse("--gate-every must be 1 or more");
  }
}

GptqResult gptq_quantize(
    const float* weight,
    int64_t rows,
    const GptqHessian& hessian,
    const QuantSpec& spec,
    kernels::DType dtype,
    const GptqOptions& options,
    const GptqShift& shift,
    GptqResult* rounded) {
  check(hessian, spec, rows);
  const GptqHessian::Factor& factor = hessian.factor();
  const int64_t columns = factor.columns;
  gptq::TileSetup setup{
      .factor = &factor,
      .format = gptq::make_grid_format(mode_of(spec), spec.bits, dtype),
      .group_size = spec.group_size,
      .options = &options,
      .group_sums = {},
      .importance = std::vector<float>(size_t(columns))};
  if (!options.plain && options.refit) {
    setup.group_sums = sum_groups(factor, spec.group_size);
  }
  for (int64_t i = 0; i < columns; ++i) {
    setup.importance[size_t(i)] = factor.damped[size_t(i * columns + i)];
  }

  Outcome outcome(rows, setup, rounded != nullptr);
  const int64_t tiles = int64_t(outcome.figures.size());
  const bool shifted = !options.plain && (shift.input || shift.output);
  const int64_t step = shifted ? kShiftedTiles : tiles;
  for (int64_t start = 0; start < tiles; start += step) {
    const int64_t stop = std::min(tiles, start + step);
    const int64_t top = start * gptq::kLanes;
    const float* from = weight + top * columns;
    if (!shifted) {
      round_tiles(setup, start, stop, from, from, outcome);
      continue;
    }
    const int64_t count = std::min(rows, stop * gptq::kLanes) - top;
    const float* output = shift.output ? shift.output + top * columns : nullptr;
    const auto target = gptq::shifted_rows(
        factor, from, count, {shift.input, output}, options.shift);
    round_tiles(setup, start, stop, from, target.data(), outcome);
  }
  finish(outcome.figures, setup, rows, outcome.result);
  if (rounded) {
    finish(outcome.early, setup, rows, outcome.rounded);
    *rounded = std::move(outcome.rounded);
  }
  return std::move(outcome.result);
}

}  // namespace pennyweight
