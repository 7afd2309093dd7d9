#include <gtest/gtest.h>

#include "grammar/json_schema.h"
#include "grammar/matcher.h"

namespace tessera::grammar {

namespace {

// Whether the whole text is taken; a cut one is not.
bool takes(const Result<std::shared_ptr<const Grammar>>& grammar, std::string_view text) {
  Matcher matcher(*grammar);
  int at = matcher.start();
  for (char c : text) {
    at = matcher.step(at, static_cast<unsigned char>(c));
    if (at == Matcher::kDead) return false;
  }
  return matcher.accepts(at);
}

Result<std::shared_ptr<const Grammar>> of(std::string_view schema) {
  return json_of_schema(*chat::parse_json(schema));
}

}  // namespace

TEST(JsonSchema, TakesWhatJsonIsAndNothingElse) {
  auto any = of("true");
  for (const char* json : {"{}", "[]", "null", "true", "-0", "0.5", "1e-7", "12E+3", "\"\"",
                           "\"\\u00e9\\n\xC3\xA9\xF0\x9F\x8E\x89\"", "{\"a\": [1, {\"b\":null}], \"\": \"x\"}",
                           "[[[]]]", "{\n  \"a\": 1\n}"})
    EXPECT_TRUE(takes(any, json)) << json;
  for (const char* text : {"",
                           "{",
                           "[1,]",
                           "{\"a\":}",
                           "{,}",
                           "01",
                           "1.",
                           ".5",
                           "+1",
                           "1e",
                           "nul",
                           "\"\n\"",
                           "\"\\x\"",
                           "\"\\ud800\"",
                           "\"\xC3\"",
                           "\"\xED\xA0\x80\"",
                           "\"\xC0\x80\"",
                           "{1:2}",
                           "[] []",
                           "'a'"})
    EXPECT_FALSE(takes(any, text)) << text;
}

TEST(JsonSchema, RequiredStaysAndOptionalMayGo) {
  auto grammar = of(R"({"properties": {"a": {"type": "null"}, "b": {"type": "boolean"}}, "required": ["b"]})");
  EXPECT_TRUE(takes(grammar, R"({"a": null, "b": true})"));
  EXPECT_TRUE(takes(grammar, R"({"b":false})"));
  for (const char* text :
       {"{}", R"({"a":null})", R"({"b":true,"a":null})", R"({"b":true,"c":1})", R"({"b":1})"})
    EXPECT_FALSE(takes(grammar, text)) << text;
}

TEST(JsonSchema, CountsItemsAndCharactersNotBytes) {
  auto items = of(R"({"type": "array", "items": {"const": 1}, "minItems": 1, "maxItems": 2})");
  EXPECT_TRUE(takes(items, "[1]") && takes(items, "[1,1]"));
  EXPECT_FALSE(takes(items, "[]") || takes(items, "[1,1,1]"));
  auto text = of(R"({"type": "string", "minLength": 2, "maxLength": 2})");
  EXPECT_TRUE(takes(text, "\"\xE6\x97\xA5\\n\""));
  EXPECT_FALSE(takes(text, "\"a\"") || takes(text, "\"abc\""));
}

TEST(Matcher, DistanceIsTheLengthOfTheShortestEnd) {
  auto grammar = of(R"({"properties": {"a": {"type": "integer"}}, "required": ["a"]})");
  Matcher matcher(*grammar);
  int at = matcher.start();
  EXPECT_EQ(matcher.distance(at), std::ssize(std::string_view(R"({"a":0})")));
  at = matcher.step(at, '{');
  EXPECT_EQ(matcher.distance(at), std::ssize(std::string_view(R"("a":0})")));
}

TEST(Grammar, NestingAndSizeAreBounded) {
  auto any = of("{}");
  auto nested = [](size_t levels) { return std::string(levels, '[') + std::string(levels, ']'); };
  EXPECT_TRUE(takes(any, nested(100)));
  EXPECT_FALSE(takes(any, nested(1000)));
  auto large = json_of_schema(*chat::parse_json("{\"const\": \"" + std::string(1 << 20, 'a') + "\"}"));
  ASSERT_FALSE(large.ok());
  EXPECT_NE(large.error().message.find("too large"), std::string::npos);
}

TEST(Grammar, ChoicesAreTakenLiterally) {
  auto grammar = one_of({"yes", "yes and no"});
  EXPECT_TRUE(takes(grammar, "yes") && takes(grammar, "yes and no"));
  EXPECT_FALSE(takes(grammar, "yes and") || takes(grammar, "no"));
}

}  // namespace tessera::grammar
