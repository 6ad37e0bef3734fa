"""Recipes: those of the package load, impossible ones are refused by name."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from tiny_recipe import tiny

from d4rt_ros.model import ModelConfig
from d4rt_ros.training.feed import Feed
from d4rt_ros.training.recipe import load_recipe, recipe_from_dict

NAN = math.nan


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ({"stepps": 1}, "no field 'stepps'"),
        ({"steps": 0}, "steps is 0"),
        ({"steps": "many"}, "steps is 'many', must be a whole number not below 1"),
        ({"steps": None}, "steps is None"),
        ({"steps": True}, "steps is True"),
        ({"seed": None}, "seed is None"),
        ({"seed": -1}, "seed is -1"),
        ({"seed": 2**63}, "seed is 9223372036854775808"),
        ({"compile": "no"}, "compile is 'no', must be true or false"),
        ({"start_from": None}, "start_from is None, must be text"),
        ({"confidence_from": 7}, "confidence_from is 7"),
        ({"confidence_from": NAN}, "confidence_from is nan"),
        ({"checkpoint_minutes": -1}, "checkpoint_minutes is -1"),
        ({"validate_minutes": -1}, "validate_minutes is -1"),
        ({"validate_clips": -3}, "validate_clips is -3"),
        ({"validate_clips": 0}, "validate_clips is 0"),
        ({"precision": "int8"}, "precision is 'int8'"),
        ({"optimiser": {"kind": "sgd"}}, "optimiser.kind is 'sgd'"),
        ({"optimiser": {"lr": None}}, "optimiser.lr is None, must be a finite number above 0"),
        ({"optimiser": {"lr": math.inf}}, "optimiser.lr is inf"),
        ({"optimiser": {"lr": 10**400}}, "optimiser.lr is 1000"),
        ({"optimiser": {"muon_lr": 0}}, "optimiser.muon_lr is 0"),
        ({"optimiser": {"clip": math.inf}}, "optimiser.clip is inf"),
        ({"optimiser": {"heads": -1}}, "optimiser.heads is -1"),
        ({"optimiser": {"final": 9}}, "optimiser.final is 9"),
        ({"optimiser": {"final": NAN}}, "optimiser.final is nan"),
        ({"optimiser": {"weight_decay": -1}}, "optimiser.weight_decay is -1"),
        ({"optimiser": {"weight_decay": NAN}}, "optimiser.weight_decay is nan"),
        ({"optimiser": {"ema": 1.0}}, "optimiser.ema is 1.0"),
        ({"optimiser": {"warmup": -1}}, "optimiser.warmup is -1"),
        ({"optimiser": {"accumulate": 0}}, "optimiser.accumulate is 0"),
        ({"losses": {"xyz": None}}, "losses.xyz is None"),
        ({"losses": {"xyz": -1}}, "losses.xyz is -1"),
        ({"losses": {"lens": NAN}}, "losses.lens is nan"),
        ({"losses": dict.fromkeys(("xyz", "uv", "visibility", "displacement", "normal", "confidence"), 0)},
         "nothing to learn"),
        ({"augment": {"brightness": 7}}, "augment.brightness is 7, must be a finite number in 0..1"),
        ({"augment": {"brightness": -1}}, "augment.brightness is -1"),
        ({"augment": {"contrast": -2}}, "augment.contrast is -2"),
        ({"augment": {"gamma": -1.5}}, "augment.gamma is -1.5"),
        ({"augment": {"drop": 7}}, "augment.drop is 7"),
        ({"augment": {"crop": 3}}, "augment.crop is 3"),
        ({"augment": {"blur": NAN}}, "augment.blur is nan"),
        ({"sampling": {"count": 1.5}}, "sampling.count is 1.5"),
        ({"sampling": {"edge_share": None}}, "sampling.edge_share is None"),
        ({"feed": {"batch": 0}}, "feed.batch is 0"),
        ({"feed": {"workers": None}}, "feed.workers is None"),
        ({"feed": {"workers": -1}}, "feed.workers is -1"),
        ({"feed": {"batch": 6, "chunk": 4}}, "multiple of feed.chunk 4"),
        ({"model": "enormous"}, "enormous"),
        ({"model": None}, "model is None, must be a name or a mapping"),
        ({"model": 3}, "model is 3"),
        ({"model": [1]}, r"model is \[1\]"),
        ({"model": {"name": [1]}}, "unknown model size"),
        ({"model": {"image_size": 64}}, "image_size is 64, must be 2 whole numbers"),
        ({"sources": None}, "sources is None, must be a list"),
        ({"sources": []}, "nothing to train on"),
        ({"sources": [{"weight": 0}, {"weight": 0.0}]}, "nothing to train on"),
        ({"sources": [{"weight": -1}]}, "source's weight is -1"),
        ({"sources": [{"options": None}]}, "source's options is None"),
        ({"sources": [{"options": {"objects": 1.5}}]}, "objects is 1.5"),
        ({"sources": [{"kind": "movi", "options": {"max_stride": "x"}}]}, "max_stride is 'x'"),
        ({"sources": [{"kind": "movi", "options": {"max_stride": 0}}]}, "max_stride is 0"),
        ({"sources": [{"kind": "movi", "options": {"max_stride": 1.5}}]}, "max_stride is 1.5"),
        ({"sources": [{"kind": "vhs"}]}, "source kind 'vhs' is unknown"),
    ],
)  # fmt: skip
def test_impossible_recipes_are_refused_by_name(values: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        Feed(recipe_from_dict(tiny(**values)))


@pytest.mark.parametrize("text", ["[]", "- 1", "0", "1: 2\na: 3"])
def test_files_that_hold_no_recipe_are_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(ValueError, match=r"mine\.yaml: "):
        load_recipe(tmp_path / "mine.yaml")


def test_recipes_of_the_package_load() -> None:
    stages = {name: load_recipe(f"builtin{name}") for name in ("", "_refiner", "_settled", "_short")}
    assert [name for name, stage in stages.items() if stage.refine] == ["_refiner"]
    assert [name for name, stage in stages.items() if stage.structure] == ["_settled"]
    assert [name for name, stage in stages.items() if stage.losses.lens] == [""]
    builtin, fine = load_recipe("builtin"), load_recipe("finetune_opend4rt")
    assert builtin.model == ModelConfig()
    assert not fine.model.relative and fine.optimiser.lr <= 1e-4
    with pytest.raises(FileNotFoundError, match="builtin"):
        load_recipe("unheard_of")
