#include "resilience/process.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "core/file.h"

extern char** environ;

namespace tessera::resilience {
namespace {

constexpr int kCannotRun = 127;  // as in shells

struct Pipe {
  int read = -1, write = -1;
  ~Pipe() {
    if (read >= 0) ::close(read);
    if (write >= 0) ::close(write);
  }
  Status open() {
    int ends[2];
    if (::pipe2(ends, O_CLOEXEC) != 0)
      return make_error(ErrorCode::resource_exhausted, "cannot make a pipe: {}", errno_text(errno));
    read = ends[0];
    write = ends[1];
    return {};
  }
};

void take_over(int& target, int& source) {
  target = std::exchange(source, -1);
}

// Everything the child needs after fork(), made before it: between fork and exec only async-signal-safe calls
// are allowed in a program with threads.
struct ChildPlan {
  std::vector<char*> arguments, environment;
  std::vector<std::string> variables;
  int output = -1, errors = -1, secret = -1;
  pid_t parent = -1;
};

void add_environment(const ProcessOptions& options, ChildPlan& plan) {
  for (char** entry = environ; *entry != nullptr; ++entry) {
    std::string_view variable = *entry;
    std::string name(variable.substr(0, variable.find('=')));
    bool replaced = options.environment.count(name) > 0 || name == "TESSERA_TOKEN_FD";
    if (!replaced) plan.variables.emplace_back(variable);
  }
  for (const auto& [name, value] : options.environment) plan.variables.push_back(name + "=" + value);
  if (plan.secret >= 0) plan.variables.push_back(fmt::format("TESSERA_TOKEN_FD={}", plan.secret));
  for (std::string& variable : plan.variables) plan.environment.push_back(variable.data());
  plan.environment.push_back(nullptr);
}

[[noreturn]] void become(const ChildPlan& plan) {
  ::setpgid(0, 0);
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (::getppid() != plan.parent) ::_exit(kCannotRun);  // the parent died before the line above
  sigset_t none;
  ::sigemptyset(&none);
  ::sigprocmask(SIG_SETMASK, &none, nullptr);
  ::signal(SIGPIPE, SIG_DFL);
  ::dup2(plan.output, STDOUT_FILENO);
  ::dup2(plan.errors, STDERR_FILENO);
  if (plan.secret >= 0) ::fcntl(plan.secret, F_SETFD, 0);
  ::execvpe(plan.arguments[0], plan.arguments.data(), plan.environment.data());
  const char message[] = "error: cannot run the worker's program: no such file, or not executable\n";
  if (::write(STDERR_FILENO, message, sizeof message - 1) < 0) ::_exit(kCannotRun);
  ::_exit(kCannotRun);
}

Status put_secret(const std::string& secret, Pipe& pipe) {
  TESSERA_RETURN_IF_ERROR(pipe.open());
  if (::write(pipe.write, secret.data(), secret.size()) != static_cast<ssize_t>(secret.size()))
    return make_error(ErrorCode::internal, "cannot pass the token to a worker: {}", errno_text(errno));
  ::close(std::exchange(pipe.write, -1));
  return {};
}

ExitStatus status_of(const siginfo_t& info) {
  if (info.si_code == CLD_EXITED) return {.code = info.si_status};
  return {.signal = info.si_status};
}

}  // namespace

std::string ExitStatus::describe() const {
  if (signal != 0) return fmt::format("killed by signal {} ({})", signal, ::strsignal(signal));
  return fmt::format("exit status {}", code);
}

Result<Process> Process::start(const ProcessOptions& options) {
  if (options.command.empty()) return invalid("a worker's command is empty");
  Pipe output, errors, secret;
  TESSERA_RETURN_IF_ERROR(output.open());
  TESSERA_RETURN_IF_ERROR(errors.open());
  if (!options.secret.empty()) TESSERA_RETURN_IF_ERROR(put_secret(options.secret, secret));

  ChildPlan plan;
  plan.output = output.write;
  plan.errors = errors.write;
  plan.secret = secret.read;
  plan.parent = ::getpid();
  std::vector<std::string> arguments = options.command;
  for (std::string& argument : arguments) plan.arguments.push_back(argument.data());
  plan.arguments.push_back(nullptr);
  add_environment(options, plan);

  pid_t pid = ::fork();
  if (pid < 0) return make_error(ErrorCode::resource_exhausted, "cannot start a worker: {}", errno_text(errno));
  if (pid == 0) become(plan);

  Process process;
  process.pid_ = pid;
  process.pidfd_ = static_cast<int>(::syscall(SYS_pidfd_open, pid, 0));
  ::setpgid(pid, pid);  // both sides set it: whoever comes first
  ::fcntl(output.read, F_SETFL, O_NONBLOCK);
  ::fcntl(errors.read, F_SETFL, O_NONBLOCK);
  take_over(process.output_, output.read);
  take_over(process.errors_, errors.read);
  if (process.pidfd_ < 0)
    return make_error(ErrorCode::internal, "pidfd_open failed (Linux 5.3 or later is needed): {}",
                      errno_text(errno));
  return process;
}

Process::Process(Process&& other) noexcept
    : pid_(std::exchange(other.pid_, -1)),
      pidfd_(std::exchange(other.pidfd_, -1)),
      output_(std::exchange(other.output_, -1)),
      errors_(std::exchange(other.errors_, -1)),
      status_(other.status_) {}

Process::~Process() {
  if (pid_ > 0 && !status_) {
    ::kill(-pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
  }
  for (int descriptor : {pidfd_, output_, errors_})
    if (descriptor >= 0) ::close(descriptor);
}

void Process::signal(int number) {
  if (pid_ > 0 && !status_) ::kill(-pid_, number);
}

std::optional<ExitStatus> Process::ended() {
  if (status_ || pid_ <= 0) return status_;
  siginfo_t info{};
  if (::waitid(P_PID, static_cast<id_t>(pid_), &info, WEXITED | WNOHANG) != 0 || info.si_pid == 0)
    return std::nullopt;
  status_ = status_of(info);
  return status_;
}

std::vector<std::string> LineReader::read() {
  char buffer[4096];
  ssize_t got = 0;
  while (!closed_ && (got = ::read(descriptor_, buffer, sizeof buffer)) > 0)
    pending_.append(buffer, static_cast<size_t>(got));
  if (got == 0 || (got < 0 && errno != EAGAIN && errno != EINTR)) closed_ = true;

  std::vector<std::string> lines;
  size_t begin = 0;
  for (size_t end; (end = pending_.find('\n', begin)) != std::string::npos; begin = end + 1)
    lines.push_back(pending_.substr(begin, end - begin));
  pending_.erase(0, begin);
  if (closed_ && !pending_.empty()) lines.push_back(std::exchange(pending_, {}));
  return lines;
}

}  // namespace tessera::resilience
