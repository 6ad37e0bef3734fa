"""Weights load from every wrapping, and nothing else does."""

from __future__ import annotations

import argparse
import json
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from test_network import GOLDEN, SMALL, small_model

from d4rt_ros.model import CheckpointError, load_model, save_weights, weights_command
from d4rt_ros.model.config import opend4rt_config, read_config
from d4rt_ros.model.precision import select_device, select_precision


def same_weights(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values()))


def run(*words: str) -> int:
    parser = argparse.ArgumentParser()
    weights_command.add_arguments(parser)
    return weights_command.main(parser.parse_args(words))


@pytest.mark.parametrize("wrapper", [None, "state_dict", "model", "module", "network", "net"])
@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.module."])
def test_every_wrapping_of_a_pickle(tmp_path: Path, wrapper: str | None, prefix: str) -> None:
    model = small_model()
    state: dict[str, object] = {prefix + name: tensor for name, tensor in model.state_dict().items()}
    if wrapper:
        state = {wrapper: state, "optimizer": {"state": {0: torch.zeros(3)}}, "step": 7}
    torch.save(state, tmp_path / "a.ckpt")
    assert same_weights(load_model(tmp_path / "a.ckpt", config=SMALL), model)


def test_configuration_beside_the_file_is_found(tmp_path: Path) -> None:
    (tmp_path / "model.yaml").write_text((GOLDEN / "config.json").read_text())
    (tmp_path / "a.safetensors").write_bytes((GOLDEN / "model.safetensors").read_bytes())
    assert load_model(tmp_path / "a.safetensors").config == read_config(GOLDEN / "config.json")


def test_optimiser_state_is_not_read(tmp_path: Path) -> None:
    import resource

    big = torch.zeros(100_000_000)  # 400 MB
    torch.save({"state_dict": small_model().state_dict(), "optimizer": big}, tmp_path / "a.ckpt")
    del big
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    load_model(tmp_path / "a.ckpt", config=SMALL)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # KiB


class Malicious:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.path,)


def test_nothing_in_a_file_is_executed(tmp_path: Path) -> None:
    trap = tmp_path / "executed"
    torch.save({"state_dict": small_model().state_dict(), "hyper": Malicious(trap)}, tmp_path / "a.ckpt")
    (tmp_path / "b.ckpt").write_bytes(pickle.dumps(Malicious(trap)))
    for name in ("a.ckpt", "b.ckpt"):
        with pytest.raises(CheckpointError, match=name):
            load_model(tmp_path / name, config=SMALL)
    assert not trap.exists()


def test_damaged_and_missing_files_are_named(tmp_path: Path) -> None:
    save_weights(small_model(), tmp_path / "whole.safetensors")
    torch.save(small_model().state_dict(), tmp_path / "whole.ckpt")
    for name in ("whole.safetensors", "whole.ckpt"):
        data = (tmp_path / name).read_bytes()
        for keep in (0, 5, len(data) // 2, len(data) - 10):
            cut = tmp_path / f"cut{keep}{Path(name).suffix}"
            cut.write_bytes(data[:keep])
            with pytest.raises(CheckpointError, match=cut.name):
                load_model(cut, config=SMALL)
    with pytest.raises(CheckpointError, match="nowhere"):
        load_model(tmp_path / "nowhere.ckpt")
    with pytest.raises(CheckpointError, match="no weights here"):
        load_model(tmp_path / "empty")


@pytest.mark.parametrize("contents", [b"hello", b"a", b"a: 1", b"<!DOCTYPE html>"])
def test_what_was_never_a_checkpoint_is_refused_in_one_sentence(tmp_path: Path, contents: bytes) -> None:
    (tmp_path / "a.ckpt").write_bytes(contents)
    with pytest.raises(CheckpointError, match=r"a\.ckpt: damaged .* \(unexpected contents\)$"):
        load_model(tmp_path / "a.ckpt")


@pytest.mark.parametrize("zipped", [True, False])
def test_nobody_is_told_to_read_a_file_unsafely(tmp_path: Path, zipped: bool) -> None:
    trap, path = Malicious(tmp_path / "executed"), tmp_path / "a.ckpt"
    torch.save({"hyper": trap}, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(CheckpointError, match="neither a tensor nor a plain value") as caught:
        load_model(path)
    assert "weights_only" not in str(caught.value) and "\n" not in str(caught.value)
    path.write_bytes(pickle.dumps([1, 2], protocol=4))
    with pytest.raises(CheckpointError, match="unexpected contents"):
        load_model(path)


def test_first_tensors_that_do_not_fit_are_named(tmp_path: Path) -> None:
    state = small_model().state_dict()
    state["memory_proj.bias"] = torch.zeros(5)
    del state["heads.xyz_head.bias"]
    state["something.else"] = torch.zeros(1)
    torch.save(state, tmp_path / "a.ckpt")
    with pytest.raises(CheckpointError) as caught:
        load_model(tmp_path / "a.ckpt", config=SMALL)
    assert "memory_proj.bias is (5,), not (32,)" in str(caught.value)
    assert "heads.xyz_head.bias is missing" in str(caught.value)
    assert "something.else is unknown" in str(caught.value)
    state = {name: value.to(torch.int8) for name, value in small_model().state_dict().items()}
    torch.save(state, tmp_path / "c.ckpt")
    with pytest.raises(CheckpointError, match="is torch.int8"):
        load_model(tmp_path / "c.ckpt", config=SMALL)
    torch.save({"layer.weight": torch.zeros(2)}, tmp_path / "b.ckpt")
    with pytest.raises(CheckpointError, match="no D4RT weights; first entries: layer.weight"):
        load_model(tmp_path / "b.ckpt")


@pytest.mark.parametrize(("kind", "value"), [(torch.float32, float("nan")), (torch.bfloat16, float("-inf"))])
def test_weights_of_a_training_that_diverged_are_refused(
    tmp_path: Path, kind: torch.dtype, value: float
) -> None:
    state = {name: tensor.to(kind) for name, tensor in small_model().state_dict().items()}
    state["memory_proj.weight"][2, 3] = value
    torch.save(state, tmp_path / "a.ckpt")
    with pytest.raises(
        CheckpointError, match="1 tensors do not fit; first: memory_proj.weight is not finite"
    ):
        load_model(tmp_path / "a.ckpt", config=SMALL)


def test_weights_of_8_or_64_bits_load_unless_32_do_not_hold_them(tmp_path: Path) -> None:
    state = small_model().state_dict()
    for dtype in (torch.float8_e4m3fn, torch.float64):
        torch.save({name: tensor.to(dtype) for name, tensor in state.items()}, tmp_path / "a.ckpt")
        assert load_model(tmp_path / "a.ckpt", config=SMALL).memory_proj.weight.dtype == torch.float32
    large = {"heads.uv_head.bias": torch.full((2,), 1e300, dtype=torch.float64)}
    torch.save({**state, **large}, tmp_path / "a.ckpt")
    with pytest.raises(CheckpointError, match="heads.uv_head.bias is not finite"):
        load_model(tmp_path / "a.ckpt", config=SMALL)


def test_saved_weights_load_as_a_file_and_as_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("d4rt_ros.model.checkpoints.PART_BYTES", 300_000)
    model = small_model()
    for name in ("a.safetensors", "parts"):
        save_weights(model, tmp_path / name, torch.float32, {"step": "3"})
        assert same_weights(load_model(tmp_path / name), model)
    assert len(list((tmp_path / "parts").iterdir())) > 1
    assert all(part.stat().st_size < 400_000 for part in (tmp_path / "parts").iterdir())


def test_nothing_but_former_parts_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, model = tmp_path / "zoo.d", small_model()
    folder.mkdir()
    with monkeypatch.context() as small:
        small.setattr("d4rt_ros.model.checkpoints.PART_BYTES", 300_000)
        save_weights(model, folder, torch.float32)
    save_weights(load_model(folder), folder, torch.float16)
    assert [file.name for file in folder.iterdir()] == ["model-00001-of-00001.safetensors"]
    save_weights(load_model(folder), folder / "model-00001-of-00001.safetensors")  # over what is read
    (folder / "mine.safetensors").write_bytes(b"precious")
    with pytest.raises(FileExistsError, match="mine.safetensors"):
        save_weights(model, folder)
    assert (folder / "mine.safetensors").read_bytes() == b"precious"
    with pytest.raises(ValueError, match=r"out.ckpt: weights go to a \.safetensors file"):
        save_weights(model, tmp_path / "out.ckpt")
    with pytest.raises(OSError, match=r"none/out.safetensors: cannot be written \(.*No such file"):
        save_weights(model, tmp_path / "none" / "out.safetensors")
    assert not list(tmp_path.rglob("*.part"))


def test_convert_then_check(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config, io = str(GOLDEN / "config.json"), str(GOLDEN / "io.safetensors")
    source = str(GOLDEN / "model.safetensors")
    assert run("check", source, "--config", config, "--io", io) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["agrees"] is True
    assert report["xyz"] < 1e-4
    half = str(tmp_path / "half.safetensors")
    assert run("convert", source, half, "--config", config, "--precision", "float16") == 0
    capsys.readouterr()
    assert run("check", half, "--io", io) == 1
    assert json.loads(capsys.readouterr().out)["agrees"] is False
    assert run("check", half, "--io", io, "--tolerance", "0.01") == 0


def test_weights_too_large_for_16_bits_are_not_converted(tmp_path: Path) -> None:
    model = small_model()
    model.memory_proj.bias.data[0] = -1e5
    save_weights(model, tmp_path / "a.safetensors", torch.float32)
    with pytest.raises(ValueError, match="weights of up to 100000 do not fit into float16"):
        run("convert", f"{tmp_path}/a.safetensors", f"{tmp_path}/b.safetensors", "--precision", "float16")
    assert not (tmp_path / "b.safetensors").exists()
    assert run("convert", f"{tmp_path}/a.safetensors", f"{tmp_path}/b.safetensors") == 0
    assert float(load_model(tmp_path / "b.safetensors").memory_proj.bias[0]) == pytest.approx(-1e5, rel=0.01)


def test_answers_of_another_shape_are_not_compared(tmp_path: Path) -> None:
    model, recorded = load_model(GOLDEN / "model.safetensors"), load_file(GOLDEN / "io.safetensors")
    for name, value, sentence in (
        ("memory", recorded["memory"][..., :40], r"memory is .* 40\], the network's .* 80\]"),
        ("out.visibility", recorded["out.visibility"][..., None], "visibility is"),  # would be stretched
        ("u", recorded["u"][..., 1:], "not a file of inputs and outputs"),
    ):
        save_file({**recorded, name: value.contiguous()}, tmp_path / "io.safetensors")
        with pytest.raises(CheckpointError, match=f"io.safetensors: {sentence}"):
            weights_command.compare(model, tmp_path / "io.safetensors")


def test_configurations_that_are_not_d4rt_are_refused(tmp_path: Path) -> None:
    values = json.loads((GOLDEN / "config.json").read_text())
    values["decoder"]["query_self_attention"] = True
    with pytest.raises(ValueError, match="attention between queries"):
        opend4rt_config(values)
    for text in ("a: [1, 2", "uv_bands: -1", "model: builtin", "{input: 3, encoder: {}, decoder: {}}"):
        (tmp_path / "x.yaml").write_text(text)
        with pytest.raises(ValueError, match="x.yaml"):
            read_config(tmp_path / "x.yaml")
    values = json.loads((GOLDEN / "config.json").read_text())
    for part, field, value, sentence in (
        ("encoder", "variant", "", "encoder.variant is ''"),
        ("encoder", "variant", "vit_", "encoder.variant is 'vit_'"),
        ("encoder", "num_layers", 0, "vit_depth is 0"),
        ("encoder", "max_tokens", "many", "not an OpenD4RT model configuration"),
        ("input", "image_size", 64, "image_size is 64"),
        ("query_embedding", "uv_num_bands", 1.5, "uv_bands is 1.5"),
    ):
        with pytest.raises(ValueError, match=sentence):
            opend4rt_config({**values, part: {**values[part], field: value}})


def test_device_and_precision_by_name() -> None:
    cpu = select_device("cpu")
    assert select_precision("float32", cpu) == torch.float32
    assert select_precision("auto", cpu) in (torch.float32, torch.bfloat16)
    for name in ("gpu", "mps", "cuda:99"):
        with pytest.raises(ValueError, match=name):
            select_device(name)
    with pytest.raises(ValueError, match="int8"):
        select_precision("int8", cpu)
