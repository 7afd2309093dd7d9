#include "chat/tool_parser.h"

#include <algorithm>

namespace tessera::chat {

namespace {

// Length of the longest end of `text` that `word` begins with, but is not.
size_t possible_beginning(std::string_view text, std::string_view word) {
  if (word.empty()) return 0;
  for (size_t length = std::min(word.size() - 1, text.size()); length > 0; --length)
    if (text.ends_with(word.substr(0, length))) return length;
  return 0;
}

bool begins(std::string_view text, std::string_view word) {
  return word.starts_with(text.substr(0, word.size()));
}

}  // namespace

ToolParser::ToolParser(const ToolFormat& format, Begin begin) : format_(format), begin_(begin) {
  bool by_name = format_.opening().empty();
  trigger_ = by_name ? format_.between_calls + format_.parts[0].text : format_.trigger();
}

AnswerPiece ToolParser::push(std::string_view text) {
  held_ += text;
  AnswerPiece out;
  auto read = [&] {
    switch (state_) {
      case start:
        return read_start(out);
      case content:
        return read_content(out);
      case opening:
        return read_opening(out);
      case slot:
        return read_slot(out);
      case after_call:
        return read_after_call(out);
      case after_calls:
        held_.clear();
        return false;
    }
    return false;
  };
  while (read()) {
  }
  return out;
}

AnswerPiece ToolParser::finish() {
  AnswerPiece out;
  if (num_calls_ == 0 && (state_ == start || state_ == content || state_ == opening))
    out.content = std::exchange(held_, {});
  return out;
}

void ToolParser::begin_call() {
  state_ = opening;
  part_ = 0;
}

// Does the answer begin with a call?
bool ToolParser::read_start(AnswerPiece&) {
  const std::string& before = format_.before_content;
  auto is_undecided = [&](const std::string& word) {
    return held_.size() < word.size() && begins(held_, word);
  };
  auto call = [&] {
    expected_ = format_.opening();
    begin_call();
    return true;
  };
  if (begin_ == with_call) return call();
  if (held_.empty() || is_undecided(before)) return false;
  if (!before.empty() && !held_.starts_with(before)) return call();
  held_.erase(0, before.size());
  bool first_words_decide = begin_ == with_call_or_json || !format_.has_mark();
  if (before.empty() && first_words_decide) {
    if (is_undecided(format_.opening())) return false;
    if (held_.starts_with(format_.opening())) return call();
  }
  bool no_more_calls = first_words_decide && !(begin_ == with_call_or_text && format_.opening().empty());
  if (no_more_calls) trigger_.clear();
  state_ = content;
  return true;
}

bool ToolParser::read_content(AnswerPiece& out) {
  size_t at = trigger_.empty() ? std::string::npos : held_.find(trigger_);
  bool found = at != std::string::npos;
  size_t shown = found ? at : held_.size() - possible_beginning(held_, trigger_);
  out.content += held_.substr(0, shown);
  held_.erase(0, shown);
  if (!found) return false;
  expected_ = format_.opening().empty() ? trigger_ : trigger_ + format_.behind_trigger();
  begin_call();
  return true;
}

bool ToolParser::read_opening(AnswerPiece& out) {
  if (held_.size() < expected_.size() && begins(held_, expected_)) return false;
  if (!held_.starts_with(expected_)) return give_up(out), true;
  held_.erase(0, expected_.size());
  state_ = slot;
  return true;
}

bool ToolParser::read_slot(AnswerPiece& out) {
  if (format_.parts[part_].slot == CallPart::arguments) return read_arguments(out);
  bool is_last = part_ + 1 == format_.parts.size();
  const std::string& behind = is_last ? format_.after_call : format_.parts[part_ + 1].text;
  size_t end = behind.empty() ? held_.size() : held_.find(behind[0]);
  if (end == std::string::npos) return false;
  if (format_.parts[part_].slot == CallPart::name) {
    out.calls.push_back({.index = num_calls_, .name = held_.substr(0, end)});
    ++num_calls_;
  }
  held_.erase(0, end);
  ++part_;
  expected_ = behind;
  state_ = is_last ? after_call : opening;
  return true;
}

// One JSON object: it ends with the brace that closes its first.
bool ToolParser::read_arguments(AnswerPiece& out) {
  size_t end = 0;
  bool ended = false;
  while (end < held_.size() && !ended) {
    char c = held_[end++];
    bool was_escaped = std::exchange(escaped_, false);
    if (in_string_) {
      escaped_ = c == '\\' && !was_escaped;
      in_string_ = c != '"' || was_escaped;
      continue;
    }
    in_string_ = c == '"';
    depth_ += (c == '{' || c == '[') - (c == '}' || c == ']');
    ended = depth_ == 0;
  }
  if (end > 0) out.calls.push_back({.index = num_calls_ - 1, .name = {}, .arguments = held_.substr(0, end)});
  held_.erase(0, end);
  if (!ended) return false;
  ++part_;
  bool is_last = part_ == format_.parts.size();
  expected_ = is_last ? format_.after_call : format_.parts[part_].text;
  state_ = is_last ? after_call : opening;
  return true;
}

// Another call, or the end.
bool ToolParser::read_after_call(AnswerPiece&) {
  std::string next = format_.after_call + format_.between_calls + format_.parts[0].text;
  if (held_.size() < next.size() && begins(held_, next)) return false;
  if (!held_.starts_with(next)) return state_ = after_calls, true;
  expected_ = std::move(next);
  begin_call();
  return true;
}

// No call of the form: it is text, and so is all that follows.
void ToolParser::give_up(AnswerPiece& out) {
  out.content += std::exchange(held_, {});
  trigger_.clear();
  state_ = content;
}

}  // namespace tessera::chat
