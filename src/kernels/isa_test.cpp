#include <ATen/ops/full.h>
#include <ATen/ops/zeros.h>

#include <atomic>
#include <thread>

#include "kernels/kv_pages.h"
#include "kernels/scratch.h"
#include "kernels/table.h"
#include "kernels/testing.h"
#include "kernels/threads.h"

namespace tessera::kernels {
namespace {

using testing::random;
using testing::same_bits;
using testing::WithThreads;

// Two blocks of keys for 29 rows of width 24 (padded to 32), forward and backward, by one instruction set.
struct AttentionRun {
  static constexpr int64_t kRows = 29, kWidth = 24, kPadded = 32, kKeys = 200;
  Tensor out = at::zeros({kRows, kPadded}), max = at::full({kRows}, -INFINITY), sum = at::zeros({kRows, 16});
  Tensor dq = at::zeros({kRows, kPadded}), dk = at::zeros({kKeys, kPadded}), dv = at::zeros({kKeys, kPadded});
  Tensor begin = at::zeros({kRows}, at::kInt), end = at::zeros({kRows}, at::kInt);

  static float* at(const Tensor& tensor, int64_t row = 0) { return tensor.data_ptr<float>() + row * kPadded; }
  static Tensor rows(int64_t count, uint64_t seed) {
    Tensor result = random({count, kPadded}, seed);
    result.narrow(1, kWidth, kPadded - kWidth).zero_();
    return result;
  }

  explicit AttentionRun(const Table& table) {
    for (int32_t r = 0; r < kRows; ++r) {
      begin.data_ptr<int32_t>()[r] = r * 6;
      end.data_ptr<int32_t>()[r] = r * 6 + 25;
    }
    const Tensor q = rows(kRows, 1), k = rows(kKeys, 2), v = rows(kKeys, 3), dout = rows(kRows, 4);
    const Tensor lse = random({kRows}, 5), delta = random({kRows}, 6);
    Scratch panels(2 * kKeyBlock * kPadded), scores(2 * kRows * kKeyBlock);
    for (int64_t key = 0; key < kKeys; key += kKeyBlock) {
      const int64_t keys = std::min(kKeyBlock, kKeys - key);
      float* values = panels.data() + kKeyBlock * kPadded;
      table.pack_transposed({at(k, key), Type::f32, kPadded}, keys, kWidth, panels.data());
      table.pack_transposed({at(v, key), Type::f32, kPadded}, keys, kWidth, values);
      const AttentionStep step{at(q),
                               panels.data(),
                               at(v, key),
                               kRows,
                               kWidth,
                               kPadded,
                               key,
                               keys,
                               begin.data_ptr<int32_t>(),
                               end.data_ptr<int32_t>(),
                               0.2f,
                               scores.data(),
                               at(out),
                               at(max),
                               at(sum)};
      table.attention(step);
      table.attention_backward({step, at(dout), values, at(k, key), at(lse), at(delta),
                                scores.data() + kRows * kKeyBlock, at(dq), at(dk, key), at(dv, key)});
    }
  }
};

TEST(InstructionSets, GiveTheSameBitsInAttention) {
  const AttentionRun expected(generic_table);
  for (const char* name : {"avx2", "avx512", "avx512bf16"}) {
    const Table* table = table_named(name);
    if (table == nullptr) continue;
    const AttentionRun run(*table);
    EXPECT_TRUE(same_bits(run.out, expected.out) && same_bits(run.max, expected.max)) << name;
    EXPECT_TRUE(same_bits(run.sum, expected.sum)) << name;
    EXPECT_TRUE(same_bits(run.dq, expected.dq) && same_bits(run.dk, expected.dk)) << name;
    EXPECT_TRUE(same_bits(run.dv, expected.dv)) << name;
  }
}

// 29 rows against 100 paged keys of 40 bf16, from bytes with scales or as they are.
struct PagedRun {
  static constexpr int64_t kRows = 29, kSteps = 20, kWidth = 48, kKeys = 100, kPanels = 7;
  Tensor out = at::zeros({kRows, kWidth}), max = at::full({kRows}, -INFINITY), sum = at::zeros({kRows, 16});
  Tensor result = at::zeros({kRows, kWidth}, at::kBFloat16);

  PagedRun(const Table& table, KvType type) {
    Tensor keys = random({kPanels, kSteps * 32}, 1, at::kBFloat16),
           values = random({kPanels, 8 * kWidth * 2}, 2, at::kBFloat16);
    const Tensor q = random({kRows, kSteps * 2}, 3, at::kBFloat16), scales = random({2, kKeyBlock}, 4);
    if (type != KvType::bf16) {
      fill_with_bytes(table, type, keys);
      fill_with_bytes(table, type, values);
    }
    Tensor begin = at::zeros({kRows}, at::kInt), end = at::zeros({kRows}, at::kInt);
    for (int32_t r = 0; r < kRows; ++r) {
      begin.data_ptr<int32_t>()[r] = r;
      end.data_ptr<int32_t>()[r] = r * 3 + 10;
    }
    const float *keys_of[kPanels], *values_of[kPanels];
    for (int64_t i = 0; i < kPanels; ++i) {
      keys_of[i] = static_cast<const float*>(keys.data_ptr()) + i * kSteps * 16;
      values_of[i] = static_cast<const float*>(values.data_ptr()) + i * 8 * kWidth;
    }
    Scratch scores(2 * kRows * kKeyBlock);
    const bool scaled = type != KvType::bf16;
    table.paged_pairs({.q = static_cast<const float*>(q.data_ptr()),
                       .keys_of = keys_of,
                       .values_of = values_of,
                       .key_scale = scaled ? scales.data_ptr<float>() : nullptr,
                       .value_scale = scaled ? scales.data_ptr<float>() + kKeyBlock : nullptr,
                       .rows = kRows,
                       .key_steps = kSteps,
                       .width = kWidth,
                       .first_key = 0,
                       .keys = kKeys,
                       .begin = begin.data_ptr<int32_t>(),
                       .end = end.data_ptr<int32_t>(),
                       .scale = 0.2f,
                       .scores = scores.data(),
                       .weights = scores.data() + kRows * kKeyBlock,
                       .out = out.data_ptr<float>(),
                       .max = max.data_ptr<float>(),
                       .sum = sum.data_ptr<float>()});
    for (int64_t r = 0; r < kRows; ++r)
      table.paged_finish(out.data_ptr<float>() + r * kWidth, sum.data_ptr<float>() + r * 16,
                         {static_cast<at::BFloat16*>(result.data_ptr()) + r * kWidth, Type::bf16, kWidth},
                         kWidth);
  }

  static void fill_with_bytes(const Table& table, KvType type, Tensor& words) {
    std::vector<uint8_t> bytes(static_cast<size_t>(words.numel()));
    for (size_t i = 0; i < bytes.size(); ++i)
      bytes[i] = static_cast<uint8_t>(i * 37 % 127 | (i % 3 == 0 ? 0x80 : 0));
    auto* to = static_cast<float*>(words.data_ptr());
    (type == KvType::int8 ? table.words_of_int8 : table.words_of_fp8)(bytes.data(), words.numel() / 32, to);
  }
};

TEST(InstructionSets, GiveTheSameBitsInPagedAttention) {
  for (KvType type : {KvType::bf16, KvType::int8, KvType::fp8}) {
    const PagedRun expected(generic_table, type);
    for (const char* name : {"avx2", "avx512", "avx512bf16"}) {
      const Table* table = table_named(name);
      if (table == nullptr) continue;
      const PagedRun run(*table, type);
      EXPECT_TRUE(same_bits(run.result, expected.result)) << name << ' ' << to_string(type);
      EXPECT_TRUE(same_bits(run.max, expected.max) && same_bits(run.sum, expected.sum)) << name;
    }
  }
}

// What layers that are only served make of one row, in a row of results.
Tensor served_rows(const Table& table) {
  constexpr int64_t kWidth = 37;
  const Tensor x = random({kWidth}, 1, at::kFloat, 3), y = random({kWidth}, 2), z = random({kWidth}, 3);
  Tensor out = at::zeros({5, kWidth});
  auto from = [](const Tensor& row) { return Source{row.data_ptr(), Type::f32, kWidth}; };
  auto to = [&](int64_t row) { return Target{out.data_ptr<float>() + row * kWidth, Type::f32, kWidth}; };
  table.layer_norm(from(x), from(y), from(z), 1e-5f, to(0), kWidth);
  table.sigmoid(x.data_ptr<float>(), out.data_ptr<float>() + kWidth, kWidth);
  table.swiglu_clamped(from(x), from(y), 1.702f, 2.0f, to(2), kWidth);
  table.gelu_tanh(from(x), to(3), kWidth);
  table.gelu_erf(from(x), to(4), kWidth);
  return out;
}

TEST(InstructionSets, GiveTheSameBitsInLayersThatAreServed) {
  const Tensor expected = served_rows(generic_table);
  for (const char* name : {"avx2", "avx512", "avx512bf16"})
    if (const Table* table = table_named(name)) {
      EXPECT_TRUE(same_bits(served_rows(*table), expected)) << name;
    }
}

TEST(Threads, RunEveryTaskOnceAlsoForSeveralCallers) {
  WithThreads with(4);
  constexpr int64_t kTasks = 100;
  std::vector<std::thread> callers;
  std::atomic<int64_t> wrong{0};
  for (int caller = 0; caller < 4; ++caller)
    callers.emplace_back([&] {
      for (int round = 0; round < 20; ++round) {
        std::vector<std::atomic<int>> runs(kTasks);
        parallel(kTasks, [&](int64_t i) {
          parallel(2, [&](int64_t) { ++runs[static_cast<size_t>(i)]; });  // nested: runs in place
        });
        for (auto& count : runs) wrong += count != 2;
      }
    });
  for (auto& caller : callers) caller.join();
  EXPECT_EQ(wrong, 0);
}

TEST(Threads, GivesTheSameProductToManyCallersAtOnce) {
  WithThreads with(3);
  const Tensor a = random({200, 150}, 1), b = random({300, 150}, 2);
  Tensor expected = at::zeros({200, 300});
  gemm_nt(a, b, expected);
  std::atomic<int64_t> different{0};
  std::vector<std::thread> callers;
  for (int caller = 0; caller < 3; ++caller)
    callers.emplace_back([&] {
      Tensor out = at::zeros({200, 300});
      for (int round = 0; round < 5; ++round) {
        gemm_nt(a, b, out);
        different += !same_bits(out, expected);
      }
    });
  for (auto& caller : callers) caller.join();
  EXPECT_EQ(different, 0);
}

}  // namespace
}  // namespace tessera::kernels
