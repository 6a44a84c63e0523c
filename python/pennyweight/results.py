"""The reports of commands. Each class names the figures that matter, with their
units; `json` holds all that `--json` writes."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

Json = Mapping[str, Any]
R = TypeVar("R", bound="Report")


@dataclass(frozen=True)
class Report:
    """What the reports of all commands have.

    Attributes:
        output: The folder that was written, if one was.
        data: Where the text is from, in words; empty without any.
        parameters: Number of weights, counted as if none were quantized.
        bytes_in: Bytes of the tensors that were read; 0 where that is not told.
        bytes: Bytes of the tensors that were written, or looked at.
        bits_per_weight: 8 times `bytes` over `parameters`, scales and biases
            included.
        seconds: How long it took.
        peak_rss: Largest resident memory of this process so far, in bytes.
        notes: What a reader of the report should know.
        warnings: All warnings, in their order.
        json: Everything, as `--json` writes it.
    """

    output: Path | None
    data: str
    parameters: int
    bytes_in: int
    bytes: int
    bits_per_weight: float | None
    seconds: float
    peak_rss: int
    notes: tuple[str, ...]
    warnings: tuple[str, ...]
    json: Json = field(repr=False)

    @classmethod
    def of(cls: type[R], json: Json) -> R:
        """The report whose JSON this is."""
        return cls(
            output=Path(json["output"]) if json["output"] else None,
            data=json.get("data", ""),
            parameters=json.get("parameters", 0),
            bytes_in=json.get("bytes_in", 0),
            bytes=json.get("bytes", 0),
            bits_per_weight=json.get("bits_per_weight"),
            seconds=json["seconds"],
            peak_rss=json["peak_rss"],
            notes=tuple(json["notes"]),
            warnings=tuple(json["warnings"]),
            json=json,
            **cls._figures(json))

    @classmethod
    def _figures(cls, json: Json) -> dict[str, Any]:
        """The fields that a class has beside those of Report."""
        return {}


@dataclass(frozen=True)
class Stage:
    """A stage of `quantize`.

    Attributes:
        name: The method that it rounds or trains by.
        kl: Mean KL divergence from the full model after this stage, in nats a
            token, on the validation text.
        kept: Whether the result of this stage was kept.
        note: Why it was cut or left out, if it was.
        seconds: How long it took.
    """

    name: str
    kl: float | None
    kept: bool
    note: str
    seconds: float


@dataclass(frozen=True)
class QuantizeReport(Report):
    """What `quantize` has made, measured on text that no choice was made on.

    Attributes:
        kl: Mean KL divergence from the full model, in nats a token.
        perplexity: Perplexity of the new model.
        perplexity_reference: Perplexity of the full model, on the same text.
        top1: Share of tokens for which both models have the same most likely one.
        stages: The stages that were tried, in order.
    """

    kl: float
    perplexity: float
    perplexity_reference: float
    top1: float
    stages: tuple[Stage, ...]

    @classmethod
    def _figures(cls, json: Json) -> dict[str, Any]:
        own = {name: json[name] for name in (
            "kl", "perplexity", "perplexity_reference", "top1")}
        stages = tuple(
            Stage(one["name"], one["kl"], one["kept"], one["note"], one["seconds"])
            for one in json["stages"])
        return {**own, "stages": stages}


@dataclass(frozen=True)
class PlannedEffort:
    """What `quantize` would take with one of its efforts.

    Attributes:
        effort: "fast", "balanced" or "best".
        seconds: Expected time.
        low: Lower end of the likely times, in seconds.
        high: Upper end of the likely times, in seconds.
        memory: Peak memory in bytes.
    """

    effort: str
    seconds: float
    low: float
    high: float
    memory: int


@dataclass(frozen=True)
class PlanReport(Report):
    """What `quantize` would make and take.

    Attributes:
        efforts: One for each effort.
    """

    efforts: tuple[PlannedEffort, ...]

    @classmethod
    def _figures(cls, json: Json) -> dict[str, Any]:
        return {"efforts": tuple(
            PlannedEffort(one["effort"], one["seconds"]["total"],
                          one["seconds"]["low"], one["seconds"]["high"],
                          one["memory"]["peak"])
            for one in json["efforts"])}


@dataclass(frozen=True)
class SweepPoint:
    """One size of a sweep.

    Attributes:
        asked: Bits a weight that were asked for.
        bits_per_weight: Bits a weight of the plan, at most `asked`.
        bytes: Bytes of all tensors.
        estimated_kl: Sum of the costs of the plan's widths, in nats a token.
        kl: Measured mean KL divergence; None where it was only estimated.
        seconds: How long the measurement took.
    """

    asked: float
    bits_per_weight: float
    bytes: int
    estimated_kl: float
    kl: float | None
    seconds: float


@dataclass(frozen=True)
class SweepReport(Report):
    """The frontier of size against divergence.

    Attributes:
        points: One for each size, in the order that was asked for.
    """

    points: tuple[SweepPoint, ...]

    @classmethod
    def _figures(cls, json: Json) -> dict[str, Any]:
        return {"points": tuple(
            SweepPoint(one["asked"], one["bits_per_weight"], one["bytes"],
                       one["estimated_kl"], one["kl"], one["seconds"])
            for one in json["points"])}


@dataclass(frozen=True)
class ConvertReport(Report):
    """What `convert` has written.

    Attributes:
        dtype: Type of what is not quantized, and of scales.
        quantized_modules: How many modules are quantized.
    """

    dtype: str
    quantized_modules: int

    @classmethod
    def _figures(cls, json: Json) -> dict[str, Any]:
        return {"dtype": json["dtype"], "quantized_modules": len(
            [one for one in json["modules"] if one.get("quantization")])}


@dataclass(frozen=True)
class BlockReport:
    """What a method has done to a block.

    Attributes:
        kept: Which variant of it, in words.
        held_out_error: By variant, its error at the block's output as a share of
            that output, on text that was not fitted to; empty without a choice.
        seconds: How long it took.
    """

    kept: str
    held_out_error: Mapping[str, float]
    seconds: float


@dataclass(frozen=True)
class MethodReport(Report):
    """What a method that goes over blocks one by one has come to. Of several
    processes (mpirun) the first has these figures.

    Attributes:
        tokens: Of text that it was fitted to.
        held_out_tokens: Of text by which it chose what to keep.
        blocks: In their order.
    """

    tokens: int
    held_out_tokens: int
    blocks: tuple[BlockReport, ...]

    @classmethod
    def _figures(cls, json: Json) -> dict[str, Any]:
        return {
            "tokens": json.get("tokens", 0),
            "held_out_tokens": json.get("held_out_tokens", 0),
            "blocks": tuple(
                BlockReport(one.get("kept", ""), one.get("held_out_error") or {},
                            one["seconds"])
                for one in json.get("blocks", ()))}


@dataclass(frozen=True)
class DynamicQuantReport(Report):
    """What widths by sensitivity have come to.

    Attributes:
        tokens: Of text that sensitivities were measured on; 0 where they were read.
        sensitivities: The file that holds them.
    """

    tokens: int
    sensitivities: Path | None

    @classmethod
    def _figures(cls, json: Json) -> dict[str, Any]:
        file = json.get("sensitivities")
        return {"tokens": json.get("tokens", 0),
                "sensitivities": Path(file) if isinstance(file, str) else None}


@dataclass(frozen=True)
class DwqReport(Report):
    """What distillation has come to. Without any (`targets_only`) its figures are
    None.

    Attributes:
        start_kl: Divergence from the full model before, in nats a token, on text
            that was held out.
        best_kl: The same after; never more.
        best_step: Steps after which that was.
        learning_rate: Adam's, at its highest.
    """

    start_kl: float | None
    best_kl: float | None
    best_step: int | None
    learning_rate: float | None

    @classmethod
    def _figures(cls, json: Json) -> dict[str, Any]:
        return {name: json.get(name) for name in (
            "start_kl", "best_kl", "best_step", "learning_rate")}


@dataclass(frozen=True)
class Measured:
    """A mean, and its standard error."""

    mean: float
    standard_error: float


@dataclass(frozen=True)
class Divergence:
    """KL divergence from the reference, in nats a token, over all tokens."""

    mean: Measured
    median: float
    p99: float
    max: float


@dataclass(frozen=True)
class EvaluateReport(Report):
    """How good a model is.

    Attributes:
        tokens: Number of tokens that were scored.
        perplexity: Perplexity of the model on them.
        reference_perplexity: Perplexity of the reference, where there is one.
        kl: KL divergence from the reference, where there is one.
        top1: Share of tokens for which both models have the same most likely one.
        tokens_per_second: Scored tokens over the time that it took.
    """

    tokens: int
    perplexity: Measured
    reference_perplexity: Measured | None
    kl: Divergence | None
    top1: Measured | None
    tokens_per_second: float

    @classmethod
    def _figures(cls, json: Json) -> dict[str, Any]:
        def perplexity(of: Json) -> Measured:
            return Measured(of["perplexity"], of["perplexity_standard_error"])

        def measured(of: Json) -> Measured:
            return Measured(of["mean"], of["standard_error"])

        kl, top1 = json.get("kl"), json.get("top1")
        return {
            "tokens": json["tokens"],
            "perplexity": perplexity(json),
            "reference_perplexity":
                perplexity(json["reference"]) if "reference" in json else None,
            "kl": Divergence(measured(kl), kl["median"], kl["p99"], kl["max"])
                if kl else None,
            "top1": measured(top1) if top1 else None,
            "tokens_per_second": json["tokens_per_second"]}


@dataclass(frozen=True)
class Module:
    """A tensor, or the tensors of a quantized module.

    Attributes:
        path: Its name in mlx-lm.
        shape: Shape of its weight when it is not quantized.
        type: Type of its numbers as they are stored.
        bits_per_weight: Bits a weight, scales and biases included.
        bytes: Bytes of all of its tensors.
    """

    path: str
    shape: tuple[int, ...]
    type: str
    bits_per_weight: float
    bytes: int


@dataclass(frozen=True)
class InspectReport(Report):
    """What is in a checkpoint.

    Attributes:
        family: The family as which the model is read.
        blocks: Number of blocks.
        hidden: Width of the activations between blocks.
        vocab: Number of tokens in the vocabulary.
        tied: Whether the embedding is the head, too.
        modules: All modules and tensors.
    """

    family: str
    blocks: int
    hidden: int
    vocab: int
    tied: bool
    modules: tuple[Module, ...]

    @classmethod
    def _figures(cls, json: Json) -> dict[str, Any]:
        own = {name: json[name]
               for name in ("family", "blocks", "hidden", "vocab", "tied")}
        modules = tuple(
            Module(one["path"], tuple(one["shape"]), one["type"],
                   one["bits_per_weight"], one["bytes"]) for one in json["modules"])
        return {**own, "modules": modules}
