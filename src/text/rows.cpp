#include "text/rows.h"

#include <algorithm>
#include <cctype>

#include "core/atomic_file.h"
#include "core/error.h"
#include "text/rust_text.h"

namespace pennyweight {

namespace {

constexpr const char* kWhere = "data";
constexpr size_t kFileLimit = size_t{2} << 30;
constexpr size_t kParquetChunk = size_t{1} << 20;

[[noreturn]] void bad_row(const std::string& where, const std::string& what) {
  throw Error(ErrorCode::corrupt, kWhere, where + ": " + what);
}

std::string extension_of(const fs::path& path) {
  std::string extension = path.extension().string();
  std::transform(
      extension.begin(), extension.end(), extension.begin(), [](char c) {
        return static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
      });
  return extension;
}

const Json* find(const Json& json, const char* key) {
  auto it = json.find(key);
  return it == json.end() || it->is_null() ? nullptr : &*it;
}

std::string
text_of(const Json& json, const char* key, const std::string& where) {
  const Json* value = find(json, key);
  if (!value) {
    return "";
  }
  if (!value->is_string()) {
    bad_row(where, std::string("\"") + key + "\" is no text");
  }
  return value->get<std::string>();
}

/// Content is a string or a list of parts, of which those with text count.
std::string content_of(const Json& content, const std::string& where) {
  if (content.is_null()) {
    return "";
  }
  if (content.is_string()) {
    return content.get<std::string>();
  }
  if (!content.is_array()) {
    bad_row(where, "a message's content is neither text nor a list of parts");
  }
  std::string text;
  for (const Json& part : content) {
    if (part.is_string()) {
      text += part.get<std::string>();
    } else if (part.is_object()) {
      bool valued =
          !find(part, "text") && text_of(part, "type", where) == "text";
      text += text_of(part, valued ? "value" : "text", where);
    } else {
      bad_row(
          where, "a part of a message's content is neither text nor object");
    }
  }
  return text;
}

std::string role_of(const std::string& from) {
  if (from == "human") {
    return "user";
  }
  return from == "gpt" || from == "bot" || from == "model" ? "assistant" : from;
}

Json message(const std::string& role, const std::string& content) {
  return Json{{"role", role}, {"content", content}};
}

Json to_messages(const Json& list, const std::string& where) {
  if (!list.is_array() || list.empty()) {
    bad_row(where, "the messages are no list, or an empty one");
  }
  Json messages = Json::array();
  for (const Json& entry : list) {
    if (!entry.is_object()) {
      bad_row(where, "a message is no object");
    }
    bool shared = find(entry, "from") && !find(entry, "role");
    std::string role = text_of(entry, shared ? "from" : "role", where);
    if (role.empty()) {
      bad_row(where, "a message has no role");
    }
    const Json* content = find(entry, shared ? "value" : "content");
    Json out = shared ? Json::object() : entry;
    out["role"] = shared ? role_of(role) : role;
    out["content"] = content_of(content ? *content : Json(), where);
    messages.push_back(std::move(out));
  }
  return messages;
}

/// `prompt` and `completion` are texts or lists of messages.
Json to_exchange(const Json& row, const std::string& where) {
  Json messages = Json::array();
  for (auto [key, role] :
       {std::pair{"prompt", "user"}, std::pair{"completion", "assistant"}}) {
    const Json* value = find(row, key);
    if (value && value->is_array()) {
      for (Json& entry : to_messages(*value, where)) {
        messages.push_back(std::move(entry));
      }
    } else if (value) {
      messages.push_back(message(role, text_of(row, key, where)));
    }
  }
  return messages;
}

Json to_instruction(const Json& row, const std::string& where) {
  std::string prompt = text_of(row, "instruction", where);
  std::string input = text_of(row, "input", where);
  if (!input.empty()) {
    prompt += (prompt.empty() ? "" : "\n\n") + input;
  }
  Json messages = Json::array();
  if (std::string system = text_of(row, "system", where); !system.empty()) {
    messages.push_back(message("system", system));
  }
  messages.push_back(message("user", prompt));
  messages.push_back(message("assistant", text_of(row, "output", where)));
  return messages;
}

void read_json_rows(const fs::path& path, const RowFn& each) {
  Json json = parse_json(read_text(path), path.string());
  const Json* list = &json;
  if (json.is_object()) {
    // {"data": [...]}, or one row.
    for (const auto& [key, value] : json.items()) {
      if (value.is_array() && !value.empty() && value[0].is_object() &&
          key != "messages" && key != "conversations") {
        list = &value;
        break;
      }
    }
  }
  if (list->is_object()) {
    each(to_row(*list, path.string()));
    return;
  }
  if (!list->is_array()) {
    bad_row(path.string(), "holds no list of rows");
  }
  for (size_t i = 0; i < list->size(); ++i) {
    std::string where = path.string() + ", row " + std::to_string(i + 1);
    if (!each(to_row((*list)[i], where))) {
      return;
    }
  }
}

/// Counts lines from `first`; false where `each` stopped.
bool read_lines(
    std::string_view text,
    const std::string& name,
    const char* unit,
    size_t& line,
    const RowFn& each) {
  while (!text.empty()) {
    size_t end = text.find('\n');
    std::string_view part = text.substr(0, end);
    text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
    ++line;
    if (part.find_first_not_of(" \t\r") == std::string_view::npos) {
      continue;
    }
    std::string where = name + ", " + unit + " " + std::to_string(line);
    if (!each(to_row(parse_json(part, where), where))) {
      return false;
    }
  }
  return true;
}

void read_parquet_rows(const fs::path& path, const RowFn& each) {
  std::string columns;
  for (const std::string& name : row_columns()) {
    columns += name + "\n";
  }
  std::string name = path.string();
  PwParquet* handle = nullptr;
  RustBytes error;
  int32_t status = pw_parquet_open(
      rust_data(name),
      name.size(),
      rust_data(columns),
      columns.size(),
      &handle,
      error.out());
  ParquetHandle rows(handle);
  check_rust(status, error, kWhere, name);
  for (size_t row = 0;;) {
    RustBytes out;
    status = pw_parquet_next(rows.get(), kParquetChunk, out.out(), error.out());
    check_rust(status, error, kWhere, name);
    if (out.size() == 0 || !read_lines(out.view(), name, "row", row, each)) {
      return;
    }
  }
}

size_t utf8_length(unsigned char lead) {
  if (lead < 0x80) {
    return 1;
  }
  if (lead >= 0xC2 && lead < 0xE0) {
    return 2;
  }
  if (lead >= 0xE0 && lead < 0xF0) {
    return 3;
  }
  return lead >= 0xF0 && lead < 0xF5 ? 4 : 0;
}

}  // namespace

const std::vector<std::string>& row_columns() {
  static const std::vector<std::string> names = {
      "text",
      "messages",
      "conversations",
      "prompt",
      "completion",
      "instruction",
      "input",
      "output",
      "system"};
  return names;
}

Row to_row(const Json& json, const std::string& where) {
  if (json.is_string()) {
    return {json.get<std::string>(), nullptr};
  }
  if (!json.is_object()) {
    bad_row(where, "a row is neither an object nor text");
  }
  for (const char* key : {"messages", "conversations"}) {
    if (const Json* list = find(json, key)) {
      return {"", to_messages(*list, where)};
    }
  }
  if (find(json, "text")) {
    return {text_of(json, "text", where), nullptr};
  }
  if (find(json, "prompt") && find(json, "completion")) {
    return {"", to_exchange(json, where)};
  }
  if (find(json, "output") &&
      (find(json, "instruction") || find(json, "input"))) {
    return {"", to_instruction(json, where)};
  }
  bad_row(
      where,
      "a row has none of text, messages, conversations, prompt and "
      "completion, or instruction and output");
}

bool is_row_file(const fs::path& path) {
  std::string extension = extension_of(path);
  return extension == ".json" || extension == ".jsonl" ||
      extension == ".ndjson" || extension == ".parquet";
}

void read_rows(const fs::path& path, const RowFn& each) {
  std::string extension = extension_of(path);
  if (extension == ".parquet") {
    read_parquet_rows(path, each);
  } else if (extension == ".json") {
    read_json_rows(path, each);
  } else {
    size_t line = 0;
    read_lines(read_text(path), path.string(), "line", line, each);
  }
}

std::string read_text(const fs::path& path) {
  std::string text = read_file(path, kFileLimit);
  if (text.starts_with("\xEF\xBB\xBF")) {
    text.erase(0, 3);
  }
  if (size_t at = find_invalid_utf8(text); at != std::string::npos) {
    throw Error(
        ErrorCode::corrupt,
        kWhere,
        path.string() + " is not valid UTF-8 at byte " + std::to_string(at) +
            "; convert it to UTF-8");
  }
  if (text.find('\r') == std::string::npos) {
    return text;
  }
  std::string unix_text;
  unix_text.reserve(text.size());
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '\r') {
      unix_text += text[i];
    } else if (i + 1 == text.size() || text[i + 1] != '\n') {
      unix_text += '\n';
    }
  }
  return unix_text;
}

size_t find_invalid_utf8(std::string_view text) {
  for (size_t i = 0; i < text.size();) {
    auto lead = static_cast<unsigned char>(text[i]);
    size_t length = utf8_length(lead);
    if (length == 0 || i + length > text.size()) {
      return i;
    }
    for (size_t k = 1; k < length; ++k) {
      auto next = static_cast<unsigned char>(text[i + k]);
      // The second byte's range keeps out overlong forms, surrogates and
      // what lies past U+10FFFF (Unicode 15, table 3-7).
      unsigned low = 0x80;
      unsigned high = 0xBF;
      if (k == 1) {
        low = lead == 0xE0 ? 0xA0 : lead == 0xF0 ? 0x90 : 0x80;
        high = lead == 0xED ? 0x9F : lead == 0xF4 ? 0x8F : 0xBF;
      }
      if (next < low || next > high) {
        return i;
      }
    }
    i += length;
  }
  return std::string_view::npos;
}

}  // namespace pennyweight
