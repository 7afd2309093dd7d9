// Reads an answer that arrives piece by piece: text for the user, and calls of functions. The answer is of the
// given form (a grammar saw to that), so whatever the pieces, the joined result is that of the whole answer.
// What could be the beginning of a call is held back. Threads: one at a time.
#pragma once

#include <optional>

#include "chat/tool_format.h"

namespace tessera::chat {

struct CallPiece {
  int64_t index = 0;                // of the call in its answer
  std::optional<std::string> name;  // in the first piece of a call, and only there
  std::string arguments;            // JSON text
};
struct AnswerPiece {
  std::string content;
  std::vector<CallPiece> calls;
};

class ToolParser {
 public:
  enum Begin {
    with_call,          // no text in front of the calls
    with_call_or_text,  // text, or text and then calls, or calls
    with_call_or_json,  // calls, or JSON and no calls
  };
  ToolParser(const ToolFormat& format, Begin begin);

  AnswerPiece push(std::string_view text);
  AnswerPiece finish();  // at the end of the answer: what was held back
  int64_t num_calls() const { return num_calls_; }

 private:
  enum State { start, content, opening, slot, after_call, after_calls };
  // Each takes what it can from held_; false when more text is needed.
  bool read_start(AnswerPiece& out);
  bool read_content(AnswerPiece& out);
  bool read_opening(AnswerPiece& out);
  bool read_slot(AnswerPiece& out);
  bool read_arguments(AnswerPiece& out);
  bool read_after_call(AnswerPiece& out);
  void begin_call();
  void give_up(AnswerPiece& out);

  ToolFormat format_;
  Begin begin_;
  std::string trigger_;  // of a call behind text
  State state_ = start;
  std::string held_;
  std::string expected_;  // in front of the next slot
  size_t part_ = 0;
  int64_t num_calls_ = 0;
  // Inside the arguments.
  int depth_ = 0;
  bool in_string_ = false, escaped_ = false;
};

}  // namespace tessera::chat
