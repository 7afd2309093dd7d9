#include <gtest/gtest.h>
#include <unistd.h>
#include <zlib.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <fstream>

#include "recsys_data/criteo.h"
#include "recsys_data/csv.h"
#include "recsys_data/open.h"
#include "recsys_data/scan.h"
#include "recsys_data/zipf.h"

namespace tessera::recsys_data {
namespace {

// A folder of this test that goes with it.
class Files : public ::testing::Test {
 protected:
  Files() {
    std::string name = ::testing::UnitTest::GetInstance()->current_test_info()->name();
    folder_ = std::filesystem::temp_directory_path() / fmt::format("recsys_data_{}_{}", name, ::getpid());
    std::filesystem::create_directories(folder_);
  }
  ~Files() override { std::filesystem::remove_all(folder_); }
  std::filesystem::path write(const std::string& name, const std::string& text) {
    std::ofstream(folder_ / name, std::ios::binary) << text;
    return folder_ / name;
  }
  std::filesystem::path folder_;
};

using CriteoFiles = Files;
using CsvFiles = Files;
using OpenFiles = Files;

// A Criteo line made with printf from a random row, and the row itself.
struct Line {
  int label = 0;
  std::vector<int64_t> numbers;  // INT64_MIN: empty
  std::vector<int64_t> ids;      // -1: empty
};
Line random_line(Random& random) {
  Line line{.label = static_cast<int>(random.below(2))};
  for (int i = 0; i < 13; ++i)
    line.numbers.push_back(random.below(5) == 0 ? INT64_MIN : static_cast<int64_t>(random.below(20000)) - 3);
  for (int i = 0; i < 26; ++i)
    line.ids.push_back(random.below(6) == 0 ? -1 : static_cast<int64_t>(random.bits() & 0xffffffff));
  return line;
}
std::string text_of(const Line& line) {
  std::string text = fmt::format("{}", line.label);
  for (int64_t number : line.numbers) text += number == INT64_MIN ? "\t" : fmt::format("\t{}", number);
  char digits[16];
  for (int64_t id : line.ids) {
    std::snprintf(digits, sizeof digits, "\t%08x", static_cast<unsigned>(id));
    text += id < 0 ? "\t" : digits;
  }
  return text + "\n";
}

Result<std::vector<Batch>> read_all(Source& source, int64_t batch_rows) {
  std::vector<Batch> batches;
  TESSERA_RETURN_IF_ERROR(source.start_epoch(0));
  for (;;) {
    Batch batch;
    TESSERA_RETURN_IF_ERROR(source.next(batch_rows, batch));
    if (batch.rows == 0) return batches;
    batches.push_back(std::move(batch));
  }
}

int64_t rows_of(Source& source) {
  auto batches = read_all(source, 1000);
  int64_t rows = 0;
  for (const Batch& batch : *batches) rows += batch.rows;
  return rows;
}

TEST(Scan, HexEqualsScanfForRandomTextAndRefusesEveryOtherByte) {
  Random random(3);
  char text[80] = {};
  for (int round = 0; round < 20000; ++round) {
    auto expected = static_cast<uint32_t>(random.bits());
    std::snprintf(text, sizeof text, random.below(2) ? "%08x" : "%08X", expected);
    uint32_t value = 0;
    ASSERT_TRUE(parse_hex8(text, value)) << text;
    ASSERT_EQ(value, expected) << text;
    int byte = static_cast<int>(random.below(256));
    auto place = random.below(8);
    text[place] = static_cast<char>(byte);
    ASSERT_EQ(parse_hex8(text, value), std::isxdigit(byte) != 0) << byte;
  }
}

TEST_F(CriteoFiles, EveryFieldIsReadAsPrintfWroteItAcrossPieces) {
  Random random(1);
  std::vector<Line> lines;
  std::string text;
  for (int i = 0; i < 12000; ++i) text += text_of(lines.emplace_back(random_line(random)));
  ASSERT_GT(text.size(), size_t{2} << 20);  // more than two pieces
  text.pop_back();                          // the last line has no end
  auto source = make_criteo_source({{write("train.txt", text), {}}});
  auto batches = read_all(*source, 777);
  ASSERT_TRUE(batches.ok()) << batches.error().message;
  size_t at = 0;
  for (const Batch& batch : *batches) {
    for (size_t i = 0; i < static_cast<size_t>(batch.rows); ++i, ++at) {
      ASSERT_EQ(batch.labels[i], static_cast<float>(lines[at].label));
      for (size_t n = 0; n < 13; ++n) {
        int64_t value = lines[at].numbers[n];
        ASSERT_FLOAT_EQ(batch.numeric[i * 13 + n],
                        value <= 0 ? 0.f : static_cast<float>(std::log(1.0 + double(value))));
      }
      for (size_t s = 0; s < 26; ++s)
        ASSERT_EQ(batch.slots[s].ids[i], static_cast<uint64_t>(lines[at].ids[s] + 1));
    }
  }
  EXPECT_EQ(at, lines.size());
}

TEST_F(CriteoFiles, SplitsByTimeShareNoLineAndLoseNone) {
  Random random(2);
  std::string text;
  for (int i = 0; i < 5000; ++i) text += text_of(random_line(random));
  auto path = write("train.txt", text);
  for (double share : {0.1, 0.25, 0.3333}) {
    auto parts = split_criteo_kaggle(path, share / 2, share);
    ASSERT_TRUE(parts.ok());
    int64_t train = rows_of(*make_criteo_source(parts->train)),
            valid = rows_of(*make_criteo_source(parts->valid));
    int64_t test = rows_of(*make_criteo_source(parts->test));
    EXPECT_EQ(train + valid + test, 5000);
    EXPECT_NEAR(static_cast<double>(test), 5000 * share, 25);
    EXPECT_NEAR(static_cast<double>(valid), 2500 * share, 25);
  }
}

TEST_F(CriteoFiles, GzipDaysReadAsPlainOnesAndACutOneIsReported) {
  Random random(4);
  std::string text;
  for (int i = 0; i < 500; ++i) text += text_of(random_line(random));
  for (int day : {0, 1}) {
    gzFile file = gzopen((folder_ / fmt::format("day_{}.gz", day)).c_str(), "wb");
    gzwrite(file, text.data(), static_cast<unsigned>(text.size()));
    gzclose(file);
  }
  auto splits = split_criteo_terabyte(folder_);
  ASSERT_TRUE(splits.ok());
  auto packed = read_all(*make_criteo_source(splits->train), 100);
  auto plain = read_all(*make_criteo_source({{write("plain", text), {}}}), 100);
  ASSERT_TRUE(packed.ok() && plain.ok());
  ASSERT_EQ(packed->size(), 5u);
  for (size_t i = 0; i < 5; ++i) {
    EXPECT_EQ((*packed)[i].labels, (*plain)[i].labels);
    EXPECT_EQ((*packed)[i].slots[7].ids, (*plain)[i].slots[7].ids);
  }
  std::filesystem::resize_file(folder_ / "day_0.gz", std::filesystem::file_size(folder_ / "day_0.gz") / 2);
  auto cut = read_all(*make_criteo_source(splits->train), 100);
  ASSERT_FALSE(cut.ok());
  EXPECT_NE(cut.error().message.find("day_0.gz"), std::string::npos) << cut.error().message;
}

TEST_F(CriteoFiles, MalformedRowsAreNamedByLineAndColumn) {
  Random random(5);
  std::string good;
  for (int i = 0; i < 9; ++i) good += text_of(random_line(random));
  Line line = random_line(random);
  line.numbers[2] = 7;
  line.ids[25] = 0x1234abcd;
  std::string tenth = text_of(line);
  auto error_of = [&](const std::string& broken) {
    auto batches = read_all(*make_criteo_source({{write("bad.txt", good + broken + good), {}}}), 4);
    return batches.ok() ? "no error" : batches.error().message;
  };
  auto replaced = [&](std::string from, std::string to) {
    std::string text = tenth;
    return text.replace(text.find(from), from.size(), to);
  };
  EXPECT_NE(error_of("nan" + tenth.substr(1)).find("bad.txt:10: column 1 (label): got 'nan'"),
            std::string::npos);
  EXPECT_NE(error_of(replaced("1234abcd", "1234abxd")).find("bad.txt:10: column 40 (C26): got '1234abxd'"),
            std::string::npos)
      << error_of(replaced("1234abcd", "1234abxd"));
  EXPECT_NE(error_of("1\t2\t3\n").find("bad.txt:10: column 3 (I2): got '3'"), std::string::npos)
      << error_of("1\t2\t3\n");
  EXPECT_NE(error_of("1\t2\t3.5\t\n").find("(I2): got '3.5'"), std::string::npos);
  EXPECT_EQ(error_of(tenth), "no error");
}

Schema small_schema() {
  Schema schema{.label = {"y", "yes", "no"}, .numeric = {"age"}, .time = "at"};
  schema.categorical = {{"city"}, {"kind", 3}, {"tags", 0, '|'}};
  return schema;
}

TEST_F(CsvFiles, QuotesBlanksMissingValuesAndSeveralIdsInAField) {
  auto table = read_csv(write("a.csv",
                              "at,city, age ,kind,unused,tags,y\n"
                              "2,\"Bern, BE\",31, 0,x,a|b,yes\n"
                              "1, \"say \"\"hi\"\"\" ,?,2,x,,no.\n"),
                        small_schema());
  ASSERT_TRUE(table.ok()) << table.error().message;
  const Batch& all = table->all;
  EXPECT_EQ(all.labels, (std::vector<float>{1, 0}));
  EXPECT_EQ(all.numeric, (std::vector<float>{31, 0}));
  EXPECT_EQ(all.slots[0].ids, (std::vector<uint64_t>{id_of_text("Bern, BE"), id_of_text("say \"hi\"")}));
  EXPECT_EQ(all.slots[1].ids, (std::vector<uint64_t>{1, 3}));
  EXPECT_EQ(all.slots[2].ids, (std::vector<uint64_t>{id_of_text("a"), id_of_text("b")}));
  EXPECT_EQ(all.slots[2].offsets, (std::vector<int64_t>{0, 2, 2}));
  EXPECT_EQ(order_by_time(*table), (std::vector<int64_t>{1, 0}));
}

TEST_F(CsvFiles, MistakesNameFileLineAndColumn) {
  const std::string head = "at,city,age,kind,tags,y\n1,a,1,0,,yes\n";
  auto error_of = [&](const std::string& row) {
    auto table = read_csv(write("b.csv", head + row), small_schema());
    return table.ok() ? "no error" : table.error().message;
  };
  EXPECT_NE(error_of("1,a,old,0,,no\n").find("b.csv:3: column 3 (age): got 'old', expected a finite number"),
            std::string::npos);
  EXPECT_NE(error_of("1,a,inf,0,,no\n").find("expected a finite number"), std::string::npos);
  EXPECT_NE(error_of("1,a,1,3,,no\n").find("column 4 (kind): got '3', expected a whole number from 0 to 2"),
            std::string::npos);
  EXPECT_NE(error_of("1,a,1,0,,NaN\n").find("column 6 (y): got 'NaN', expected 'yes' or 'no'"),
            std::string::npos);
  EXPECT_NE(error_of("1,a,1,0,no\n").find("b.csv:3: got 5 fields, expected 6"), std::string::npos);
  EXPECT_NE(error_of("1,a,1,0,,no,7\n").find("got more than 6 fields"), std::string::npos);
  Schema other = small_schema();
  other.numeric = {"agee"};
  auto table = read_csv(write("c.csv", head), other);
  ASSERT_FALSE(table.ok());
  EXPECT_NE(table.error().message.find("'agee', the file has none; did you mean 'age'"), std::string::npos);
}

TEST(Zipf, FrequenciesFollowTheLawWithinFourStandardErrors) {
  for (double exponent : {0.7, 1.0, 1.05, 1.3}) {
    const uint64_t n = 50;
    Zipf zipf(exponent, n);
    Random random(9);
    std::vector<int64_t> seen(n + 1);
    const int64_t draws = 400000;
    for (int64_t i = 0; i < draws; ++i) ++seen[zipf(random)];
    double norm = 0;
    for (uint64_t k = 1; k <= n; ++k) norm += std::pow(double(k), -exponent);
    for (uint64_t k = 1; k <= n; ++k) {
      double p = std::pow(double(k), -exponent) / norm, error = std::sqrt(p * (1 - p) / double(draws));
      EXPECT_NEAR(double(seen[k]) / double(draws), p, 4 * error) << exponent << " rank " << k;
    }
  }
}

TEST(Zipf, RanksOfATrillionIdsStayInRange) {
  Zipf zipf(1.05, 1000000000000ULL);
  Random random(1);
  uint64_t largest = 0;
  for (int i = 0; i < 100000; ++i) largest = std::max(largest, zipf(random));
  EXPECT_LE(largest, 1000000000000ULL);
  EXPECT_GT(largest, 10000000000ULL);
}

// With one number and slots of one id the truth is monotone in that number, so ranking by it is the best model.
TEST(Synthetic, BestAucIsThatOfRankingByTheTruth) {
  SyntheticOptions options{.cardinalities = {1}, .numbers = 1, .number_signal = 2};
  const int64_t rows = 20000;
  auto source = make_synthetic_source(options, 0, rows);
  Batch batch;
  ASSERT_TRUE(source->start_epoch(0).ok() && source->next(rows, batch).ok());
  std::vector<std::pair<float, float>> ranked;
  for (size_t i = 0; i < static_cast<size_t>(rows); ++i) ranked.emplace_back(batch.numeric[i], batch.labels[i]);
  std::sort(ranked.begin(), ranked.end());
  double negatives = 0, positives = 0, ordered = 0;
  for (auto [number, label] : ranked) {
    ordered += label * negatives;
    positives += label;
    negatives += 1 - label;
  }
  double auc = ordered / (positives * negatives), error = 0.5 / std::sqrt(std::min(positives, negatives));
  double best = best_auc(options, 0, rows);
  EXPECT_NEAR(best, std::max(auc, 1 - auc), 4 * error);
  EXPECT_GT(best, 0.6);
  EXPECT_LT(error, 0.01);
}

TEST(Synthetic, ARowIsAFunctionOfItsIndexAlone) {
  SyntheticOptions options{.cardinalities = mlperf_cardinalities(), .ids_per_row = mlperf_ids_per_row()};
  Batch whole, part;
  auto all = make_synthetic_source(options, 0, 64);
  auto some = make_synthetic_source(options, 40, 8);
  ASSERT_TRUE(all->next(64, whole).ok() && some->next(8, part).ok());
  for (int64_t i = 0; i < 8; ++i) {
    auto a = whole.slots[20].row(40 + i), b = part.slots[20].row(i);
    EXPECT_EQ(a.size(), 100u);
    EXPECT_TRUE(std::equal(a.begin(), a.end(), b.begin(), b.end()));
    EXPECT_EQ(whole.labels[static_cast<size_t>(40 + i)], part.labels[static_cast<size_t>(i)]);
  }
}

TEST_F(OpenFiles, ShuffledEpochsAreFunctionsOfSeedAndEpochAndHoldEveryRow) {
  std::string text = "y,a\n";
  for (int i = 0; i < 100; ++i) text += fmt::format("{},{}\n", i % 2, i);
  DataOptions options{.kind = "csv", .path = write("d.csv", text), .test = 0.2};
  options.label = "y";
  options.numeric = {"a"};
  options.standardise = false;
  auto numbers = [&](int64_t epoch) {
    auto splits = open_data(options);
    Batch batch;
    EXPECT_TRUE(splits->train->start_epoch(epoch + 3).ok() && splits->train->start_epoch(epoch).ok());
    EXPECT_TRUE(splits->train->next(1000, batch).ok());
    return batch.numeric;
  };
  auto first = numbers(0), again = numbers(0), second = numbers(1);
  EXPECT_EQ(first, again);
  EXPECT_NE(first, second);
  std::sort(second.begin(), second.end());
  for (size_t i = 0; i < 80; ++i) EXPECT_EQ(second[i], static_cast<float>(i));  // the last 20 are held out
  ASSERT_EQ(second.size(), 80u);
}

TEST_F(OpenFiles, AnUnknownKindAndAMissingPathAreExplained) {
  auto kind = open_data({.kind = "adlut", .path = "x"});
  ASSERT_FALSE(kind.ok());
  EXPECT_NE(kind.error().message.find("did you mean 'adult'"), std::string::npos);
  auto path = open_data({.kind = "adult", .path = folder_.string()});
  ASSERT_FALSE(path.ok());
  EXPECT_NE(path.error().message.find("there is no adult.data"), std::string::npos);
}

// ---- encodings ----

TEST(Encoding, DoesToAValueWhatTheReaderOfAFileDoes) {
  using Number = NumberEncoding::Kind;
  using Id = IdEncoding::Kind;
  EXPECT_EQ(*encode({.kind = Number::log1p}, int64_t{7}), std::log1p(7.0f));
  EXPECT_EQ(*encode({.kind = Number::log1p}, int64_t{-1}), 0);
  EXPECT_EQ(*encode({.kind = Number::log1p}, std::string_view("5000")), std::log1p(5000.0f));
  EXPECT_EQ(*encode({.kind = Number::standard, .mean = 2, .scale = 4}, RawValue()), -8);
  EXPECT_EQ(*encode({.kind = Number::standard, .mean = 2, .scale = 4}, std::string_view("2.5")), 2);
  EXPECT_EQ(*encode({.kind = Id::text}, std::string_view("Bern")), id_of_text("Bern"));
  EXPECT_EQ(*encode({.kind = Id::text}, int64_t{12}), id_of_text("12"));
  EXPECT_EQ(*encode({.kind = Id::text}, std::string_view("?")), 0u);
  EXPECT_EQ(*encode({.kind = Id::below, .cardinality = 5}, std::string_view("4")), 5u);
  EXPECT_EQ(*encode({.kind = Id::hex32}, std::string_view("0000001f")), 32u);
  EXPECT_EQ(*encode({.kind = Id::hex32}, RawValue()), 0u);
  EXPECT_EQ(*encode({.kind = Id::number}, int64_t{9}), 9u);
}

TEST(Encoding, ValuesOfTheWrongKindAreNamed) {
  using Number = NumberEncoding::Kind;
  using Id = IdEncoding::Kind;
  const std::pair<IdEncoding, RawValue> ids[] = {{{.kind = Id::below, .cardinality = 5}, int64_t{5}},
                                                 {{.kind = Id::below, .cardinality = 5}, -0.5},
                                                 {{.kind = Id::hex32}, std::string_view("12345678a")},
                                                 {{.kind = Id::hex32}, int64_t{1} << 32},
                                                 {{.kind = Id::hex32}, std::string_view("-1234567")},
                                                 {{.kind = Id::number}, int64_t{-1}},
                                                 {{.kind = Id::text}, 1.5}};
  for (const auto& [encoding, value] : ids) EXPECT_FALSE(encode(encoding, value).ok());
  for (RawValue value : {RawValue(std::string_view("1e99")), RawValue(std::string_view("1x")), RawValue(1e300)})
    EXPECT_FALSE(encode(NumberEncoding{.kind = Number::plain}, value).ok());
  EXPECT_FALSE(encode(NumberEncoding{.kind = Number::log1p}, 1.5).ok());
}

}  // namespace
}  // namespace tessera::recsys_data
