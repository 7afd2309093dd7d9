// A served recommender behind HTTP:
//
//   POST /v1/score   scores of rows (score_request.h): {"scores": [...], "version", "step", "age_s"}
//   GET  /v1/model   its features with their encodings, version and figures
//   GET  /health     200 while the process answers
//   GET  /health/ready   200 once a version is served, else 503
//   GET  /metrics    Prometheus text
//
// and behind KServe's protocol (kserve.h): GET /v2, /v2/health/live, /v2/health/ready, /v2/models/NAME,
// /v2/models/NAME/ready, POST /v2/models/NAME/infer; /versions/N may stand behind NAME where N is served.
//
// Requests wait in one queue for the threads that compute; what is beyond `max_waiting` is refused with 429.
// Errors have the form of the path's protocol; `param` names the feature.
#pragma once

#include <condition_variable>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "core/clock.h"
#include "http/http.h"
#include "http/prometheus.h"
#include "recsys_serve/served_model.h"

namespace tessera::recsys_serve {

struct ScoreApiOptions {
  std::string name = "model", version;  // of the model and of this program, in KServe's protocol
  int64_t workers = 1;                  // threads that compute
  int64_t max_rows = 65536;             // of one request
  int64_t max_waiting = 1024;
};

// Threads: handle() on the server's.
class ScoreApi {
 public:
  // Both must outlive it; run() of the server must have returned before it is destroyed.
  ScoreApi(const ServedModel& model, HttpServer& server, ScoreApiOptions options);
  ~ScoreApi();
  void handle(std::shared_ptr<HttpExchange> exchange);

 private:
  struct Job {
    std::shared_ptr<HttpExchange> exchange;
    Clock::time_point arrived;
  };
  struct Answer {
    HttpResponse response;
    int64_t rows = 0;
  };
  // What a path without the work of scoring answers; an error where there is no such path.
  Result<HttpResponse> get(const std::string& path) const;
  Result<HttpResponse> get_kserve(const std::string& path) const;
  // The rest of a path that is about this model and a version that is served: "", "/ready", "/infer".
  std::optional<std::string> of_model(const std::string& path) const;
  bool scores(const HttpRequest& request) const;
  Result<HttpResponse> describe() const;
  std::string metrics() const;
  void enqueue(std::shared_ptr<HttpExchange> exchange);
  void work();
  Answer answer(const HttpRequest& request) const;
  Answer score(const HttpRequest& request, const recsys_train::ExportedModel& model) const;
  Answer infer(const HttpRequest& request, const recsys_train::ExportedModel& model) const;
  void count(const Answer& answer, double seconds);

  const ServedModel& model_;
  HttpServer& server_;
  ScoreApiOptions options_;

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  bool ends_ = false;
  std::deque<Job> waiting_;
  std::map<int, int64_t> answered_;  // by status
  int64_t rows_ = 0;
  Histogram latency_;
  std::vector<std::thread> crew_;
};

}  // namespace tessera::recsys_serve
