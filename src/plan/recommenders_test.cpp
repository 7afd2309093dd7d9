#include "plan/recommenders.h"

#include <gtest/gtest.h>

namespace tessera::plan {
namespace {

TEST(Recommenders, SizesArePublished) {
  Recommender dlrm = *find_recommender("dlrm");
  EXPECT_EQ(embedding_rows(dlrm), 187767399);  // ids of Criteo 1 TB under the cap, mlcommons reference
  // NVIDIA's DLRM model card: the same tables and networks, 24.03 G of embeddings.
  EXPECT_NEAR(embedding_parameters(dlrm) / 1e9, 24.03, 0.01);
  Recommender dcnv2 = *find_recommender("dcnv2");
  EXPECT_EQ(lookups_per_sample(dcnv2), 214);
  EXPECT_EQ(embedding_rows(dcnv2), 204184588);
  Recommender persia = *find_recommender("persia-100t");
  EXPECT_NEAR(embedding_parameters(persia) / 1e12, 100, 0.01);
  EXPECT_NEAR(dense_parameters(persia) / 1e6, 12, 0.5);
}

// Counted by hand: 13-512-256-128, 27 vectors give 351 products beside 128 features, 479-1024-1024-512-256-1.
TEST(Recommenders, DenseNetworkOfDlrmIsCounted) {
  double bottom = 13 * 512 + 512 + 512 * 256 + 256 + 256 * 128 + 128;
  double top = 479 * 1024 + 1024 + 1024 * 1024 + 1024 + 1024 * 512 + 512 + 512 * 256 + 256 + 256 + 1;
  EXPECT_EQ(dense_parameters(*find_recommender("dlrm")), bottom + top);
}

TEST(Recommenders, BytesFollowRowsAndState) {
  Recommender model{.tables = {{1000, 16, 2}, {10, 8, 1}}};
  EXPECT_EQ(table_bytes(model, 4, 4, 16), (16000 + 80) * 4 + 1010 * 20);
  EXPECT_EQ(embedding_bytes_read(model, 2), (2 * 16 + 8) * 2);
  EXPECT_EQ(pooled_bytes(model, 2), (16 + 8) * 2);
}

TEST(Recommenders, UnknownNameOffersTheNearest) {
  auto model = find_recommender("dcnv3");
  ASSERT_FALSE(model.ok());
  EXPECT_NE(model.error().message.find("did you mean 'dcnv2'"), std::string::npos);
}

}  // namespace
}  // namespace tessera::plan
