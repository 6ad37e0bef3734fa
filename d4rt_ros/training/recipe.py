"""A training run as one YAML file: every section a dataclass, unknown or impossible values refused."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

import yaml

from d4rt_ros.model import ModelConfig, named_config
from d4rt_ros.model.checks import ABOVE_0, NOT_NEGATIVE, SHARE, Range, at_least, check_fields
from d4rt_ros.model.yaml_text import load_yaml
from d4rt_ros.training.augment import AugmentSettings
from d4rt_ros.training.losses import LossWeights
from d4rt_ros.training.sampling import SamplingSettings

T = TypeVar("T")


@dataclass(frozen=True)
class SourceSettings:
    """One source of clips: `procedural`, or a data set by the name of its reader and its folder."""

    kind: str = "procedural"
    path: str = ""
    weight: float = 1.0  # share of batches, relative to the other sources
    options: Mapping[str, Any] = field(default_factory=dict)  # passed to the reader or the scene maker

    def __post_init__(self) -> None:
        """Refuse what is out of range."""
        check_fields(self, "a source's ", weight=NOT_NEGATIVE)
        if not isinstance(self.options, Mapping):
            raise ValueError(f"a source's options is {self.options!r}, must be a mapping")
        stride = self.options.get("max_stride", 1)
        if type(stride) is not int or stride < 1:
            raise ValueError(f"a source's max_stride is {stride!r}, must be a whole number not below 1")


@dataclass(frozen=True)
class FeedSettings:
    """How clips are made and reused."""

    batch: int = 8  # clips a step over all processes, times `accumulate`
    chunk: int = 8  # clips made together, in one process
    reuse: int = 8  # steps for which a made clip is asked fresh queries, in the mean
    pool: int = 4  # batches of clips kept at hand, among which a step chooses
    workers: int = 1  # processes that make clips; 0: in the training process
    prefetch: int = 2  # batches waiting, for every worker

    def __post_init__(self) -> None:
        """Refuse what is out of range."""
        counts = {name: at_least(1) for name in ("batch", "chunk", "reuse", "pool", "prefetch")}
        check_fields(self, "feed.", **counts, workers=NOT_NEGATIVE)
        if self.batch % self.chunk:
            raise ValueError(f"feed.batch is {self.batch}, must be a multiple of feed.chunk {self.chunk}")


@dataclass(frozen=True)
class OptimiserSettings:
    """Muon for the hidden matrices and AdamW for the rest, or AdamW alone."""

    kind: str = "muon"  # or adamw
    lr: float = 1e-3  # AdamW
    muon_lr: float = 0.02
    heads: float = 0.1  # share of lr for the read-outs
    weight_decay: float = 0.03
    warmup: int = 200  # steps
    final: float = 0.01  # share of the learning rate at the end of the cosine
    clip: float = 10.0  # global gradient norm
    ema: float = 0.999
    accumulate: int = 1  # batches a step

    def __post_init__(self) -> None:
        """Refuse what is out of range."""
        check_fields(
            self,
            "optimiser.",
            lr=ABOVE_0,
            muon_lr=ABOVE_0,
            heads=SHARE,
            weight_decay=NOT_NEGATIVE,
            warmup=NOT_NEGATIVE,
            final=SHARE,
            clip=ABOVE_0,
            ema=Range(0, math.nextafter(1.0, 0.0), "from 0 to below 1"),
            accumulate=at_least(1),
        )
        if self.kind not in ("muon", "adamw"):
            raise ValueError(f"optimiser.kind is {self.kind!r}, must be 'muon' or 'adamw'")


@dataclass(frozen=True)
class Recipe:
    """A whole run."""

    model: ModelConfig
    start_from: str = ""  # weights to begin with: a file or folder that `load_model` reads
    refine: bool = False  # train the refiner alone
    structure: bool = False  # answers start from settled windows, as in use, and depth stays as it is
    seed: int = 0
    steps: int = 10_000
    precision: str = "bfloat16"  # where the device is fast at it, or float32
    compile: bool = False
    confidence_from: float = 0.5  # part of the run after which confidence weighs the xyz error
    checkpoint_minutes: float = 5.0
    validate_minutes: float = 10.0
    validate_clips: int = 32  # held-out scenes, a multiple of 8 or fewer
    sources: tuple[SourceSettings, ...] = (SourceSettings(),)
    feed: FeedSettings = FeedSettings()
    sampling: SamplingSettings = SamplingSettings()
    augment: AugmentSettings = AugmentSettings()
    losses: LossWeights = LossWeights()
    optimiser: OptimiserSettings = OptimiserSettings()

    def __post_init__(self) -> None:
        """Refuse what is out of range."""
        check_fields(
            self,
            "",
            seed=Range(0, 2**63 - 1, "from 0 to below 2 ** 63"),
            steps=at_least(1),
            confidence_from=SHARE,
            checkpoint_minutes=NOT_NEGATIVE,
            validate_minutes=NOT_NEGATIVE,
            validate_clips=at_least(1),
        )
        if self.precision not in ("bfloat16", "float32"):
            raise ValueError(f"precision is {self.precision!r}, must be 'bfloat16' or 'float32'")
        if self.refine and self.structure:
            raise ValueError("refine and structure are two stages: the refiner alone, or answers")
        if self.structure and not (self.model.pyramid and self.model.flow):
            raise ValueError("structure needs a model with flow and a pyramid")
        if self.augment.crop and (self.refine or self.structure):
            raise ValueError(
                "augment.crop moves the axis of the lens, which refine and structure do not know of"
            )
        if not any(source.weight for source in self.sources):
            raise ValueError("sources is empty or all of weight 0: there is nothing to train on")


def _build(kind: type[T], values: Any, where: str) -> T:
    if not isinstance(values, Mapping):
        raise ValueError(f"{where} must be a mapping, is {type(values).__name__}")
    known = {f.name for f in fields(kind)}  # type: ignore[arg-type]
    unknown = sorted(set(values) - known, key=str)
    if unknown:
        raise ValueError(f"{where} has no field {unknown[0]!r}; known are {', '.join(sorted(known))}")
    hints = get_type_hints(kind)
    arguments = {
        name: _build(hints[name], value, f"{where}.{name}")
        if is_dataclass(hints[name]) and name != "model"
        else value
        for name, value in values.items()
    }
    return kind(**arguments)


def recipe_from_dict(values: Mapping[str, Any]) -> Recipe:
    """Build a recipe. `model` is a size by name, or its fields with an optional `name` to start from.

    Raises ValueError naming the field that is unknown or out of range.
    """
    if not isinstance(values, Mapping):
        raise ValueError(f"a recipe must be a mapping, is {type(values).__name__}")
    values = dict(values)
    model = values.pop("model", "builtin")
    if isinstance(model, str):
        config = named_config(model)
    elif not isinstance(model, Mapping):
        raise ValueError(f"model is {model!r}, must be a name or a mapping")
    else:
        model = dict(model)
        base = asdict(named_config(model.pop("name", "builtin")))
        config = _build(ModelConfig, {**base, **model}, "model")
    sources = values.pop("sources", [{}])
    if not isinstance(sources, (list, tuple)):
        raise ValueError(f"sources is {sources!r}, must be a list")
    built = tuple(_build(SourceSettings, s, f"sources[{i}]") for i, s in enumerate(sources))
    return _build(Recipe, {**values, "model": config, "sources": built}, "recipe")


def load_recipe(path: str | Path) -> Recipe:
    """Read a recipe from YAML; a bare name is one of the recipes that come with the package.

    Raises FileNotFoundError or ValueError naming the file.
    """
    file = Path(path)
    if not file.suffix and not file.exists():
        file = Path(__file__).parent / "recipes" / f"{file}.yaml"
    if not file.is_file():
        names = ", ".join(sorted(p.stem for p in (Path(__file__).parent / "recipes").glob("*.yaml")))
        raise FileNotFoundError(f"no recipe at {file}; those in the package are {names}")
    try:
        values = load_yaml(file.read_text())
        return recipe_from_dict({} if values is None else values)
    except (ValueError, yaml.YAMLError) as error:
        raise ValueError(f"{file}: {error}") from error
