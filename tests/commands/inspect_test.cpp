#include <gtest/gtest.h>

#include "core/json.h"
#include "support/run_command.h"
#include "support/tiny_model.h"

namespace pennyweight {
namespace {

using testing::random_tensors;
using testing::run_command;
using testing::TemporaryFolder;
using testing::tiny_config;
using testing::write_checkpoint;

TEST(Inspect, RowsAddUpToTheModel) {
  auto config = tiny_config("qwen3");
  config["tie_word_embeddings"] = false;
  TemporaryFolder folder;
  write_checkpoint(folder.path(), config, random_tensors(config));
  const auto report =
      run_command(inspect_command(), {{"model", folder.path().string()}});
  EXPECT_EQ(report["family"], "qwen3");
  EXPECT_EQ(report["blocks"], 2);
  EXPECT_EQ(report["tied"], false);
  EXPECT_EQ(report["type"], "float32");
  int64_t bytes = 0;
  int64_t parameters = 0;
  double share = 0;
  const auto& rows = report["modules"];
  for (const auto& row : rows) {
    bytes += row["bytes"].get<int64_t>();
    parameters += row["parameters"].get<int64_t>();
    share += row["share"].get<double>();
  }
  EXPECT_EQ(report["bytes"], bytes);
  EXPECT_EQ(report["parameters"], parameters);
  EXPECT_NEAR(share, 1, 1e-12);
  // Embedding, head, final norm; 7 linears and 4 norms a block.
  EXPECT_EQ(rows.size(), 3u + 2 * 11);
  EXPECT_EQ(rows.front()["kind"], "embedding");
  EXPECT_EQ(rows.back()["path"], "lm_head");
}

TEST(Inspect, PackedModulesShowTheirSpec) {
  auto config = tiny_config();
  config["intermediate_size"] = 64;
  auto tensors = random_tensors(config);
  const std::string path = "model.layers.1.mlp.down_proj";
  auto packed = mx::quantize(tensors.at(path + ".weight"), 64, 3);
  tensors.insert_or_assign(path + ".weight", packed[0]);
  tensors.insert_or_assign(path + ".scales", packed[1]);
  tensors.insert_or_assign(path + ".biases", packed[2]);
  config["quantization"] = {{"group_size", 64}, {"bits", 3}};
  TemporaryFolder folder;
  write_checkpoint(folder.path(), config, tensors);
  const auto report =
      run_command(inspect_command(), {{"model", folder.path().string()}});
  int packed_rows = 0;
  for (const auto& row : report["modules"]) {
    if (row.contains("bits")) {
      ++packed_rows;
      EXPECT_EQ(row["path"], path);
      EXPECT_EQ(row["type"], "affine");
      EXPECT_EQ(row["shape"], Json::array({32, 64}));
      EXPECT_EQ(row["parameters"], 32 * 64);
      // Codes, and a float32 scale and bias a row.
      EXPECT_DOUBLE_EQ(row["bits_per_weight"].get<double>(), 3 + 64.0 / 64);
    }
  }
  EXPECT_EQ(packed_rows, 1);
}

}  // namespace
}  // namespace pennyweight
