// Pieces held in memory: a rank's own snapshot, or a neighbour's that came as bytes. Boxes asked for need not
// be boxes held: they are put together from all pieces that touch them, so that a snapshot taken in one layout
// restores another.
//
//   std::vector<std::byte> bytes = *serialise_pieces(trainer.state(), note);   // to the neighbour
//   TESSERA_ASSIGN_OR_RETURN(ParsedPieces snapshot, parse_pieces(bytes));      // after a failure
//   TESSERA_RETURN_IF_ERROR(trainer.restore(snapshot.pieces));
//
// The bytes: "TESSPCS1", XXH3-64 of all that follows it, length of a JSON header, the header
// {"note", "pieces": [{"tensor", "state", "offset", "size", "primary"}]} padded with spaces to 8 bytes, then
// the float32 values of the pieces in that order. Integers are 64-bit little endian. Threads: reads may run at
// the same time; add() may not.
#pragma once

#include <cstddef>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "checkpoint/pieces.h"

namespace tessera::checkpoint {

class MemoryPieces : public PieceReader {
 public:
  MemoryPieces() = default;
  // Copies the values, so that the trainer may go on.
  static Result<MemoryPieces> copy_of(std::span<const Piece> pieces);

  // Keeps the piece as it is, without a copy. Errors: values that do not fit the box.
  Status add(Piece piece);
  // Errors: not_found, when no pieces together hold the whole box (names the first missing part).
  Status read(const std::string& tensor, StateKind kind, const Extent& box, at::Tensor& out) override;

  const std::vector<Piece>& pieces() const { return pieces_; }
  int64_t bytes() const;  // of all values

 private:
  std::vector<Piece> pieces_;
  std::map<std::pair<std::string, StateKind>, std::vector<size_t>> places_;
};

// `note` is any text that should come back with the pieces, such as the step as JSON.
int64_t serialised_bytes(std::span<const Piece> pieces, std::string_view note);
// Writes into `out`, of exactly serialised_bytes(); for buffers that are used again and again.
Status serialise_pieces(std::span<const Piece> pieces, std::string_view note, std::span<std::byte> out);
Result<std::vector<std::byte>> serialise_pieces(std::span<const Piece> pieces, std::string_view note);

struct ParsedPieces {
  MemoryPieces pieces;
  std::string note;
};
// Copies out of `bytes`. Errors: data_loss for anything but what serialise_pieces() wrote.
Result<ParsedPieces> parse_pieces(std::span<const std::byte> bytes);

// A piece whose values are float32, contiguous and as many as its box has elements.
Status check_piece(const Piece& piece);
// Makes `out` fit `box` when it is undefined; otherwise checks that it does.
Status prepare_output(const Extent& box, at::Tensor& out);

}  // namespace tessera::checkpoint
