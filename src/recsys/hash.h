// How an id finds its shard, its bucket and its tag. mix64 is a bijection: two ids never share all 64 bits.
#pragma once

#include <cstdint>

namespace tessera::recsys {

// The finalizer of SplitMix64 (Steele, Lea, Flood 2014; constants of Stafford's variant 13).
inline uint64_t mix64(uint64_t x) {
  x += 0x9e3779b97f4a7c15u;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

// A number below `count` from the high bits of `hash` (Lemire 2019: multiplication instead of division).
inline uint64_t below(uint64_t hash, uint64_t count) {
  __extension__ using Wide = unsigned __int128;
  return static_cast<uint64_t>(static_cast<Wide>(hash) * count >> 64);
}

}  // namespace tessera::recsys
