"""A loaded Gemma-2 model: the weights of one GGUF file, its tokenizer and its special tokens."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from edgesppo.errors import BadModelFile
from edgesppo.gguf import gemma2
from edgesppo.llama import fork
from edgesppo.llama.fork import closed_by_fork
from edgesppo.llama.library import can_offload
from edgesppo.llama.load_weights import load_weights
from edgesppo.llama.mapped_file import MappedFile
from edgesppo.llama.tokenizer import Tokenizer, model_closed
from edgesppo.planning.run_config import gpu_layers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from edgesppo.gguf.gemma2 import Summary
    from edgesppo.llama.weights import Weights

# The roles of tokens that begin or end a text, a turn or a message.
_STEERING = ("bos", "eos", "eot", "eom")
# GGUF's types of the tokens that are nothing but text: normal, byte.
_ORDINARY = (1, 6)


class Model:
    """A Gemma-2 model file, loaded. Close it after the engines that use it.

    `gpu` is "auto" (all layers, if the build and the device can), "off", or a number of layers.
    `repack` lets llama.cpp rearrange the weights in memory, which makes them faster or slower,
    depending on the processor. `vocabulary_only` loads no weights: enough to tokenise. Without
    `mmap` the weights are copied from the file, so that they can be overwritten. `summary` is the
    file's header, if it was read already. `progress` is called with the loaded fraction.

    `bos`, `start_of_turn` and `end_of_turn` are token ids; `end_tokens` are all ids that end an
    answer. `newline` and `answer_head` are the ids of "\\n" and of "model\\n", which every turn's
    prompt repeats.

    Raises ModelNotFound or BadModelFile if `path` is not a complete Gemma-2 GGUF, and OutOfMemory.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        gpu: str | int = "auto",
        repack: bool = True,
        vocabulary_only: bool = False,
        mmap: bool = True,
        summary: Summary | None = None,
        progress: Callable[[float], None] | None = None,
    ) -> None:
        self.path = Path(path)
        self.location = self.path.absolute()  # also after the process has changed its folder
        self.summary = summary or gemma2.load_summary(self.path)
        self.n_gpu_layers = gpu_layers(gpu, can_offload=can_offload())
        self._weights: Weights | None = None
        self._parent: int | None = None  # the process that loaded it, in a child of that
        fork.track(self)
        self.file = MappedFile(self.path)
        try:
            weights = load_weights(
                self.file,
                self.summary,
                n_gpu_layers=self.n_gpu_layers,
                repack=repack,
                vocabulary_only=vocabulary_only,
                mmap=mmap,
                progress=progress,
            )
            self.tokenizer = Tokenizer(weights, self.path)
            self._weights = weights
            self.n_vocab = weights.n_vocab
            self.start_of_turn = self._turn_token("<start_of_turn>")
            self.end_of_turn = self._turn_token("<end_of_turn>")
            self.bos = self._find_bos()
            weights.reserved = self._find_reserved()
            self.end_tokens = self._find_ends()
            self.newline = self.tokenize("\n")
            self.answer_head = self.tokenize("model\n")
        except BaseException:
            self.close()
            raise

    @property
    def weights(self) -> Weights:
        """The native weights. Raises Closed after `close()`."""
        if self._weights is None:
            raise model_closed(self.path) if self._parent is None else closed_by_fork(self._parent)
        return self._weights

    @property
    def n_ctx_train(self) -> int:
        """The context length that the model was trained for, in tokens."""
        return self.weights.n_ctx_train

    def close(self) -> None:
        """Free the weights; harmless when repeated."""
        weights, self._weights = self._weights, None
        if weights is not None:
            self.tokenizer.close()  # waits for the threads that are using it
            weights.close()
        self.file.close()

    def after_fork(self, parent: int) -> None:
        """Let go of the weights, which belong to the parent process."""
        self._weights, self._parent = None, parent

    def tokenize(self, text: str | bytes, *, enough: int | None = None) -> list[int]:
        """The token ids of plain text; see `Tokenizer.tokenize`."""
        return self.tokenizer.tokenize(text, enough=enough)

    def fewest_tokens(self, text: str) -> int:
        """A lower bound for a text's number of tokens; see `Tokenizer.fewest_tokens`."""
        return self.tokenizer.fewest_tokens(text)

    def detokenize(self, ids: Iterable[int]) -> bytes:
        """The bytes that the ids stand for, without control tokens."""
        return self.tokenizer.detokenize(ids)

    def piece(self, token: int) -> bytes:
        """The bytes of one token; a control token gives its name."""
        return self.tokenizer.piece(token)

    def is_control(self, token: int) -> bool:
        """Whether the token steers the model instead of standing for text."""
        return self.tokenizer.is_control(token)

    def _find_ends(self) -> frozenset[int]:
        """The tokens that end an answer: `<end_of_turn>`, and those llama.cpp takes for an end.

        llama.cpp is asked only about tokens that the file marks as something other than text or
        names in a key of their own: asking about all 256,000 takes a tenth of a second.
        """
        with self.file.open() as file:
            kinds = gemma2.read_array(self.summary, gemma2.TOKEN_TYPES, file=file)
        marked = {id_ for id_, kind in enumerate(kinds) if kind not in _ORDINARY}
        marked |= self.weights.reserved
        for key, value in self.summary.keys.items():
            if gemma2.TOKEN_ID.fullmatch(key) and value in range(self.n_vocab):
                marked.add(value)
        return frozenset(filter(self.weights.is_end, marked)) | {self.end_of_turn}

    def _turn_token(self, name: str) -> int:
        """The id of a token of the turns, by its name: some files type it as text.

        Raises BadModelFile if the file has none of this name.
        """
        token = self.weights.find(name)
        if token is None:
            raise BadModelFile(
                f"{self.path}: its vocabulary has no {name}, which Gemma-2's turns need; convert "
                "the checkpoint of the instruction-tuned model with edgesppo convert"
            )
        return token

    def _find_bos(self) -> int:
        """The id of `<bos>`, by its name, else the one that the file names."""
        named = self.weights.find("<bos>")
        bos = self.weights.bos if named is None else named
        if not 0 <= bos < self.n_vocab:
            raise BadModelFile(
                f"{self.path}: its <bos> is {bos}, expected a token below {self.n_vocab}; "
                "convert the checkpoint again with edgesppo convert"
            )
        return bos

    def _find_reserved(self) -> frozenset[int]:
        """The tokens that no text may become: those of the turns, and what begins or ends a text.

        Most files type them as control tokens, but for llama.cpp a user-defined token is text.
        """
        keys = (self.summary.keys.get(f"tokenizer.ggml.{role}_token_id") for role in _STEERING)
        named = [*keys, self.weights.find("<eos>"), self.start_of_turn, self.end_of_turn, self.bos]
        return frozenset(
            token for token in named if isinstance(token, int) and token in range(self.n_vocab)
        )
