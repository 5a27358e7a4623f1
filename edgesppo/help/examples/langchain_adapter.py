"""A chat model of LangChain that runs in your process, without a server.

    pip install langchain-core
    python langchain_adapter.py

`invoke`, `stream`, `batch` and their async forms work. For tools and many processes, run
`edgesppo serve sppo-iter3`, and use LangChain's client of OpenAI (pip install langchain-openai):

    ChatOpenAI(model="sppo-iter3", api_key="none", base_url="http://127.0.0.1:8080/v1")
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.messages.ai import UsageMetadata
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from pydantic import Field

import edgesppo

if TYPE_CHECKING:
    from collections.abc import Iterator

ROLES = {"system": "system", "human": "user", "ai": "assistant"}


class ChatEdgesppo(BaseChatModel):
    """One loaded model; `sampling` are keywords such as temperature."""

    loaded: Any
    sampling: dict[str, Any] = Field(default_factory=dict)

    @property
    def _llm_type(self) -> str:
        return "edgesppo"

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: Any = None,
        **more: Any,
    ) -> ChatResult:
        parts = list(self._stream(messages, stop, run_manager, **more))
        whole = parts[0].message
        for part in parts[1:]:
            whole += part.message
        answer = AIMessage(
            content=whole.content,
            usage_metadata=whole.usage_metadata,
            response_metadata=whole.response_metadata,
        )
        return ChatResult(generations=[ChatGeneration(message=answer)])

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: Any = None,
        **more: Any,
    ) -> Iterator[ChatGenerationChunk]:
        *before, question = [
            {"role": ROLES[message.type], "content": message.text} for message in messages
        ]
        sampling = {**self.sampling, **({"stop": stop} if stop else {}), **more}
        chat = self.loaded.chat(messages=before, **sampling)
        for chunk in chat.stream(question["content"]):
            message = AIMessageChunk(content=chunk.text)
            if chunk.usage is not None:
                read, written = chunk.usage.prompt_tokens, chunk.usage.completion_tokens
                message.usage_metadata = UsageMetadata(
                    input_tokens=read, output_tokens=written, total_tokens=read + written
                )
                message.response_metadata = {"finish_reason": chunk.finish_reason}
            piece = ChatGenerationChunk(message=message)
            if run_manager is not None:
                run_manager.on_llm_new_token(chunk.text, chunk=piece)
            yield piece


if __name__ == "__main__":
    with edgesppo.load("demo") as model:
        for piece in ChatEdgesppo(loaded=model).stream("What is the capital of France?"):
            print(piece.text, end="", flush=True)
        print()
