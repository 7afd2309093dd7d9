#include <gtest/gtest.h>

#include "chat/tool_parser.h"

namespace tessera::chat {

namespace {

ToolFormat format_of(std::string_view source, std::vector<std::string> ends = {"<end>"}) {
  ModelChat model{
      .chat_template = *ChatTemplate::parse(source), .source = std::string(source), .special_tokens = {}};
  auto found = find_tool_format(model, ends);
  EXPECT_TRUE(found.ok()) << (found ? "" : found.error().message);
  return found ? *found : ToolFormat{.parts = {{"", CallPart::name}, {":", CallPart::arguments}}};
}

constexpr std::string_view kHermes = R"({%- for m in messages %}
{{- '<start>' + m.role + '\n' }}
{%- for c in m.tool_calls %}{{ '' if loop.first else '\n' }}<tool_call>
{"name": "{{ c.function.name }}", "arguments": {{ c.function.arguments | tojson }}}
</tool_call>{% endfor %}
{%- if not m.tool_calls %}{{ m.content }}{% endif %}{{ '<end>\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<start>assistant\n' }}{% endif %})";

constexpr std::string_view kMistral = R"({%- for m in messages %}
{%- if m.tool_calls %}[TOOL_CALLS][{% for c in m.tool_calls %}
{{- (c.function | tojson)[:-1] + ', "id": "' + c.id + '"}' + ('' if loop.last else ', ') }}
{%- endfor %}]<end>
{%- elif m.role == 'user' %}[INST]{{ m.content }}[/INST]
{%- else %}{{ m.content + '<end>' }}{% endif %}
{%- endfor %})";

constexpr std::string_view kLlama = R"({%- for m in messages %}
{%- if m.tool_calls and m.tool_calls | length > 1 %}{{ raise_exception('one call only') }}{% endif %}
{{- '<|' + m.role + '|>' }}
{%- if m.tool_calls %}{{ '{"name": "' + m.tool_calls[0].function.name + '", "parameters": ' }}
{{- m.tool_calls[0].function.arguments | tojson }}{{ '}' }}
{%- else %}{{ m.content }}{% endif %}{{ '<end>' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %})";

// Text in front of it says who is spoken to; arguments are joined as text.
constexpr std::string_view kRecipient = R"({%- for m in messages %}
{{- '<|' + m.role + '|>' }}
{%- if m.content %}{{ ('>>>all\n' if m.role == 'assistant' else '') + m.content }}{% endif %}
{%- for c in m.tool_calls %}{{ '>>>' + c.function.name + '\n' + c.function.arguments }}{% endfor %}{{ '<end>' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|assistant|>>>>' }}{% endif %})";

struct Read {
  std::string content;
  std::vector<std::pair<std::string, std::string>> calls;
  bool operator==(const Read&) const = default;
};

void add(Read& all, const AnswerPiece& piece) {
  all.content += piece.content;
  for (const CallPiece& call : piece.calls) {
    if (call.name) all.calls.emplace_back(*call.name, "");
    EXPECT_EQ(call.index, std::ssize(all.calls) - 1);
    all.calls.back().second += call.arguments;
  }
}

// Whole, in bytes, and cut in two at every place: all must give the same.
Read read(const ToolFormat& format, std::string_view text,
          ToolParser::Begin begin = ToolParser::with_call_or_text) {
  auto in_pieces = [&](std::vector<std::string_view> pieces) {
    ToolParser parser(format, begin);
    Read out;
    for (auto piece : pieces) add(out, parser.push(piece));
    add(out, parser.finish());
    return out;
  };
  Read whole = in_pieces({text});
  std::vector<std::string_view> bytes;
  for (size_t i = 0; i < text.size(); ++i) {
    bytes.push_back(text.substr(i, 1));
    EXPECT_EQ(in_pieces({text.substr(0, i), text.substr(i)}), whole) << i;
  }
  EXPECT_EQ(in_pieces(bytes), whole);
  return whole;
}

const Read kTwoCalls = {"", {{"f", R"({"a": "}\"{"})"}, {"g", R"({"b": [{}]})"}}};

}  // namespace

TEST(ToolFormat, MarkedCallsAreReadOffTheTemplate) {
  ToolFormat format = format_of(kHermes);
  EXPECT_EQ(format.before_calls, "");
  EXPECT_EQ(format.parts[0].text, "<tool_call>\n{\"name\": \"");
  EXPECT_EQ(format.parts[1].text, "\", \"arguments\": ");
  EXPECT_EQ(format.after_call, "}\n</tool_call>");
  EXPECT_EQ(format.between_calls, "\n");
  EXPECT_EQ(format.after_calls, "");
  EXPECT_EQ(format.trigger(), "<tool_call>");
  EXPECT_FALSE(format.arguments_as_text);
}

TEST(ToolFormat, ListsOfCallsHaveAnEndAndIds) {
  ToolFormat format = format_of(kMistral);
  EXPECT_EQ(format.before_calls, "[TOOL_CALLS][");
  EXPECT_EQ(format.parts[0].text, "{\"name\": \"");
  ASSERT_EQ(format.parts.size(), 3U);
  EXPECT_EQ(format.parts[2].slot, CallPart::id);
  EXPECT_EQ(format.after_call, "\"}");
  EXPECT_EQ(format.between_calls, ", ");
  EXPECT_EQ(format.after_calls, "]");
  EXPECT_EQ(format.trigger(), "[TOOL_CALLS]");
}

TEST(ToolFormat, BareJsonIsACallOnlyAsTheFirstWords) {
  ToolFormat format = format_of(kLlama);
  EXPECT_FALSE(format.several);
  EXPECT_FALSE(format.has_mark());
  EXPECT_EQ(format.trigger(), "{\"name\": \"");
  EXPECT_EQ(format.after_call, "}");
  EXPECT_EQ(read(format, R"({"name": "f", "parameters": {"a": 1}})"), (Read{"", {{"f", R"({"a": 1})"}}}));
  EXPECT_EQ(read(format, R"(So {"name": "f")"), (Read{R"(So {"name": "f")", {}}));
  EXPECT_EQ(read(format, R"({"nam)"), (Read{R"({"nam)", {}}));
}

TEST(ToolFormat, RecipientsAndArgumentsAsText) {
  ToolFormat format = format_of(kRecipient);
  EXPECT_TRUE(format.arguments_as_text);
  EXPECT_EQ(format.opening(), "");
  EXPECT_EQ(format.before_content, "all\n");
  EXPECT_EQ(format.between_calls, ">>>");
  EXPECT_EQ(read(format, "all\nHi >> there"), (Read{"Hi >> there", {}}));
  EXPECT_EQ(read(format, "f\n{\"a\": \"}\\\"{\"}>>>g\n{\"b\": [{}]}"), kTwoCalls);
  EXPECT_EQ(read(format, "all\nHi>>>f\n{}"), (Read{"Hi", {{"f", "{}"}}}));
}

TEST(ToolFormat, TemplateWithoutCallsSaysSo) {
  ModelChat model{.chat_template = *ChatTemplate::parse("{% for m in messages %}{{ m.content }}{% endfor %}"),
                  .source = "",
                  .special_tokens = {}};
  auto found = find_tool_format(model, {});
  ASSERT_FALSE(found.ok());
  EXPECT_NE(found.error().message.find("does not write tool calls"), std::string::npos);
}

TEST(ToolParser, PiecesJoinToTheWholeAnswer) {
  ToolFormat hermes = format_of(kHermes), mistral = format_of(kMistral);
  std::string two =
      "<tool_call>\n{\"name\": \"f\", \"arguments\": {\"a\": \"}\\\"{\"}}\n</tool_call>\n"
      "<tool_call>\n{\"name\": \"g\", \"arguments\": {\"b\": [{}]}}\n</tool_call>";
  EXPECT_EQ(read(hermes, two), kTwoCalls);
  EXPECT_EQ(read(hermes, two, ToolParser::with_call), kTwoCalls);
  EXPECT_EQ(read(hermes, "I see <tool_cal <tool_call>\n{\"name\": \"f\", \"arguments\": {}}\n</tool_call>"),
            (Read{"I see <tool_cal ", {{"f", "{}"}}}));
  EXPECT_EQ(read(hermes, "nothing <tool_"), (Read{"nothing <tool_", {}}));
  EXPECT_EQ(read(hermes, R"({"a": "<tool_call>"})", ToolParser::with_call_or_json),
            (Read{R"({"a": "<tool_call>"})", {}}));
  EXPECT_EQ(read(mistral, R"([TOOL_CALLS][{"name": "f", "arguments": {"a": "}\"{"}, "id": "123456789"}, )"
                          R"({"name": "g", "arguments": {"b": [{}]}, "id": "abcdefghi"}])"),
            kTwoCalls);
}

TEST(ToolParser, CutCallKeepsWhatCame) {
  ToolFormat hermes = format_of(kHermes);
  EXPECT_EQ(read(hermes, "<tool_call>\n{\"name\": \"f\", \"arguments\": {\"a\""),
            (Read{"", {{"f", "{\"a\""}}}));
}

}  // namespace tessera::chat
