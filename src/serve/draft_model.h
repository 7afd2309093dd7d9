// A smaller model with the same vocabulary that guesses what the served one is about to choose (speculative
// decoding). Its guesses are checked as those of guesses.h are: kept as far as they equal the served model's
// own choice, which is a function of (tokens, seed, position), so answers are the same with and without it, bit
// for bit, sampled ones too. It draws with the request's own seed and position: where both models find the same
// tokens likely, they draw the same token.
//
// It keeps keys and values of its own, for as many requests as have room; a request without room is not
// guessed for. Runs on one process, also beside a served model of several. Threads: one at a time.
#pragma once

#include <map>

#include "serve/model.h"
#include "serve/sampler.h"

namespace tessera::serve {

class DraftModel {
 public:
  struct Options {
    int64_t kv_tokens = 0;           // of its cache, over all requests
    int64_t max_batch_tokens = 512;  // of one pass; a longer prompt is read over several calls
  };
  // Errors: another vocabulary than the served model's; no memory.
  static Result<std::unique_ptr<DraftModel>> make(ServedModel model, const ServedSpec& served,
                                                  const Options& options);

  struct Request {
    int64_t id = 0;
    std::vector<int64_t> tokens;  // prompt and answer so far
    int64_t most = 0;             // guesses
    SamplingOptions sampling;
  };
  // Guesses for each, in the same order; none for those whose prompt has yet to be read. What earlier calls
  // read of requests that are not here any more is forgotten. Errors: of the pass.
  Result<std::vector<std::vector<int64_t>>> guess(const std::vector<Request>& requests);

 private:
  struct State {
    std::vector<int64_t> cached;  // tokens whose keys and values are there
    std::vector<int64_t> blocks;
  };
  struct Row {  // one request in a pass
    const Request* request;
    State* state;
    std::vector<int64_t>* guesses;
    int64_t count = 0;  // tokens to run: those after `cached`
  };

  DraftModel(ServedModel model, const Options& options, KvCache cache, int64_t blocks);
  bool make_room(State& state, int64_t tokens);
  void release(State& state);
  void keep_only(const std::vector<Request>& requests);
  std::vector<Row> rows_of(const std::vector<Request>& requests, std::vector<std::vector<int64_t>>& guesses);
  Status run(std::vector<Row>& rows);

  ServedModel model_;
  Options options_;
  KvCache cache_;
  std::vector<int64_t> free_;
  std::map<int64_t, State> states_;  // by request
};

}  // namespace tessera::serve
