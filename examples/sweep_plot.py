"""Measures how much of a model each size keeps, and draws it.

    pip install matplotlib
    python examples/sweep_plot.py Qwen/Qwen3-0.6B frontier --bpw 2.5:6:0.5

writes the folder `frontier` with its report, and `frontier/frontier.png`.
"""

import argparse
from pathlib import Path
from typing import Any

import pennyweight
from matplotlib.figure import Figure


def draw(sweep: pennyweight.SweepReport, file: Path) -> None:
    """Size against divergence, measured where it was and estimated everywhere."""
    figure: Any = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    bits = [point.bits_per_weight for point in sweep.points]
    axes.plot(bits, [point.estimated_kl for point in sweep.points], "o--",
              color="#999999", label="estimated from the widths' costs")
    measured = [point for point in sweep.points if point.kl is not None]
    axes.plot([point.bits_per_weight for point in measured],
              [point.kl for point in measured], "o-", label="measured")
    axes.set(xlabel="bits a weight, scales included",
             ylabel="KL from the full model (nats a token)", yscale="log")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(file, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", help="a folder, or a hub id")
    parser.add_argument("output", help="the folder to write")
    parser.add_argument("--bpw", default="2.5:6:0.5", help="first:last:step, or a list")
    parser.add_argument("--data", help="text: a file, a folder or a hub data set")
    parser.add_argument("--sequence-length", type=int, default=512)
    words = parser.parse_args()

    sweep = pennyweight.sweep(
        words.model, words.output, bpw=words.bpw, data=words.data,
        sequence_length=words.sequence_length, progress=True)
    for point in sweep.points:
        print(f"{point.bits_per_weight:.3f} bits a weight  {point.bytes / 1e6:8.1f} MB  "
              f"KL {point.kl if point.kl is not None else point.estimated_kl:.4f}")
    file = Path(words.output) / "frontier.png"
    draw(sweep, file)
    print(f"drawn in {file}")


if __name__ == "__main__":
    main()
