#include "text/text_reader.h"

#include <cstring>
#include <memory>

#include "core/bytes.h"
#include "core/json.h"
#include "core/json_text.h"

namespace pennyweight {

namespace {

namespace fs = std::filesystem;

// A request is one byte that says what is asked, and its argument; text goes
// as it is, numbers as they lie in memory.
constexpr char kLoad = 'L';
constexpr char kRead = 'R';
constexpr char kTake = 'T';
constexpr char kEncode = 'E';
constexpr char kDecode = 'D';

/// The source's text or path stands behind the JSON, as its own bytes: there
/// may be much of it, and a path need not be UTF-8.
std::string pack_request(
    const DataSource& source,
    const LoadDataOptions& options) {
  const auto json = to_text(
      {{"kind", static_cast<int>(source.kind)},
       {"name", source.name},
       {"warnings", source.warnings},
       {"sequence_length", options.sequence_length},
       {"judged", options.judged}});
  const uint64_t size = json.size();
  return kRead + bytes_of(std::span(&size, 1)) + json +
      (source.kind == DataSource::Kind::text ? source.text : source.path);
}

std::pair<DataSource, LoadDataOptions> unpack_request(std::string_view bytes) {
  uint64_t size = 0;
  std::memcpy(&size, bytes.data(), sizeof(size));
  bytes.remove_prefix(sizeof(size));
  const auto json = parse_json(bytes.substr(0, size), "a request");
  LoadDataOptions options;
  options.sequence_length = json.at("sequence_length");
  options.judged = json.at("judged");
  DataSource source{
      static_cast<DataSource::Kind>(json.at("kind").get<int>()),
      "",
      "",
      json.at("name"),
      json.at("warnings").get<std::vector<std::string>>()};
  const bool text = source.kind == DataSource::Kind::text;
  (text ? source.text : source.path) = bytes.substr(size);
  return {std::move(source), options};
}

Json id_json(const std::optional<int32_t>& id) {
  return id ? Json(*id) : Json();
}

std::optional<int32_t> json_id(const Json& json) {
  return json.is_null() ? std::nullopt : std::optional(json.get<int32_t>());
}

/// What answers behind the wall.
class Server {
 public:
  explicit Server(fs::path folder) : folder_(std::move(folder)) {}

  std::string answer(std::string_view request, const ProgressFn& progress) {
    const char asked = request.front();
    request.remove_prefix(1);
    switch (asked) {
      case kLoad:
        return load();
      case kRead:
        return read(request, progress);
      case kTake:
        return take(request);
      case kEncode:
        return encode(std::string(request));
      default:
        return decode(values_of<int32_t>(request));
    }
  }

 private:
  std::string load() {
    const auto file = (folder_ / "tokenizer.json").string();
    Wall::name_files(file, "");
    std::error_code none;
    const auto size = fs::file_size(file, none);
    {
      const Wall::Section section(
          Wall::Part::load, file, none ? 0 : static_cast<size_t>(size));
      tokenizer_.emplace(Tokenizer::load(folder_));
    }
    Wall::name_files(file, tokenizer_->chat_template_file());
    return Json{
        {"vocab_size", tokenizer_->vocab_size()},
        {"bos", id_json(tokenizer_->bos_id())},
        {"eos", id_json(tokenizer_->eos_id())}}
        .dump();
  }

  std::string read(std::string_view request, const ProgressFn& progress) {
    const auto [source, options] = unpack_request(request);
    read_ = {};
    read_ = read_source(*tokenizer_, source, options, progress);
    const auto& summary = read_.summary;
    return to_text(
        {{"count", summary.count},
         {"tokens", summary.tokens},
         {"use", pack_use(summary.use)},
         {"warnings", summary.warnings}});
  }

  std::string take(std::string_view request) {
    const auto order = values_of<size_t>(request);
    const int64_t sources = read_.pool->count_sources(order);
    auto answer = bytes_of(std::span(&sources, 1));
    for (const auto& sequence : read_.pool->take(order)) {
      const uint64_t size = sequence.size();
      answer += bytes_of(std::span(&size, 1));
      answer += bytes_of(std::span<const int32_t>(sequence));
    }
    return answer;
  }

  std::string encode(const std::string& text) {
    const Wall::Section section(
        Wall::Part::tokenize, "a sentence", text.size());
    return bytes_of(std::span<const int32_t>(tokenizer_->encode(text)));
  }

  std::string decode(const std::vector<int32_t>& ids) {
    const Wall::Section section(
        Wall::Part::tokenize, "tokens as text", 16 * ids.size());
    return tokenizer_->decode(ids);
  }

  fs::path folder_;
  std::optional<Tokenizer> tokenizer_;
  ReadSource read_;
};

}  // namespace

TextReader::TextReader(
    const fs::path& folder,
    const std::optional<std::string>& memory_limit)
    : wall_(
          [server = std::make_shared<Server>(
               folder)](std::string_view request, const ProgressFn& progress) {
            return server->answer(request, progress);
          },
          memory_limit ? parse_bytes(*memory_limit, "--memory-limit") : 0) {
  const auto json =
      parse_json(wall_.ask(std::string(1, kLoad)), "the text's process");
  facts_ = {
      json.at("vocab_size"), json_id(json.at("bos")), json_id(json.at("eos"))};
}

SourceSummary TextReader::read(
    const DataSource& source,
    const LoadDataOptions& options,
    const ProgressFn& progress) {
  const auto json = parse_json(
      wall_.ask(pack_request(source, options), progress), "the text's process");
  return {
      json.at("count"),
      json.at("tokens"),
      unpack_use(json.at("use")),
      json.at("warnings").get<std::vector<std::string>>()};
}

std::vector<std::vector<int32_t>> TextReader::take(
    std::span<const size_t> order,
    int64_t& sources) {
  const auto answer = wall_.ask(kTake + bytes_of(order));
  std::string_view bytes = answer;
  const auto number = [&] {
    uint64_t value = 0;
    std::memcpy(&value, bytes.data(), sizeof(value));
    bytes.remove_prefix(sizeof(value));
    return value;
  };
  sources = static_cast<int64_t>(number());
  std::vector<std::vector<int32_t>> sequences;
  while (!bytes.empty()) {
    const size_t size = number() * sizeof(int32_t);
    sequences.push_back(values_of<int32_t>(bytes.substr(0, size)));
    bytes.remove_prefix(size);
  }
  return sequences;
}

std::vector<int32_t> TextReader::encode(const std::string& text) {
  return values_of<int32_t>(wall_.ask(kEncode + text));
}

std::string TextReader::decode(std::span<const int32_t> ids) {
  return wall_.ask(kDecode + bytes_of(ids));
}

}  // namespace pennyweight
