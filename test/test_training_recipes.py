"""Recipes: those of the package load, impossible ones are refused by name.

So are checkpoints that they do not fit. What `d4rt train` cannot do it tells in one sentence.
"""

from __future__ import annotations

import math
import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from tiny_recipe import TINY_MODEL, tiny

from d4rt_ros import cli
from d4rt_ros.model import ModelConfig
from d4rt_ros.training.feed import Feed
from d4rt_ros.training.loop import train
from d4rt_ros.training.recipe import Recipe, load_recipe, recipe_from_dict
from d4rt_ros.training.trainer import Trainer

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
        ({"sources": [{"options": {"motion": [1.0]}}]}, r"motion is \[1.0\], must be two positive numbers"),
        ({"sources": [{"options": {"motion": [1.0, 150.0]}}]}, "camera_motion is 150.0, must be .* 0..100"),
        ({"sources": [{"options": {"motion": 1.0}}]}, "options of source 'procedural'"),
        ({"sources": [{"kind": "movi", "options": {"max_stride": "x"}}]}, "max_stride is 'x'"),
        ({"sources": [{"kind": "movi", "options": {"max_stride": 0}}]}, "max_stride is 0"),
        ({"sources": [{"kind": "movi", "options": {"max_stride": 1.5}}]}, "max_stride is 1.5"),
        ({"sources": [{"options": {"size": [32, 32]}}, {}]},
         r"clips of \(4, 16, 16\) and \(4, 32, 32\) frames, rows and columns, which one batch does not hold"),
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


def test_numbers_may_be_written_with_an_exponent_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(
        "optimiser: {lr: 1e-4, muon_lr: 2E-2, clip: .1e+2, ema: 9.9e-1, final: 1e-2}\nlosses: {map: 1e0}"
    )
    recipe = load_recipe(tmp_path / "mine.yaml")
    found = recipe.optimiser
    assert (found.lr, found.muon_lr, found.clip, found.ema) == (0.0001, 0.02, 10.0, 0.99)
    assert (found.final, recipe.losses.map) == (0.01, 1.0)


def test_the_documented_sections_are_those_of_a_recipe() -> None:
    text = (Path(__file__).parents[1] / "docs" / "TRAINING.md").read_text()
    listed = re.findall(r"^\| `(\w+)` \|", text.split("## A recipe")[1].split("## Sources")[0], re.MULTILINE)
    assert set(listed) <= {field.name for field in fields(Recipe)}
    sections = {field.name for field in fields(Recipe) if str(field.type).endswith(("Settings", "Weights"))}
    assert {"model", "sources", "start_from", "refine", "structure", *sections} <= set(listed)
    assert all(f"`{name}`" in text for name in ("log_depth", "map", "lens"))  # those that the paper has not


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


def trainer(**changes: Any) -> Trainer:
    return Trainer(recipe_from_dict(tiny(**changes)), torch.device("cpu"))


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--minutes", "0"], "minutes is 0.0, must be a finite number above 0"),
        (["--minutes", "-1"], "minutes is -1.0"),
        (["--minutes", "nan"], "minutes is nan"),
        (["--minutes", "inf"], "minutes is inf"),
        (["--steps", "0"], "steps is 0"),
        (["--device", "foo"], "device 'foo' is none of auto, cpu, cuda:N"),
        (["--device", "cuda:99"], "device 'cuda:99' is not there"),
        (["--resume", "--start-from", "builtin"], "--start-from is for a new run"),
        (["--device", "auto", "--resume"], "nothing to resume"),
    ],
)
def test_arguments_that_do_not_fit_are_told_in_one_line(
    arguments: list[str], text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(tiny()))
    assert cli.main(["train", str(tmp_path / "tiny.yaml"), "--out", str(tmp_path / "out"), *arguments]) == 2
    error = capsys.readouterr().err
    assert text in error and error.count("\n") == 1, error
    assert not (tmp_path / "out").exists()


def test_a_run_without_finite_gradients_ends_with_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def diverge(*_: object, **__: object) -> Trainer:
        raise FloatingPointError("no finite gradient for 20 steps, at step 31")

    monkeypatch.setattr("d4rt_ros.training.command.train", diverge)
    assert cli.main(["train", "builtin", "--out", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert "no finite gradient for 20 steps" in error and error.count("\n") == 1, error


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    trainer(losses={"lens": 0.5}).save(folder)
    return folder / "checkpoint.pt"


@pytest.mark.parametrize("damage", ["cut", "empty", "noise", "text", "foreign", "list", "parts", "weights"])
def test_damaged_checkpoints_are_named(tmp_path: Path, whole: Path, damage: str) -> None:
    file, data = tmp_path / "checkpoint.pt", whole.read_bytes()
    noise = torch.randint(256, (500,), generator=torch.Generator().manual_seed(0))
    state = torch.load(whole, weights_only=True)
    written = {"cut": data[: len(data) // 2], "empty": b"", "noise": bytes(noise.tolist()), "text": b"a: 1"}
    saved = {
        "foreign": {"a": 1},
        "list": [1],
        "parts": {**state, "recipe": 3},
        "weights": {**state, "model": {}},
    }
    if damage in written:
        file.write_bytes(written[damage])
    else:
        torch.save(saved[damage], file)
    recipe = recipe_from_dict(tiny(losses={"lens": 0.5}))
    with pytest.raises(ValueError, match=rf"^{re.escape(str(file))}: (damaged or not|holds no) [^\n]+$"):
        train(recipe, tmp_path, resume=True)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"optimiser": {"kind": "adamw"}}, "optimiser.kind was 'muon' when the run began.* it is 'adamw'"),
        ({"structure": True}, "structure was False"),
        ({"refine": True}, "refine was False"),
        ({"losses": {"lens": 0.0}}, "losses.lens > 0 was True"),
        ({"model": {**TINY_MODEL, "dec_depth": 2}}, "model.dec_depth was 1 .* it is 2"),
    ],
)
def test_a_run_does_not_resume_as_another(whole: Path, changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=f"checkpoint.pt: {sentence}"):
        trainer(**{"losses": {"lens": 0.5}, **changes}).load(whole)


def test_what_shapes_nothing_may_change_when_a_run_resumes(whole: Path) -> None:
    rates = {"lr": 3e-4, "muon_lr": 0.005, "weight_decay": 0.5, "heads": 0.2}
    new = {"losses": {"lens": 0.1}, "optimiser": rates, "steps": 9}
    before, resumed = trainer(**new), trainer(**new)
    resumed.load(whole)
    told = [
        [[g[name] for o in t.optimisers for g in o.param_groups] for name in ("base_lr", "weight_decay")]
        for t in (before, resumed)
    ]
    assert told[0] == told[1]
    assert told[1][1][:2] == [0.5, 0.5]
