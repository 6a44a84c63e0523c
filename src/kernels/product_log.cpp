#include "kernels/product_log.h"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <list>
#include <map>
#include <mutex>
#include <tuple>

#include "kernels/threads.h"

namespace pennyweight::kernels {

namespace {

bool traces() {
  static const bool wanted = [] {
    const char* text = std::getenv("PENNYWEIGHT_TRACE_PRODUCTS");
    return text && *text && std::string_view(text) != "0";
  }();
  return wanted;
}

double clock_seconds() {
  const auto now = std::chrono::steady_clock::now().time_since_epoch();
  return std::chrono::duration<double>(now).count();
}

const char* type_name(DType type) {
  return type == DType::bf16 ? "bf16" : type == DType::f16 ? "f16" : "f32";
}

/// Times by shape, printed when the process ends.
class Trace {
 public:
  struct Key {
    const ProductServer* server;
    int64_t m, n, k;
    DType type;
    bool alone;  // on all threads, and not one of many at a time

    auto tie() const {
      return std::tie(server, m, n, k, type, alone);
    }
    bool operator<(const Key& other) const {
      return tie() < other.tie();
    }
  };

  void add(const Key& key, double seconds) {
    std::lock_guard lock(mutex_);
    auto& entry = entries_[key];
    ++entry.calls;
    entry.seconds += seconds;
  }

  ~Trace() {
    std::vector<std::pair<Key, Entry>> sorted(entries_.begin(), entries_.end());
    std::ranges::sort(sorted, [](const auto& a, const auto& b) {
      return a.second.seconds > b.second.seconds;
    });
    if (!sorted.empty()) {
      std::fprintf(
          stderr,
          "%-32s %8s %8s %8s %5s %8s %10s %10s %8s\n",
          "implementation",
          "m",
          "n",
          "k",
          "type",
          "threads",
          "calls",
          "seconds",
          "GF/s");
    }
    for (const auto& [key, entry] : sorted) {
      const double operations =
          2.0 * double(key.m) * double(key.n) * double(key.k);
      std::fprintf(
          stderr,
          "%-32s %8lld %8lld %8lld %5s %8s %10lld %10.4f %8.1f\n",
          key.server->name.c_str(),
          static_cast<long long>(key.m),
          static_cast<long long>(key.n),
          static_cast<long long>(key.k),
          type_name(key.type),
          key.alone ? "all" : "one",
          static_cast<long long>(entry.calls),
          entry.seconds,
          operations * double(entry.calls) / entry.seconds / 1e9);
    }
  }

 private:
  struct Entry {
    int64_t calls = 0;
    double seconds = 0;
  };

  std::mutex mutex_;
  std::map<Key, Entry> entries_;
};

Trace& trace() {
  static Trace made;
  return made;
}

struct Servers {
  std::mutex mutex;
  std::list<ProductServer> all;
};

/// Never destroyed: products may still run while the process ends.
Servers& servers() {
  static auto* made = new Servers;
  return *made;
}

}  // namespace

ProductServer& product_server(std::string_view name) {
  auto& known = servers();
  std::lock_guard lock(known.mutex);
  for (auto& server : known.all) {
    if (server.name == name) {
      return server;
    }
  }
  auto& made = known.all.emplace_back();
  made.name = name;
  return made;
}

CountedProduct::CountedProduct(
    ProductServer& server,
    int64_t m,
    int64_t n,
    int64_t k,
    DType type)
    : server_(server), m_(m), n_(n), k_(k), type_(type) {
  server.calls.fetch_add(1, std::memory_order_relaxed);
  server.operations.fetch_add(2 * m * n * k, std::memory_order_relaxed);
  if (traces()) {
    start_ = clock_seconds();
  }
}

CountedProduct::~CountedProduct() {
  if (start_ > 0) {
    trace().add(
        {&server_, m_, n_, k_, type_, !in_task()}, clock_seconds() - start_);
  }
}

std::vector<ServedProducts> products_served() {
  auto& known = servers();
  std::lock_guard lock(known.mutex);
  std::vector<ServedProducts> all;
  for (const auto& server : known.all) {
    if (server.calls > 0) {
      all.push_back({server.name, server.calls, server.operations});
    }
  }
  std::ranges::sort(all, [](const auto& a, const auto& b) {
    return a.operations > b.operations;
  });
  return all;
}

std::vector<ServedProducts> served_since(
    const std::vector<ServedProducts>& before) {
  std::vector<ServedProducts> more;
  for (auto now : products_served()) {
    for (const auto& then : before) {
      if (then.name == now.name) {
        now.calls -= then.calls;
        now.operations -= then.operations;
      }
    }
    if (now.calls > 0) {
      more.push_back(now);
    }
  }
  return more;
}

}  // namespace pennyweight::kernels
