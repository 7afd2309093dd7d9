#include "chat/chat_template.h"

#include <ctime>

#include "chat/interpreter.h"
#include "core/file.h"

namespace tessera::chat {

struct ChatTemplate::Parsed {
  Body body;
};

namespace {

constexpr size_t kMaxSourceBytes = 1 << 20;

std::string local_time(const std::string& format) {
  std::time_t now = std::time(nullptr);
  std::tm parts{};
  localtime_r(&now, &parts);
  char buffer[1024];
  if (format.size() > 256) throw TemplateError("the format of strftime_now() is too long");
  return {buffer, std::strftime(buffer, sizeof buffer, format.c_str(), &parts)};
}

}  // namespace

Result<ChatTemplate> ChatTemplate::parse(std::string_view source) {
  if (source.size() > kMaxSourceBytes)
    return invalid("chat template: it has {} bytes, more than {}", source.size(), kMaxSourceBytes);
  try {
    ChatTemplate out;
    out.parsed_ = std::make_shared<const Parsed>(Parsed{parse_template(source)});
    return out;
  } catch (const TemplateError& error) {
    return invalid("chat template: {}", error.what());
  }
}

Result<std::string> ChatTemplate::render(const Dict& variables, const RenderOptions& options) const {
  Env env{.strftime_now = options.strftime_now ? options.strftime_now : local_time};
  Result<std::string> result = [&]() -> Result<std::string> {
    try {
      return Interpreter(env, variables).run(parsed_->body);
    } catch (const TemplateError& error) {
      return invalid("chat template: {}", error.what());
    }
  }();
  for (const auto& made : env.namespaces) {
    auto fields = std::exchange(made->fields, {});
  }
  return result;
}

}  // namespace tessera::chat
