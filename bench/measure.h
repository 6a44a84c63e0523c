#pragma once

#include <mlx/mlx.h>
#include <time.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <functional>
#include <map>
#include <string>
#include <unordered_map>
#include <vector>

#include "kernels/scratch.h"
#include "kernels/threads.h"
#include "ops/ops.h"

#ifdef PENNYWEIGHT_HAVE_ONEDNN
#include <oneapi/dnnl/dnnl.hpp>
#endif

/// Timing, and what the machine gives by itself.
namespace pennyweight::bench {

struct Settings {
  int tokens = 2048;
  int length = 512;
  int repeats = 15;
  bool best = false;  // of the repeats, instead of their median
};
inline Settings settings;

inline double now() {
  static const bool cpu = std::getenv("PENNYWEIGHT_BENCH_CPU") != nullptr;
  timespec t;
  clock_gettime(cpu ? CLOCK_PROCESS_CPUTIME_ID : CLOCK_MONOTONIC, &t);
  return double(t.tv_sec) + 1e-9 * double(t.tv_nsec);
}

/// Seconds a call, the median of the repeats after one call to warm up.
inline double median_seconds(const std::function<void()>& call) {
  call();
  std::vector<double> seconds;
  for (int i = 0; i < settings.repeats; ++i) {
    const double start = now();
    call();
    seconds.push_back(now() - start);
  }
  std::sort(seconds.begin(), seconds.end());
  return seconds[settings.best ? 0 : seconds.size() / 2];
}

/// Seconds to evaluate what `make` builds, its inputs being evaluated before.
inline double eval_seconds(const std::function<mx::array()>& make) {
  return median_seconds([&] {
    auto result = make();
    mx::eval(result);
  });
}

/// With `weights`, so many different ones take turns, as experts' do: then they
/// come from memory and not from a cache.
inline double onednn_seconds(
    int m,
    int n,
    int k,
    bool bf16,
    bool float_out,
    int weights = 1) {
#ifdef PENNYWEIGHT_HAVE_ONEDNN
  using dnnl::memory;
  static const dnnl::engine engine(dnnl::engine::kind::cpu, 0);
  static dnnl::stream stream(engine);
  const auto type = bf16 ? memory::data_type::bf16 : memory::data_type::f32;
  const auto out_type = float_out ? memory::data_type::f32 : type;
  kernels::Scratch x, y;
  std::vector<kernels::Scratch> w(static_cast<size_t>(weights));
  const auto fill = [](kernels::Scratch& scratch, const memory::desc& desc) {
    // Numbers as a model's: on zeros AMX is faster than it ever is in use.
    const size_t size = desc.get_size();
    char* p = scratch.get<char>(int64_t(size));
    const bool narrow = desc.data_type() == memory::data_type::bf16;
    const auto x = mx::astype(
        mx::random::normal({int(size / (narrow ? 2 : 4))}),
        narrow ? mx::bfloat16 : mx::float32);
    mx::eval(x);
    std::memcpy(p, x.data<char>(), size);
    return memory(desc, engine, p);
  };
  const memory::desc xd({m, k}, type, {k, 1}), wd({k, n}, type, {1, k});
  const memory::desc yd({m, n}, out_type, {n, 1});
  const dnnl::matmul::primitive_desc primitive({xd, wd, yd}, engine);
  const dnnl::matmul matmul(primitive);
  std::unordered_map<int, memory> args{
      {DNNL_ARG_SRC, fill(x, xd)}, {DNNL_ARG_DST, fill(y, yd)}};
  std::vector<memory> filled;
  for (auto& weight : w) {
    filled.push_back(fill(weight, wd));
  }
  return median_seconds([&] {
           for (const auto& weight : filled) {
             args.insert_or_assign(DNNL_ARG_WEIGHTS, weight);
             matmul.execute(stream, args);
           }
           stream.wait();
         }) /
      double(weights);
#else
  (void)m, (void)n, (void)k, (void)bf16, (void)float_out, (void)weights;
  return 0;
#endif
}

/// memcpy on all threads, bytes read and written a second.
inline double copy_rate(double bytes) {
  static std::map<double, double> known;
  if (known.count(bytes)) {
    return known[bytes];
  }
  const auto half = int64_t(bytes / 2);
  kernels::Scratch from, to;
  char* source = from.get<char>(half);
  char* target = to.get<char>(half);
  std::memset(source, 1, size_t(half));
  std::memset(target, 1, size_t(half));
  const double seconds = median_seconds([&] {
    kernels::parallel_ranges(half, 1 << 16, [&](int64_t begin, int64_t end) {
      std::memcpy(target + begin, source + begin, size_t(end - begin));
    });
  });
  return known[bytes] = bytes / seconds;
}

inline std::string processor() {
  std::ifstream info("/proc/cpuinfo");
  for (std::string line; std::getline(info, line);) {
    if (line.rfind("model name", 0) == 0) {
      return line.substr(line.find(':') + 2);
    }
  }
  return "unknown processor";
}

}  // namespace pennyweight::bench
