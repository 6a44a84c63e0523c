#include "kernels/dispatch.h"

#include <array>
#include <atomic>
#include <cstdlib>
#include <string>

#include "core/error.h"
#include "kernels/blas/blas.h"
#include "kernels/onednn/onednn.h"
#include "kernels/reference/reference.h"
#include "kernels/simd/simd.h"

namespace pennyweight::kernels {

namespace {

constexpr Implementation kReference{
#define KERNEL(name, Args) .name = reference::name,
#include "kernels/kernel_list.def"
};

constexpr Implementation kSimd{
#define KERNEL(name, Args) .name = simd::name,
#include "kernels/kernel_list.def"
};

constexpr Implementation kBlas{
#define KERNEL(name, Args) .name = simd::name,
#define KERNEL_OF_PRODUCTS(name, Args) .name = blas::name,
#include "kernels/kernel_list.def"
};

#ifdef PENNYWEIGHT_HAVE_ONEDNN
constexpr Implementation kOneDnn{
#define KERNEL(name, Args) .name = simd::name,
#define KERNEL_OF_PRODUCTS(name, Args) .name = onednn::name,
#include "kernels/kernel_list.def"
};

constexpr Implementation kOneDnnF32{
#define KERNEL(name, Args) .name = simd::name,
#define KERNEL_OF_PRODUCTS(name, Args) .name = onednn::name##_f32,
#include "kernels/kernel_list.def"
};
#endif

Choice best_choice() {
  if (!simd::available()) {
    return Choice::reference;
  }
#ifdef PENNYWEIGHT_HAVE_ONEDNN
  const bool slow = onednn::has_bfloat16() && !onednn::bfloat16_pays();
  return slow ? Choice::onednn_f32 : Choice::onednn;
#else
  return blas::available() ? Choice::blas : Choice::simd;
#endif
}

constexpr std::array<const char*, 6>
    kChoiceNames{"reference", "simd", "blas", "onednn", "onednn_f32", "mlx"};

Choice requested_choice() {
  const char* text = std::getenv("PENNYWEIGHT_KERNEL");
  if (text == nullptr || *text == '\0') {
    return best_choice();
  }
  const std::string name = text;
  for (size_t i = 0; i < kChoiceNames.size(); ++i) {
    if (name == kChoiceNames[i]) {
      const auto choice = static_cast<Choice>(i);
      implementation(choice);
      return choice;
    }
  }
  throw argument_error(
      "kernels",
      "PENNYWEIGHT_KERNEL is '" + one_line(name, 40) +
          "'; set it to reference, simd, blas, onednn, onednn_f32 or mlx, or "
          "unset it");
}

constexpr int kNotOverridden = -1;
std::atomic<int> overridden{kNotOverridden};

const Implementation& active() {
  return implementation(active_choice());
}

}  // namespace

std::string_view choice_name(Choice choice) {
  return kChoiceNames[size_t(choice)];
}

std::vector<Choice> available_choices() {
  std::vector<Choice> choices{Choice::reference};
  if (!simd::available()) {
    return choices;
  }
  choices.push_back(Choice::simd);
  if (blas::available()) {
    choices.push_back(Choice::blas);
  }
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
  if (choice == Choice::mlx) {
    return implementation(best_choice());
  }
  if (choice != Choice::reference && !simd::available()) {
    throw not_supported_error(
        "kernels",
        "this processor lacks AVX2; set PENNYWEIGHT_KERNEL to reference");
  }
  switch (choice) {
    case Choice::reference:
      return kReference;
    case Choice::simd:
      return kSimd;
    case Choice::blas:
      if (!blas::available()) {
        throw not_supported_error(
            "kernels",
            "PENNYWEIGHT_KERNEL is blas, and there is no BLAS here; install "
            "OpenBLAS (libopenblas.so.0), or unset it");
      }
      return kBlas;
    default:
#ifdef PENNYWEIGHT_HAVE_ONEDNN
      return choice == Choice::onednn ? kOneDnn : kOneDnnF32;
#else
      throw not_supported_error(
          "kernels",
          "this build has no oneDNN; set PENNYWEIGHT_KERNEL to simd");
#endif
  }
}

std::string_view target_name(Choice choice) {
  switch (choice) {
    case Choice::mlx:
      return "cpu";
    case Choice::reference:
      return "scalar";
    case Choice::simd:
      return simd::target_name();
    case Choice::blas:
      return blas::target_name();
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
  if (choice == Choice::blas) {
    kind += " " + blas::version();
  }
#ifdef PENNYWEIGHT_HAVE_ONEDNN
  if (choice == Choice::onednn || choice == Choice::onednn_f32) {
    kind += " " + onednn::version();
  }
#endif
  return kind + " on " + std::string(target_name(choice));
}

#define KERNEL(name, Args)      \
  void name(const Args& args) { \
    active().name(args);        \
  }
#include "kernels/kernel_list.def"

}  // namespace pennyweight::kernels
