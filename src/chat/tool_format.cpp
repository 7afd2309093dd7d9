#include "chat/tool_format.h"

#include <algorithm>
#include <cctype>

namespace tessera::chat {

namespace {

constexpr std::string_view kName = "probe_function", kArguments = R"({"probe_key": "probe_value"})",
                           kId = "probeid01", kContent = "probe content";
static_assert(kId.size() == kCallIdLength);

Dict dict_of(std::initializer_list<std::pair<const char*, Value>> items) {
  Dict out;
  for (const auto& [key, value] : items) out.set(key, value);
  return out;
}

Value probe_tool() {
  Dict property = dict_of({{"type", "string"}, {"description", "a word"}});
  Dict parameters = dict_of({{"type", "object"},
                             {"properties", dict_of({{"probe_key", std::move(property)}})},
                             {"required", std::vector<Value>{"probe_key"}}});
  Dict function =
      dict_of({{"name", kName}, {"description", "does something"}, {"parameters", std::move(parameters)}});
  return dict_of({{"type", "function"}, {"function", std::move(function)}});
}

struct History {
  bool arguments_as_text, content_as_text;
};

Value message_with_calls(int count, History history) {
  Value arguments = history.arguments_as_text ? Value(kArguments) : *parse_json(kArguments);
  Dict call = dict_of(
      {{"id", kId}, {"type", "function"}, {"function", dict_of({{"name", kName}, {"arguments", arguments}})}});
  return dict_of({{"role", "assistant"},
                  {"content", history.content_as_text ? Value("") : Value()},
                  {"tool_calls", std::vector<Value>(static_cast<size_t>(count), Value(call))}});
}

// A place between characters and between marks such as <tag> or [TAG], at `end` or in front of it.
size_t whole_beginning(std::string_view text, size_t end) {
  while (end > 0 && end < text.size() && (text[end] & 0xC0) == 0x80) --end;
  for (auto [open, close] : {std::pair('<', '>'), std::pair('[', ']')}) {
    size_t last = text.substr(0, end).rfind(open);
    if (last == std::string_view::npos) continue;
    size_t closes = text.find(close, last);
    if (closes != std::string_view::npos && closes >= end) end = last;
  }
  return end;
}

size_t common_beginning(std::string_view a, std::string_view b) {
  return static_cast<size_t>(std::mismatch(a.begin(), a.end(), b.begin(), b.end()).first - a.begin());
}
size_t common_end(std::string_view a, std::string_view b) {
  return static_cast<size_t>(std::mismatch(a.rbegin(), a.rend(), b.rbegin(), b.rend()).first - a.rbegin());
}

// The longest end of both that does not begin inside of a mark.
std::string_view shared_end(std::string_view a, std::string_view b) {
  std::string_view end = a.substr(a.size() - common_end(a, b));
  size_t open = end.find('<'), close = end.find('>');
  if (close != std::string_view::npos && close < open) end.remove_prefix(close + 1);
  while (!end.empty() && (end.front() & 0xC0) == 0x80) end.remove_prefix(1);
  return end;
}

// An answer cut at the words that are known.
struct Pieces {
  std::vector<CallPart> parts;
  std::string tail;
};
Pieces cut(std::string_view answer) {
  Pieces out;
  while (true) {
    size_t first = std::string_view::npos, length = 0;
    CallPart::Slot slot{};
    for (auto [word, kind] : {std::pair(kName, CallPart::name), std::pair(kArguments, CallPart::arguments),
                              std::pair(kId, CallPart::id)}) {
      size_t at = answer.find(word);
      if (at < first) first = at, length = word.size(), slot = kind;
    }
    if (first == std::string_view::npos) break;
    out.parts.push_back({std::string(answer.substr(0, first)), slot});
    answer.remove_prefix(first + length);
  }
  out.tail = answer;
  return out;
}

bool has(const Pieces& pieces, CallPart::Slot slot) {
  return std::any_of(pieces.parts.begin(), pieces.parts.end(),
                     [&](const CallPart& part) { return part.slot == slot; });
}

bool is_name_character(char c) {
  return std::isalnum(static_cast<unsigned char>(c)) || c == '_' || c == '-' || c == '.';
}

class Prober {
 public:
  Prober(const ModelChat& model, std::span<const std::string> end_texts)
      : model_(model), end_texts_(end_texts) {}

  Result<ToolFormat> find() {
    TESSERA_ASSIGN_OR_RETURN(begun_, render({}, true));
    TESSERA_ASSIGN_OR_RETURN(std::string with_content,
                             answer(dict_of({{"role", "assistant"}, {"content", kContent}})));
    size_t at = with_content.find(kContent);
    if (at == std::string::npos) return invalid("chat template: it does not write answers");
    content_tail_ = with_content.substr(at + kContent.size());
    for (bool arguments_as_text : {false, true})
      for (bool content_as_text : {false, true}) {
        History history{arguments_as_text, content_as_text};
        auto one = answer(message_with_calls(1, history));
        if (!one) continue;
        Pieces pieces = cut(*one);
        if (!has(pieces, CallPart::name) || !has(pieces, CallPart::arguments)) continue;
        return format_of(std::move(pieces), with_content.substr(0, at), history);
      }
    return invalid("chat template: it does not write tool calls, or not with their arguments as JSON");
  }

 private:
  Result<std::string> render(std::vector<Value> answers, bool begin_answer) const {
    Dict variables = model_.special_tokens;
    std::vector<Value> messages = {dict_of({{"role", "user"}, {"content", "probe question"}})};
    messages.insert(messages.end(), answers.begin(), answers.end());
    variables.set("messages", std::move(messages));
    variables.set("tools", std::vector<Value>{probe_tool()});
    variables.set("add_generation_prompt", begin_answer);
    return model_.chat_template.render(variables);
  }

  // What the model is expected to write for this message, and the end of its turn.
  Result<std::string> answer(Value message) const {
    TESSERA_ASSIGN_OR_RETURN(std::string whole, render({std::move(message)}, false));
    size_t shared = common_beginning(whole, begun_);
    if (shared < begun_.size()) shared = whole_beginning(whole, shared);
    return whole.substr(shared);
  }

  std::string without_turn_end(std::string tail) const {
    tail.resize(tail.size() - shared_end(tail, content_tail_).size());
    for (const std::string& end : end_texts_)
      if (!end.empty() && tail.ends_with(end)) tail.resize(tail.size() - end.size());
    return tail;
  }

  Result<ToolFormat> format_of(Pieces one, std::string before_content, History history) const {
    ToolFormat out{.parts = std::move(one.parts),
                   .after_call = without_turn_end(std::move(one.tail)),
                   .before_content = std::move(before_content),
                   .arguments_as_text = history.arguments_as_text,
                   .content_as_text = history.content_as_text};
    // What comes in front of text and of calls alike, such as empty thoughts, is not part of the form.
    if (out.parts[0].text.starts_with(out.before_content)) {
      out.parts[0].text.erase(0, out.before_content.size());
      out.before_content.clear();
    }
    read_two(answer(message_with_calls(2, history)), out);
    return checked(std::move(out));
  }

  // Two calls tell what belongs to each and what to the list of them.
  void read_two(Result<std::string> answer, ToolFormat& out) const {
    size_t slots = out.parts.size();
    Pieces two = answer ? cut(*answer) : Pieces();
    out.several = two.parts.size() == 2 * slots;
    if (!out.several) return;
    std::string_view between = two.parts[slots].text;
    std::string tail = without_turn_end(std::move(two.tail));
    size_t own_end = common_beginning(between, tail);
    own_end = std::min(whole_beginning(between, own_end), whole_beginning(tail, own_end));
    out.after_call = between.substr(0, own_end);
    out.after_calls = tail.substr(own_end);
    between.remove_prefix(own_end);
    std::string& opening = out.parts[0].text;
    std::string_view own_beginning = shared_end(between, opening);
    out.between_calls = between.substr(0, between.size() - own_beginning.size());
    out.before_calls = opening.substr(0, opening.size() - own_beginning.size());
    opening = own_beginning;
  }

  static Result<ToolFormat> checked(ToolFormat format) {
    for (size_t i = 0; i < format.parts.size(); ++i) {
      bool ends_in_time = i + 1 == format.parts.size() || (!format.parts[i + 1].text.empty() &&
                                                           !is_name_character(format.parts[i + 1].text[0]));
      if (format.parts[i].slot != CallPart::arguments && !ends_in_time)
        return invalid("chat template: it writes nothing behind the name of a called function");
    }
    if (format.opening().empty() && format.before_content.empty())
      return invalid("chat template: it writes nothing in front of the name of a called function");
    return format;
  }

  const ModelChat& model_;
  std::span<const std::string> end_texts_;
  std::string begun_;         // the prompt of an answer
  std::string content_tail_;  // the end of a turn of text
};

// The mark at the beginning of `text` but for white space; empty without one.
std::string_view mark_of(std::string_view text) {
  text.remove_prefix(std::min(text.find_first_not_of(" \n\t"), text.size()));
  bool bracket = text.size() > 1 && text[0] == '[' && std::isupper(static_cast<unsigned char>(text[1]));
  if (!text.starts_with('<') && !bracket) return {};
  size_t close = text.find(bracket ? ']' : '>');
  return text.substr(0, close == std::string_view::npos ? close : close + 1);
}

}  // namespace

bool ToolFormat::has_mark() const {
  std::string text = opening();
  return !mark_of(text).empty();
}

std::string ToolFormat::trigger() const {
  std::string text = opening();
  std::string mark(mark_of(text));
  return mark.empty() ? text : mark;
}

std::string ToolFormat::behind_trigger() const {
  std::string text = opening(), found = trigger();
  return text.substr(text.find(found) + found.size());
}

Result<ToolFormat> find_tool_format(const ModelChat& model, std::span<const std::string> end_texts) {
  try {
    return Prober(model, end_texts).find();
  } catch (const TemplateError& error) {
    return invalid("chat template: {}", error.what());
  }
}

}  // namespace tessera::chat
