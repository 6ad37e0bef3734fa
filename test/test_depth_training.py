"""Stages of training: convolutions alone, with a window's structure, and the rest on settled windows."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from test_network import on_lens
from tiny_recipe import TINY_MODEL, tiny
from torch import Tensor

from d4rt_ros.model.pyramid import USUAL_FOCAL
from d4rt_ros.training.augment import CroppedClips
from d4rt_ros.training.depth import settled, validate_depth
from d4rt_ros.training.feed import Feed, focal_lengths
from d4rt_ros.training.loop import held_out
from d4rt_ros.training.procedural import ProceduralSource
from d4rt_ros.training.recipe import recipe_from_dict
from d4rt_ros.training.trainer import Trainer

ONE = {"feed": {"batch": 2, "chunk": 2, "workers": 0}, "optimiser": {"warmup": 0}}


def one_step(**changes: Any) -> tuple[Trainer, set[str], dict[str, float]]:
    """What one step moved, by name, and what it reports."""
    trainer = Trainer(recipe_from_dict(tiny(**{**ONE, **changes})), torch.device("cpu"))
    before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    found = trainer.take_step()
    after = trainer.model.state_dict()
    return trainer, {name for name in after if not torch.equal(after[name], before[name])}, found


def test_the_refiner_is_trained_alone() -> None:
    trainer, moved, found = one_step(refine=True)
    assert moved
    assert all(name.startswith("refiner.") for name in moved)
    assert found["loss"] == pytest.approx(found["refined"], rel=1e-6)
    figures = trainer.validate(held_out(trainer.recipe))
    assert list(figures) == [f"absrel_{name}" for name in ("guess", "told", "refined", "constant")]
    assert all(value > 0 for value in figures.values())


def test_answers_learn_on_settled_windows_while_what_settles_them_stays() -> None:
    trainer, moved, found = one_step(structure=True)
    taught = {name.split(".")[0] for name, p in trainer.model.named_parameters() if p.requires_grad}
    assert taught == {"query_embedder", "decoder", "heads"}, "several processes wait for a gradient of all"
    assert {name.split(".")[0] for name in moved} <= taught
    assert any(name.startswith("decoder.") for name in moved)
    assert found["loss"] > 0
    assert trainer.validate(held_out(trainer.recipe))["absrel"] > 0


@pytest.mark.parametrize(("lens", "taught"), [(0.0, False), (0.5, True)])
def test_all_but_the_refiner_learns_at_once_and_the_lens_where_it_is_asked_for(
    lens: float, taught: bool
) -> None:
    model = {**TINY_MODEL, "image_size": [32, 32]}  # smaller, a guess has no place to begin from
    _, moved, found = one_step(model=model, losses={"map": 1.0, "lens": lens})
    assert not any(name.startswith("refiner.") for name in moved)
    for part in ("encoder.pyramid.guess.", "encoder.blocks.", "memory_proj.", "decoder.", "heads."):
        assert any(name.startswith(part) for name in moved), part
    assert any(name.startswith("encoder.pyramid.lens.") for name in moved) == taught
    assert ("lens" in found) == taught
    assert found["map"] > 0


def test_training_starts_answers_where_use_does() -> None:
    """`settled` for `forward` is what `Scene.settled` is for `decode`."""
    trainer = Trainer(recipe_from_dict(tiny(**ONE, structure=True)), torch.device("cpu"))
    model = trainer.model.eval().requires_grad_(False)
    assert model.encoder.pyramid is not None
    assert model.refiner is not None
    for parameter in (*model.encoder.pyramid.parameters(), *model.refiner.parameters()):
        torch.nn.init.normal_(parameter, std=0.05)  # nothing begins at zero here
    batch = Feed(trainer.recipe).batch(0)
    scene = model.encode(batch.video[0], aspect_ratio=float(batch.aspect_ratio[0])).with_focal(0.8)
    known = settled(model, batch.video[:1], batch.aspect_ratio[:1], torch.tensor([0.8]))
    images, paths = scene.settled
    assert known.pixels is not None
    torch.testing.assert_close(images, known.pixels, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(paths, known.paths, atol=1e-4, rtol=1e-4)
    queries = batch.queries.apply(lambda x: x[:1])
    with torch.no_grad():
        raw = model(batch.video[:1].float() / 255, batch.aspect_ratio[:1], queries, encoded=known)
    found = scene.decode_raw(queries.apply(lambda x: x[0]))
    torch.testing.assert_close(on_lens(scene, raw["xyz"][0]), found["xyz"], atol=1e-3, rtol=1e-3)


def test_clips_may_have_more_pixels_than_the_network_sees() -> None:
    large = [{"options": {"objects": 2, "clutter": 2, "size": [32, 32]}}]
    for changes in ({"refine": True}, {"structure": True}, {"losses": {"map": 1.0}}):
        found = one_step(sources=large, **changes)[2]
        assert found["loss"] > 0


def test_lenses_of_clips_are_read_from_their_truth() -> None:
    config = recipe_from_dict(tiny()).model
    clips = ProceduralSource(config).make([7, 8, 9])
    width = clips.video.shape[-1]
    torch.testing.assert_close(focal_lengths(clips), clips.intrinsics[:, 0, 0] / width, atol=1e-4, rtol=1e-4)

    boxes = torch.tensor([[0.0, 0.0, 0.6, 0.6], [0.45, 0.4, 0.55, 0.6], [0.3, 0.0, 0.5, 1.0]])
    cut = focal_lengths(CroppedClips(clips, boxes))
    torch.testing.assert_close(cut, clips.intrinsics[:, 0, 0] / width / boxes[:, 2], atol=1e-4, rtol=1e-4)

    class Nothing:
        video = clips.video

        def answer(self, queries: Any) -> Any:
            truth = clips.answer(queries)
            truth.xyz_valid[:] = False
            return truth

    assert focal_lengths(Nothing()).tolist() == pytest.approx([USUAL_FOCAL] * 3)  # type: ignore[arg-type]


def test_figures_of_depth_by_hand() -> None:
    class Known(torch.nn.Module):
        def forward(self, video: Tensor, aspect_ratio: Tensor, focal: Tensor) -> dict[str, Tensor]:
            return {"guess": clips.depth.log() + torch.arange(2.0).view(2, 1, 1, 1)}

    config = recipe_from_dict(tiny()).model
    clips = ProceduralSource(config).make([7, 8])
    figures = validate_depth(Known(), [clips])  # type: ignore[arg-type]
    assert figures["absrel_guess"] == pytest.approx(0.0, abs=1e-5)
    assert figures["absrel_constant"] > 0.05


@pytest.mark.parametrize(
    "changes",
    [
        {"refine": True, "structure": True},
        {"structure": True, "model": {**TINY_MODEL, "flow": False, "refiner": 0}},
        {"refine": True, "augment": {"crop": 0.5}},
    ],
)
def test_stages_that_do_not_exist_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="two stages|structure needs|augment.crop moves"):
        recipe_from_dict(tiny(**changes))


def test_a_refiner_that_is_not_there_cannot_be_trained() -> None:
    recipe = recipe_from_dict(tiny(**ONE, refine=True, model={**TINY_MODEL, "refiner": 0}))
    with pytest.raises(ValueError, match="no refiner"):
        Trainer(recipe, torch.device("cpu"))
