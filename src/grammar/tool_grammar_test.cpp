#include "grammar/tool_grammar.h"

#include <gtest/gtest.h>

#include "grammar/matcher.h"

namespace tessera::grammar {

namespace {

using chat::CallPart;

const chat::ToolFormat kMarked = {
    .parts = {{"<tool_call>{\"name\": \"", CallPart::name}, {"\", \"arguments\": ", CallPart::arguments}},
    .after_call = "}</tool_call>",
    .between_calls = "\n"};
const chat::ToolFormat kBare = {
    .parts = {{"{\"name\": \"", CallPart::name}, {"\", \"parameters\": ", CallPart::arguments}},
    .after_call = "}",
    .several = false};

std::shared_ptr<const Grammar> make(const chat::ToolFormat& format, const ToolChoice& choice = {}) {
  auto schema = [](const char* text) { return *chat::parse_json(text); };
  auto made = answers_with_calls(
      format,
      {{"get", schema(R"({"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]})")},
       {"get_all", schema(R"({"type": "object", "additionalProperties": false})")}},
      choice);
  EXPECT_TRUE(made.ok()) << (made ? "" : made.error().message);
  return *made;
}

bool takes(const std::shared_ptr<const Grammar>& grammar, std::string_view text) {
  Matcher matcher(grammar);
  int at = matcher.start();
  for (char c : text) {
    at = matcher.step(at, static_cast<unsigned char>(c));
    if (at == Matcher::kDead) return false;
  }
  return matcher.accepts(at);
}

constexpr const char* kGet = R"(<tool_call>{"name": "get", "arguments": {"a": 1}}</tool_call>)";

}  // namespace

TEST(ToolGrammar, TextIsFreeUntilTheMarkAndBehindItOnlyCallsGo) {
  auto grammar = make(kMarked);
  for (const char* text : {"", "hello", "a < b <tool_cal l>", "<tool_tool_call", "\xFF"})
    EXPECT_TRUE(takes(grammar, text)) << text;
  EXPECT_TRUE(takes(grammar, std::string("<<tool_call") + kGet));
  EXPECT_TRUE(takes(grammar, std::string("I will call: ") + kGet + "\n" + kGet));
  for (const char* text :
       {"<tool_call>", "<tool_call>hello", R"(<tool_call>{"name": "put", "arguments": {}}</tool_call>)",
        R"(<tool_call>{"name": "get", "arguments": {"a": "x"}}</tool_call>)",
        R"(<tool_call>{"name": "get", "arguments": {"a": 1}}</tool_call> and more)"})
    EXPECT_FALSE(takes(grammar, text)) << text;
}

TEST(ToolGrammar, RequiredBeginsWithACall) {
  auto grammar = make(kMarked, {.required = true});
  EXPECT_TRUE(takes(grammar, kGet));
  EXPECT_TRUE(takes(grammar, R"(<tool_call>{"name": "get_all", "arguments": {}}</tool_call>)"));
  EXPECT_TRUE(takes(grammar, std::string(kGet) + "\n" + kGet));
  EXPECT_FALSE(takes(grammar, "") || takes(grammar, "hello") || takes(grammar, std::string("\n") + kGet));
  auto one = make(kMarked, {.required = true, .several = false});
  EXPECT_TRUE(takes(one, kGet));
  EXPECT_FALSE(takes(one, std::string(kGet) + "\n" + kGet));
}

TEST(ToolGrammar, BareJsonIsACallOnlyAsTheFirstWords) {
  auto grammar = make(kBare);
  EXPECT_TRUE(takes(grammar, R"({"name": "get", "parameters": {"a": 1}})"));
  EXPECT_TRUE(takes(grammar, R"(So: {"name": "put"})") && takes(grammar, R"({"nam)") && takes(grammar, "{}"));
  EXPECT_FALSE(takes(grammar, R"({"name": "put"})"));
}

TEST(ToolGrammar, InsteadOfTextJsonOfASchema) {
  chat::Value schema = *chat::parse_json(R"({"type": "array", "items": {"type": "boolean"}})");
  auto grammar = make(kMarked, {.content_schema = &schema});
  EXPECT_TRUE(takes(grammar, "[true]") && takes(grammar, kGet));
  EXPECT_FALSE(takes(grammar, "hello") || takes(grammar, std::string("[true]") + kGet));
}

TEST(ToolGrammar, NamesTheFunctionAndThePlaceOfWhatIsNotSupported) {
  auto made = answers_with_calls(
      kMarked, {{"f", *chat::parse_json(R"({"type": "object", "properties": {"x": {"not": {}}}})")}}, {});
  ASSERT_FALSE(made.ok());
  EXPECT_NE(made.error().message.find("tools[0], the parameters of 'f'"), std::string::npos);
  EXPECT_NE(made.error().message.find("#/properties/x: 'not'"), std::string::npos);
}

}  // namespace tessera::grammar
