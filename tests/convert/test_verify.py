"""The file must pass the runtime's own checks, before it is written and after."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import pytest
from gguf import GGUFValueType, Keys

from edgesppo.errors import BadCheckpoint, BadModelFile, OutputError
from edgesppo_convert import convert, gguf_format, look_ahead
from edgesppo_convert.gguf_format import KeyValue
from edgesppo_convert.plan import metadata, verify
from edgesppo_convert.plan import plan as blueprint
from tests.support.checkpoints import SMALL, tokenizer_config, write_checkpoint, write_json

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_checkpoint(tmp_path_factory.mktemp("source") / "model", SMALL)
    tokenizer = tokenizer_config()
    tokenizer["added_tokens_decoder"]["500"] = {"content": "<ours>", "special": True}
    write_json(folder / "tokenizer_config.json", tokenizer)
    return folder


def drop(key: str) -> Callable[[list[KeyValue]], list[KeyValue]]:
    return lambda keys: [entry for entry in keys if entry.key != key]


def change(key: str, how: Callable[[Any], Any]) -> Callable[[list[KeyValue]], list[KeyValue]]:
    return lambda keys: [
        dataclasses.replace(entry, value=how(entry.value)) if entry.key == key else entry
        for entry in keys
    ]


def with_item(index: int, item: Any) -> Callable[[list[Any]], list[Any]]:
    return lambda items: [*items[:index], item, *items[index + 1 :]]


@pytest.mark.parametrize(
    ("spoil", "complaint"),
    [
        (drop("gemma2.attn_logit_softcapping"), "attn_logit_softcapping is None"),
        (drop("gemma2.final_logit_softcapping"), "final_logit_softcapping is None"),
        (drop("gemma2.attention.sliding_window"), "sliding_window is None"),
        (change("gemma2.attention.sliding_window", lambda _: 0), "sliding_window is 0"),
        (change(Keys.Tokenizer.TOKEN_TYPE, with_item(106, 1)), "'<start_of_turn>' has the type"),
        (change(Keys.Tokenizer.TOKEN_TYPE, with_item(50, 4)), "'<unused43>' has the type 4"),
        (change(Keys.Tokenizer.TOKEN_TYPE, with_item(3, 3)), r"'<unk>' has .* expected UNKNOWN"),
        (change(Keys.Tokenizer.TOKEN_TYPE, with_item(300, 1)), r"'<0x.*' has .* expected BYTE"),
        (change(Keys.Tokenizer.TOKEN_TYPE, with_item(108, 1)), r"CONTROL \(3\) or USER_DEFINED"),
        (change(Keys.Tokenizer.TOKEN_TYPE, with_item(500, 4)), r"'<ours>' .* expected CONTROL"),
        (change(Keys.Tokenizer.TOKEN_TYPE, with_item(550, 6)), r"'.*' has the type 6; .* <0xFF>"),
        (change(Keys.Tokenizer.LIST, with_item(2, "<bus>")), r"<bos> has the ids \[\]"),
        (change(Keys.Tokenizer.LIST, with_item(500, "<bos>")), "599 of its 600 tokens differ"),
        (change(Keys.Tokenizer.BOS_ID, lambda _: 1), "bos_token_id is 1; expected"),
        (change(Keys.Tokenizer.ADD_BOS, lambda _: False), "add_bos_token is False"),
        (change(Keys.Tokenizer.SCORES, lambda scores: scores[1:]), "599 items"),
        (change(Keys.General.ARCHITECTURE, lambda _: "gemma3"), "architecture 'gemma3'"),
        (
            lambda keys: [*keys, KeyValue("general.alignment", GGUFValueType.UINT32, 48)],
            "general.alignment is 48",
        ),
    ],
)
def test_a_file_that_the_runtime_would_misread_is_not_begun_and_not_kept(
    source: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    spoil: Callable[[list[KeyValue]], list[KeyValue]],
    complaint: str,
) -> None:
    collect = metadata.collect
    monkeypatch.setattr(metadata, "collect", lambda *args: spoil(collect(*args)))
    with pytest.raises(BadCheckpoint, match=f"the runtime would refuse the result: .*{complaint}"):
        look_ahead(source)
    monkeypatch.setattr(blueprint, "check_planned", lambda *_: None)
    with pytest.raises(OutputError, match=f"cannot be used and was removed: .*{complaint}"):
        convert(source, tmp_path / "out.gguf")
    assert list(tmp_path.iterdir()) == []


def test_tensors_out_of_place_are_found(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def misplaced(keys: list[KeyValue], tensors: list[gguf_format.TensorInfo]) -> Any:
        larger = dataclasses.replace(tensors[-1], shape=(64, 6400))
        plan = gguf_format.plan_file(keys, tensors)
        return dataclasses.replace(
            plan, head=gguf_format.plan_file(keys, [*tensors[:-1], larger]).head
        )

    monkeypatch.setattr(blueprint, "plan_file", misplaced)
    monkeypatch.setattr(blueprint, "check_planned", lambda *_: None)
    with pytest.raises(OutputError, match=r"was removed: .*(damaged|truncated) GGUF"):
        convert(source, tmp_path / "out.gguf")
    assert list(tmp_path.iterdir()) == []


def test_llama_cpp_loads_the_vocabulary_before_an_old_file_is_replaced(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "out.gguf"
    output.write_bytes(b"old")
    tried: list[Path] = []

    def refuse(path: Path, **options: Any) -> Any:
        tried.append(path)
        assert options == {"vocabulary_only": True}
        raise BadModelFile(f"{path}: llama.cpp cannot load it: bad vocabulary")

    with monkeypatch.context() as patch:
        patch.setattr(verify, "Weights", refuse)
        with pytest.raises(OutputError, match=r"was removed: .*bad vocabulary"):
            convert(source, output, force=True)
    assert tried != [output]
    assert output.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [output]
    convert(source, output, force=True)
    assert output.read_bytes() != b"old"
