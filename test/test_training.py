"""The training loop: it learns, resumes exactly, and two processes do what one does."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from tiny_recipe import TINY_MODEL, tiny

from d4rt_ros.model.checkpoints import load_model
from d4rt_ros.training.feed import Batches, Feed
from d4rt_ros.training.loop import train
from d4rt_ros.training.recipe import load_recipe, recipe_from_dict
from d4rt_ros.training.trainer import Trainer


@pytest.mark.parametrize("stage", [{}, {"structure": True}, {"refine": True}])
def test_resuming_is_the_same_as_not_stopping(tmp_path: Path, stage: dict[str, Any]) -> None:
    recipe = recipe_from_dict(tiny(optimiser={"warmup": 2, "accumulate": 2}, **stage))
    straight = train(recipe, tmp_path / "straight")
    first = Trainer(recipe, torch.device("cpu"))
    for _ in range(3):
        first.take_step()
    first.save(tmp_path / "stopped")
    torch.manual_seed(123)
    resumed = train(recipe, tmp_path / "stopped", resume=True)
    assert resumed.step == straight.step == 8
    for name, value in straight.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[name]), name
        assert torch.equal(straight.mean.weights[name], resumed.mean.weights[name]), name


def test_a_full_disk_is_told_and_spares_the_checkpoint_before(tmp_path: Path) -> None:
    trainer = Trainer(recipe_from_dict(tiny()), torch.device("cpu"))
    trainer.save(tmp_path)
    before = (tmp_path / "checkpoint.pt").read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) // 2, limits[1]))
    try:
        with pytest.raises(OSError, match=r"checkpoint.pt: cannot be written \("):
            trainer.save(tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (tmp_path / "checkpoint.pt").read_bytes() == before
    assert not list(tmp_path.glob(".*"))


def test_answers_are_compared_in_the_counting_of_pixels_that_they_are_given_in() -> None:
    plain = {"pyramid": 0, "refiner": 0, "flow": False, "relative": False, "corner_pixels": True}
    trainer = Trainer(recipe_from_dict(tiny(model={**TINY_MODEL, **plain})), torch.device("cpu"))
    batch = Feed(trainer.recipe).batch(0)
    raw = trainer._counted(trainer.model(batch.video.float() / 255, batch.aspect_ratio, batch.queries))
    with torch.no_grad():
        scene = trainer.model.eval().encode(batch.video, aspect_ratio=batch.aspect_ratio)
    torch.testing.assert_close(raw["uv"], scene.decode(batch.queries).uv, atol=1e-5, rtol=1e-5)


def test_background_workers_give_the_same_batches_from_any_start() -> None:
    recipe = recipe_from_dict(tiny())
    settings = replace(recipe.feed, workers=2, prefetch=1)
    made = [Feed(replace(recipe, feed=settings), worker=n % 2).batch(n) for n in (5, 6)]
    batches = Batches(replace(recipe, feed=settings), start=5)
    try:
        for expected in made:
            found = batches.take()
            assert found.number == expected.number
            assert torch.equal(found.video, expected.video)
            assert torch.equal(found.queries.u, expected.queries.u)
            assert torch.equal(found.truth.xyz, expected.truth.xyz)
    finally:
        batches.close()


def test_clips_are_reused_with_fresh_queries() -> None:
    recipe = recipe_from_dict(tiny(feed={"batch": 1, "chunk": 1, "reuse": 4, "pool": 1, "workers": 0},
                                   augment={"brightness": 0.0, "contrast": 0.0, "saturation": 0.0, "hue": 0.0,
                                            "drop": 0.0, "blur": 0.0}))  # fmt: skip
    feed = Feed(recipe)
    batches = [feed.batch(n) for n in range(8)]
    assert all(torch.equal(b.video, batches[0].video) for b in batches[:4])
    assert not torch.equal(batches[3].video, batches[4].video)
    assert not torch.equal(batches[0].queries.u, batches[1].queries.u)
    assert len(feed._pool) == 1  # what is past is forgotten


def _one_of_two(rank: int, address: str, out: str) -> None:
    torch.distributed.init_process_group("gloo", init_method=address, rank=rank, world_size=2)
    trainer = Trainer(
        recipe_from_dict(tiny(optimiser={"kind": "adamw", "warmup": 2})), torch.device("cpu"), rank, 2
    )
    for _ in range(3):
        trainer.take_step()
    if rank == 0:
        torch.save(trainer.model.state_dict(), out)
    torch.distributed.destroy_process_group()


def test_two_processes_do_what_one_does(tmp_path: Path) -> None:
    out = tmp_path / "two.pt"
    torch.multiprocessing.start_processes(
        _one_of_two, (f"file://{tmp_path}/meet", str(out)), nprocs=2, start_method="spawn"
    )
    trainer = Trainer(recipe_from_dict(tiny(optimiser={"kind": "adamw", "warmup": 2})), torch.device("cpu"))
    begin = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    for _ in range(3):
        trainer.take_step()
    two = torch.load(out)
    for name, value in trainer.model.state_dict().items():
        moved, apart = (value - begin[name]).abs(), (value - two[name]).abs()
        if name.endswith("in_proj_bias"):  # softmax ignores the keys' bias: its gradient is rounding alone
            apart = torch.cat((apart.chunk(3)[0], apart.chunk(3)[2]))
        assert float(apart.mean()) <= 1e-3 * float(moved.mean()) + 1e-9, name


def test_sigterm_writes_a_checkpoint_that_resumes(tmp_path: Path) -> None:
    config = tmp_path / "recipe.yaml"
    config.write_text(yaml.safe_dump(tiny(steps=100_000)))
    command = "import sys; from d4rt_ros.cli import main; sys.exit(main(sys.argv[1:]))"
    arguments = [
        sys.executable,
        "-c",
        command,
        "train",
        str(config),
        "--out",
        str(tmp_path / "run"),
        "--device",
        "cpu",
    ]
    process = subprocess.Popen(arguments, env={**os.environ, "OMP_NUM_THREADS": "1"})
    log = tmp_path / "run" / "log"
    deadline = time.monotonic() + 60
    while not (log.exists() and any(f.stat().st_size > 200 for f in log.iterdir())):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0
    trainer = Trainer(load_recipe(config), torch.device("cpu"))
    trainer.load(tmp_path / "run" / "checkpoint.pt")
    assert 0 < trainer.step < 100_000
    assert load_model(tmp_path / "run" / "weights.safetensors").config == trainer.recipe.model
    with pytest.raises(FileExistsError, match="resume it"):
        train(trainer.recipe, tmp_path / "run")


@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGTERM])
def test_what_stops_a_run_leaves_those_who_make_its_clips(tmp_path: Path, kind: signal.Signals) -> None:
    """Ctrl-C goes to all processes of a terminal, SIGTERM to those of a job; also while they only begin."""
    config = tmp_path / "recipe.yaml"
    config.write_text(yaml.safe_dump(tiny(feed={"batch": 2, "chunk": 1, "workers": 1})))
    command = "import sys; from d4rt_ros.cli import main; sys.exit(main(sys.argv[1:]))"
    process = subprocess.Popen(
        [sys.executable, "-c", command, "train", str(config), "--out", str(tmp_path / "run")],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        start_new_session=True,
    )
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    deadline = time.monotonic() + 60
    while len(children.read_text().split()) < 2:  # multiprocessing's own, and the worker
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    os.killpg(process.pid, kind)
    assert process.wait(60) == 0
    assert (tmp_path / "run" / "checkpoint.pt").exists()


def test_signals_are_the_caller_s_again_when_a_run_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, kinds, seen = recipe_from_dict(tiny()), (signal.SIGTERM, signal.SIGINT), []

    def run(*_: Any) -> None:
        seen.append([signal.getsignal(kind) for kind in kinds])
        if len(seen) == 2:
            raise RuntimeError("no disk")

    monkeypatch.setattr("d4rt_ros.training.loop._run", run)
    before = [signal.getsignal(kind) for kind in kinds]
    train(recipe, tmp_path)
    with pytest.raises(RuntimeError, match="no disk"):
        train(recipe, tmp_path)
    assert seen[0] != before and seen[1] != before
    assert [signal.getsignal(kind) for kind in kinds] == before
    thread = threading.Thread(target=train, args=(recipe, tmp_path))  # where signals cannot be caught
    thread.start()
    thread.join()
    assert seen[2] == before


def test_minutes_end_a_run_with_the_rate_at_its_lowest(tmp_path: Path) -> None:
    recipe = recipe_from_dict(tiny(steps=100_000, optimiser={"warmup": 0, "final": 0.1}))
    trainer = train(recipe, tmp_path, minutes=0.005)
    assert 0 < trainer.step < 100_000 and trainer.seconds >= 0.3
    trainer.take_step(budget=trainer.seconds)
    assert all(
        g["lr"] == pytest.approx(0.1 * g["base_lr"]) for o in trainer.optimisers for g in o.param_groups
    )


def test_a_new_run_spares_the_weights_of_an_older_one(tmp_path: Path) -> None:
    (tmp_path / "weights.safetensors").write_bytes(b"precious")
    with pytest.raises(FileExistsError, match="weights.safetensors exists"):
        train(recipe_from_dict(tiny(steps=1)), tmp_path)
    assert (tmp_path / "weights.safetensors").read_bytes() == b"precious"


def test_fine_tuning_starts_from_given_weights(tmp_path: Path) -> None:
    recipe = recipe_from_dict(tiny())
    first = Trainer(recipe, torch.device("cpu"))
    first.export(tmp_path / "weights.safetensors")
    again = Trainer(
        replace(recipe, start_from=str(tmp_path / "weights.safetensors"), seed=5), torch.device("cpu")
    )
    for name, value in first.model.state_dict().items():
        torch.testing.assert_close(value, again.model.state_dict()[name], rtol=1e-3, atol=1e-5)
    again.take_step()
    assert not torch.equal(again.model.memory_proj.weight, first.model.memory_proj.weight)


_ABANDON = """
import os, sys, yaml
from d4rt_ros.training.feed import Batches
from d4rt_ros.training.recipe import recipe_from_dict
if __name__ == "__main__":
    batches = Batches(recipe_from_dict(yaml.safe_load(sys.argv[1])), 0)
    batches.take()
    print(batches._processes[0].pid, flush=True)
    os.kill(os.getpid(), 9)
"""


@pytest.mark.slow()
def test_workers_do_not_outlive_a_killed_run(tmp_path: Path) -> None:
    script = tmp_path / "abandon.py"
    script.write_text(_ABANDON)
    values = tiny(feed={"batch": 2, "chunk": 1, "workers": 1})
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(script), yaml.safe_dump(values)]
    found = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=environment, timeout=100)
    worker = Path(f"/proc/{int(found.stdout)}")
    deadline = time.monotonic() + 30
    while worker.exists() and "State:\tZ" not in (worker / "status").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.2)


@pytest.mark.slow()
@pytest.mark.timeout(1200)
def test_200_steps_bring_the_loss_below_half_of_its_start() -> None:
    recipe = load_recipe("builtin_short")
    # What 200 steps teach hangs on how many scenes they see: two frames of each, once, by a network a
    # fifteenth of the size, so that 4,000 take less than three minutes even on two cores without AVX-512.
    small = replace(
        recipe.model, frames=2, pyramid=16, vit_width=64, vit_depth=2, dec_width=128, dec_depth=2, refiner=0
    )
    recipe = replace(
        recipe,
        steps=200,
        model=small,
        feed=replace(recipe.feed, batch=20, chunk=20, reuse=1, pool=1),
        sampling=replace(recipe.sampling, count=128),
        optimiser=replace(recipe.optimiser, warmup=20),
    )
    # steps differ in how hard their clips are: the same others are asked before and after
    others = Feed(replace(recipe, seed=1, feed=replace(recipe.feed, batch=24, chunk=8))).batch(0)
    trainer = Trainer(recipe, torch.device("cpu"))

    def loss() -> float:
        value = float(trainer.forward_backward(others, confidence_active=False)["loss"])
        trainer.model.zero_grad(set_to_none=True)
        return value

    threads = torch.get_num_threads()
    torch.set_num_threads(max(1, (os.cpu_count() or 1) - 1))  # a core is left to who makes clips
    try:
        start = loss()
        for _ in range(200):
            trainer.take_step()
        end = loss()
    finally:
        trainer.close()
        torch.set_num_threads(threads)
    assert end < start / 2, (start, end)
    print(f"loss {start:.3f} to {end:.3f}")


def test_weights_of_shorter_windows_start_longer_ones(tmp_path: Path) -> None:
    short = Trainer(recipe_from_dict(tiny(model={**TINY_MODEL, "frames": 2})), torch.device("cpu"))
    short.export(tmp_path / "short.safetensors")
    start = str(tmp_path / "short.safetensors")
    long = Trainer(recipe_from_dict(tiny(start_from=start)), torch.device("cpu")).model
    before, after = short.model.state_dict(), long.state_dict()
    name = "query_embedder.t_src_embed.weight"
    assert after[name].shape == (4, 32)
    middle = before[name][0] + (before[name][1] - before[name][0]) / 3
    torch.testing.assert_close(after[name][1], middle, atol=1e-3, rtol=1e-2)  # kept in 16 bits
    torch.testing.assert_close(
        after["memory_proj.weight"], before["memory_proj.weight"], atol=1e-3, rtol=1e-2
    )
    with pytest.raises(ValueError, match="another model configuration"):
        Trainer(
            recipe_from_dict(tiny(model={**TINY_MODEL, "dec_width": 64}, start_from=start)),
            torch.device("cpu"),
        )
