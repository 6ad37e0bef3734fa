"""One training run's model, optimisers and feed: a step at a time, saved and resumed exactly."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from contextlib import ExitStack, nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from d4rt_ros.model import D4RT, Queries
from d4rt_ros.model.checkpoints import CheckpointError, load_model, save_weights, why_unread
from d4rt_ros.model.embedding import from_network
from d4rt_ros.model.precision import select_precision
from d4rt_ros.model.video import resize
from d4rt_ros.training.depth import DepthNetwork, depth_terms, settled, validate_depth
from d4rt_ros.training.feed import Batch, Batches
from d4rt_ros.training.losses import d4rt_loss
from d4rt_ros.training.optim import RunningMean, build_optimisers, rate, set_rate
from d4rt_ros.training.recipe import Recipe
from d4rt_ros.training.throughput import count_flops
from d4rt_ros.training.truth import ClipBatch
from d4rt_ros.training.validate import validate

_PATIENCE = 20  # steps in a row without a finite gradient before giving up


class Trainer:
    """Model, optimisers, feed and counters of a run.

    All that a step depends on is in `state_dict`, or a pure function of the recipe and the step's number.
    """

    def __init__(self, recipe: Recipe, device: torch.device, rank: int = 0, world: int = 1) -> None:
        """Build for `recipe`; with `world` > 1 an initialised process group is needed."""
        self.recipe, self.device, self.rank, self.world = recipe, device, rank, world
        torch.manual_seed(recipe.seed)
        self.model = _build_model(recipe).to(device).train()
        self.network: nn.Module = self.model
        if recipe.refine:
            self.network = DepthNetwork(self.model)
        else:
            self._freeze()
        # a processor that only emulates bfloat16 takes ten times as long with it
        fast = device.type != "cpu" or select_precision("auto", device) == torch.bfloat16
        self.precision = torch.bfloat16 if fast and recipe.precision == "bfloat16" else torch.float32
        self.optimisers = build_optimisers(self.model, recipe.optimiser, self.precision)
        self.mean = RunningMean(self.model, recipe.optimiser.ema)
        self.step, self.seconds, self.skipped, self._failed = 0, 0.0, 0, 0
        if world > 1:
            self.network = nn.parallel.DistributedDataParallel(self.network)
        self._forward = torch.compile(self.network) if recipe.compile else self.network
        self._batches: Batches | None = None
        self._ahead: Batch | None = None  # taken already, for the next step

    def _freeze(self) -> None:
        """Leave as it is what this run does not teach."""
        model, recipe = self.model, self.recipe
        if model.refiner is not None:
            model.refiner.requires_grad_(False)
        if recipe.structure:  # what is settled hangs on all of this
            for part in (model.encoder, model.aspect_ratio_proj, model.memory_proj):
                part.requires_grad_(False)
        elif model.encoder.pyramid is not None:
            model.encoder.pyramid.lens.requires_grad_(recipe.losses.lens > 0)

    def _autocast(self) -> Any:
        stack = ExitStack()
        if self.device.type == "cpu":
            # plain products: on a CPU the fused attention kernel takes 1.3 to 4 times as long in bfloat16
            stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        if self.precision == torch.bfloat16:
            stack.enter_context(torch.autocast(self.device.type, torch.bfloat16))
        return stack

    def progress(self, budget: float | None = None) -> float:
        """Part of the run that is done, 0..1: of the steps, or of `budget` seconds where that is further."""
        done = self.step / self.recipe.steps
        return min(1.0, max(done, self.seconds / budget) if budget is not None else done)

    def forward_backward(self, batch: Batch, confidence_active: bool) -> dict[str, Tensor]:
        """Add the gradient of one batch's loss, divided by `accumulate`; returns its terms."""
        loss, terms = self._depth_loss(batch) if self.recipe.refine else self._loss(batch, confidence_active)
        (loss / self.recipe.optimiser.accumulate).backward()
        return {"loss": loss.detach(), **terms}

    def _depth_loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        with self._autocast():
            found = self._forward(batch.video.to(self.device), batch.aspect_ratio, batch.guessed_focal)
        terms = {name: term.mean() for name, term in depth_terms(found, batch).items()}
        return terms["refined"], {name: term.detach() for name, term in terms.items()}

    def _loss(self, batch: Batch, confidence_active: bool) -> tuple[Tensor, dict[str, Tensor]]:
        video, aspect = batch.video.to(self.device), batch.aspect_ratio.to(self.device)
        with self._autocast():
            known = settled(self.model, video, aspect, batch.guessed_focal) if self.recipe.structure else None
            unit = resize(video.float() / 255, self.recipe.model.image_size)
            raw = self._forward(unit, aspect, batch.queries.to(self.device), encoded=known)
        losses = self.recipe.losses
        return d4rt_loss(
            self._counted(raw),
            batch.truth.to(self.device),
            losses,
            batch.depth.to(self.device) if losses.map else None,
            batch.focal.to(self.device) if losses.lens else None,
            confidence_active=confidence_active,
        )

    def _counted(self, raw: dict[str, Tensor]) -> dict[str, Tensor]:
        """What the network says, with uv as truth and answers count it, not as the network does."""
        config = self.recipe.model
        return {**raw, "uv": from_network(raw["uv"].float(), config.image_size, config.corner_pixels)}

    def take_step(self, budget: float | None = None) -> dict[str, float]:
        """One optimiser step. Returns the mean loss and its terms, the gradient norm and the rate.

        A step whose gradient is not finite is left out and counted. Raises FloatingPointError after 20 such
        in a row.
        """
        began = time.perf_counter()
        settings = self.recipe.optimiser
        progress = self.progress(budget)
        sums: dict[str, Tensor] = {}
        waited = 0.0
        for part in range(settings.accumulate):
            asked = time.perf_counter()
            batch = self._take()
            waited += time.perf_counter() - asked
            last = part == settings.accumulate - 1
            hold = nullcontext() if last or self.world == 1 else self.network.no_sync()  # type: ignore[operator]
            with hold:
                terms = self.forward_backward(batch, progress >= self.recipe.confidence_from)
            sums = {name: sums.get(name, 0) + value / settings.accumulate for name, value in terms.items()}
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), settings.clip)
        factor = rate(self.step, progress, settings)
        if torch.isfinite(norm):
            self._failed = 0
            set_rate(self.optimisers, factor)
            for optimiser in self.optimisers:
                optimiser.step()
            self.mean.update(self.model, self.step)
        else:
            self.skipped, self._failed = self.skipped + 1, self._failed + 1
            if self._failed >= _PATIENCE:
                raise FloatingPointError(f"no finite gradient for {_PATIENCE} steps, at step {self.step}")
        self.model.zero_grad(set_to_none=True)
        self.step += 1
        self.seconds += time.perf_counter() - began
        found = {name: float(value) for name, value in sums.items()}
        return {**found, "grad_norm": float(norm), "rate": factor, "waited": waited}

    def count_flops(self) -> int:
        """FLOPs of a step, forward and backward, counted on the next batch, of which nothing is learnt yet.

        What is counted computes otherwise in the last bits, and no run would be resumed exactly.
        """
        self._ahead = batch = self._take()
        flops = count_flops(lambda: self.forward_backward(batch, confidence_active=False))
        self.model.zero_grad(set_to_none=True)
        return flops * self.recipe.optimiser.accumulate

    def _take(self) -> Batch:
        """The next batch."""
        if self._batches is None:
            first = self.step * self.recipe.optimiser.accumulate
            self._batches = Batches(self.recipe, first, self.rank, self.world)
        ahead, self._ahead = self._ahead, None
        return self._batches.take() if ahead is None else ahead

    def validate(self, clips: list[ClipBatch]) -> dict[str, float]:
        """Figures of the averaged weights on held-out clips; training goes on from its own."""
        model = self._averaged().to(self.device).eval().requires_grad_(False)
        if self.recipe.refine:
            with self._autocast():
                return validate_depth(DepthNetwork(model), clips)

        def predict(video: Tensor, aspect_ratio: Tensor, queries: Queries) -> dict[str, Tensor]:
            if self.recipe.structure:
                raw = model.encode(video, aspect_ratio=aspect_ratio).decode_raw(queries)
            else:
                with torch.no_grad(), self._autocast():
                    device, unit = self.device, video.to(self.device).float() / 255
                    raw = model(unit, aspect_ratio.to(device), queries.to(device))
            return {name: value.float().cpu() for name, value in self._counted(raw).items()}

        return validate(predict, clips)

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to go on exactly."""
        return {
            "recipe": _plain(self.recipe),
            "step": self.step,
            "seconds": self.seconds,
            "skipped": self.skipped,
            "model": self.model.state_dict(),
            "mean": self.mean.weights,
            "optimisers": [optimiser.state_dict() for optimiser in self.optimisers],
            "random": torch.get_rng_state(),
        }

    def save(self, folder: Path) -> None:
        """Write `checkpoint.pt` to resume from and `weights.safetensors` to use, each all or nothing.

        Raises OSError where there is no room for them.
        """
        folder.mkdir(parents=True, exist_ok=True)
        part = folder / ".checkpoint.pt.part"  # so that a reader or a kill never meets half a file
        try:
            torch.save(self.state_dict(), part)
        except RuntimeError as error:  # of torch's writer, that a disk is full
            part.unlink(missing_ok=True)
            raise OSError(f"{folder / 'checkpoint.pt'}: cannot be written ({error})") from error
        os.replace(part, folder / "checkpoint.pt")
        self.export(folder / "weights.safetensors")

    def export(self, path: Path) -> None:
        """Write the averaged weights in 16 bits."""
        save_weights(self._averaged(), path, torch.float16)

    def _averaged(self) -> D4RT:
        model = D4RT(self.recipe.model)
        model.load_state_dict(self.mean.weights)
        return model

    def load(self, path: Path) -> None:
        """Go on from a checkpoint.

        Raises CheckpointError naming the file if it is damaged, or if the recipe's state has another shape.
        """
        try:
            self._restore(torch.load(path, map_location=self.device, weights_only=True))
        except CheckpointError as error:
            raise CheckpointError(f"{path}: {error}") from error
        except Exception as error:  # any, as in `read_state`
            raise CheckpointError(f"{path}: damaged or not a training run ({why_unread(error)})") from error

    def _restore(self, state: Any) -> None:
        """Inverse of `state_dict`. What only the recipe says, it may say anew."""
        if not isinstance(state, dict) or not self.state_dict().keys() <= state.keys():
            raise CheckpointError("holds no training run")
        before, now = _shaping(state["recipe"]), _shaping(_plain(self.recipe))
        for name in now:
            if before.get(name) != now[name]:
                raise CheckpointError(
                    f"{name} was {before.get(name)!r} when the run began, in the recipe it is {now[name]!r}"
                )
        self.model.load_state_dict(state["model"])
        for name, value in state["mean"].items():
            self.mean.weights[name].copy_(value)
        for optimiser, saved in zip(self.optimisers, state["optimisers"]):
            told = [{name: g[name] for name in ("base_lr", "weight_decay")} for g in optimiser.param_groups]
            optimiser.load_state_dict(saved)
            for group, own in zip(optimiser.param_groups, told):
                group.update(own)
        self.step, self.seconds, self.skipped = state["step"], state["seconds"], state["skipped"]
        torch.set_rng_state(state["random"].cpu())

    def close(self) -> None:
        """End the processes that make clips."""
        if self._batches is not None:
            self._batches.close()
            self._batches = None


def _plain(recipe: Recipe) -> dict[str, Any]:
    """The recipe as nested dictionaries and lists only."""

    def plain(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {key: plain(item) for key, item in value.items()}
        return [plain(item) for item in value] if isinstance(value, (list, tuple)) else value

    return plain(asdict(recipe))


def _shaping(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """Of a plain recipe what decides which weights and optimisers a state has, by name."""
    stage = {name: recipe[name] for name in ("refine", "structure")}
    lens = recipe["model"]["pyramid"] > 0 and not any(stage.values()) and recipe["losses"]["lens"] > 0
    return {
        **{f"model.{name}": value for name, value in recipe["model"].items()},
        **stage,
        "optimiser.kind": recipe["optimiser"]["kind"],
        "losses.lens > 0": lens,
    }


def _build_model(recipe: Recipe) -> D4RT:
    if not recipe.start_from:
        return D4RT(recipe.model)
    trained = load_model(recipe.start_from)
    if replace(trained.config, frames=recipe.model.frames) != recipe.model:
        raise ValueError(f"{recipe.start_from} has another model configuration than the recipe's")
    model = D4RT(recipe.model)
    model.load_state_dict(
        {name: _stretched(tensor, model, name) for name, tensor in trained.state_dict().items()}
    )
    return model


def _stretched(tensor: Tensor, model: D4RT, name: str) -> Tensor:
    """A tensor for windows of another length: time embeddings are resized linearly, as OpenD4RT does.

    What reads flow begins at 0, since its inputs are one for every frame.
    """
    wanted = model.state_dict()[name]
    if ".flow_" in name and tensor.shape != wanted.shape:
        return torch.zeros_like(wanted)
    rows = len(wanted)
    if len(tensor) == rows:
        return tensor
    stretched = F.interpolate(tensor.T[None], rows, mode="linear", align_corners=True)
    return stretched[0].T
