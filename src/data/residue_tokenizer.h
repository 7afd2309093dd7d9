// The tokenizer of protein models (ESM-2): a vocab.txt of one token a line, in the order of their ids. The
// longest token at each place is taken, blanks part words, and a run of letters that no token begins is one
// <unk>. Around a text go <cls> and <eos>.
#pragma once

#include "data/tokenizer.h"

namespace tessera::data {

// `where` is for messages. Errors: no <cls>, <eos> and <unk>: another kind of vocab.txt.
Result<std::shared_ptr<Tokenizer>> parse_residue_vocabulary(std::string_view content, std::string_view where);

}  // namespace tessera::data
