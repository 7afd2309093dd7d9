#include "grammar/tool_grammar.h"

#include "grammar/json_schema.h"

namespace tessera::grammar {

namespace {

class ToolGrammar {
 public:
  ToolGrammar(Grammar& grammar, const chat::ToolFormat& format, const ToolChoice& choice)
      : g_(grammar), format_(format), choice_(choice), start_(g_.new_rule()), call_(g_.new_rule()) {}

  Status write(const std::vector<ToolFunction>& functions) {
    int from = g_.begin(start_), calls = g_.new_state();
    TESSERA_RETURN_IF_ERROR(write_calls(functions, calls));
    bool by_name = format_.opening().empty();
    if (choice_.required || by_name) g_.skip(g_.literal(from, format_.opening()), calls);
    if (choice_.required) return {};
    return write_content(from, calls, by_name);
  }
  int start() const { return start_; }

 private:
  // From `names`, behind the opening of the first call, to the end of the answer.
  Status write_calls(const std::vector<ToolFunction>& functions, int names) {
    int end_of_call = g_.new_state(), after = g_.new_state();
    g_.accept(end_of_call);
    for (size_t i = 0; i < functions.size(); ++i) {
      auto arguments = add_json_of_schema(g_, functions[i].parameters);
      if (!arguments)
        return arguments.error().within(fmt::format("tools[{}], the parameters of '{}'", i, functions[i].name));
      write_call(g_.begin(call_), end_of_call, functions[i].name, *arguments);
    }
    g_.call(names, call_, after);
    g_.accept(g_.literal(after, format_.after_calls));
    if (choice_.several && format_.several)
      g_.skip(g_.literal(after, format_.between_calls + format_.parts[0].text), names);
    return {};
  }

  // Behind the text of its first part.
  void write_call(int from, int to, const std::string& name, int arguments) {
    for (size_t i = 0; i < format_.parts.size(); ++i) {
      const chat::CallPart& part = format_.parts[i];
      int at = i == 0 ? from : g_.literal(from, part.text);
      from = g_.new_state();
      if (part.slot == chat::CallPart::name) g_.skip(g_.literal(at, name), from);
      if (part.slot == chat::CallPart::arguments) g_.call(at, arguments, from);
      if (part.slot == chat::CallPart::id) write_id(at, from);
    }
    g_.skip(g_.literal(from, format_.after_call), to);
  }

  void write_id(int from, int to) {
    for (size_t i = 0; i < chat::kCallIdLength; ++i) {
      int next = i + 1 == chat::kCallIdLength ? to : g_.new_state();
      g_.edge(from, '0', '9', next);
      g_.edge(from, 'A', 'Z', next);
      g_.edge(from, 'a', 'z', next);
      from = next;
    }
  }

  Status write_content(int from, int calls, bool by_name) {
    int content = g_.literal(from, format_.before_content);
    if (choice_.content_schema) {
      TESSERA_ASSIGN_OR_RETURN(int json, add_json_of_schema(g_, *choice_.content_schema));
      int end = g_.new_state();
      g_.call(content, json, end);
      g_.accept(end);
      if (!by_name) g_.skip(g_.literal(from, format_.opening()), calls);
      return {};
    }
    if (by_name) {
      g_.skip(write_text(content, format_.between_calls + format_.parts[0].text, true), calls);
      return {};
    }
    bool anywhere = format_.has_mark() && format_.before_content.empty();
    if (!format_.before_content.empty()) g_.skip(g_.literal(from, format_.opening()), calls);
    int met = write_text(content, format_.trigger(), anywhere);
    g_.skip(g_.literal(met, format_.behind_trigger()), calls);
    return {};
  }

  // Any text; returns the state that is entered when `trigger` has just been read for the first time, at the
  // beginning or anywhere (Knuth, Morris and Pratt).
  int write_text(int from, const std::string& trigger, bool anywhere) {
    size_t length = trigger.size();
    std::vector<int> states = {from};
    for (size_t i = 1; i <= length; ++i) states.push_back(g_.new_state());
    int other = anywhere ? from : g_.new_state();
    for (size_t i = 0; i < length; ++i) g_.accept(states[i]);
    if (!anywhere) g_.accept(other), g_.edge(other, 0x00, 0xFF, other);
    std::vector<size_t> borders(length + 1, 0);
    for (size_t i = 1; i < length; ++i) {
      size_t border = borders[i];
      while (border > 0 && trigger[border] != trigger[i]) border = borders[border];
      borders[i + 1] = trigger[border] == trigger[i] ? border + 1 : 0;
    }
    auto next = [&](size_t matched, unsigned char byte) -> int {
      auto fits = [&](size_t i) { return static_cast<unsigned char>(trigger[i]) == byte; };
      if (fits(matched)) return states[matched + 1];
      if (!anywhere) return other;
      while (matched > 0 && !fits(matched)) matched = borders[matched];
      return fits(matched) ? states[matched + 1] : from;
    };
    for (size_t i = 0; i < length; ++i) {
      int first = 0;
      for (int byte = 1; byte <= 256; ++byte) {
        int to = next(i, static_cast<unsigned char>(first));
        if (byte < 256 && next(i, static_cast<unsigned char>(byte)) == to) continue;
        g_.edge(states[i], static_cast<unsigned char>(first), static_cast<unsigned char>(byte - 1), to);
        first = byte;
      }
    }
    return states[length];
  }

  Grammar& g_;
  const chat::ToolFormat& format_;
  const ToolChoice& choice_;
  int start_, call_;
};

}  // namespace

Result<std::shared_ptr<const Grammar>> answers_with_calls(const chat::ToolFormat& format,
                                                          const std::vector<ToolFunction>& functions,
                                                          const ToolChoice& choice) {
  auto grammar = std::make_shared<Grammar>();
  ToolGrammar writer(*grammar, format, choice);
  TESSERA_RETURN_IF_ERROR(writer.write(functions));
  if (Status status = grammar->finish(writer.start()); !status.ok()) return status.error().within("tools");
  return std::shared_ptr<const Grammar>(std::move(grammar));
}

}  // namespace tessera::grammar
