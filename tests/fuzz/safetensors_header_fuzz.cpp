// libFuzzer target of the safetensors header parser. An input is two bytes, the
// size of the data behind the header, and the header. See tools/fuzz.sh.

#include <cstdint>
#include <string>
#include <string_view>

#include "checkpoint/safetensors.h"
#include "fuzz_require.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace pennyweight;
  if (size < 2) {
    return 0;
  }
  uint64_t data_size = data[0] | static_cast<uint64_t>(data[1]) << 8;
  std::string_view header(reinterpret_cast<const char*>(data) + 2, size - 2);
  uint64_t start = 8 + header.size();
  try {
    auto entries = parse_safetensors_header(header, start + data_size, "f");
    // What is accepted covers the data exactly, each byte once.
    uint64_t expected = start;
    for (const auto& entry : entries) {
      uint64_t items = 1;
      for (int extent : entry.shape) {
        require(extent >= 0);
        items *= static_cast<uint64_t>(extent);
      }
      require(entry.begin == expected);
      require(entry.end - entry.begin == items * mx::size_of(entry.dtype));
      require(!entry.name.empty());
      expected = entry.end;
    }
    require(expected == start + data_size);
  } catch (const Error& error) {
    require_one_line(error);
    require(
        error.code() == ErrorCode::corrupt ||
        error.code() == ErrorCode::not_supported);
  }
  return 0;
}
