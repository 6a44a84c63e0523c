#include "text/rows/rows.h"

#include <map>

#include "core/json.h"

namespace pennyweight {

namespace {

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
    throw RowError(where, std::string("whose ") + key + " is no text");
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
    throw RowError(where, "with content that is neither text nor a list");
  }
  std::string text;
  for (const Json& part : content) {
    if (part.is_string()) {
      text += part.get<std::string>();
    } else if (part.is_object()) {
      bool valued =
          !find(part, "text") && text_of(part, "type", where) == "text";
      text += text_of(part, valued ? "value" : "text", where);
    } else if (!part.is_null()) {
      throw RowError(where, "with a part of content that is no text");
    }
  }
  return text;
}

/// Who speaks in ShareGPT's rows; a chat template knows its own names.
std::string role_of(const std::string& from) {
  static const std::map<std::string, std::string> names = {
      {"human", "user"},
      {"gpt", "assistant"},
      {"bot", "assistant"},
      {"model", "assistant"},
      {"chatgpt", "assistant"},
      {"bing", "assistant"},
      {"bard", "assistant"},
      {"function_call", "assistant"},
      {"function_response", "tool"},
      {"observation", "tool"}};
  const auto it = names.find(from);
  return it == names.end() ? from : it->second;
}

Json message(const std::string& role, const std::string& content) {
  return Json{{"role", role}, {"content", content}};
}

Json to_message(const Json& entry, const std::string& where) {
  if (!entry.is_object()) {
    throw RowError(where, "with a message that is no object");
  }
  bool shared = find(entry, "from") && !find(entry, "role");
  std::string role = text_of(entry, shared ? "from" : "role", where);
  if (role.empty()) {
    throw RowError(where, "with a message without a role");
  }
  const Json* content = find(entry, shared ? "value" : "content");
  if (shared && !content) {
    content = find(entry, "content");
  }
  Json out = shared ? Json::object() : entry;
  out["role"] = shared ? role_of(role) : role;
  out["content"] = content_of(content ? *content : Json(), where);
  return out;
}

Json to_messages(const Json& list, const std::string& where) {
  if (list.is_string()) {
    Json parsed;
    try {
      parsed = parse_json(list.get<std::string>(), where);
    } catch (const Error&) {
      throw RowError(where, "whose messages are no list");
    }
    // A string within would ask for the same again.
    return to_messages(parsed.is_string() ? Json() : parsed, where);
  }
  if (!list.is_array()) {
    throw RowError(where, "whose messages are no list");
  }
  if (list.empty()) {
    throw RowError(where, "without messages");
  }
  Json messages = Json::array();
  for (const Json& entry : list) {
    messages.push_back(to_message(entry, where));
  }
  return messages;
}

/// With the row's system prompt first, unless the messages have one.
Json to_chat(const Json& row, const Json& list, const std::string& where) {
  Json messages = to_messages(list, where);
  const Json* system = find(row, "system");
  if (!system || !system->is_string() ||
      system->get_ref<const std::string&>().empty() ||
      messages[0].at("role") == "system") {
    return messages;
  }
  messages.insert(
      messages.begin(), message("system", system->get<std::string>()));
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

std::string described(
    const std::string& where,
    const std::string& reason,
    const std::string& detail) {
  return where + ": a row " + reason + (detail.empty() ? "" : ", " + detail);
}

/// A list of messages that stands where an object is usual.
bool is_chat(const Json& json) {
  return json.is_array() && !json.empty() && json[0].is_object() &&
      (find(json[0], "role") || find(json[0], "from"));
}

[[noreturn]] void refuse(const Json& json, const std::string& where) {
  for (const char* key :
       {"text", "messages", "conversations", "prompt", "completion"}) {
    const auto it = json.find(key);
    if (it != json.end() && it->is_null()) {
      throw RowError(where, std::string("with null ") + key);
    }
  }
  throw RowError(
      where,
      "without text, messages, conversations, prompt and completion, or "
      "instruction and output");
}

}  // namespace

RowError::RowError(
    const std::string& where,
    const std::string& reason,
    const std::string& detail)
    : Error(corrupt_error("data", described(where, reason, detail))),
      where_(where),
      reason_(reason),
      detail_(detail) {}

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
    return {json.get<std::string>(), nullptr, where};
  }
  if (is_chat(json)) {
    return {"", to_messages(json, where), where};
  }
  if (!json.is_object()) {
    throw RowError(where, "that is neither an object nor text");
  }
  const Json* inner = find(json, "row");
  if (inner && inner->is_object() && find(json, "row_idx") &&
      !find(*inner, "row")) {
    return to_row(*inner, where);
  }
  const Json* text = find(json, "text");
  for (const char* key : {"messages", "conversations"}) {
    const Json* list = find(json, key);
    if (list && !(text && list->empty())) {
      return {"", to_chat(json, *list, where), where};
    }
  }
  if (text) {
    return {text_of(json, "text", where), nullptr, where};
  }
  if (find(json, "prompt") && find(json, "completion")) {
    return {"", to_exchange(json, where), where};
  }
  if (find(json, "output") &&
      (find(json, "instruction") || find(json, "input"))) {
    return {"", to_instruction(json, where), where};
  }
  refuse(json, where);
}

}  // namespace pennyweight
