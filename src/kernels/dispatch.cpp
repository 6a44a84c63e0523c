#include "kernels/dispatch.h"

#include <atomic>
#include <cstdlib>
#include <string>

#include "core/error.h"
#include "kernels/onednn/onednn.h"
#include "kernels/reference/reference.h"
#include "kernels/simd/simd.h"

namespace pennyweight::kernels {

namespace {

constexpr Implementation kReference{
    .matmul = reference::matmul,
    .dequantize = reference::dequantize,
    .quantized_matmul = reference::quantized_matmul,
    .rms_norm = reference::rms_norm,
    .rope = reference::rope,
    .attention = reference::attention,
    .gated_delta = reference::gated_delta,
    .causal_conv = reference::causal_conv,
    .swiglu = reference::swiglu,
    .subtract = reference::subtract,
    .add_magnitudes = reference::add_magnitudes,
    .transpose = reference::transpose,
    .gram = reference::gram,
    .softmax = reference::softmax,
    .logsumexp = reference::logsumexp,
    .score_update = reference::score_update,
    .rms_norm_backward = reference::rms_norm_backward,
    .swiglu_backward = reference::swiglu_backward,
    .attention_backward = reference::attention_backward,
    .gated_delta_backward = reference::gated_delta_backward,
    .kl_slopes = reference::kl_slopes,
    .group_gradient = reference::group_gradient,
    .accumulate = reference::accumulate,
};

constexpr Implementation kSimd{
    .matmul = simd::matmul,
    .dequantize = simd::dequantize,
    .quantized_matmul = simd::quantized_matmul,
    .rms_norm = simd::rms_norm,
    .rope = simd::rope,
    .attention = simd::attention,
    .gated_delta = simd::gated_delta,
    .causal_conv = simd::causal_conv,
    .swiglu = simd::swiglu,
    .subtract = simd::subtract,
    .add_magnitudes = simd::add_magnitudes,
    .transpose = simd::transpose,
    .gram = simd::gram,
    .softmax = simd::softmax,
    .logsumexp = simd::logsumexp,
    .score_update = simd::score_update,
    .rms_norm_backward = simd::rms_norm_backward,
    .swiglu_backward = simd::swiglu_backward,
    .attention_backward = simd::attention_backward,
    .gated_delta_backward = simd::gated_delta_backward,
    .kl_slopes = simd::kl_slopes,
    .group_gradient = simd::group_gradient,
    .accumulate = simd::accumulate,
};

#ifdef PENNYWEIGHT_HAVE_ONEDNN
constexpr Implementation with_onednn(bool f32) {
  Implementation made = kSimd;
  made.matmul = f32 ? onednn::matmul_f32 : onednn::matmul;
  made.gram = f32 ? onednn::gram_f32 : onednn::gram;
  made.quantized_matmul =
      f32 ? onednn::quantized_matmul_f32 : onednn::quantized_matmul;
  made.attention = f32 ? onednn::attention_f32 : onednn::attention;
  made.attention_backward =
      f32 ? onednn::attention_backward_f32 : onednn::attention_backward;
  return made;
}

constexpr Implementation kOneDnn = with_onednn(false);
constexpr Implementation kOneDnnF32 = with_onednn(true);
#endif

Choice best_choice() {
  if (!simd::available()) {
    return Choice::reference;
  }
#ifdef PENNYWEIGHT_HAVE_ONEDNN
  const bool slow = onednn::has_bfloat16() && !onednn::bfloat16_pays();
  return slow ? Choice::onednn_f32 : Choice::onednn;
#else
  return Choice::simd;
#endif
}

Choice requested_choice() {
  const char* text = std::getenv("PENNYWEIGHT_KERNEL");
  if (text == nullptr || *text == '\0') {
    return best_choice();
  }
  const std::string name = text;
  for (Choice choice :
       {Choice::reference, Choice::simd, Choice::onednn, Choice::onednn_f32}) {
    if (name == choice_name(choice)) {
      implementation(choice);
      return choice;
    }
  }
  throw Error(
      ErrorCode::invalid_argument,
      "kernels",
      "PENNYWEIGHT_KERNEL is '" + one_line(name, 40) +
          "'; set it to reference, simd, onednn or onednn_f32, or unset it");
}

constexpr int kNotOverridden = -1;
std::atomic<int> overridden{kNotOverridden};

const Implementation& active() {
  return implementation(active_choice());
}

}  // namespace

std::string_view choice_name(Choice choice) {
  switch (choice) {
    case Choice::reference:
      return "reference";
    case Choice::simd:
      return "simd";
    case Choice::onednn:
      return "onednn";
    default:
      return "onednn_f32";
  }
}

std::vector<Choice> available_choices() {
  std::vector<Choice> choices{Choice::reference};
  if (!simd::available()) {
    return choices;
  }
  choices.push_back(Choice::simd);
#ifdef PENNYWEIGHT_HAVE_ONEDNN
  const Choice best = best_choice();
  if (onednn::has_bfloat16()) {  // else both are the same
    choices.push_back(
        best == Choice::onednn ? Choice::onednn_f32 : Choice::onednn);
  }
  choices.push_back(best);
#endif
  return choices;
}

Choice active_choice() {
  const int choice = overridden.load(std::memory_order_relaxed);
  if (choice != kNotOverridden) {
    return static_cast<Choice>(choice);
  }
  static const Choice requested = requested_choice();
  return requested;
}

void override_choice(std::optional<Choice> choice) {
  if (choice) {
    implementation(*choice);
  }
  overridden = choice ? static_cast<int>(*choice) : kNotOverridden;
}

const Implementation& implementation(Choice choice) {
  if (choice != Choice::reference && !simd::available()) {
    throw Error(
        ErrorCode::not_supported,
        "kernels",
        "this processor lacks AVX2; set PENNYWEIGHT_KERNEL to reference");
  }
  switch (choice) {
    case Choice::reference:
      return kReference;
    case Choice::simd:
      return kSimd;
    default:
#ifdef PENNYWEIGHT_HAVE_ONEDNN
      return choice == Choice::onednn ? kOneDnn : kOneDnnF32;
#else
      throw Error(
          ErrorCode::not_supported,
          "kernels",
          "this build has no oneDNN; set PENNYWEIGHT_KERNEL to simd");
#endif
  }
}

std::string_view target_name(Choice choice) {
  switch (choice) {
    case Choice::reference:
      return "scalar";
    case Choice::simd:
      return simd::target_name();
    default:
#ifdef PENNYWEIGHT_HAVE_ONEDNN
      return onednn::target_name(choice == Choice::onednn);
#else
      return "none";
#endif
  }
}

std::string kernel_kind() {
  const Choice choice = active_choice();
  std::string kind(choice_name(choice));
#ifdef PENNYWEIGHT_HAVE_ONEDNN
  if (choice == Choice::onednn || choice == Choice::onednn_f32) {
    kind += " " + onednn::version();
  }
#endif
  return kind + " on " + std::string(target_name(choice));
}

void matmul(const MatmulArgs& args) {
  active().matmul(args);
}

void dequantize(const DequantizeArgs& args) {
  active().dequantize(args);
}

void quantized_matmul(const QuantizedMatmulArgs& args) {
  active().quantized_matmul(args);
}

void rms_norm(const RmsNormArgs& args) {
  active().rms_norm(args);
}

void rope(const RopeArgs& args) {
  active().rope(args);
}

void attention(const AttentionArgs& args) {
  active().attention(args);
}

void gated_delta(const GatedDeltaArgs& args) {
  active().gated_delta(args);
}

void causal_conv(const CausalConvArgs& args) {
  active().causal_conv(args);
}

void swiglu(const SwigluArgs& args) {
  active().swiglu(args);
}

void subtract(const SubtractArgs& args) {
  active().subtract(args);
}

void add_magnitudes(const AddMagnitudesArgs& args) {
  active().add_magnitudes(args);
}

void transpose(const TransposeArgs& args) {
  active().transpose(args);
}

void gram(const GramArgs& args) {
  active().gram(args);
}

void softmax(const SoftmaxArgs& args) {
  active().softmax(args);
}

void logsumexp(const LogSumExpArgs& args) {
  active().logsumexp(args);
}

void score_update(const ScoreArgs& args) {
  active().score_update(args);
}

void rms_norm_backward(const RmsNormBackwardArgs& args) {
  active().rms_norm_backward(args);
}

void swiglu_backward(const SwigluBackwardArgs& args) {
  active().swiglu_backward(args);
}

void attention_backward(const AttentionBackwardArgs& args) {
  active().attention_backward(args);
}

void gated_delta_backward(const GatedDeltaBackwardArgs& args) {
  active().gated_delta_backward(args);
}

void kl_slopes(const KlSlopesArgs& args) {
  active().kl_slopes(args);
}

void group_gradient(const GroupGradientArgs& args) {
  active().group_gradient(args);
}

void accumulate(const AccumulateArgs& args) {
  active().accumulate(args);
}

}  // namespace pennyweight::kernels
