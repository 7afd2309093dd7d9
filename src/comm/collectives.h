// The collectives as exchanges of messages. Costs per rank, n ranks, b bytes: barrier log2(n) rounds;
// broadcast log2(n) rounds of b; all_gather (n-1) b in one round; all_reduce 2 b (n-1)/n in two rounds.
#pragma once

#include "comm/conversation.h"

namespace tessera::comm {

Status run_barrier(Conversation& talk);
Status run_broadcast(Conversation& talk, int64_t root, MutableBytes data);
Status run_all_gather(Conversation& talk, Bytes mine, MutableBytes all);
Status run_all_to_all(Conversation& talk, std::span<const Bytes> out, std::span<const MutableBytes> in);
// Every element is combined by one rank, in rank order, so all ranks get the same bits.
Status run_all_reduce_sum(Conversation& talk, std::span<int64_t> values);
Status run_all_reduce_max(Conversation& talk, std::span<float> values);

}  // namespace tessera::comm
