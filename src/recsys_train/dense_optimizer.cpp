#include "recsys_train/dense_optimizer.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/zeros_like.h>

#include <cmath>

#include "core/nearest.h"

namespace tessera::recsys_train {
namespace {

using at::Tensor;

class Base : public DenseOptimizer {
 public:
  Base(const DenseOptimizerOptions& options, Parameters& parameters)
      : options_(options), parameters_(parameters) {}
  void step() override {
    ++steps;
    for (size_t i = 0; i < parameters_.all().size(); ++i) {
      const Parameter& parameter = parameters_.all()[i];
      Tensor gradient = options_.weight_decay == 0
                            ? parameter.gradient
                            : parameter.gradient.add(parameter.value, options_.weight_decay);
      update(i, parameter.value, gradient);
    }
  }

 protected:
  virtual void update(size_t number, Tensor value, const Tensor& gradient) = 0;
  std::vector<Tensor> zeros() const {
    std::vector<Tensor> states;
    for (const Parameter& parameter : parameters_.all()) states.push_back(at::zeros_like(parameter.value));
    return states;
  }
  DenseOptimizerOptions options_;
  Parameters& parameters_;
};

class Sgd : public Base {
 public:
  Sgd(const DenseOptimizerOptions& options, Parameters& parameters) : Base(options, parameters) {
    if (options.momentum != 0) momentum_ = zeros();
  }
  std::vector<Tensor> state() override { return momentum_; }

 protected:
  void update(size_t number, Tensor value, const Tensor& gradient) override {
    if (options_.momentum == 0) {
      value.add_(gradient, -options_.learning_rate);
      return;
    }
    Tensor& buffer = momentum_[number];
    if (steps == 1)
      buffer.copy_(gradient);
    else
      buffer.mul_(options_.momentum).add_(gradient);
    value.add_(buffer, -options_.learning_rate);
  }

 private:
  std::vector<Tensor> momentum_;
};

class Adagrad : public Base {
 public:
  Adagrad(const DenseOptimizerOptions& options, Parameters& parameters)
      : Base(options, parameters), sums_(zeros()) {}
  std::vector<Tensor> state() override { return sums_; }

 protected:
  void update(size_t number, Tensor value, const Tensor& gradient) override {
    sums_[number].addcmul_(gradient, gradient, 1);
    Tensor deviation = sums_[number].sqrt().add_(1e-10);
    value.addcdiv_(gradient, deviation, -options_.learning_rate);
  }

 private:
  std::vector<Tensor> sums_;
};

class Adam : public Base {
 public:
  Adam(const DenseOptimizerOptions& options, Parameters& parameters)
      : Base(options, parameters), first_(zeros()), second_(zeros()) {}
  std::vector<Tensor> state() override {
    std::vector<Tensor> all = first_;
    all.insert(all.end(), second_.begin(), second_.end());
    return all;
  }

 protected:
  void update(size_t number, Tensor value, const Tensor& gradient) override {
    first_[number].lerp_(gradient, 1 - options_.beta1);
    second_[number].mul_(options_.beta2).addcmul_(gradient, gradient, 1 - options_.beta2);
    double correction1 = 1 - std::pow(options_.beta1, static_cast<double>(steps));
    double correction2 = 1 - std::pow(options_.beta2, static_cast<double>(steps));
    Tensor deviation = (second_[number].sqrt() / std::sqrt(correction2)).add_(options_.epsilon);
    value.addcdiv_(first_[number], deviation, -(options_.learning_rate / correction1));
  }

 private:
  std::vector<Tensor> first_, second_;
};

}  // namespace

Result<std::unique_ptr<DenseOptimizer>> DenseOptimizer::create(const DenseOptimizerOptions& options,
                                                               Parameters& parameters) {
  std::unique_ptr<DenseOptimizer> made;
  if (options.kind == "sgd") made = std::make_unique<Sgd>(options, parameters);
  if (options.kind == "adagrad") made = std::make_unique<Adagrad>(options, parameters);
  if (options.kind == "adam") made = std::make_unique<Adam>(options, parameters);
  if (!made)
    return invalid("dense.optimizer: got '{}', expected sgd, adagrad or adam{}", options.kind,
                   did_you_mean(options.kind, {"sgd", "adagrad", "adam"}));
  return made;
}

}  // namespace tessera::recsys_train
