#include "checkpoint/memory_pieces.h"

#include "checkpoint/testing.h"
#include "checkpoint/testing_pieces.h"

namespace tessera::checkpoint {
namespace {

using namespace testing;

TEST(MemoryPieces, PiecesOfOneLayoutRestoreEveryOther) {
  Work work{.tp_blocks = 4};
  for (bool moe : {false, true}) {
    ModelSpec model = tiny_model(moe);
    for (const char* from : {"dp=1", "fsdp=3", "fsdp=2,tp=2,pp=2", "dp=2,tp=4"}) {
      MemoryPieces pieces = *MemoryPieces::copy_of(pieces_of_all(model, work, *parse_layout(from)));
      for (const char* to : {"dp=1", "fsdp=4", "tp=4", moe ? "fsdp=4,ep=4,pp=2" : "fsdp=2,tp=2,pp=2"}) {
        Layout layout = *parse_layout(to);
        for (int64_t rank = 0; rank < layout.processes(); ++rank) {
          auto wrong = wrong_elements(pieces, model, work, layout, rank);
          ASSERT_TRUE(wrong.ok()) << wrong.error().message;
          EXPECT_EQ(*wrong, 0) << from << " -> " << to;
        }
      }
    }
  }
}

TEST(MemoryPieces, MissingPartIsNamed) {
  ModelSpec model = tiny_model(false);
  Layout layout = *parse_layout("fsdp=2");
  MemoryPieces half = *MemoryPieces::copy_of(pieces_of_rank(model, {}, layout, 0));
  auto wrong = wrong_elements(half, model, {}, *parse_layout("dp=1"), 0);
  ASSERT_FALSE(wrong.ok());
  EXPECT_EQ(wrong.error().code, ErrorCode::not_found);
  EXPECT_TRUE(mentions(wrong.error().message, {"model.embed_tokens.weight", "rows 19..36, columns 0..15"}));
}

TEST(MemoryPieces, CopyDoesNotFollowTheTrainer) {
  ModelSpec model = tiny_model(false);
  auto state = pieces_of_all(model, {}, {});
  MemoryPieces copy = *MemoryPieces::copy_of(state);
  for (Piece& piece : state) piece.values.zero_();
  EXPECT_EQ(*wrong_elements(copy, model, {}, {}, 0), 0);
}

TEST(MemoryPieces, BytesComeBackEqualWithTheirNote) {
  ModelSpec model = tiny_model(true);
  auto state = pieces_of_all(model, {}, *parse_layout("fsdp=2,ep=2"));
  auto bytes = serialise_pieces(state, R"({"step":7})");
  ASSERT_TRUE(bytes.ok());
  EXPECT_EQ(static_cast<int64_t>(bytes->size()), serialised_bytes(state, R"({"step":7})"));
  auto parsed = parse_pieces(*bytes);
  ASSERT_TRUE(parsed.ok()) << parsed.error().message;
  EXPECT_EQ(parsed->note, R"({"step":7})");
  EXPECT_EQ(parsed->pieces.pieces().size(), state.size());
  EXPECT_EQ(*wrong_elements(parsed->pieces, model, {}, {}, 0), 0);
}

TEST(MemoryPieces, EveryFlippedByteAndEveryCutIsNoticed) {
  std::vector<Piece> state = {{"w", StateKind::master, {{0}, {3}}, at::empty({3}, at::kFloat).fill_(1.5)}};
  auto bytes = *serialise_pieces(state, "n");
  ASSERT_TRUE(parse_pieces(bytes).ok());
  for (size_t at = 0; at < bytes.size(); ++at) {
    auto damaged = bytes;
    damaged[at] ^= std::byte{4};
    auto parsed = parse_pieces(damaged);
    ASSERT_FALSE(parsed.ok()) << at;
    EXPECT_EQ(parsed.error().code, ErrorCode::data_loss);
    EXPECT_FALSE(parse_pieces(std::span(bytes).first(at)).ok()) << at;
  }
}

}  // namespace
}  // namespace tessera::checkpoint
