// The same bits for any number of threads: shapes of which one number of them
// cuts other pieces than another, and products whose depth a library would
// share among its threads.

#include "kernels/threads.h"

#include <atomic>
#include <functional>
#include <limits>
#include <stdexcept>
#include <thread>

#include "kernels/kernel_test.h"
#include "kernels/score_state.h"

namespace pennyweight::kernels {

namespace {

constexpr int kCounts[] = {2, 3, 8};

struct Product {
  int64_t m, n, k;
};

class AnyThreads : public KernelTest {
 protected:
  void SetUp() override {
    if (GetParam().choice == Choice::reference) {
      GTEST_SKIP() << "the naive kernels have one thread";
    }
    KernelTest::SetUp();
    override_choice(GetParam().choice);
  }

  void TearDown() override {
    override_thread_count(0);
    override_choice({});
    KernelTest::TearDown();
  }

  /// Fills what was made by `fill` once for each number of threads.
  static void expect_same(
      const std::string& what,
      const Tensor& start,
      const std::function<void(Tensor& out)>& fill) {
    const auto make = [&](int threads) {
      override_thread_count(threads);
      Tensor out = start;
      fill(out);
      return out;
    };
    const auto one = make(1);
    const auto bytes = size_t(one.rows() * one.stride()) * size_of(one.type());
    for (const int threads : kCounts) {
      EXPECT_EQ(std::memcmp(make(threads).data(), one.data(), bytes), 0)
          << what << " on " << threads << " threads";
    }
  }

  static void
  multiply(const Product& p, DType type, bool by_depth, bool extras) {
    const auto x = Tensor::random(type, p.m, p.k, 1);
    const auto w = by_depth ? Tensor::random(type, p.k, p.n, 2)
                            : Tensor::random(type, p.n, p.k, 2);
    const auto bias = Tensor::random(type, 1, p.n, 3);
    const DType out_type = extras ? DType::f32 : type;
    expect_same(
        std::to_string(p.m) + " x " + std::to_string(p.n) + " x " +
            std::to_string(p.k) + ", " + type_name(type),
        Tensor::random(out_type, p.m, p.n, 4),
        [&](Tensor& out) {
          MatmulArgs args{
              .m = p.m,
              .n = p.n,
              .k = p.k,
              .x = x.view(),
              .weight = w.view(),
              .out = out.out(),
              .weight_by_depth = by_depth};
          if (extras) {
            args.bias = {bias.data(), type};
            args.residual = as_const(args.out);
          }
          matmul(args);
        });
  }

  static std::vector<float> score_state(int64_t rows) {
    std::vector<float> state(size_t(rows * kScoreColumns), 0.0f);
    for (int64_t i = 0; i < rows; ++i) {
      auto* row = state.data() + i * kScoreColumns;
      row[kScoreMax] = row[kScoreRefMax] = std::numeric_limits<float>::lowest();
    }
    return state;
  }
};

TEST_P(AnyThreads, Products) {
  // Small results of a great depth, rows and columns that leave remainders,
  // and what has more tiles than threads.
  const Product all[] = {
      {5, 64, 3000},
      {16, 48, 20000},
      {33, 257, 321},
      {64, 100, 2100},
      {66, 64, 12288},
      {100, 64, 4096},
      {130, 600, 1500},
      {257, 33, 70},
      {515, 576, 1600},
      {1030, 200, 70}};
  for (const auto& product : all) {
    for (const DType type : {DType::f32, DType::bf16, DType::f16}) {
      multiply(product, type, false, false);
      multiply(product, type, true, true);
    }
  }
}

TEST_P(AnyThreads, PackedProducts) {
  for (const int64_t m : {3, 37, 260}) {
    const int64_t rows = 390, columns = 1088, group = 64;
    const auto x = Tensor::random(DType::bf16, m, columns, 1);
    const auto scales = Tensor::random(DType::f32, rows, columns / group, 2);
    std::vector<uint32_t> codes(size_t(rows * columns / 8));
    std::mt19937 generator(3);
    for (auto& code : codes) {
      code = generator();
    }
    expect_same(
        "packed, " + std::to_string(m) + " rows",
        Tensor(DType::bf16, m, rows),
        [&](Tensor& out) {
          quantized_matmul(
              {.m = m,
               .x = x.view(),
               .weight =
                   {.rows = rows,
                    .columns = columns,
                    .codes = codes.data(),
                    .scales = scales.data(),
                    .biases = scales.data()},
               .out = out.out()});
        });
  }
}

TEST_P(AnyThreads, SumsOfInputs) {
  for (const int64_t rows : {33, 700, 2100}) {
    for (const DType type : {DType::f32, DType::bf16, DType::f16}) {
      const int64_t n = 200, m = 97;
      const auto a = Tensor::random(type, rows, m, 1);
      const auto b = Tensor::random(type, rows, n, 2);
      expect_same(
          "sums of " + std::to_string(rows) + " rows, " + type_name(type),
          Tensor::random(DType::f32, m + n, n, 3),
          [&](Tensor& out) {
            gram(
                {.rows = rows,
                 .n = n,
                 .b = b.view(),
                 .parts = {{m, a.view()}, {n, b.view()}},
                 .out = out.out()});
          });
    }
  }
}

TEST_P(AnyThreads, Attention) {
  struct Heads {
    int64_t batch, length, heads, kv_heads, dim, window;
    float cap;
  };
  // The second has five pairs of one tile each.
  for (const auto& c :
       {Heads{1, 515, 6, 2, 64, 0, 0},
        Heads{1, 40, 5, 5, 80, 0, 30},
        Heads{3, 131, 4, 1, 128, 37, 0}}) {
    for (const DType type : {DType::f32, DType::bf16}) {
      const int64_t rows = c.batch * c.length;
      const auto random = [&](int64_t heads, unsigned seed) {
        return Tensor::random(type, rows, heads * c.dim, seed);
      };
      const auto q = random(c.heads, 1), k = random(c.kv_heads, 2);
      const auto v = random(c.kv_heads, 3), dout = random(c.heads, 4);
      const auto view = [&](const Tensor& x) {
        return HeadsView{x.data(), c.length * x.stride(), x.stride(), c.dim};
      };
      // The result and its gradients, one below the other.
      const int64_t width = c.heads * c.dim;
      expect_same(
          std::to_string(c.length) + " tokens, " + type_name(type),
          Tensor(type, 4 * rows, width),
          [&](Tensor& out) {
            const auto part = [&](int64_t i) {
              return from_row(out.out(), i * rows).data;
            };
            const AttentionArgs args{
                .batch = c.batch,
                .length = c.length,
                .keys = c.length,
                .heads = c.heads,
                .kv_heads = c.kv_heads,
                .head_dim = c.dim,
                .scale = 0.1f,
                .window = c.window,
                .cap = c.cap,
                .type = type,
                .q = view(q),
                .k = view(k),
                .v = view(v),
                .out = part(0)};
            attention(args);
            attention_backward(
                {.forward = args,
                 .dout = view(dout),
                 .dq = part(1),
                 .dk = part(2),
                 .dv = part(3)});
          });
    }
  }
}

TEST_P(AnyThreads, HeadsOfAVocabulary) {
  // 291 rows: in blocks of 32, of 64 and of 256 they leave 3 and 35.
  for (const int64_t rows : {3, 70, 291}) {
    const int64_t columns = 1100, k = 320;
    const auto x = Tensor::random(DType::bf16, rows, k, 1, 0.1);
    const auto w = Tensor::random(DType::bf16, columns, k, 2);
    const auto other = Tensor::random(DType::bf16, columns, k, 3);
    const HeadSide head{k, x.view(), w.view(), {}, 0};
    const HeadSide reference{k, x.view(), other.view(), {}, 30};
    const std::vector<int32_t> targets(size_t(rows), 7);
    const auto text = std::to_string(rows) + " rows of logits";
    const auto fresh = score_state(rows);
    Tensor start(DType::f32, rows, kScoreColumns);
    std::memcpy(start.data(), fresh.data(), fresh.size() * sizeof(float));
    const auto score = [&](Tensor& out) {
      score_matmul(
          {.rows = rows,
           .columns = columns,
           .logits = head,
           .reference = reference,
           .targets = targets.data(),
           .state = static_cast<float*>(out.data()),
           .state_stride = kScoreColumns});
    };
    expect_same(text, start, score);
    auto state = start;
    score(state);
    expect_same(
        text + ", gradient",
        Tensor(DType::bf16, rows, columns),
        [&](Tensor& out) {
          kl_tile(
              {.rows = rows,
               .columns = columns,
               .head = head,
               .reference = reference,
               .state = static_cast<const float*>(state.data()),
               .state_stride = kScoreColumns,
               .gradient = out.out()});
        });
    Tensor none(DType::f32, rows, kFisherColumns);
    for (int64_t i = 0; i < rows; ++i) {
      none.set(i, kFisherLogSum, -std::numeric_limits<float>::infinity());
      none.set(i, kFisherDot, 0);
    }
    expect_same(text + ", draws", none, [&](Tensor& out) {
      fisher_update(
          {.rows = rows,
           .columns = columns,
           .head = head,
           .seed = 5,
           .state = static_cast<float*>(out.data())});
    });
  }
}

INSTANTIATE_KERNEL_TEST(AnyThreads);

}  // namespace

// What a task may do must not depend on whether other threads run any.
TEST(Tasks, AreTasksOnOneThreadToo) {
  for (const int threads : {1, 3}) {
    override_thread_count(threads);
    EXPECT_FALSE(in_task());
    EXPECT_EQ(thread_count(), threads);
    parallel_tasks(2, [](int64_t) {
      EXPECT_TRUE(in_task());
      EXPECT_EQ(thread_count(), 1);
      parallel_tasks(1, [](int64_t) { EXPECT_TRUE(in_task()); });
    });
    parallel_tasks(1, [](int64_t) { EXPECT_FALSE(in_task()); });
    parallel_ranges(100, 7, [](int64_t, int64_t) { EXPECT_TRUE(in_task()); });
    parallel_ranges(100, 70, [](int64_t, int64_t) { EXPECT_FALSE(in_task()); });
    EXPECT_FALSE(in_task());
  }
  override_thread_count(0);
}

TEST(Tasks, BeginInOrderAndOnceEach) {
  override_thread_count(4);
  std::atomic<int64_t> begun{0};
  std::vector<std::atomic<int>> runs(1000);
  parallel_tasks(1000, [&](int64_t task) {
    // Those before it have begun, so that it may wait for them.
    EXPECT_GE(begun.fetch_add(1) + 4, task);
    ++runs[size_t(task)];
  });
  for (const auto& run : runs) {
    EXPECT_EQ(run, 1);
  }
  override_thread_count(0);
}

TEST(Tasks, SeveralCallersShareThreads) {
  override_thread_count(3);
  std::atomic<int64_t> sum{0};
  const auto call = [&] {
    for (int i = 0; i < 300; ++i) {
      parallel_tasks(7, [&](int64_t task) { sum += task; });
    }
  };
  std::thread others[] = {std::thread(call), std::thread(call)};
  call();
  for (auto& other : others) {
    other.join();
  }
  EXPECT_EQ(sum, 3 * 300 * 21);
  override_thread_count(0);
}

TEST(Tasks, FailAsTheFirstThatFails) {
  for (const int threads : {1, 3}) {
    override_thread_count(threads);
    std::atomic<int64_t> runs{0};
    const auto failing = [&] {
      parallel_tasks(100000, [&](int64_t task) {
        ++runs;
        if (task == 5) {
          throw std::runtime_error("the fifth");
        }
      });
    };
    EXPECT_THROW(failing(), std::runtime_error);
    EXPECT_LT(runs, 100000);
    EXPECT_FALSE(in_task());
  }
  override_thread_count(0);
}

}  // namespace pennyweight::kernels
