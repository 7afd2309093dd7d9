#include "core/config.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace tessera {
namespace {

enum class Colour { red, blue };
Result<Colour> parse_colour(std::string_view text) {
  if (text == "red") return Colour::red;
  if (text == "blue") return Colour::blue;
  return invalid("got '{}', expected red or blue", text);
}
const char* colour_name(Colour colour) {
  return colour == Colour::red ? "red" : "blue";
}

struct Options {
  int64_t steps = 20;
  uint64_t seed = 1;
  double rate = 1e-3;
  bool shuffle = true;
  std::string note = "none";
  std::vector<std::string> files;
  Colour colour = Colour::red;
  std::string layout = "dp=1";
  nlohmann::json model;
};

class ConfigTest : public testing::Test {
 protected:
  ConfigTest() { bind(config, options); }
  static void bind(Config& config, Options& options) {
    config.bind("train.steps", &options.steps, "optimizer steps");
    config.bind("train.seed", &options.seed, "of weights and data");
    config.bind("optimizer.learning_rate", &options.rate, "peak learning rate");
    config.bind("data.shuffle", &options.shuffle, "shuffle documents");
    config.bind("data.note", &options.note, "free text");
    config.bind("data.files", &options.files, "token files");
    config.bind("train.colour", &options.colour, "red or blue", parse_colour, colour_name);
    auto same = [](std::string_view text) -> Result<std::string> { return std::string(text); };
    config.bind("layout", &options.layout, "degrees", same, [](const std::string& text) { return text; });
    config.bind_table("model", &options.model, "Hugging Face fields");
  }
  std::string error_of(std::string_view text) {
    Status status = config.load_text(text, "a.toml");
    return status.ok() ? "" : status.error().message;
  }
  std::string error_of_set(std::string_view text) {
    Status status = config.set(text);
    return status.ok() ? "" : status.error().message;
  }
  Options options;
  Config config;
};

TEST_F(ConfigTest, FileSetsFieldsAndLeavesDefaults) {
  EXPECT_EQ(error_of("[train]\nsteps = 1_000\ncolour = \"blue\"\n[optimizer]\nlearning_rate = 1\n"
                     "[data]\nfiles = [\"a\", \"b\"]\n"),
            "");
  EXPECT_EQ(options.steps, 1000);
  EXPECT_EQ(options.colour, Colour::blue);
  EXPECT_EQ(options.rate, 1.0);
  EXPECT_EQ(options.files, (std::vector<std::string>{"a", "b"}));
  EXPECT_TRUE(options.shuffle);
}

TEST_F(ConfigTest, CommandLineWinsOverFile) {
  EXPECT_EQ(error_of("train.steps = 7\ndata.note = \"x\""), "");
  ASSERT_TRUE(config
                  .set_all({"train.steps=9", "data.note=10", "data.files=a,b", "train.colour=blue",
                            "optimizer.learning_rate=3e-4", "data.shuffle=false", "layout=fsdp=2,tp=2"})
                  .ok());
  EXPECT_EQ(options.steps, 9);
  EXPECT_EQ(options.note, "10");  // a string field takes plain text, digits too
  EXPECT_EQ(options.files.size(), 2u);
  EXPECT_EQ(options.rate, 3e-4);
  EXPECT_FALSE(options.shuffle);
  EXPECT_EQ(options.layout, "fsdp=2,tp=2");
  EXPECT_EQ(config.source("train.steps"), "command line");
  EXPECT_EQ(config.source("train.seed"), "default");
}

TEST_F(ConfigTest, UnknownKeyNamesFileLineAndNearest) {
  EXPECT_EQ(error_of("[optimizer]\n\nlerning_rate = 1"),
            "a.toml:3: unknown key 'optimizer.lerning_rate'; did you mean 'optimizer.learning_rate'?");
  EXPECT_EQ(error_of("[train]\nshuffle = true"),
            "a.toml:2: unknown key 'train.shuffle'; did you mean 'data.shuffle'?");
  EXPECT_EQ(error_of("[optimiser]"), "a.toml:1: unknown key 'optimiser'");
  EXPECT_EQ(error_of_set("train.stps=3"),
            "command line: unknown key 'train.stps'; did you mean 'train.steps'?");
  EXPECT_EQ(error_of_set("optimizer=3"),
            "command line: optimizer is a section, expected one of its keys: optimizer.learning_rate");
}

TEST_F(ConfigTest, WrongTypeSaysWhereGotAndExpected) {
  EXPECT_EQ(error_of("[train]\nsteps = 2.5"), "a.toml:2: train.steps: got 2.5 (number), expected an integer");
  EXPECT_EQ(error_of("data.note = 3"), "a.toml:1: data.note: got 3 (integer), expected a string");
  EXPECT_EQ(error_of_set("train.steps=many"),
            "command line: train.steps: got \"many\" (string), expected an integer");
  EXPECT_EQ(error_of_set("train.seed=-1"), "command line: train.seed: got -1 (integer), expected 0 or more");
  EXPECT_EQ(error_of_set("train.colour=green"),
            "command line: train.colour: got 'green', expected red or blue");
  EXPECT_EQ(error_of_set("train.steps"), "command line: got 'train.steps', expected key=value");
}

TEST_F(ConfigTest, MalformedTomlNamesLineAndColumn) {
  EXPECT_EQ(error_of("[train]\nsteps = = 3").rfind("a.toml:2:9: ", 0), 0u) << error_of("[train]\nsteps = = 3");
  EXPECT_NE(error_of("a = 1\na = 2"), "");
}

TEST_F(ConfigTest, TableReadsAsTheShortForm) {
  EXPECT_EQ(error_of("[layout]\nfsdp = 2\norder = [\"tp\", \"pp\"]"), "");
  EXPECT_EQ(options.layout, "fsdp=2,order=tp-pp");
}

TEST_F(ConfigTest, OverridesReachIntoATable) {
  EXPECT_EQ(error_of("[model]\nhidden_size = 64\n[model.rope]\ntheta = 1e4\n"), "");
  ASSERT_TRUE(config.set("model.rope.theta=5e5").ok());
  ASSERT_TRUE(config.set("model.model_type=qwen3").ok());
  EXPECT_EQ(options.model["hidden_size"], 64);
  EXPECT_EQ(options.model["rope"]["theta"], 5e5);
  EXPECT_EQ(options.model["model_type"], "qwen3");
}

TEST_F(ConfigTest, ExplainReadsBackToTheSameValuesAndNamesSources) {
  EXPECT_EQ(error_of("[data]\nnote = \"a \\\"quoted\\\" # text\"\nfiles = [\"x,y\"]\n[model]\nlayers = 4\n"),
            "");
  ASSERT_TRUE(config.set("optimizer.learning_rate=0.1").ok());
  std::string text = config.explain();
  EXPECT_NE(text.find("# command line: peak learning rate"), std::string::npos) << text;
  EXPECT_NE(text.find("# a.toml:2: free text"), std::string::npos) << text;
  EXPECT_NE(text.find("# default: optimizer steps"), std::string::npos) << text;

  Options copy;
  Config again;
  bind(again, copy);
  Status status = again.load_text(text, "explained");
  ASSERT_TRUE(status.ok()) << status.error().message;
  EXPECT_EQ(copy.note, options.note);
  EXPECT_EQ(copy.files, options.files);
  EXPECT_EQ(copy.rate, options.rate);
  EXPECT_EQ(copy.model, options.model);
}

TEST_F(ConfigTest, MissingFileIsNotFound) {
  EXPECT_EQ(config.load_file("/nowhere/a.toml").error().code, ErrorCode::not_found);
}

}  // namespace
}  // namespace tessera
