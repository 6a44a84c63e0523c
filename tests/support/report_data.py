"""Makes the data of a report for models of any depth, like that of a run."""

import math
import random

ATTENTION = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj",
             "self_attn.o_proj"]
LINEAR_ATTENTION = ["linear_attn.in_proj", "linear_attn.out_proj"]
MLP = ["mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"]
EXPERTS = ["mlp.gate", "mlp.switch_mlp.gate_proj", "mlp.switch_mlp.up_proj",
           "mlp.switch_mlp.down_proj"]


def names_of(block, kind):
    if kind == "dense":
        return ATTENTION + MLP
    attention = ATTENTION if block % 4 == 3 else LINEAR_ATTENTION
    return attention + (MLP if block == 0 else EXPERTS)


def module(block, name, bits, parameters, loss, reason=""):
    front = f"model.layers.{block}." if block >= 0 else "model."
    return {"path": front + name, "block": block, "name": name, "bits": bits,
            "group_size": None if bits is None else 64,
            "parameters": parameters, "loss": loss, "reason": reason}


def modules_of(blocks, kind, rng):
    modules = [module(-1, "embed_tokens", 6, 28_311_552, 0.0004)]
    for block in range(blocks):
        edge = abs(block / max(1, blocks - 1) - 0.5) * 2
        for name in names_of(block, kind):
            liking = edge ** 3 * 2.2 + rng.random() * 1.4
            liking += 1.1 if name.endswith(("v_proj", "down_proj")) else 0
            bits = [3, 4, 4, 5, 6, 8][min(5, int(liking * 1.35))]
            if name == "mlp.gate":
                bits = None
            modules.append(module(
                block, name, bits, 884_736,
                1e-5 * math.exp(rng.gauss(edge * 2, 0.8)),
                "" if bits else "a router: its rounding changes experts"))
    modules.append(module(
        -1, "lm_head", None, 28_311_552, None,
        "kept in floats: shares the embedding's weights"))
    return modules


def frontier_of(bits, kl):
    frontier = [{"bits_per_weight": b / 8, "kl": kl * 4.1 ** (bits - b / 8),
                 "label": "plan", "measured": False} for b in range(22, 66, 2)]
    for width, factor in ((3, 1.9), (4, 1.55), (6, 1.5)):
        frontier.append(
            {"bits_per_weight": width + 0.5, "label": f"{width} bits to nearest",
             "kl": factor * kl * 4.1 ** (bits - width - 0.5), "measured": True})
    return frontier


def curve_of(rng):
    return [{"step": step, "loss": 0.026 + 0.02 * math.exp(-step / 60)
             + rng.gauss(0, 0.0016),
             "held_out_kl": None if step % 20 else
             0.0265 + 0.0112 * math.exp(-step / 70)
             + max(0, step - 260) * 1.5e-5} for step in range(0, 361, 2)]


def samples():
    prompt = "Once upon a time, in a village by the sea,"
    same = " there lived an old man who mended nets. Every morning he "
    return [
        {"prompt": prompt,
         "reference": same + "walked down to the water, and every evening he "
         "came back with a story.",
         "quantized": same + "went out in his little boat, and the gulls went "
         "with him."},
        {"prompt": "def mean(values):\n    ",
         "reference": "return sum(values) / len(values)\n",
         "quantized": "return sum(values) / len(values)\n"},
        {"prompt": "静夜思:", "reference": "床前明月光,疑是地上霜。",
         "quantized": "床前明月光,低头思故乡。"}]


def report_data(blocks=30, kind="dense"):
    rng = random.Random(7)
    domains = [("wiki", 0.4, 64), ("code", 0.25, 40), ("chat", 0.2, 32),
               ("stories in many languages", 0.15, 24)]
    return {
        "model": "HuggingFaceTB/SmolLM2-135M-Instruct",
        "output": "SmolLM2-135M-Instruct-4.5bpw", "version": "0.1.0",
        "parameters": 134_515_008, "bytes_in": 269_060_552,
        "bytes_out": 76_321_904, "bits_per_weight": 4.493,
        "target": {"bits_per_weight": 4.5}, "effort": "best",
        "seconds": 8012.4, "peak_rss": 3_104_112_640,
        "machine": "2 threads, AVX-512",
        "settings": {"model": "HuggingFaceTB/SmolLM2-135M-Instruct",
                     "target-bpw": 4.5, "effort": "best", "group-size": [32, 64],
                     "seed": 0, "gptq": True, "dwq-steps": 360, "revision": None},
        "data": {"sequence_length": 512, "domains": [
            {"name": name, "weight": weight, "fit": fit, "gate": fit // 16,
             "report": fit // 8} for name, weight, fit in domains],
            "fit_tokens": 81_920, "gate_tokens": 4608, "report_tokens": 10_240},
        "fidelity": {"tokens": 10_240, "perplexity": 17.842,
                     "perplexity_reference": 17.395, "kl_mean": 0.02713,
                     "kl_stderr": 0.00042, "kl_median": 0.0121, "kl_p99": 0.221,
                     "top1": 0.9124},
        "stages": [
            {"name": "nearest", "title": "Rounded to nearest", "kl": 0.0672,
             "seconds": 4.2, "kept": True, "note": "widths chosen by gradients"},
            {"name": "gptq", "title": "GPTQ", "kl": 0.0421, "seconds": 1411,
             "kept": True, "note": "on 160 sequences"},
            {"name": "learned", "title": "Learned rounding", "kl": 0.0429,
             "seconds": 2350, "kept": False, "note": "not better on the validation text"},
            {"name": "dwq", "title": "Distilled", "kl": 0.0268, "seconds": 3904,
             "kept": True, "note": "scales and biases, 260 steps"}],
        "frontier": frontier_of(4.493, 0.02713),
        "modules": modules_of(blocks, kind, rng),
        "pins": [
            {"flag": "pin", "pattern": "self_attn.v_proj", "width": "6:64",
             "modules": blocks, "parameters": 884_736 * blocks},
            {"flag": "keep", "pattern": "router", "width": "", "modules": blocks,
             "parameters": 884_736 * blocks}],
        "blocks": [{"index": i, "errors": {
            name: factor * (0.02 + 0.05 * (i / max(1, blocks)) ** 1.5
                            + 0.004 * rng.random())
            for name, factor in (("nearest", 1), ("gptq", 0.66),
                                 ("learned", 0.57))}} for i in range(blocks)],
        "dwq": {"start": 0.0377, "best": 0.02677, "best_step": 260,
                "curve": curve_of(rng)},
        "samples": samples(),
        "notes": ["lm_head shares the embedding's weights and is written once.",
                  "The report text ended early: 20 of 24 sequences were there."]}
