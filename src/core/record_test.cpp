// What a run records: TensorBoard files and traces.
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <nlohmann/json.hpp>

#include "core/crc32c.h"
#include "core/file.h"
#include "core/tensorboard.h"
#include "core/trace.h"

namespace tessera {
namespace {

// Vectors of RFC 3720, appendix B.4.
TEST(Crc32c, EqualsTheVectorsOfTheStandard) {
  EXPECT_EQ(crc32c(std::string(32, '\0')), 0x8a9136aau);
  EXPECT_EQ(crc32c(std::string(32, '\xff')), 0x62a8ab43u);
  EXPECT_EQ(crc32c("123456789"), 0xe3069283u);
}

// tests/record_test.py runs this one and reads the folder back with TensorBoard.
TEST(TensorBoard, WritesAFileOfFramedEvents) {
  const char* kept = std::getenv("TESSERA_TEST_OUTPUT");
  std::filesystem::path folder =
      kept ? std::filesystem::path(kept)
           : std::filesystem::temp_directory_path() / fmt::format("tessera-tensorboard-{}", ::getpid());
  {
    auto board = TensorBoardWriter::open(folder);
    ASSERT_TRUE(board.ok()) << board.error().message;
    for (int64_t step = 0; step < 300; ++step) {
      ASSERT_TRUE((*board)->scalar("train/loss", 8.0 / (1.0 + static_cast<double>(step)), step).ok());
      if (step % 100 == 0) {
        ASSERT_TRUE((*board)->scalar("valid/loss", -1.5, step).ok());
      }
    }
  }
  auto file = std::filesystem::directory_iterator(folder)->path();
  EXPECT_EQ(file.filename().string().rfind("events.out.tfevents.", 0), 0u);
  // The first event: time 1 + 8 bytes, step 1 + 1, version 1 + 1 + 13.
  EXPECT_EQ(read_file(file)->substr(0, 8), std::string("\x1a\0\0\0\0\0\0\0", 8));
  if (!kept) std::filesystem::remove_all(folder);
}

TEST(TensorBoard, FolderThatCannotBeMadeIsAnError) {
  auto board = TensorBoardWriter::open("/dev/null/tensorboard");
  ASSERT_FALSE(board.ok());
  EXPECT_NE(board.error().message.find("/dev/null/tensorboard"), std::string::npos);
}

TEST(Trace, EventsKeepRanksRowsAndMicroseconds) {
  std::vector<TraceEvent> events = {
      {.name = "forward", .process = 1, .thread = 0, .begin_s = 0.5, .end_s = 0.75, .args = {{"slot", 2}}},
      {.name = "reduce \"x\"", .process = 0, .thread = 1, .begin_s = 0.0, .end_s = 1e-3}};
  std::vector<std::string_view> rows = {"compute", "communication"};
  auto trace = nlohmann::json::parse(chrome_trace(events, rows));
  auto list = trace["traceEvents"];
  ASSERT_EQ(list.size(), 2 * 3 + 2u);  // per rank its name and two rows
  EXPECT_EQ(list[0]["args"]["name"], "rank 0");
  EXPECT_EQ(list[6]["ts"], 500000.0);
  EXPECT_EQ(list[6]["dur"], 250000.0);
  EXPECT_EQ(list[6]["pid"], 1);
  EXPECT_EQ(list[6]["args"]["slot"], 2);
  EXPECT_EQ(list[7]["name"], "reduce \"x\"");
}

}  // namespace
}  // namespace tessera
