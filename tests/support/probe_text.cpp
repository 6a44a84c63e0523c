// Prints what the text room makes of files, for the parity tests:
//
//   probe_text ids FOLDER FILE [plain]      ids of a text file, one a line;
//                                           `plain` adds no special tokens
//   probe_text decode FOLDER FILE [skip]    text of ids, one a line in FILE
//   probe_text chat FOLDER FILE [prompt]    the rendered messages of a JSON
//                                           file; `prompt` adds the
//                                           generation prompt
//   probe_text rows FILE                    rows as JSON lines
//   probe_text load FOLDER DATA LENGTH COUNT    load_data as JSON

#include <fstream>
#include <iostream>
#include <iterator>
#include <sstream>

#include "core/error.h"
#include "core/files/atomic_file.h"
#include "core/json.h"
#include "text/load_data.h"
#include "text/rows/rows.h"
#include "text/text_reader.h"

namespace {

using namespace pennyweight;

constexpr size_t kLimit = size_t{1} << 28;

void print_ids(const std::vector<int32_t>& ids) {
  for (int32_t id : ids) {
    std::cout << id << "\n";
  }
}

std::vector<int32_t> read_ids(const std::string& path) {
  std::ifstream in(path);
  return {std::istream_iterator<int32_t>(in), {}};
}

int load(char** args) {
  TextReader reader(args[2]);
  LoadDataOptions options;
  options.data_path = args[3];
  options.sequence_length = std::stoi(args[4]);
  options.num_samples = std::stoi(args[5]);
  auto data = load_data(reader, options, {}, {});
  Json json = {
      {"sequences", data.sequences},
      {"tokens", data.tokens},
      {"sources", data.sources},
      {"source", data.source},
      {"use", to_json(data.use)},
      {"warnings", data.warnings}};
  std::cout << json.dump() << "\n";
  return 0;
}

int run(int count, char** args) {
  std::string command = args[1];
  bool flag = count > 4;
  if (command == "load" && count == 6) {
    return load(args);
  }
  if (command == "rows") {
    read_rows(args[2], [](Row row) {
      Json json = row.messages.is_null() ? Json(row.text) : row.messages;
      std::cout << json.dump() << "\n";
      return true;
    });
    return 0;
  }
  auto tokenizer = Tokenizer::load(args[2]);
  if (command == "ids") {
    print_ids(tokenizer.encode(read_file(args[3], kLimit), !flag));
  } else if (command == "decode") {
    std::cout << tokenizer.decode(read_ids(args[3]), flag);
  } else if (command == "chat") {
    std::cout << tokenizer.render_chat(read_json(args[3]), flag);
  }
  return 0;
}

}  // namespace

int main(int count, char** args) {
  if (count < 3) {
    std::cerr << "probe_text: see the comment in its source\n";
    return 2;
  }
  try {
    return run(count, args);
  } catch (const std::exception& error) {
    std::cerr << error.what() << "\n";
    return 1;
  }
}
