"""pennyweight quantizes language models for MLX and tells you what it cost.

    import pennyweight

    report = pennyweight.quantize("Qwen/Qwen3-0.6B", "qwen3-45", target_bpw=4.5)
    print(report.bits_per_weight, report.kl)

Each function is a command of the same name, with its flags as keywords.
"""

import os as _os
from pathlib import Path as _Path

_here = _Path(__file__).resolve().parent
if not list(_here.glob("_core*.so")):  # a clone has it in its build
    _build = _os.environ.get("PENNYWEIGHT_BUILD_DIR") or _here.parents[1] / "build/release"
    __path__.append(str(_Path(_build) / "python/pennyweight"))

from pennyweight import commands
from pennyweight._core import version as _version
from pennyweight.commands import *
from pennyweight.data import Data, Message, Row, StrPath
from pennyweight.errors import (
    Cancelled, Corrupt, Error, Internal, InvalidArgument, NotFound, NotSupported,
    Numeric, System, Warning)
from pennyweight.progress import Event, Progress
from pennyweight.results import (
    BlockReport, ConvertReport, Divergence, DwqReport, DynamicQuantReport,
    EvaluateReport, InspectReport, Measured, MethodReport, Module, PlannedEffort,
    PlanReport, QuantizeReport, Report, Stage, SweepPoint, SweepReport)

__version__: str = _version()

__all__ = [
    "BlockReport", "Cancelled", "ConvertReport", "Corrupt", "Data", "Divergence",
    "DwqReport", "DynamicQuantReport", "Error", "EvaluateReport", "Event",
    "InspectReport", "Internal", "InvalidArgument", "Measured", "Message",
    "MethodReport", "Module", "NotFound", "NotSupported", "Numeric", "PlanReport",
    "PlannedEffort", "Progress", "QuantizeReport", "Report", "Row", "Stage", "StrPath",
    "SweepPoint", "SweepReport", "System", "Warning", "__version__"]
__all__ += commands.__all__
