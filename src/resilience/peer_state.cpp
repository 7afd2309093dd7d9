#include "resilience/peer_state.h"

#include <ATen/ops/empty.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>

#include "checkpoint/boxes.h"

namespace tessera::resilience {
namespace {

using nlohmann::json;
using TensorKey = std::pair<std::string, StateKind>;

// What one rank says: the boxes it needs and the parts it holds. A box is known by its place in these lists.
struct Offer {
  std::vector<NeededBox> needed;
  struct Part {
    int64_t rank = 0;
    bool own = false;
    std::vector<NeededBox> boxes;
  };
  std::vector<Part> parts;
};

// Part of piece `piece` of old rank `part` that fills a part of needed box `need` of rank `to`.
struct Transfer {
  int64_t from = 0, to = 0;
  size_t need = 0, piece = 0;
  int64_t part = 0;
  Extent box;
};

json encode(const std::vector<NeededBox>& boxes) {
  json list = json::array();
  for (const NeededBox& one : boxes)
    list.push_back({one.tensor, static_cast<int>(one.kind), one.box.offset, one.box.size});
  return list;
}

std::vector<NeededBox> decode_boxes(const json& list) {
  std::vector<NeededBox> boxes;
  for (const json& one : list)
    boxes.push_back({one.at(0), static_cast<StateKind>(one.at(1).get<int>()), {one.at(2), one.at(3)}});
  return boxes;
}

std::string encode(const Offer& offer) {
  json parts = json::array();
  for (const auto& part : offer.parts)
    parts.push_back({{"rank", part.rank}, {"own", part.own}, {"boxes", encode(part.boxes)}});
  return json{{"needed", encode(offer.needed)}, {"parts", parts}}.dump();
}

Result<Offer> decode_offer(const std::string& text) {
  try {
    json object = json::parse(text);
    Offer offer{.needed = decode_boxes(object.at("needed")), .parts = {}};
    for (const json& part : object.at("parts"))
      offer.parts.push_back({part.at("rank"), part.at("own"), decode_boxes(part.at("boxes"))});
    return offer;
  } catch (const std::exception& failure) {
    return make_error(ErrorCode::data_loss, "malformed list of held state from a peer: {}", failure.what());
  }
}

Result<std::vector<std::string>> gather_texts(Group& group, const std::string& mine) {
  auto ranks = static_cast<size_t>(group.size());
  std::vector<int64_t> sizes(ranks);
  auto size = static_cast<int64_t>(mine.size());
  TESSERA_RETURN_IF_ERROR(group.all_gather(bytes_of(std::span<const int64_t>(&size, 1)),
                                           mutable_bytes_of(std::span<int64_t>(sizes))));
  auto longest = static_cast<size_t>(*std::max_element(sizes.begin(), sizes.end()));
  std::string padded = mine, all(longest * ranks, ' ');
  padded.resize(longest, ' ');
  TESSERA_RETURN_IF_ERROR(
      group.all_gather(bytes_of(std::span<const char>(padded)), mutable_bytes_of(std::span<char>(all))));
  std::vector<std::string> texts;
  for (size_t rank = 0; rank < ranks; ++rank)
    texts.push_back(all.substr(rank * longest, static_cast<size_t>(sizes[rank])));
  return texts;
}

// The rank that gives part `part` to rank `to`: itself if it can, else the part's own rank, else the lowest.
std::optional<int64_t> giver(const std::vector<Offer>& offers, int64_t part, int64_t to) {
  std::optional<int64_t> best;
  int best_merit = 0;
  for (size_t rank = 0; rank < offers.size(); ++rank) {
    for (const auto& held : offers[rank].parts) {
      int merit = static_cast<int64_t>(rank) == to ? 3 : held.own ? 2 : 1;
      if (held.rank != part || merit <= best_merit) continue;
      best = static_cast<int64_t>(rank);
      best_merit = merit;
    }
  }
  return best;
}

std::map<int64_t, const std::vector<NeededBox>*> all_parts(const std::vector<Offer>& offers) {
  std::map<int64_t, const std::vector<NeededBox>*> parts;
  for (const Offer& offer : offers)
    for (const auto& part : offer.parts) parts.emplace(part.rank, &part.boxes);
  return parts;
}

// The same list, in the same order, on every rank.
std::vector<Transfer> plan_transfers(const std::vector<Offer>& offers) {
  struct Place {
    int64_t part;
    size_t piece;
  };
  auto parts = all_parts(offers);
  std::map<TensorKey, std::vector<Place>> places;
  for (const auto& [part, boxes] : parts)
    for (size_t piece = 0; piece < boxes->size(); ++piece)
      places[{(*boxes)[piece].tensor, (*boxes)[piece].kind}].push_back({part, piece});

  std::vector<Transfer> transfers;
  for (size_t to = 0; to < offers.size(); ++to) {
    std::map<int64_t, int64_t> givers;
    for (const auto& [part, boxes] : parts) givers[part] = *giver(offers, part, static_cast<int64_t>(to));
    for (size_t need = 0; need < offers[to].needed.size(); ++need) {
      const NeededBox& wanted = offers[to].needed[need];
      for (const Place& place : places[{wanted.tensor, wanted.kind}]) {
        const Extent& box = (*parts[place.part])[place.piece].box;
        if (box.size.size() != wanted.box.size.size()) continue;
        if (auto common = checkpoint::intersection(wanted.box, box))
          transfers.push_back(
              {givers[place.part], static_cast<int64_t>(to), need, place.piece, place.part, *common});
      }
    }
  }
  return transfers;
}

// This rank's side of the exchange.
class Exchange {
 public:
  Exchange(Group& group, std::span<const NeededBox> needed, std::vector<Transfer> transfers)
      : group_(group), needed_(needed), transfers_(std::move(transfers)), me_(group.rank()) {}

  Result<checkpoint::MemoryPieces> run(const std::map<int64_t, checkpoint::MemoryPieces>& held) {
    auto ranks = static_cast<size_t>(group_.size());
    std::vector<std::vector<float>> out(ranks), in(ranks);
    for (const Transfer& one : transfers_) {
      if (one.from == me_) pack(one, held.at(one.part).pieces()[one.piece], out[static_cast<size_t>(one.to)]);
      if (one.to == me_ && one.from != me_)
        in[static_cast<size_t>(one.from)].resize(in[static_cast<size_t>(one.from)].size() +
                                                 static_cast<size_t>(one.box.elements()));
    }
    TESSERA_RETURN_IF_ERROR(move(out, in));
    return unpack(in);
  }

 private:
  static void pack(const Transfer& one, const Piece& piece, std::vector<float>& to) {
    size_t at = to.size();
    to.resize(at + static_cast<size_t>(one.box.elements()));
    const auto* from = reinterpret_cast<const std::byte*>(piece.values.const_data_ptr<float>());
    checkpoint::copy_part(from, piece.box, reinterpret_cast<std::byte*>(to.data() + at), one.box, one.box,
                          sizeof(float));
  }

  // What this rank has itself goes over no wire.
  Status move(std::vector<std::vector<float>>& out, std::vector<std::vector<float>>& in) {
    auto me = static_cast<size_t>(me_);
    in[me] = std::move(out[me]);
    std::vector<Bytes> from(out.size());
    std::vector<MutableBytes> to(in.size());
    for (size_t rank = 0; rank < out.size(); ++rank) {
      if (rank == me) continue;
      from[rank] = bytes_of(std::span<const float>(out[rank]));
      to[rank] = mutable_bytes_of(std::span<float>(in[rank]));
    }
    return group_.all_to_all(from, to);
  }

  Result<checkpoint::MemoryPieces> unpack(const std::vector<std::vector<float>>& in) {
    std::vector<at::Tensor> values;
    std::vector<int64_t> filled(needed_.size());
    for (const NeededBox& need : needed_) values.push_back(at::empty({need.box.elements()}, at::kFloat));
    std::vector<size_t> at(in.size());
    for (const Transfer& one : transfers_) {
      if (one.to != me_) continue;
      auto from = static_cast<size_t>(one.from);
      auto* to = reinterpret_cast<std::byte*>(values[one.need].mutable_data_ptr<float>());
      checkpoint::copy_part(reinterpret_cast<const std::byte*>(in[from].data() + at[from]), one.box, to,
                            needed_[one.need].box, one.box, sizeof(float));
      at[from] += static_cast<size_t>(one.box.elements());
      filled[one.need] += one.box.elements();
    }
    return collect(values, filled);
  }

  Result<checkpoint::MemoryPieces> collect(const std::vector<at::Tensor>& values,
                                           const std::vector<int64_t>& filled) {
    checkpoint::MemoryPieces pieces;
    for (size_t i = 0; i < needed_.size(); ++i) {
      const NeededBox& need = needed_[i];
      if (filled[i] != need.box.elements()) {
        return make_error(ErrorCode::not_found, "peers hold {} of {} elements of {} of {}, {}", filled[i],
                          need.box.elements(), to_string(need.kind), need.tensor,
                          checkpoint::describe(need.box));
      }
      TESSERA_RETURN_IF_ERROR(pieces.add({need.tensor, need.kind, need.box, values[i], true}));
    }
    return pieces;
  }

  Group& group_;
  std::span<const NeededBox> needed_;
  std::vector<Transfer> transfers_;
  int64_t me_;
};

Result<std::vector<Offer>> exchange_offers(Group& group, const Offer& mine) {
  TESSERA_ASSIGN_OR_RETURN(auto texts, gather_texts(group, encode(mine)));
  std::vector<Offer> offers;
  for (const std::string& text : texts) {
    TESSERA_ASSIGN_OR_RETURN(Offer offer, decode_offer(text));
    offers.push_back(std::move(offer));
  }
  return offers;
}

Result<checkpoint::MemoryPieces> fetch(Group& group, std::span<const NeededBox> needed,
                                       std::span<const Snapshots::Part* const> parts) {
  Offer mine{.needed = {needed.begin(), needed.end()}, .parts = {}};
  std::map<int64_t, checkpoint::MemoryPieces> held;
  for (const Snapshots::Part* part : parts) {
    TESSERA_ASSIGN_OR_RETURN(auto parsed, checkpoint::parse_pieces(part->bytes));
    mine.parts.push_back({part->what.rank, part->what.own, boxes_of(parsed.pieces.pieces())});
    held[part->what.rank] = std::move(parsed.pieces);
  }
  TESSERA_ASSIGN_OR_RETURN(auto offers, exchange_offers(group, mine));
  return Exchange(group, needed, plan_transfers(offers)).run(held);
}

}  // namespace

std::vector<NeededBox> boxes_of(std::span<const Piece> pieces) {
  std::vector<NeededBox> boxes;
  for (const Piece& piece : pieces) boxes.push_back({piece.tensor, piece.kind, piece.box});
  return boxes;
}

Result<checkpoint::MemoryPieces> fetch_from_peers(Group& group, std::span<const NeededBox> needed,
                                                  std::span<const Snapshots::Part* const> held) {
  try {
    return fetch(group, needed, held);
  } catch (const std::exception& failure) {
    return make_error(ErrorCode::internal, "state from peers' memory: {}", failure.what());
  }
}

}  // namespace tessera::resilience
