#include "recsys_roles/remote_worker.h"

namespace tessera::recsys_roles {
namespace {

using recsys_train::BatchKey;
using recsys_train::DenseInput;
using recsys_train::EmbeddingWorker;

enum class WorkerRequest : uint8_t { load, look_up, give_back, stats, digest };

class RemoteWorker : public EmbeddingWorker {
 public:
  RemoteWorker(const Meeting& meeting, const std::string& role) : caller_(meeting, role) {}

  Result<int64_t> load(const BatchKey& key) override {
    TESSERA_ASSIGN_OR_RETURN(Message bytes,
                             caller_.call(MessageWriter().value(WorkerRequest::load).value(key).take()));
    return only_value<int64_t>(bytes);
  }

  Status look_up(const BatchKey& key, DenseInput& out) override {
    TESSERA_ASSIGN_OR_RETURN(Message bytes,
                             caller_.call(MessageWriter().value(WorkerRequest::look_up).value(key).take()));
    MessageReader reader(bytes);
    out.rows = reader.value<int64_t>();
    for (auto* values : {&out.labels, &out.numeric, &out.pooled, &out.wide}) reader.array(*values);
    return reader.end();
  }

  Status give_back(const BatchKey& key, int64_t group, std::span<const float> pooled,
                   std::span<const float> wide) override {
    MessageWriter message;
    message.value(WorkerRequest::give_back).value(key).value(group).array(pooled).array(wide);
    auto answer = caller_.call(message.take());
    return answer ? Status() : Status(answer.error());
  }

  Result<recsys::GroupStats> stats(int64_t group) override {
    TESSERA_ASSIGN_OR_RETURN(Message bytes,
                             caller_.call(MessageWriter().value(WorkerRequest::stats).value(group).take()));
    return only_value<recsys::GroupStats>(bytes);
  }

  Result<uint64_t> digest(int64_t step) override {
    TESSERA_ASSIGN_OR_RETURN(Message bytes,
                             caller_.call(MessageWriter().value(WorkerRequest::digest).value(step).take()));
    return only_value<uint64_t>(bytes);
  }

 private:
  template <class T>
  static Result<T> only_value(const Message& bytes) {
    MessageReader reader(bytes);
    T value = reader.value<T>();
    TESSERA_RETURN_IF_ERROR(reader.end());
    return value;
  }
  Caller caller_;
};

Result<Message> answer_look_up(EmbeddingWorker& worker, MessageReader& request) {
  auto key = request.value<BatchKey>();
  TESSERA_RETURN_IF_ERROR(request.end());
  DenseInput in;
  TESSERA_RETURN_IF_ERROR(worker.look_up(key, in));
  MessageWriter answer;
  answer.value(in.rows).array(in.labels).array(in.numeric).array(in.pooled).array(in.wide);
  return answer.take();
}

Result<Message> answer_give_back(EmbeddingWorker& worker, MessageReader& request) {
  auto key = request.value<BatchKey>();
  auto group = request.value<int64_t>();
  auto pooled = request.array<float>(), wide = request.array<float>();
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
      case WorkerRequest::digest:
        return answer_digest(worker, request);
    }
    return make_error(ErrorCode::data_loss, "an embedding worker does not know this request");
  };
}

std::unique_ptr<EmbeddingWorker> make_remote_worker(const Meeting& meeting, const std::string& role) {
  return std::make_unique<RemoteWorker>(meeting, role);
}

}  // namespace tessera::recsys_roles
