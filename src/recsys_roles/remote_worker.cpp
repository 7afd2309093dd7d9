#include "recsys_roles/remote_worker.h"

#include "recsys/wire.h"

namespace tessera::recsys_roles {
namespace {

using recsys::RowType;
using recsys_train::BatchKey;
using recsys_train::DenseInput;
using recsys_train::EmbeddingWorker;
using recsys_train::VersionRequest;

enum class WorkerRequest : uint8_t {
  load,
  look_up,
  give_back,
  stats,
  digest,
  begin_save,
  finish_save,
  save_version,
  traffic
};

void write_values(std::span<const float> values, RowType type, MessageWriter& writer) {
  writer.value(type);
  if (type == RowType::f32) {
    writer.array(values);
    return;
  }
  std::vector<std::byte> packed;
  recsys::pack_rows(values, {.type = type}, packed);
  writer.array(packed);
}

Status read_values(MessageReader& reader, std::vector<float>& values) {
  if (reader.value<RowType>() == RowType::f32) return reader.array(values), Status();
  auto packed = reader.array<std::byte>();
  if (packed.empty()) return values.clear(), Status();
  std::span<const std::byte> in = packed;
  TESSERA_ASSIGN_OR_RETURN(values, recsys::unpack_rows(in));
  return {};
}

class RemoteWorker : public EmbeddingWorker {
 public:
  RemoteWorker(const Meeting& meeting, int64_t num_workers, RowType pooled) : pooled_(pooled) {
    for (int64_t i = 0; i < num_workers; ++i)
      callers_.push_back(std::make_unique<Caller>(meeting, fmt::format("worker:{}", i)));
  }

  Result<int64_t> load(const BatchKey& key) override {
    TESSERA_ASSIGN_OR_RETURN(Message bytes,
                             caller_of(key).call(MessageWriter().value(WorkerRequest::load).value(key).take()));
    return only_value<int64_t>(bytes);
  }

  Status look_up(const BatchKey& key, DenseInput& out) override {
    TESSERA_ASSIGN_OR_RETURN(
        Message bytes,
        caller_of(key).call(MessageWriter().value(WorkerRequest::look_up).value(key).value(pooled_).take()));
    MessageReader reader(bytes);
    out.rows = reader.value<int64_t>();
    for (auto* values : {&out.labels, &out.numeric, &out.lengths}) reader.array(*values);
    for (auto* values : {&out.pooled, &out.wide}) TESSERA_RETURN_IF_ERROR(read_values(reader, *values));
    return reader.end();
  }

  Status give_back(const BatchKey& key, int64_t group, std::span<const float> pooled,
                   std::span<const float> wide) override {
    MessageWriter message;
    message.value(WorkerRequest::give_back).value(key).value(group);
    write_values(pooled, pooled_, message);
    write_values(wide, pooled_, message);
    auto answer = caller_of(key).call(message.take());
    return answer ? Status() : Status(answer.error());
  }

  Result<recsys::GroupStats> stats(int64_t group) override {
    TESSERA_ASSIGN_OR_RETURN(
        Message bytes, callers_[0]->call(MessageWriter().value(WorkerRequest::stats).value(group).take()));
    return only_value<recsys::GroupStats>(bytes);
  }

  Result<uint64_t> digest(int64_t step) override {
    TESSERA_ASSIGN_OR_RETURN(
        Message bytes, callers_[0]->call(MessageWriter().value(WorkerRequest::digest).value(step).take()));
    return only_value<uint64_t>(bytes);
  }

  Status begin_save(const std::string& folder, int64_t step, bool full) override {
    MessageWriter message;
    message.value(WorkerRequest::begin_save).text(folder).value(step).value(full);
    auto answer = callers_[0]->call(message.take());
    return answer ? Status() : Status(answer.error());
  }

  Result<std::vector<std::vector<std::string>>> finish_save(int64_t step) override {
    TESSERA_ASSIGN_OR_RETURN(
        Message bytes, callers_[0]->call(MessageWriter().value(WorkerRequest::finish_save).value(step).take()));
    MessageReader reader(bytes);
    std::vector<std::vector<std::string>> files;
    for (auto servers = reader.value<uint64_t>(); servers > 0 && !reader.missing(); --servers)
      read_texts(reader, files.emplace_back());
    TESSERA_RETURN_IF_ERROR(reader.end());
    return files;
  }

  Result<int64_t> save_version(const std::string& folder, const VersionRequest& version) override {
    MessageWriter message;
    message.value(WorkerRequest::save_version).text(folder).value(version);
    TESSERA_ASSIGN_OR_RETURN(Message answer, callers_[0]->call(message.take()));
    return only_value<int64_t>(answer);
  }

  Result<recsys_train::Traffic> traffic() override {
    recsys_train::Traffic sum;
    for (auto& caller : callers_) {
      TESSERA_ASSIGN_OR_RETURN(Message bytes,
                               caller->call(MessageWriter().value(WorkerRequest::traffic).take()));
      TESSERA_ASSIGN_OR_RETURN(auto one, only_value<recsys_train::Traffic>(bytes));
      recsys_train::add(one, sum);
    }
    return sum;
  }

 private:
  template <class T>
  static Result<T> only_value(const Message& bytes) {
    MessageReader reader(bytes);
    T value = reader.value<T>();
    TESSERA_RETURN_IF_ERROR(reader.end());
    return value;
  }
  Caller& caller_of(const BatchKey& key) {
    return *callers_[static_cast<size_t>(key.number) % callers_.size()];
  }
  std::vector<std::unique_ptr<Caller>> callers_;
  RowType pooled_;
};

Result<Message> answer_look_up(EmbeddingWorker& worker, MessageReader& request) {
  auto key = request.value<BatchKey>();
  auto type = request.value<RowType>();
  TESSERA_RETURN_IF_ERROR(request.end());
  DenseInput in;
  TESSERA_RETURN_IF_ERROR(worker.look_up(key, in));
  MessageWriter answer;
  answer.value(in.rows).array(in.labels).array(in.numeric).array(in.lengths);
  write_values(in.pooled, type, answer);
  write_values(in.wide, type, answer);
  return answer.take();
}

Result<Message> answer_give_back(EmbeddingWorker& worker, MessageReader& request) {
  auto key = request.value<BatchKey>();
  auto group = request.value<int64_t>();
  std::vector<float> pooled, wide;
  TESSERA_RETURN_IF_ERROR(read_values(request, pooled));
  TESSERA_RETURN_IF_ERROR(read_values(request, wide));
  TESSERA_RETURN_IF_ERROR(request.end());
  TESSERA_RETURN_IF_ERROR(worker.give_back(key, group, pooled, wide));
  return Message();
}

Result<Message> answer_load(EmbeddingWorker& worker, MessageReader& request) {
  auto key = request.value<BatchKey>();
  TESSERA_RETURN_IF_ERROR(request.end());
  TESSERA_ASSIGN_OR_RETURN(int64_t rows, worker.load(key));
  return MessageWriter().value(rows).take();
}

Result<Message> answer_stats(EmbeddingWorker& worker, MessageReader& request) {
  auto group = request.value<int64_t>();
  TESSERA_RETURN_IF_ERROR(request.end());
  TESSERA_ASSIGN_OR_RETURN(recsys::GroupStats stats, worker.stats(group));
  return MessageWriter().value(stats).take();
}

Result<Message> answer_digest(EmbeddingWorker& worker, MessageReader& request) {
  auto step = request.value<int64_t>();
  TESSERA_RETURN_IF_ERROR(request.end());
  TESSERA_ASSIGN_OR_RETURN(uint64_t digest, worker.digest(step));
  return MessageWriter().value(digest).take();
}

Result<Message> answer_traffic(EmbeddingWorker& worker, MessageReader& request) {
  TESSERA_RETURN_IF_ERROR(request.end());
  TESSERA_ASSIGN_OR_RETURN(recsys_train::Traffic traffic, worker.traffic());
  return MessageWriter().value(traffic).take();
}

Result<Message> answer_begin_save(EmbeddingWorker& worker, MessageReader& request) {
  std::string folder = request.text();
  auto step = request.value<int64_t>();
  auto full = request.value<bool>();
  TESSERA_RETURN_IF_ERROR(request.end());
  TESSERA_RETURN_IF_ERROR(worker.begin_save(folder, step, full));
  return Message();
}

Result<Message> answer_save_version(EmbeddingWorker& worker, MessageReader& request) {
  std::string folder = request.text();
  auto version = request.value<VersionRequest>();
  TESSERA_RETURN_IF_ERROR(request.end());
  TESSERA_ASSIGN_OR_RETURN(int64_t servers, worker.save_version(folder, version));
  return MessageWriter().value(servers).take();
}

Result<Message> answer_finish_save(EmbeddingWorker& worker, MessageReader& request) {
  auto step = request.value<int64_t>();
  TESSERA_RETURN_IF_ERROR(request.end());
  TESSERA_ASSIGN_OR_RETURN(auto servers, worker.finish_save(step));
  MessageWriter answer;
  answer.value(static_cast<uint64_t>(servers.size()));
  for (const auto& files : servers) write_texts(files, answer);
  return answer.take();
}

}  // namespace

Door::Handler serve_worker(EmbeddingWorker& worker) {
  return [&worker](MessageReader& request) -> Result<Message> {
    switch (request.value<WorkerRequest>()) {
      case WorkerRequest::load:
        return answer_load(worker, request);
      case WorkerRequest::look_up:
        return answer_look_up(worker, request);
      case WorkerRequest::give_back:
        return answer_give_back(worker, request);
      case WorkerRequest::stats:
        return answer_stats(worker, request);
      case WorkerRequest::save_version:
        return answer_save_version(worker, request);
      case WorkerRequest::traffic:
        return answer_traffic(worker, request);
      case WorkerRequest::begin_save:
        return answer_begin_save(worker, request);
      case WorkerRequest::finish_save:
        return answer_finish_save(worker, request);
      case WorkerRequest::digest:
        return answer_digest(worker, request);
    }
    return make_error(ErrorCode::data_loss, "an embedding worker does not know this request");
  };
}

std::unique_ptr<EmbeddingWorker> make_remote_workers(const Meeting& meeting, int64_t num_workers,
                                                     RowType pooled) {
  return std::make_unique<RemoteWorker>(meeting, num_workers, pooled);
}

}  // namespace tessera::recsys_roles
