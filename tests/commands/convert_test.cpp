#include "commands/convert.h"

#include <gtest/gtest.h>
#include <mlx/ops.h>
#include <mlx/transforms.h>

#include <limits>

#include "core/files/atomic_file.h"
#include "support/expect_error.h"
#include "support/tiny_model.h"

namespace pennyweight {

namespace {

using testing::expect_error;
using testing::random_tensors;
using testing::TemporaryFolder;
using testing::tiny_config;
using testing::write_checkpoint;

// Width 32 and MLP 48: groups of 32 fit everything but down_proj.
class ConvertTest : public ::testing::Test {
 protected:
  ConvertTest() {
    write_checkpoint(model(), tiny_config(), random_tensors(tiny_config()));
    options_.model = "tiny";
    options_.mlx_path = (folder_.path() / "out").string();
    options_.quantize = true;
    options_.q_group_size = 32;
  }

  fs::path model() {
    fs::create_directories(folder_.path() / "model");
    return folder_.path() / "model";
  }
  RunReport run(const ProgressFn& progress = {}) {
    const ProcessGroup alone;
    Session session("convert", progress, alone);
    convert(session, model(), options_);
    return session.finish();
  }
  void expect_nothing_left() {
    for (const auto& entry : fs::directory_iterator(folder_.path())) {
      EXPECT_EQ(entry.path().filename(), "model");
    }
  }

  TemporaryFolder folder_;
  ConvertOptions options_;
};

}  // namespace

TEST_F(ConvertTest, ReportsWhatItDid) {
  auto report = run();
  auto out = open_model(options_.mlx_path);
  auto size = model_size(out);
  EXPECT_EQ(report.bytes_out, size.bytes);
  EXPECT_EQ(report.parameters, size.parameters);
  EXPECT_DOUBLE_EQ(report.bits_per_weight, size.bits_per_weight);
  EXPECT_GT(report.peak_rss, 1 << 20);
  int kept = 0;
  for (const auto& module : report.figures["modules"]) {
    const std::string path = module["path"];
    const bool down = path.ends_with("down_proj");
    EXPECT_EQ(module.contains("quantization"), !down) << path;
    EXPECT_EQ(module.contains("kept_because"), down) << path;
    EXPECT_EQ(out.quantized.contains(path), !down) << path;
    kept += down;
  }
  EXPECT_EQ(kept, 2);
  auto json = to_json(report);
  EXPECT_EQ(json["modules"], report.figures["modules"]);
  EXPECT_EQ(json["bytes"], report.bytes_out);
}

TEST_F(ConvertTest, ReportsProgressInBytesUpToTheEnd) {
  std::vector<ProgressEvent> events;
  run([&](const ProgressEvent& event) {
    events.push_back(event);
    return true;
  });
  const auto& last = events.back();
  EXPECT_EQ(last.unit, "bytes");
  EXPECT_EQ(last.done, last.total);
  auto warnings = std::ranges::count_if(
      events, [](const ProgressEvent& event) { return event.warning; });
  EXPECT_EQ(warnings, 3);  // two modules kept, no tokenizer
}

TEST_F(ConvertTest, IsStoppedByTheUserAndLeavesNothing) {
  int left = 5;
  auto stop = [&](const ProgressEvent&) { return --left > 0; };
  expect_error(ErrorCode::cancelled, "stopped", [&] { run(stop); });
  expect_nothing_left();
}

TEST_F(ConvertTest, RefusesOptionsThatContradictEachOther) {
  options_.dequantize = true;
  expect_error(ErrorCode::invalid_argument, "either", [&] { run(); });
  options_.dequantize = false;
  options_.quant_predicate = "mixed_3_6";
  options_.q_bits = 4;
  expect_error(ErrorCode::invalid_argument, "--q-bits", [&] { run(); });
  options_.q_bits.reset();
  options_.q_mode = "mxfp4";
  expect_error(ErrorCode::invalid_argument, "affine", [&] { run(); });
  options_.quant_predicate.reset();
  options_.q_mode = "affine";
  options_.dtype = "int8";
  expect_error(ErrorCode::invalid_argument, "--dtype", [&] { run(); });
  expect_nothing_left();
}

TEST_F(ConvertTest, NeverReplacesTheModelItReads) {
  options_.force = true;
  options_.mlx_path = model().string();
  expect_error(ErrorCode::invalid_argument, "itself", [&] { run(); });
  options_.mlx_path = (model() / "../model/.").string();
  expect_error(ErrorCode::invalid_argument, "itself", [&] { run(); });
  EXPECT_TRUE(fs::exists(model() / "config.json"));
  options_.mlx_path = (model() / "q4").string();
  EXPECT_NO_THROW(run());
}

TEST_F(ConvertTest, NamesATensorThatIsNotFinite) {
  auto tensors = random_tensors(tiny_config());
  auto bad = mx::full({32}, std::numeric_limits<float>::infinity());
  tensors.insert_or_assign("model.norm.weight", bad);
  write_checkpoint(model(), tiny_config(), tensors);
  expect_error(
      ErrorCode::numeric, "model.norm.weight holds 32", [&] { run(); });
  expect_nothing_left();
}

TEST_F(ConvertTest, ADamagedTokenizerIsFoundNow) {
  std::ofstream(model() / "tokenizer.json") << "{\"model\": 3}";
  expect_error(ErrorCode::corrupt, "tokenizer", [&] { run(); });
  expect_nothing_left();
}

TEST_F(ConvertTest, WritesTheSameBytesEachTime) {
  run();
  auto first = options_.mlx_path;
  options_.mlx_path += "2";
  run();
  for (const auto& entry : fs::directory_iterator(first)) {
    auto name = entry.path().filename();
    EXPECT_EQ(
        read_file(entry.path(), 1 << 24),
        read_file(options_.mlx_path / name, 1 << 24))
        << name;
  }
}

}  // namespace pennyweight
