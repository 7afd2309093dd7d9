// Tensors and bodies of KServe's protocol: what clients send is read, what is torn is refused with its reason.
#include "kserve/kserve.h"

#include <gtest/gtest.h>

#include "kserve/rest_codec.h"

namespace tessera::kserve {
namespace {

using nlohmann::json;

std::string bytes(std::initializer_list<int> values) {
  return {values.begin(), values.end()};
}

TEST(Tensors, TextsStandBehindTheirLengths) {
  Tensor tensor = text_tensor("t", {"ab", ""});
  EXPECT_EQ(tensor.raw, bytes({2, 0, 0, 0, 'a', 'b', 0, 0, 0, 0}));
  EXPECT_TRUE(check(tensor).ok());
  EXPECT_EQ(*texts_of(tensor), (std::vector<std::string>{"ab", ""}));
  EXPECT_EQ(to_json_data(tensor).dump(), R"(["ab",""])");
}

TEST(Tensors, NumbersAreLittleEndian) {
  Tensor tensor{.name = "n", .datatype = "INT32", .shape = {1, 2}};
  ASSERT_TRUE(fill_from_json(json::parse("[[1, -2]]"), tensor).ok());
  EXPECT_EQ(tensor.raw, bytes({1, 0, 0, 0, 254, 255, 255, 255}));
  EXPECT_TRUE(check(tensor).ok());
  EXPECT_EQ(to_json_data(tensor).dump(), "[1,-2]");
  Tensor flag{.name = "b", .datatype = "BOOL", .shape = {1}, .raw = bytes({1})};
  EXPECT_TRUE(*bool_of(flag));
  EXPECT_FALSE(integer_of(flag).ok());
}

TEST(Tensors, WhatIsTornOrTooLargeIsRefused) {
  std::vector<Tensor> bad = {
      {.name = "t", .datatype = "BYTES", .shape = {1}, .raw = bytes({5, 0, 0, 0, 'a'})},
      {.name = "t", .datatype = "BYTES", .shape = {1}, .raw = bytes({1, 0, 0})},
      {.name = "t", .datatype = "BYTES", .shape = {2}, .raw = bytes({0, 0, 0, 0})},
      {.name = "t", .datatype = "BYTES", .shape = {1}, .raw = bytes({255, 255, 255, 255})},
      {.name = "t", .datatype = "INT64", .shape = {2}, .raw = bytes({0, 0, 0, 0})},
      {.name = "t", .datatype = "INT7", .shape = {1}},
      {.name = "t", .datatype = "INT8", .shape = {-1}},
      {.name = "t", .datatype = "INT8", .shape = {int64_t{1} << 40, int64_t{1} << 40}},
  };
  for (const Tensor& tensor : bad) {
    Status status = check(tensor);
    ASSERT_FALSE(status.ok());
    EXPECT_NE(status.error().message.find("tensor 't'"), std::string::npos) << status.error().message;
  }
}

HttpRequest with_binary(const json& body, const std::string& tail) {
  std::string text = body.dump();
  return {.body = text + tail, .headers = {{"inference-header-content-length", std::to_string(text.size())}}};
}

TEST(RestCodec, TakesTensorsFromBehindTheJson) {
  json body = {
      {"id", "7"},
      {"parameters", {{"binary_data_output", true}, {"max_tokens", 3}}},
      {"inputs",
       {{{"name", "a"}, {"datatype", "BYTES"}, {"shape", {1}}, {"parameters", {{"binary_data_size", 6}}}},
        {{"name", "b"}, {"datatype", "FP32"}, {"shape", {1}}, {"data", {0.5}}},
        {{"name", "c"}, {"datatype", "BOOL"}, {"shape", {1}}, {"parameters", {{"binary_data_size", 1}}}}}}};
  auto request = read_infer(with_binary(body, bytes({2, 0, 0, 0, 'h', 'i', 1})));
  ASSERT_TRUE(request) << request.error().message;
  EXPECT_EQ(request->id, "7");
  EXPECT_EQ(request->parameters["max_tokens"], 3);
  EXPECT_EQ(*text_of(*request->input("a")), "hi");
  EXPECT_EQ(*number_of(*request->input("b")), 0.5);
  EXPECT_TRUE(*bool_of(*request->input("c")));
  auto response =
      write_infer({.model = "m", .version = "1", .outputs = {text_tensor("out", {"yes"})}}, *request);
  ASSERT_TRUE(response);
  EXPECT_EQ(response->headers[0].first, "Inference-Header-Content-Length");
  size_t length = std::stoul(response->headers[0].second);
  EXPECT_EQ(json::parse(response->body.substr(0, length))["outputs"][0]["parameters"]["binary_data_size"], 7);
  EXPECT_EQ(response->body.substr(length), bytes({3, 0, 0, 0, 'y', 'e', 's'}));
}

TEST(RestCodec, BodiesThatCannotBeMeantAreRefused) {
  auto tensor = [](json extra) {
    json one = {{"name", "a"}, {"datatype", "BYTES"}, {"shape", {1}}};
    if (!extra.is_null()) one.update(extra);
    return json{{"inputs", {one}}};
  };
  struct Case {
    HttpRequest request;
    const char* expected;
  };
  for (const auto& [request, expected] : std::initializer_list<Case>{
           {{.body = "{"}, "no valid JSON"},
           {{.body = "[]"}, "must be a JSON object"},
           {{.body = "{}"}, "'inputs' is missing"},
           {{.body = R"({"inputs":[5]})"}, "must be an object"},
           {{.body = R"({"inputs":[{"name":"a"}]})"}, "needs 'name', 'datatype' and 'shape'"},
           {{.body = tensor({}).dump()}, "neither 'data' nor"},
           {{.body = tensor({{"data", {1}}}).dump()}, "list of BYTES"},
           {{.body = tensor({{"data", {"a", "b"}}}).dump()}, "have 2"},
           {with_binary(tensor({{"parameters", {{"binary_data_size", 9}}}}), "abc"), "3 are left"},
           {with_binary(tensor({{"data", {"a"}}}), "abc"), "3 bytes behind"},
           {{.body = "{}", .headers = {{"Inference-Header-Content-Length", "3"}}}, "which has 2"},
           {{.body = "{}", .headers = {{"Content-Encoding", "gzip"}}}, "gzip"},
           {{.body = std::string(200, '[')}, "nested too deeply"}}) {
    auto result = read_infer(request);
    ASSERT_FALSE(result) << expected;
    EXPECT_NE(result.error().message.find(expected), std::string::npos) << result.error().message;
  }
}

TEST(Tensors, NumbersThatTheTypeCannotHoldAreRefused) {
  struct Case {
    const char *datatype, *data;
    bool fits;
  };
  for (const auto& [datatype, data, fits] :
       std::initializer_list<Case>{{"INT8", "[127, -128]", true},
                                   {"INT8", "[128]", false},
                                   {"UINT8", "[-1]", false},
                                   {"UINT64", "[18446744073709551615]", true},
                                   {"INT64", "[18446744073709551615]", false},
                                   {"INT32", "[1.5]", false},
                                   {"FP32", "[1, 1.5]", true},
                                   {"FP32", "[true]", false},
                                   {"BOOL", "[1]", false},
                                   {"BOOL", "[true]", true},
                                   {"BYTES", "[null]", false}}) {
    Tensor tensor{.name = "t", .datatype = datatype};
    EXPECT_EQ(fill_from_json(json::parse(data), tensor).ok(), fits) << datatype << " " << data;
  }
}

TEST(Backend, TensorsThatTheModelDoesNotTakeAreNamed) {
  ModelMetadata model{.name = "m",
                      .inputs = {{.name = "text", .datatype = "BYTES", .shape = {1}},
                                 {.name = "rows", .datatype = "FP32", .shape = {-1}, .optional = true}},
                      .outputs = {{.name = "out", .datatype = "BYTES", .shape = {1}}}};
  Tensor text = text_tensor("text", {"a"}), two = text_tensor("text", {"a", "b"}),
         typo = text_tensor("txet", {"a"});
  Tensor rows{.name = "rows", .datatype = "FP32", .shape = {7}},
      wrong{.name = "rows", .datatype = "INT32", .shape = {7}};
  EXPECT_TRUE(check_tensors({.inputs = {text, rows}, .outputs = {{.name = "out"}}}, model).ok());
  struct Case {
    InferRequest request;
    const char* expected;
  };
  for (const auto& [request, expected] :
       std::initializer_list<Case>{{{.inputs = {rows}}, "'text' is missing"},
                                   {{.inputs = {two}}, "shape [2], expected [1]"},
                                   {{.inputs = {typo}}, "did you mean 'text'"},
                                   {{.inputs = {text, wrong}}, "datatype INT32, expected FP32"},
                                   {{.inputs = {text, text}}, "stands twice"},
                                   {{.inputs = {text}, .outputs = {{.name = "o"}}}, "has no output 'o'"}}) {
    Status status = check_tensors(request, model);
    ASSERT_FALSE(status.ok()) << expected;
    EXPECT_NE(status.error().message.find(expected), std::string::npos) << status.error().message;
  }
}

TEST(RestCodec, GenerateTakesInputsByNameAndTheRestAsParameters) {
  ModelMetadata model{.name = "m", .inputs = {{.name = "text_input", .datatype = "BYTES", .shape = {1}}}};
  auto request =
      read_generate({.body = R"({"text_input":"Hi","temperature":0,"parameters":{"max_tokens":4}})"}, model);
  ASSERT_TRUE(request) << request.error().message;
  EXPECT_EQ(*text_of(*request->input("text_input")), "Hi");
  EXPECT_EQ(request->parameters.dump(), R"({"max_tokens":4,"temperature":0})");
  json answer =
      generate_json({.model = "m", .version = "1", .outputs = {text_tensor("text_output", {"there"})}});
  EXPECT_EQ(answer.dump(), R"({"model_name":"m","model_version":"1","text_output":"there"})");
}

}  // namespace
}  // namespace tessera::kserve
