"""Recipes: those of the package load, impossible ones are refused by name."""

from __future__ import annotations

from typing import Any

import pytest
from tiny_recipe import tiny

from d4rt_ros.model import ModelConfig
from d4rt_ros.training.feed import Feed
from d4rt_ros.training.recipe import load_recipe, recipe_from_dict


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ({"stepps": 1}, "no field 'stepps'"),
        ({"steps": 0}, "steps is 0"),
        ({"steps": "many"}, "recipe.steps is 'many', must be int"),
        ({"precision": "int8"}, "precision is 'int8'"),
        ({"optimiser": {"kind": "sgd"}}, "optimiser.kind is 'sgd'"),
        ({"feed": {"batch": 0}}, "feed.batch is 0"),
        ({"feed": {"batch": 6, "chunk": 4}}, "multiple of feed.chunk 4"),
        ({"model": "enormous"}, "enormous"),
        ({"sources": []}, "nothing to train on"),
        ({"sources": [{"kind": "vhs"}]}, "source kind 'vhs' is unknown"),
    ],
)
def test_impossible_recipes_are_refused_by_name(values: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        Feed(recipe_from_dict(tiny(**values)))


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
