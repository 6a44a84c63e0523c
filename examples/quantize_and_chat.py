"""Quantizes a model to a size and talks with what came of it in mlx-lm.

    python examples/quantize_and_chat.py Qwen/Qwen3-0.6B qwen3-45 --bpw 4.5

The text that rounding is fitted to is a few chats in memory; a real run wants
some hundred of the kind that the model is for, or `data="texts/"`.
"""

import argparse
from typing import Any

import mlx_lm
import pennyweight

CHATS = [
    [{"role": "user", "content": "Tell me a story about a dog and a kite."},
     {"role": "assistant", "content": "Once upon a time a dog found a kite. He ran "
      "and ran, and the kite flew high up in the sky, over the trees and the hill, "
      "until the wind lay down and they both went home."}],
    [{"role": "user", "content": "What does a baker do?"},
     {"role": "assistant", "content": "A baker gets up early in the morning, mixes "
      "flour and water, and bakes bread for the people in the town."}],
]


def chat(folder: str, question: str, tokens: int) -> str:
    """The model's answer, by mlx-lm as it is installed."""
    lm: Any = mlx_lm  # which has few types
    model, tokenizer = lm.load(folder)
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": question}], add_generation_prompt=True)
    return lm.generate(model, tokenizer, prompt, max_tokens=tokens)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", help="a folder, or a hub id")
    parser.add_argument("output", help="the folder to write")
    parser.add_argument("--bpw", type=float, default=4.5, help="bits a weight")
    parser.add_argument("--question", default="Tell me a story.")
    parser.add_argument("--tokens", type=int, default=60)
    words = parser.parse_args()

    report = pennyweight.quantize(
        words.model, words.output, target_bpw=words.bpw, effort="fast",
        data=CHATS * 20, sequence_length=64, progress=True)
    print(f"{report.bits_per_weight:.2f} bits a weight, {report.bytes / 1e6:.1f} MB, "
          f"KL {report.kl:.4f} nats a token from the full model")
    print(chat(words.output, words.question, words.tokens))


if __name__ == "__main__":
    main()
