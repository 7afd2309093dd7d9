// Renders chat templates for tests/chat_template_test.py. Each line of the standard input is a JSON object with
// `template` and `variables`; each line of the output one with `text` or `error`.
#include <iostream>

#include "chat/chat_template.h"

using namespace tessera;

namespace {

Result<std::string> render(const std::string& line) {
  TESSERA_ASSIGN_OR_RETURN(chat::Value job, chat::parse_json(line));
  const chat::Value *source = job.dict()->find("template"), *variables = job.dict()->find("variables");
  TESSERA_ASSIGN_OR_RETURN(auto parsed, chat::ChatTemplate::parse(*source->text()));
  return parsed.render(*variables->dict(),
                       {.strftime_now = [](const std::string& format) { return "<" + format + ">"; }});
}

}  // namespace

int main() {
  for (std::string line; std::getline(std::cin, line);) {
    auto result = render(line);
    chat::Dict answer;
    answer.set(result ? "text" : "error", result ? *result : result.error().message);
    std::cout << chat::to_json(chat::Value(std::move(answer)), {.ensure_ascii = true}) << "\n";
  }
}
