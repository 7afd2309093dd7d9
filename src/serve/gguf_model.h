// A GGUF file as a model that can be served: its metadata as a config.json, its tokenizer, and its weights.
//
// llama.cpp's names and orders are turned back: rows of q and k of "llama" models pair neighbours there and
// halves of a head here. Weights stay in few bits (checkpoint/gguf_blocks.h says as what); of weights that lie
// side by side (q, k and v; gate and up) all are floats as soon as one is.
#pragma once

#include <memory>

#include "checkpoint/gguf.h"
#include "data/tokenizer.h"
#include "serve/weights.h"

namespace tessera::serve {

// Errors: an architecture, a scaling of positions or a tensor that is not known; names the field.
Result<ModelSpec> spec_of_gguf(const checkpoint::GgufFile& file);

// Errors: no tokenizer in the file, or of a kind that is not known; says what to give instead.
Result<data::TokenizerPtr> tokenizer_of_gguf(const checkpoint::GgufFile& file);

Result<std::unique_ptr<Weights>> open_gguf_weights(const std::filesystem::path& path, const ModelSpec& spec,
                                                   const LoadOptions& options);

// `tokenizer`: a directory or file of its own; empty: the model's.
Result<data::TokenizerPtr> load_served_tokenizer(const std::filesystem::path& model,
                                                 const std::filesystem::path& tokenizer);

}  // namespace tessera::serve
