"""The chat template of a checkpoint: from a file of its own, or from the tokenizer's config."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgesppo.errors import BadCheckpoint
from edgesppo_convert.source.json_reader import JsonObject, check_content

if TYPE_CHECKING:
    from edgesppo_convert.source.small_files import SmallFiles

TEMPLATE = "chat_template.jinja"
MAX_TEMPLATE = 1 << 20


def read_template(holder: SmallFiles, config: JsonObject | None) -> str | None:
    """The chat template: from its own file first, as in transformers, then from the config."""
    data = holder.read_small(TEMPLATE, MAX_TEMPLATE)
    if data is not None:
        check_content(data, holder.display_name(TEMPLATE))
        try:
            return data.decode("utf-8")
        except UnicodeDecodeError:
            raise BadCheckpoint(f"{holder.display_name(TEMPLATE)} is not UTF-8") from None
    for values in (config, holder.read_json("chat_template.json")):
        if values is not None and values.raw("chat_template") is not None:
            return _default_template(values)
    return None


def _default_template(holder: JsonObject) -> str:
    """The template, or of a list of named templates the one named `default`."""
    templates = holder.raw("chat_template")
    if isinstance(templates, list):
        for entry in templates:
            if isinstance(entry, dict) and entry.get("name") == "default":
                return JsonObject(holder.where, entry).text("template")
        holder.refuse("chat_template", "a string, or a list with a template named 'default'")
    return holder.text("chat_template")
