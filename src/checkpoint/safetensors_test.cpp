#include "checkpoint/safetensors.h"

#include "checkpoint/testing.h"
#include "checkpoint/weight_reader.h"

namespace tessera::checkpoint {
namespace {

using namespace testing;

std::span<const std::byte> as_span(const std::string& text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}
Result<SafetensorsHeader> parse(const std::string& header, size_t data_bytes) {
  std::string file = safetensors_bytes(header, std::string(data_bytes, '\0'));
  return parse_safetensors_header(as_span(file), static_cast<int64_t>(file.size()));
}
std::string tensor(const std::string& name, const std::string& dtype, const std::string& shape, int begin,
                   int end) {
  return fmt::format(R"("{}":{{"dtype":"{}","shape":{},"data_offsets":[{},{}]}})", name, dtype, shape, begin,
                     end);
}

TEST(Safetensors, HeaderGivesPlacesShapesAndTypes) {
  auto header = parse("{" + tensor("b", "BF16", "[3]", 24, 30) + "," + tensor("a", "F32", "[2,3]", 0, 24) +
                          R"(,"__metadata__":{"format":"pt"}})",
                      30);
  ASSERT_TRUE(header.ok()) << header.error().message;
  EXPECT_EQ(header->tensors.at("a").shape, (std::vector<int64_t>{2, 3}));
  EXPECT_EQ(header->tensors.at("b").dtype, at::kBFloat16);
  EXPECT_EQ(header->tensors.at("b").begin, header->data_begin + 24);
  EXPECT_EQ(header->metadata.at("format"), "pt");
}

TEST(Safetensors, EveryFalseStatementOfAHeaderIsRefused) {
  struct Case {
    std::string header;
    size_t data;
    const char* word;
  };
  std::string a = tensor("a", "F32", "[2,3]", 0, 24);
  for (const Case& c : std::vector<Case>{
           {"{" + a + "}", 20, "truncated"},
           {"{" + a + "}", 28, "belong to no tensor"},
           {"{" + a + "," + tensor("b", "F32", "[1]", 20, 24) + "}", 24, "overlaps"},
           {"{" + a + "," + tensor("b", "F32", "[1]", 28, 32) + "}", 32, "hole"},
           {"{" + a + "," + a + "}", 24, "twice"},
           {"{" + tensor("a", "F32", "[2,2]", 0, 24) + "}", 24, "needs 16 bytes"},
           {"{" + tensor("a", "F33", "[2,3]", 0, 24) + "}", 24, "F33"},
           {"{" + tensor("a", "F32", "[-2,-3]", 0, 24) + "}", 24, "shape has -2"},
           {"{" + tensor("a", "F32", "[2.5]", 0, 10) + "}", 10, "2.5"},
           {"{" + tensor("a", "F32", "[4611686018427387904,4]", 0, 0) + "}", 0, "2^63"},
           {"{" + tensor("a", "F32", "[6]", 24, 0) + "}", 24, "not a begin and an end"},
           {R"({"a":{"dtype":"F32","shape":[1]}})", 4, "no data_offsets"},
           {R"({"a":7})", 0, "no dtype"},
           {"[1,2]", 0, "not a JSON object"},
           {"{", 0, "not a JSON object"},
           {"\xff\xfe{}", 0, "not a JSON object"},
       }) {
    auto header = parse(c.header, c.data);
    ASSERT_FALSE(header.ok()) << c.header;
    EXPECT_EQ(header.error().code, ErrorCode::data_loss);
    EXPECT_TRUE(mentions(header.error().message, {c.word}));
  }
}

TEST(Safetensors, EveryPrefixOfAFileIsRefused) {
  std::string file = safetensors_bytes("{" + tensor("a", "F32", "[2]", 0, 8) + "}", std::string(8, 'x'));
  ASSERT_TRUE(parse_safetensors_header(as_span(file), static_cast<int64_t>(file.size())).ok());
  for (size_t length = 0; length < file.size(); ++length) {
    std::string prefix = file.substr(0, length);
    EXPECT_FALSE(parse_safetensors_header(as_span(prefix), static_cast<int64_t>(length)).ok()) << length;
  }
  std::string huge = file;
  huge[7] = '\x7f';  // the header's length becomes astronomic
  EXPECT_FALSE(parse_safetensors_header(as_span(huge), static_cast<int64_t>(huge.size())).ok());
}

TEST(Safetensors, PlannedHeaderReadsBackAligned) {
  auto plan = plan_safetensors(
      {{"x", {.dtype = at::kBFloat16, .shape = {3, 5}}}, {"y", {.dtype = at::kBFloat16, .shape = {}}}});
  ASSERT_TRUE(plan.ok());
  std::string file = plan->head + std::string(static_cast<size_t>(plan->file_bytes) - plan->head.size(), '\0');
  auto header = parse_safetensors_header(as_span(file), plan->file_bytes);
  ASSERT_TRUE(header.ok()) << header.error().message;
  EXPECT_EQ(header->data_begin % 64, 0);
  EXPECT_EQ(header->tensors.at("x").begin, plan->tensors[0].begin);
  EXPECT_EQ(header->tensors.at("y").end, plan->file_bytes);
  EXPECT_EQ(header->tensors.at("y").shape, std::vector<int64_t>{});
}

// A directory with one tensor "w" of 2 x 3 in the given type.
void write_model(const std::filesystem::path& directory, const std::string& dtype, const std::string& data) {
  write_text(
      directory / "model.safetensors",
      safetensors_bytes("{" + tensor("w", dtype, "[2,3]", 0, static_cast<int>(data.size())) + "}", data));
}

TEST(WeightReader, ReadsBoxesOfEveryFloatingType) {
  std::vector<float> expected = {1, -2, 0.5, 4, 5, -0.25};
  // Bit patterns from IEEE 754: half and bfloat16 of the values above.
  std::vector<uint16_t> half = {0x3c00, 0xc000, 0x3800, 0x4400, 0x4500, 0xb400};
  std::vector<uint16_t> brain = {0x3f80, 0xc000, 0x3f00, 0x4080, 0x40a0, 0xbe80};
  std::vector<double> wide(expected.begin(), expected.end());
  for (auto [dtype, data] : {std::pair{"F32", bytes_of_values(expected)},
                             {"F16", bytes_of_values(half)},
                             {"BF16", bytes_of_values(brain)},
                             {"F64", bytes_of_values(wide)}}) {
    TemporaryDirectory directory;
    write_model(directory.path(), dtype, data);
    auto reader = WeightReader::open(directory.path());
    ASSERT_TRUE(reader.ok()) << reader.error().message;
    auto box = reader->read("w", {{0, 1}, {2, 2}}, at::kFloat);
    ASSERT_TRUE(box.ok()) << box.error().message;
    EXPECT_EQ(box->sizes(), (std::vector<int64_t>{2, 2}));
    const float* values = box->const_data_ptr<float>();
    EXPECT_EQ(std::vector<float>(values, values + 4), (std::vector<float>{-2, 0.5, 5, -0.25})) << dtype;
  }
}

TEST(WeightReader, Bf16RoundsToNearestEven) {
  // Between two bfloat16 neighbours: below, above, and the two halves that go to the even one.
  std::vector<uint32_t> bits = {0x3f807fff, 0x3f808001, 0x3f808000, 0x3f818000, 0xbf808000, 0x7f7fffff};
  std::vector<uint16_t> expected = {0x3f80, 0x3f81, 0x3f80, 0x3f82, 0xbf80, 0x7f80};
  TemporaryDirectory directory;
  write_model(directory.path(), "F32", bytes_of_values(bits));
  auto box = WeightReader::open(directory.path())->read("w", at::kBFloat16);
  ASSERT_TRUE(box.ok());
  const auto* values = static_cast<const uint16_t*>(box->const_data_ptr());
  EXPECT_EQ(std::vector<uint16_t>(values, values + 6), expected);
}

TEST(WeightReader, ShardsAreFoundThroughTheIndexAndMissingOnesNamed) {
  TemporaryDirectory directory;
  auto path = directory.path();
  std::string one = "{" + tensor("a", "F32", "[1]", 0, 4) + "}",
              two = "{" + tensor("b", "F32", "[2]", 0, 8) + "}";
  write_text(path / "model-1.safetensors", safetensors_bytes(one, bytes_of_values<float>({7})));
  write_text(path / "model-2.safetensors", safetensors_bytes(two, bytes_of_values<float>({8, 9})));
  write_text(path / "model.safetensors.index.json",
             R"({"metadata":{},"weight_map":{"a":"model-1.safetensors","b":"model-2.safetensors"}})");
  {
    auto reader = WeightReader::open(path);
    ASSERT_TRUE(reader.ok()) << reader.error().message;
    EXPECT_EQ(reader->names(), (std::vector<std::string>{"a", "b"}));
    EXPECT_EQ(reader->read("b", {{1}, {1}}, at::kFloat)->const_data_ptr<float>()[0], 9);
    EXPECT_TRUE(mentions(reader->read("bb", at::kFloat).error().message, {"no tensor bb", "'b'"}));
    EXPECT_FALSE(reader->read("b", {{1}, {2}}, at::kFloat).ok());
  }
  std::filesystem::remove(path / "model-2.safetensors");
  EXPECT_TRUE(
      mentions(WeightReader::open(path).error().message, {"model-2.safetensors", "missing", "tensor b"}));
  write_text(path / "model.safetensors.index.json", R"({"weight_map":{"a":"../model-1.safetensors"}})");
  EXPECT_FALSE(WeightReader::open(path).ok());
}

TEST(WeightReader, AnotherModelsWeightsGiveOneReadableError) {
  TemporaryDirectory directory;
  write_model(directory.path(), "F32", std::string(24, '\0'));
  auto reader = WeightReader::open(directory.path());
  ASSERT_TRUE(reader.ok());
  TensorSpec same{.name = "w", .role = Role::q, .shape = {2, 3}};
  EXPECT_TRUE(reader->check_against({same}).ok());
  TensorSpec other = same, absent = same;
  other.shape = {4, 3}, absent.name = "v";
  auto status = reader->check_against({other, absent});
  ASSERT_FALSE(status.ok());
  EXPECT_TRUE(mentions(status.error().message, {"2 of 2 tensors", "w is [2, 3]", "[4, 3]", "v is missing"}));
}

TEST(WeightReader, DirectoryWithoutWeightsSaysWhatItLookedFor) {
  TemporaryDirectory directory;
  auto reader = WeightReader::open(directory.path());
  ASSERT_FALSE(reader.ok());
  EXPECT_EQ(reader.error().code, ErrorCode::not_found);
  EXPECT_TRUE(mentions(reader.error().message, {"model.safetensors", "index.json"}));
}

}  // namespace
}  // namespace tessera::checkpoint
