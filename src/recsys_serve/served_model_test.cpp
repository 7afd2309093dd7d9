#include "recsys_serve/served_model.h"

#include <ATen/Parallel.h>
#include <ATen/ops/from_blob.h>
#include <c10/core/InferenceMode.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <fstream>

#include "recsys_data/csv.h"
#include "recsys_serve/score_request.h"
#include "recsys_train/run.h"

namespace tessera::recsys_serve {
namespace {

namespace fs = std::filesystem;
using namespace recsys_train;
using Trained = recsys_train::Setup;  // googletest has a Setup of its own

// A small log with every kind of feature that CSV has.
std::string log_text(int64_t rows, uint64_t seed) {
  std::string text = "label,age,height,city,level,tags\n";
  for (int64_t i = 0; i < rows; ++i) {
    uint64_t r = recsys_data::id_of_text(fmt::format("{}-{}", seed, i));
    text += fmt::format("{},{},{},town{},{},{}\n", (r >> 3) % 2, r % 60 + 18,
                        r % 7 == 0 ? "" : fmt::format("1.{}", r % 97), r % 11, r % 5,
                        r % 3 == 0 ? "" : fmt::format("t{}|t{}", r % 13, r % 17));
  }
  return text;
}

class ServedModelTest : public ::testing::Test {
 protected:
  void SetUp() override {
    at::set_num_threads(1);
    folder_ = fs::temp_directory_path() / ("tessera-served-" + std::to_string(::getpid()));
    fs::create_directories(folder_);
    std::ofstream(folder_ / "train.csv") << log_text(2000, 1);
    std::ofstream(folder_ / "test.csv") << log_text(500, 2);
  }
  void TearDown() override { fs::remove_all(folder_); }

  RunConfig run(const std::vector<std::string>& more = {}) const {
    std::vector<std::string> options = {"data.kind=csv",
                                        "data.path=" + (folder_ / "train.csv").string(),
                                        "data.test_path=" + (folder_ / "test.csv").string(),
                                        "data.label=label",
                                        "data.numeric=age,height",
                                        "data.categorical=city,level:5",
                                        "data.multi_hot=tags",
                                        "embedding.dim=8",
                                        "embedding.pooling=mean",
                                        "model.top=16",
                                        "train.batch=64",
                                        "train.deterministic=true"};
    options.insert(options.end(), more.begin(), more.end());
    auto loaded = load_run_config("", options);
    EXPECT_TRUE(loaded.ok()) << (loaded.ok() ? "" : loaded.error().message);
    return *loaded;
  }
  std::unique_ptr<Exporter> exporter(const RunConfig& run, Trained& setup, int64_t most_deltas = 100) const {
    auto opened = Exporter::open({.folder = folder_ / "export", .most_deltas = most_deltas},
                                 *exported_model(run, setup), *setup.worker, *setup.model);
    EXPECT_TRUE(opened.ok()) << (opened.ok() ? "" : opened.error().message);
    return *std::move(opened);
  }
  std::unique_ptr<ServedModel> serve() const {
    return *ServedModel::open({.folder = folder_ / "export", .poll_s = 0.005});
  }
  static void wait_for(const ServedModel& served, int64_t version) {
    for (int k = 0; k < 2000 && served.standing().version < version; ++k) ::usleep(5000);
    ASSERT_EQ(served.standing().version, version) << served.standing().problem;
  }
  // Logits of the test rows as Trainer::evaluate() computes them.
  static std::vector<float> evaluated(Trained& setup) {
    c10::InferenceMode no_autograd;
    BatchKey key{.split = Split::test, .rows = 2048, .step = setup.trainer->standing().step};
    DenseInput in;
    EXPECT_TRUE(setup.worker->look_up(key, in));
    const auto& plan = setup.embeddings.lookup;
    const int64_t slots = static_cast<int64_t>(plan.slots.size());
    at::Tensor numeric = at::from_blob(in.numeric.data(), {in.rows, 2}, at::kFloat);
    at::Tensor pooled = at::from_blob(in.pooled.data(), {in.rows, slots, plan.dim}, at::kFloat);
    at::Tensor wide = plan.wide ? at::from_blob(in.wide.data(), {in.rows, slots}, at::kFloat) : at::Tensor();
    at::Tensor logits = setup.model->forward(numeric, pooled, wide).contiguous();
    return {logits.data_ptr<float>(), logits.data_ptr<float>() + logits.numel()};
  }
  // The test file as a client would send it: texts by name.
  recsys_data::Batch asked(const recsys_data::EncodedFeatures& features) const {
    std::ifstream file(folder_ / "test.csv");
    std::string line, dense[2], sparse[3];
    std::getline(file, line);
    while (std::getline(file, line)) {
      std::vector<std::string> fields(1);
      for (char c : line)
        if (c == ',')
          fields.emplace_back();
        else
          fields.back() += c;
      for (size_t i = 0; i < 2; ++i)
        dense[i] += fmt::format(",{}", fields[1 + i].empty() ? "null" : fields[1 + i]);
      sparse[0] += fmt::format(",\"{}\"", fields[3]);
      sparse[1] += fmt::format(",{}", fields[4]);
      std::string& tags = fields[5];
      for (size_t at = tags.find('|'); at != std::string::npos; at = tags.find('|'))
        tags.replace(at, 1, "\",\"");
      sparse[2] += tags.empty() ? ",[]" : fmt::format(",[\"{}\"]", tags);
    }
    std::string body = fmt::format(
        R"({{"dense":{{"age":[{}],"height":[{}]}},"sparse":{{"city":[{}],"level":[{}],"tags":[{}]}}}})",
        dense[0].substr(1), dense[1].substr(1), sparse[0].substr(1), sparse[1].substr(1), sparse[2].substr(1));
    auto parsed = parse_score_request(body, features, 100000);
    if (auto* error = std::get_if<HttpError>(&parsed)) ADD_FAILURE() << error->message;
    return std::get<recsys_data::Batch>(std::move(parsed));
  }

  fs::path folder_;
};

TEST_F(ServedModelTest, ScoresAreThoseOfTheEvaluationBitForBit) {
  for (const char* kind : {"dnn", "dcnv2", "deepfm", "wide-deep"})
    for (const char* servers : {"1", "3"}) {
      RunConfig options = run({std::string("model.kind=") + kind, std::string("train.servers=") + servers});
      auto setup = *set_up(options);
      ASSERT_TRUE(train(options, *setup, {}).ok());
      ASSERT_TRUE(exporter(options, *setup)->finish(setup->trainer->standing().step));
      auto served = serve();
      auto scores = served->score(asked(served->model()->features));
      ASSERT_TRUE(scores.ok()) << scores.error().message;
      EXPECT_EQ(scores->logits, evaluated(*setup)) << kind << " of " << servers;
      fs::remove_all(folder_ / "export");
    }
}

TEST_F(ServedModelTest, FollowsTheVersionsThatTrainingWrites) {
  RunConfig options = run();
  auto setup = *set_up(options);
  auto writer = exporter(options, *setup, 3);  // the rows are whole again after three deltas
  ASSERT_TRUE(writer->finish(0));
  auto served = serve();
  ASSERT_TRUE(served->standing().ready);
  for (int64_t epoch = 1; epoch <= 6; ++epoch) {
    options.epochs = epoch;
    ASSERT_TRUE(train(options, *setup, {}).ok());
    ASSERT_TRUE(writer->finish(setup->trainer->standing().step));
    wait_for(*served, epoch + 1);
    auto scores = served->score(asked(served->model()->features));
    ASSERT_TRUE(scores.ok());
    EXPECT_EQ(scores->version, epoch + 1);
    EXPECT_EQ(scores->logits, evaluated(*setup)) << "version " << epoch + 1;
    EXPECT_EQ(serve()->score(asked(served->model()->features))->logits, scores->logits)
        << "from the files alone";
  }
  EXPECT_FALSE(fs::exists(folder_ / "export/version-0.json"));
}

TEST_F(ServedModelTest, ATrainerThatBeginsAnewIsFollowed) {
  RunConfig options = run();
  auto first = *set_up(options);
  ASSERT_TRUE(exporter(options, *first)->finish(0));
  auto served = serve();
  auto second = *set_up(options);
  ASSERT_TRUE(train(options, *second, {}).ok());
  ASSERT_TRUE(exporter(options, *second)->finish(7));
  wait_for(*served, 2);
  EXPECT_EQ(served->score(asked(served->model()->features))->logits, evaluated(*second));
}

TEST_F(ServedModelTest, ADamagedVersionLeavesTheOneBeforeInUse) {
  RunConfig options = run();
  auto setup = *set_up(options);
  auto writer = exporter(options, *setup);
  ASSERT_TRUE(writer->finish(0));
  auto served = serve();
  auto before = served->score(asked(served->model()->features))->logits;
  // A version whose rows are torn, made beside the folder and put there with its manifest last.
  fs::copy(folder_ / "export", folder_ / "copy");
  ASSERT_TRUE(train(options, *setup, {}).ok());
  auto other = *Exporter::open({.folder = folder_ / "copy"}, *exported_model(options, *setup), *setup->worker,
                               *setup->model);
  ASSERT_TRUE(other->finish(1));
  fs::resize_file(folder_ / "copy/rows-0-2.full", 500);
  for (const char* name : {"rows-0-2.full", "dense-2.safetensors", "version-2.json"})
    fs::copy_file(folder_ / "copy" / name, folder_ / "export" / name);
  for (int k = 0; k < 400 && served->standing().problem.empty(); ++k) ::usleep(5000);
  EXPECT_NE(served->standing().problem.find("rows-0-2.full"), std::string::npos) << served->standing().problem;
  EXPECT_EQ(served->standing().version, 1);
  EXPECT_EQ(served->score(asked(served->model()->features))->logits, before);
}

TEST_F(ServedModelTest, AnotherModelIsNotWrittenIntoTheFolder) {
  RunConfig options = run(), wider = run({"model.top=24"});
  auto setup = *set_up(options), other = *set_up(wider);
  ASSERT_TRUE(exporter(options, *setup)->finish(0));
  auto refused = Exporter::open({.folder = folder_ / "export"}, *exported_model(wider, *other), *other->worker,
                                *other->model);
  ASSERT_FALSE(refused.ok());
  EXPECT_NE(refused.error().message.find("another model"), std::string::npos);
}

TEST_F(ServedModelTest, BadRequestsNameTheFeature) {
  RunConfig options = run();
  auto setup = *set_up(options);
  const recsys_data::EncodedFeatures features = exported_model(options, *setup)->features;
  struct Case {
    const char *body, *field, *says;
  };
  const char* kRest = R"("height":[1]},"sparse":{"city":["a"],"level":[1],"tags":[[]]}})";
  for (const Case& wrong : {
           Case{"{", "", "not JSON"},
           Case{"[[[[[[[[[[[[1]]]]]]]]]]]]", "", "nested deeper"},
           Case{R"({"dens":{}})", "dens", "did you mean 'dense'"},
           Case{R"({"dense":[1]})", "dense", "expected an object"},
           Case{R"({"dense":{"agee":[1]}})", "dense.agee", "did you mean 'age'"},
           Case{R"({"dense":{"age":["x"],)", "dense.age", "row 0: got 'x', expected a finite number"},
           Case{R"({"dense":{"age":[true],)", "dense.age",
                "row 0: got true, expected a number, a text or null"},
           Case{R"({"dense":{"age":1,)", "dense.age", "expected a list"},
           Case{R"({"dense":{"age":[1,2],)", "dense.height", "has 1 values"},
           Case{R"({"dense":{)", "dense.age", "the feature is missing"},
           Case{R"({"dense":{"age":[1],"height":[1]},"sparse":{"city":["a"],"level":[5],"tags":[[]]}})",
                "sparse.level", "got 5, expected a whole number from 0 to 4"},
           Case{R"({"dense":{"age":[1],"height":[1]},"sparse":{"city":["a"],"level":[1],"tags":["a"]}})",
                "sparse.tags", "expected a list of ids"},
           Case{R"({"dense":{"age":[1,2,3,4]}})", "dense.age", "at most 3"},
       }) {
    std::string body = wrong.body;
    if (body.size() > 8 && (body.ends_with(',') || body.ends_with("{\"dense\":{"))) body += kRest;
    auto parsed = parse_score_request(body, features, 3);
    const auto* error = std::get_if<HttpError>(&parsed);
    ASSERT_NE(error, nullptr) << body;
    EXPECT_EQ(error->status, 400);
    EXPECT_EQ(error->param, wrong.field) << error->message;
    EXPECT_NE(error->message.find(wrong.says), std::string::npos) << error->message;
  }
}

}  // namespace
}  // namespace tessera::recsys_serve
