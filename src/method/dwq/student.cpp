#include "method/dwq/student.h"

#include <mlx/allocator.h>
#include <mlx/memory.h>
#include <mlx/ops.h>
#include <mlx/transforms.h>

#include <cmath>
#include <cstring>

#include "ops/evaluated.h"

namespace pennyweight {

namespace {

// Evaluated.
mx::array dense(const mx::array& x) {
  return evaluated(mx::contiguous(x));
}

double squares(const mx::array& x) {
  const auto whole = dense(x);
  double sum = 0;
  for (size_t i = 0; i < whole.size(); ++i) {
    const double value = whole.data<float>()[i];
    sum += value * value;
  }
  return sum;
}

// Masters are written in place, and in float32 a result may be theirs.
mx::array own_copy(const mx::array& x) {
  auto buffer = mx::allocator::malloc(x.nbytes());
  std::memcpy(buffer.buffer().raw_ptr(), x.data<char>(), x.nbytes());
  return mx::array(std::move(buffer), x.shape(), x.dtype());
}

}  // namespace

Student::Student(const Model& model, const ModelPart& part)
    : model_(model), part_(part) {
  const auto hold = [&](const std::string& path, const LinearWeights& linear) {
    if (linear.packed && is_trained(*linear.packed)) {
      require_finite(dense(linear.packed->scales), path + ".scales");
      require_finite(dense(*linear.packed->biases), path + ".biases");
      groups_.emplace(path, TrainedGroups(*linear.packed));
    }
  };
  for (int i = part.first; i < part.end; ++i) {
    auto& block =
        blocks_.emplace(i, load_block(model, i, model.dtype)).first->second;
    for (const auto& [path, linear] : block.linears) {
      hold(path, linear);
    }
  }
  if (part.embeds || part.heads) {
    tables_ = load_embedding_and_head(model, model.dtype);
    tables_->rounded = true;
    const auto hold_table = [&](const std::string& path) {
      hold(path, load_linear(model, path, model.dtype));
    };
    if (part.embeds || !model.spec.head) {
      hold_table(model.spec.embedding);
    }
    if (part.heads && model.spec.head) {
      hold_table(model.spec.head->path);
    }
    if (const auto& token = model.spec.token_inputs) {
      hold_table(token->table);
      hold_table(token->projection.path);
    }
  }
  for (const ModuleSpec& module : list_modules(model.spec)) {
    if (module.expert) {
      experts_.insert(module.path);
    }
    auto spec = model.quantized.find(module.stored);
    if (spec != model.quantized.end() && is_trained(spec->second)) {
      trained_.push_back(module.path);
      modules_.emplace(module.path, module);
    }
  }
  find_units();
  mx::clear_cache();  // of what the masters were made
}

void Student::find_units() {
  double sum = 0;
  double count = 0;
  for (const auto& [path, groups] : groups_) {
    units_[path] = groups.unit();
    if (!part_.pipeline || owns(path)) {
      const auto shape = groups_of(path);
      const double own = double(shape[0]) * double(shape[1]);
      sum += own * units_[path];
      count += own;
    }
  }
  if (part_.pipeline) {
    sum = part_.ranks->sum(sum);
    count = part_.ranks->sum(count);
  }
  unit_ = count > 0 ? sum / count : 0;
}

mx::Shape Student::groups_of(const std::string& path) const {
  const auto& module = modules_.at(path);
  auto shape = model_.tensors.info(module.stored + ".scales").shape;
  if (module.part >= 0) {
    shape.erase(shape.begin());
  }
  return shape;
}

// A tied embedding is held by the first and the last; it is the first's.
bool Student::owns(const std::string& path) const {
  return groups_.contains(path) &&
      (path != model_.spec.embedding || part_.embeds);
}

int64_t Student::parameters() const {
  int64_t count = 0;
  for (const auto& path : trained_) {
    const auto shape = groups_of(path);
    count += 2 * int64_t{shape[0]} * shape[1];
  }
  return count;
}

BlockWeights Student::block(int index) const {
  auto weights = blocks_.at(index);
  for (auto& [path, linear] : weights.linears) {
    if (trains(path)) {
      linear.packed = weight(path);
    }
  }
  return weights;
}

void Student::expand(const std::string& path, LinearWeights& linear) const {
  if (linear.packed && (trains(path) || !experts_.contains(path))) {
    linear.dense = ops::dequantize(
        trains(path) ? weight(path) : *linear.packed, model_.dtype);
    linear.packed.reset();
    mx::eval(*linear.dense);
  }
}

BlockWeights Student::expanded_block(
    int index,
    std::vector<std::string>& trained) const {
  auto weights = blocks_.at(index);
  trained.clear();
  for (auto& [path, linear] : weights.linears) {
    expand(path, linear);
    if (trains(path)) {
      trained.push_back(path);
    }
  }
  return weights;
}

EmbeddingAndHead Student::tables() const {
  auto tables = *tables_;
  const auto trained = [&](VocabTable& table) {
    if (trains(table.path())) {
      const auto now = weight(table.path());
      mx::eval(now.scales, *now.biases);
      table = table.with_groups(now.scales, *now.biases);
    }
  };
  trained(tables.embedding);
  if (tables.token) {
    trained(tables.token->table);
    trained(tables.token->projection);
  }
  if (model_.spec.head) {
    trained(tables.head);
  } else {
    tables.head = tables.embedding;
  }
  return tables;
}

void Student::add(
    const std::string& path,
    const ops::GroupGradients& gradients) {
  auto it = sums_.find(path);
  const auto sum = it == sums_.end()
      ? gradients
      : ops::GroupGradients{
            ops::accumulate(it->second.scales, gradients.scales),
            ops::accumulate(it->second.biases, gradients.biases)};
  // Now, so that nothing keeps the dense gradients.
  mx::eval({sum.scales, sum.biases});
  sums_.insert_or_assign(path, sum);
}

ops::GroupGradients& Student::sums_of(const std::string& path) {
  const auto [it, fresh] = sums_.try_emplace(
      path, ops::GroupGradients{mx::array(0.0f), mx::array(0.0f)});
  if (fresh) {
    it->second = {
        mx::zeros(groups_of(path), mx::float32),
        mx::zeros(groups_of(path), mx::float32)};
    // In memory of their own, in which they are added to.
    it->second = {
        own_copy(dense(it->second.scales)), own_copy(dense(it->second.biases))};
  }
  return it->second;
}

void Student::add_rows(
    const std::string& path,
    int first,
    const ops::GroupGradients& gradients) {
  auto& sums = sums_of(path);
  const auto add = [&](const mx::array& x, mx::array& sum) {
    const auto part = dense(x);
    float* to = sum.data<float>() + int64_t{first} * sum.shape(1);
    for (size_t i = 0; i < part.size(); ++i) {
      to[i] += part.data<float>()[i];
    }
  };
  add(gradients.scales, sums.scales);
  add(gradients.biases, sums.biases);
}

void Student::add_at(
    const std::string& path,
    const mx::array& tokens,
    const ops::GroupGradients& gradients) {
  auto& sums = sums_of(path);
  const auto rows = dense(tokens);
  const auto add = [&](const mx::array& x, mx::array& sum) {
    const auto part = dense(x);
    const auto groups = static_cast<size_t>(part.shape(1));
    for (size_t i = 0; i < part.size(); ++i) {
      const auto row = static_cast<size_t>(rows.data<int32_t>()[i / groups]);
      sum.data<float>()[row * groups + i % groups] += part.data<float>()[i];
    }
  };
  add(gradients.scales, sums.scales);
  add(gradients.biases, sums.biases);
}

double Student::reduce() {
  const bool several = part_.ranks->size() > 1;
  double total = 0;
  for (const auto& path : trained_) {
    auto it = sums_.find(path);
    // By blocks only a tied embedding is shared.
    const bool shared = several &&
        (!part_.pipeline ||
         (path == model_.spec.embedding && !model_.spec.head));
    if (shared) {
      const auto none = mx::zeros(groups_of(path), mx::float32);
      const bool has = it != sums_.end();
      const auto all = part_.ranks->sum(mx::stack(
          {has ? it->second.scales : none, has ? it->second.biases : none}));
      if (has) {
        it->second = {mx::take(all, 0, 0), mx::take(all, 1, 0)};
      }
    }
    if (it != sums_.end() && (!part_.pipeline || owns(path))) {
      total += squares(it->second.scales) + squares(it->second.biases);
    }
  }
  return std::sqrt(part_.pipeline ? part_.ranks->sum(total) : total);
}

void Student::update(const AdamStep& step) {
  for (const auto& [path, sum] : sums_) {
    auto own = step;
    own.rate *= units_.at(path) / unit_;
    groups_.at(path).update(sum, own);
  }
  sums_.clear();
}

void Student::reset() {
  sums_.clear();
  for (auto& [path, groups] : groups_) {
    groups.reset();
  }
}

mx::array Student::gathered(
    const std::string& path,
    const std::function<mx::array(const TrainedGroups&)>& value) const {
  auto own = owns(path) ? value(groups_.at(path))
                        : mx::zeros(groups_of(path), mx::float32);
  return part_.pipeline ? part_.ranks->sum(own) : own;
}

void Student::save(const SaveFn& take) const {
  for (const auto& path : trained_) {
    for (const char* name :
         {"scale", "scale_m", "scale_v", "centre", "centre_m", "centre_v"}) {
      take(path + "." + name, gathered(path, [&](const TrainedGroups& groups) {
             return groups.state().at(name);
           }));
    }
  }
}

void Student::restore(const std::map<std::string, mx::array>& state) {
  for (auto& [path, groups] : groups_) {
    auto own = groups.state();
    for (auto& [name, value] : own) {
      value = state.at(path + "." + name);
    }
    groups.restore(own);
  }
}

std::map<std::string, mx::array> Student::result() const {
  std::map<std::string, mx::array> tensors;
  std::map<std::string, std::vector<mx::array>> stacks;
  for (const auto& path : trained_) {
    for (const std::string part : {".scales", ".biases"}) {
      // float32 holds all floats, and is what sums are made in.
      auto value = gathered(path, [&](const TrainedGroups& groups) {
        const auto weight = groups.weight();
        return mx::astype(
            part == ".scales" ? weight.scales : *weight.biases, mx::float32);
      });
      const auto& module = modules_.at(path);
      const auto name = module.stored + part;
      value = mx::astype(value, model_.tensors.info(name).dtype);
      mx::eval(value);
      value = own_copy(value);
      if (module.part < 0) {
        tensors.emplace(name, value);
      } else {
        stacks[name].push_back(value);  // parts come in their order
      }
    }
  }
  for (const auto& [name, parts] : stacks) {
    tensors.emplace(name, mx::stack(parts));
    mx::eval(tensors.at(name));
  }
  return tensors;
}

}  // namespace pennyweight
