// One model's blocks and head on random activations: forward, backward, sums
// for statistics and GPTQ's rounding, each as a share of the rate of oneDNN's
// own matmul on the same shapes and type in the same run.
//
//   shapes_bench MODEL [tokens...]
//
// Called by bench/shapes_bench.py, which makes the models and prints the table;
// prints one JSON object a line. An operation is an addition or a
// multiplication of a matrix product: of attention those of keys that a query
// sees, of sums of x x^T half, since the other half is a copy.

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <set>

#include <mlx/transforms.h>

#include "core/json.h"
#include "kernels/dispatch.h"
#include "measure.h"
#include "method/gptq/gptq.h"
#include "model/decoder.h"
#include "model/embedding_and_head.h"
#include "model/gradients.h"
#include "ops/gated_delta.h"

namespace {

using namespace pennyweight;
using namespace pennyweight::bench;

constexpr int64_t kPeerRows = 4096;
constexpr int64_t kPeerValues = 1 << 26;  // of a weight that oneDNN is timed on
constexpr int64_t kRoundedRows = 256;
constexpr int64_t kWidestRounded = 8192;
constexpr double kLongRun = 2;  // seconds; what takes longer is run once
constexpr size_t kFewestRuns = 5;
constexpr double kShortest = 0.2;  // seconds that short runs take together

double seconds_of_one(const std::function<void()>& call) {
  const double start = now();
  call();
  return now() - start;
}

/// The median after a run to warm up; of what is long, that run.
double seconds_of(const std::function<void()>& call) {
  const double first = seconds_of_one(call);
  if (first > kLongRun) {
    return first;
  }
  std::vector<double> seconds;
  const double start = now();
  while (seconds.size() < kFewestRuns || now() - start < kShortest) {
    seconds.push_back(seconds_of_one(call));
  }
  std::sort(seconds.begin(), seconds.end());
  return seconds[seconds.size() / 2];
}

/// Operations, and the time that oneDNN alone takes for such.
struct Work {
  double operations = 0;
  double peer_seconds = 0;

  Work& operator+=(const Work& other) {
    operations += other.operations;
    peer_seconds += other.peer_seconds;
    return *this;
  }
  Work operator*(double times) const {
    return {operations * times, peer_seconds * times};
  }
};

/// The machine's ceiling: the best of a tenth of a second, since small products
/// take twice as long whenever another process gets a core. The weights of
/// `experts` take turns, as far as they have room.
double
best_of_onednn(int64_t m, int64_t n, int64_t k, bool narrow, int64_t experts) {
  constexpr double kLeast = 0.1;
  constexpr int64_t kExpertValues = 1 << 27;
  const auto weights = std::clamp<int64_t>(
      kExpertValues / (n * k), 1, std::max<int64_t>(1, experts));
  const double operations = 2.0 * double(m) * double(n) * double(k);
  const double expected = double(weights) * (operations / 1e12 + 2e-5);
  settings.repeats = int(std::clamp(kLeast / expected, 3.0, 1000.0));
  settings.best = true;
  return onednn_seconds(int(m), int(n), int(k), narrow, false, int(weights));
}

class Peer {
 public:
  explicit Peer(bool bf16) : bf16_(bf16) {}

  /// x [rows, in] by weight [out, in]^T.
  Work product(
      int64_t rows,
      int64_t out,
      int64_t in,
      bool wide = false,
      int64_t experts = 1) {
    const int64_t m = std::min<int64_t>(rows, kPeerRows);
    const int64_t n = std::min(out, std::max<int64_t>(64, kPeerValues / in));
    const bool narrow = bf16_ && !wide;
    auto [it, fresh] = known_.emplace(std::tuple{m, n, in, narrow}, 0.0);
    if (fresh) {
      it->second = best_of_onednn(m, n, in, narrow, experts);
    }
    const double operations = 2.0 * double(rows) * double(out) * double(in);
    const double part = 2.0 * double(m) * double(n) * double(in);
    return {operations, it->second * operations / part};
  }

 private:
  bool bf16_;
  std::map<std::tuple<int64_t, int64_t, int64_t, bool>, double> known_;
};

/// Pairs of a query and a key that it sees.
double pairs_seen(int64_t length, int window) {
  const double n = double(length);
  const double w = window > 0 ? std::min<double>(window, n) : n;
  return w * n - w * (w - 1) / 2;
}

/// What linears do of one token, all experts' share counted.
Work linears_work(const BlockSpec& block, int64_t tokens, Peer& peer) {
  Work work;
  for (const ModuleSpec& module : list_modules(block)) {
    int64_t rows = tokens;
    if (module.expert) {
      const auto& moe = *block.moe;
      rows = std::max<int64_t>(1, tokens * moe.chosen / moe.count);
    }
    work += peer.product(
        rows, module.out, module.in, false, module.expert ? module.count : 1);
  }
  return work;
}

/// Operations of a block's attention: scores and their mix of values. They are
/// set against the rate that oneDNN reaches on the block's linears.
double attention_operations(const BlockSpec& block, int64_t tokens) {
  const auto& attention = block.attention;
  if (attention.delta) {
    return 0;
  }
  int64_t keys = attention.head_dim;
  int64_t values = keys;
  if (attention.latent) {
    keys = attention.latent->nope_dim + attention.latent->rope_dim;
    values = attention.latent->value_dim;
  }
  return 2.0 * attention.heads * double(keys + values) *
      pairs_seen(tokens, attention.window);
}

void print(
    const std::string& what,
    int64_t tokens,
    const Work& linears,
    double attention,
    double seconds) {
  const double rate = linears.operations / linears.peer_seconds;
  const double own = (linears.operations + attention) / seconds;
  const Json line{
      {"what", what},
      {"tokens", tokens},
      {"seconds", seconds},
      {"gflops", own / 1e9},
      {"peer_gflops", rate / 1e9},
      {"share", own / rate},
      {"linears_share", linears.operations / seconds / rate}};
  std::printf("%s\n", line.dump().c_str());
  std::fflush(stdout);
}

class Bench {
 public:
  explicit Bench(const Model& model)
      : model_(model), peer_(model.dtype == mx::bfloat16) {}

  void block(const BlockSpec& spec, int64_t tokens) {
    const auto weights = load_block(model_, spec.index, model_.dtype);
    const auto x = hidden(tokens);
    const auto work = linears_work(spec, tokens, peer_);
    const double attention = attention_operations(spec, tokens);
    const std::string name = "block " + std::to_string(spec.index) + " ";
    const ForwardContext context{.dtype = model_.dtype};
    print(name + "forward", tokens, work, attention, seconds_of([&] {
            auto y = run_block(spec, weights, x, context);
            mx::eval(y);
          }));
    if (spec.attention.scan) {
      scan(*spec.attention.scan, tokens, name);
    }
    const auto dy = hidden(tokens);
    // Forward again, then gradients by the inputs; attention makes its scores
    // again, and five products of them.
    print(name + "backward", tokens, work * 2, attention * 3.5, seconds_of([&] {
            auto traces = trace_block(spec, weights, x, dy, context);
            mx::eval(traces.x);
          }));
    if (!spec.moe) {
      weight_gradients(spec, weights, x, dy, work, attention, name);
    }
  }

  /// The scan alone, in the block's type, and its gradients; their seconds are
  /// to be set against the block's.
  void scan(const ScanSpec& spec, int64_t tokens, const std::string& name) {
    const int n = int(tokens);
    const auto normal = [&](mx::Shape shape, mx::Dtype type) {
      auto x = mx::astype(mx::random::normal(std::move(shape)), type);
      mx::eval(x);
      return x;
    };
    const auto steps = mx::full({1, n, spec.heads}, 0.1f);
    const std::vector<mx::array> in{
        normal({1, n, spec.groups, spec.state}, model_.dtype),
        normal({1, n, spec.groups, spec.state}, model_.dtype),
        normal({1, n, spec.heads, spec.head_dim}, model_.dtype),
        mx::negative(steps),
        steps,
        mx::ones({spec.heads})};
    const auto run = [](const std::vector<mx::array>& x) {
      return std::vector{ops::ssd_scan(x[0], x[1], x[2], x[3], x[4], x[5])};
    };
    const auto dy = normal(in[2].shape(), model_.dtype);
    // A state's value is decayed, added to and read.
    const double operations =
        5.0 * n * spec.heads * spec.head_dim * double(spec.state);
    const auto print_seconds = [&](const char* what, double seconds) {
      const Json line{
          {"what", name + what},
          {"tokens", tokens},
          {"seconds", seconds},
          {"gflops", operations / seconds / 1e9},
          {"peer_gflops", 0},  // oneDNN has no such thing
          {"share", 1},
          {"linears_share", 0}};
      std::printf("%s\n", line.dump().c_str());
    };
    print_seconds("scan", seconds_of([&] { mx::eval(run(in)); }));
    print_seconds("scan, gradients", seconds_of([&] {
                    auto made = mx::vjp(run, in, {dy}).second;
                    mx::eval(made);
                  }));
  }

  /// Sums of x x^T for each width that linears of a block read.
  void statistics(const BlockSpec& spec, int64_t tokens) {
    for (int64_t in : widths(spec)) {
      const auto x = random(tokens, in);
      auto sum = mx::zeros({int(in), int(in)}, mx::float32);
      mx::eval(sum);
      const auto work = peer_.product(in, in, std::min(tokens, in)) *
          (0.5 * double(tokens) / double(std::min(tokens, in)));
      print("sums " + std::to_string(in), tokens, work, 0, seconds_of([&] {
              sum = ops::gram_add(std::move(sum), {x}, x);
              mx::eval(sum);
            }));
    }
  }

  /// Factoring the Hessian, in^3 / 3, and rounding some rows by it, in^2 a row.
  void rounding(const BlockSpec& spec) {
    for (int64_t in : widths(spec)) {
      if (in > kWidestRounded) {
        continue;  // gptq_width_bench has those
      }
      const auto x = random(in + 64, in);
      const auto gram =
          ops::gram_add(mx::zeros({int(in), int(in)}, mx::float32), {x}, x);
      mx::eval(gram);
      const float* data = gram.data<float>();
      const GptqOptions options{.plain = true, .figures = false};
      const double n = double(in);
      auto work = peer_.product(in, std::min<int64_t>(in, 2048), 512, true);
      work = work * (n * n * n / 3 / work.operations);
      std::optional<GptqHessian> hessian;
      print("factor " + std::to_string(in), 0, work, 0, seconds_of([&] {
              hessian.emplace(
                  std::vector<float>(data, data + in * in), in, options);
            }));
      const auto w = mx::random::normal({int(kRoundedRows), int(in)});
      mx::eval(w);
      work = work * (double(kRoundedRows) * n * n / work.operations);
      print("rounding " + std::to_string(in), 0, work, 0, seconds_of([&] {
              gptq_quantize(
                  w.data<float>(),
                  kRoundedRows,
                  *hessian,
                  QuantSpec{.bits = 4, .group_size = 64},
                  kernels::DType::bf16,
                  options);
            }));
    }
  }

  /// A part of the vocabulary, as evaluate goes through it.
  void head(int64_t tokens) {
    constexpr int64_t kTile = 16384;
    const auto count = int(std::min(kTile, model_.spec.vocab));
    const auto tables = load_embedding_and_head(model_, model_.dtype);
    const auto tile = tables.head.dense_rows(0, count);
    const auto x = random(tokens, model_.spec.hidden);
    const auto targets = mx::zeros({int(tokens)}, mx::int32);
    const auto state = ops::score_start(int(tokens));
    mx::eval({targets, state, *tile.dense});
    const auto work = peer_.product(tokens, count, model_.spec.hidden);
    print("head", tokens, work, 0, seconds_of([&] {
            auto scored = ops::score_linear(
                state, {x, *tile.dense}, std::nullopt, targets, 0);
            mx::eval(scored);
          }));
  }

 private:
  void weight_gradients(
      const BlockSpec& spec,
      const BlockWeights& weights,
      const mx::array& x,
      const mx::array& dy,
      const Work& work,
      double attention,
      const std::string& name) {
    std::vector<std::string> linears;
    for (const ModuleSpec& module : list_modules(spec)) {
      linears.push_back(module.path);
    }
    const ForwardContext context{.dtype = model_.dtype};
    const auto seconds = seconds_of([&] {
      auto made = block_gradients(spec, weights, linears, x, dy, context);
      std::vector<mx::array> all{made.x};
      for (const auto& [path, gradient] : made.weights) {
        all.push_back(gradient);
      }
      mx::eval(all);
    });
    print(
        name + "backward by weights",
        x.shape(1),
        work * 3,
        attention * 3.5,
        seconds);
  }

  std::set<int64_t> widths(const BlockSpec& spec) const {
    std::set<int64_t> found;
    for (const ModuleSpec& module : list_modules(spec)) {
      found.insert(module.in);
    }
    return found;
  }

  mx::array random(int64_t rows, int64_t columns) const {
    auto x = ops::rms_norm(
        mx::random::normal({int(rows), int(columns)}),
        mx::ones({int(columns)}),
        0,
        model_.dtype);
    mx::eval(x);
    return x;
  }

  mx::array hidden(int64_t tokens) const {
    auto x = mx::random::normal({1, int(tokens), int(model_.spec.hidden)});
    mx::eval(x);
    return x;
  }

  const Model& model_;
  Peer peer_;
};

void run(const std::string& folder, const std::vector<int64_t>& lengths) {
  const auto model = open_model(folder);
  const auto choice = kernels::active_choice();
  std::printf(
      "%s\n",
      Json{
          {"processor", processor()},
          {"threads", kernels::thread_count()},
          {"kernels", std::string(kernels::choice_name(choice))},
          {"target", std::string(kernels::target_name(choice))}}
          .dump()
          .c_str());
  Bench bench(model);
  for (const int64_t tokens : lengths) {
    for (const BlockSpec& block : model.spec.blocks) {
      bench.block(block, tokens);
    }
    if (tokens == lengths.front()) {
      bench.head(tokens);
    }
  }
  bench.statistics(model.spec.blocks.back(), 4 * lengths.front());
  bench.rounding(model.spec.blocks.back());
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2) {
    std::fprintf(stderr, "shapes_bench MODEL [tokens...]\n");
    return 2;
  }
  mx::set_default_device(mx::Device::cpu);
  ops::keep_freed_memory();
  std::vector<int64_t> lengths;
  for (int i = 2; i < argc; ++i) {
    lengths.push_back(std::atoll(argv[i]));
  }
  try {
    run(argv[1], lengths.empty() ? std::vector<int64_t>{512, 4096} : lengths);
  } catch (const Error& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
  return 0;
}
