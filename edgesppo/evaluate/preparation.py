"""What a conversion does for quality before it converts: calibrate, and choose types by measuring.

    OUT.imatrix.gguf         the importance matrix that was made
    OUT.used.imatrix.gguf    of that, or of the one that was given, what proved better than none

The model is run from an unquantised copy, which is removed when the conversion is complete. What
was measured, and the model's own dialogues, are recorded beside OUT until then.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

from edgesppo.errors import UsageError
from edgesppo.evaluate.calibration import (
    CalibrationOptions,
    CalibrationReport,
    collect,
    hold,
    layer_matrices,
    report_on,
    request_hash,
)
from edgesppo.evaluate.candidate import RunOptions, find_candidate, unquantised_type
from edgesppo.evaluate.importance import read_sums, request_of, write_part
from edgesppo.evaluate.matrix_record import remove_record
from edgesppo.evaluate.self_dialogues import DEFAULT_DIALOGUES, SelfDialogues, remove_dialogues
from edgesppo.evaluate.sensitivity import split
from edgesppo.evaluate.target import Target
from edgesppo.evaluate.target_size import Allocation, Allocator
from edgesppo.store import converted
from edgesppo.system.fs import is_same_file

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from edgesppo.evaluate.candidate import Candidate
    from edgesppo.evaluate.corpus import Corpus
    from edgesppo.evaluate.source import Source
    from edgesppo.store.locate import Found
    from edgesppo.system.conversion_progress import Progress
    from edgesppo_convert import Outlook
    from edgesppo_convert.quant.recipe import RecipeName


@dataclass(frozen=True, kw_only=True)
class PreparationOptions:
    """What is asked for: a matrix that is to be made, and a target for the size.

    The target is bytes of the file, or bits per weight. `source` is what to measure on; None is the
    model's own answers. The others are the conversion's: its type and overrides, and a matrix that
    is given.
    """

    calibrate: bool
    target_size: int | None
    target_bpw: float | None
    source: Source | None
    type: RecipeName
    tensor_types: Sequence[str]
    imatrix: Path | None
    n_threads: int | None
    force: bool

    @property
    def has_target(self) -> bool:
        """Whether types are to be chosen by measuring."""
        return self.target_size is not None or self.target_bpw is not None


@dataclass
class Prepared:
    """What the conversion is to use, and what was found on the way to it."""

    imatrix: Path | None
    report: CalibrationReport | None = None
    allocation: Allocation | None = None


class Preparation:
    """The preparation of one conversion; a context manager that holds the output's lock.

    What could be refused is refused when it is made, before anything is measured. Raises UsageError
    and OutputError.
    """

    def __init__(
        self, checkpoint: Found, output: Path, target: Path, options: PreparationOptions
    ) -> None:
        self._checkpoint = checkpoint
        self._output = output
        self._target = target  # the output without links
        self._options = options
        self._type = unquantised_type(checkpoint)
        self._copy = converted.TemporaryCopy(target, converted.copy_of(checkpoint, self._type))
        self._candidate: Candidate | None = None
        self._allocator: Allocator | None = None
        self._check()

    def __enter__(self) -> Preparation:
        self._lock = hold(self._target)
        return self

    def __exit__(self, *_: object) -> None:
        self._lock.release()
        if self._candidate is not None:
            self._candidate.release()
        if self._allocator is not None:
            self._allocator.close()

    def _check(self) -> None:
        from edgesppo_convert.output.preconditions import check_target

        options = self._options
        target = self._planned(options.imatrix)
        self._layers = planned_layers(target.outlook)
        if options.has_target:
            target.check()
        if options.calibrate and not self._is_made:
            check_target(self._matrix, force=options.force)
        if not options.has_target or (options.imatrix is None and not options.calibrate):
            return
        if options.imatrix is not None:
            read_sums(options.imatrix)  # refuses the older format, which cannot be written in part
            if is_same_file(self._used, options.imatrix):
                raise UsageError(
                    f"{self._used} is where the part of the importance matrix that is used will be "
                    "written; give the matrix another name, or choose another output"
                )
        if request_of(self._used) != self._used_request:
            check_target(self._used, force=options.force)

    def _planned(self, imatrix: Path | None) -> Target:
        """The target for what the conversion would write. Raises BadOverride, too."""
        from edgesppo_convert import look_ahead

        options = self._options
        outlook = look_ahead(
            self._checkpoint.path,
            type=options.type,
            tensor_types=options.tensor_types,
            imatrix=imatrix,
        )
        return Target(outlook, options.target_size, options.target_bpw)

    @property
    def _matrix(self) -> Path:
        return self._beside(".imatrix.gguf")

    @property
    def _used(self) -> Path:
        return self._beside(".used.imatrix.gguf")

    def _beside(self, ending: str) -> Path:
        name = self._output.name
        stem = name[: -len(".gguf")] if name.lower().endswith(".gguf") else name
        return self._output.with_name(stem + ending)

    @cached_property
    def _request(self) -> str:
        """A hash of what the matrix is asked for with; the checkpoint's is that of its copies."""
        contents = converted.copy_of(self._checkpoint, "bf16").stem.rpartition("-")[2]
        return request_hash(contents, self._options.source, has_target=self._options.has_target)

    @cached_property
    def _used_request(self) -> str:
        """A hash that tells the part that an earlier run wrote from files of others."""
        imatrix = self._options.imatrix
        whole = self._request.encode() if imatrix is None else imatrix.read_bytes()
        return hashlib.sha256(b"the part that is used of " + whole).hexdigest()

    @property
    def _is_made(self) -> bool:
        """Whether an earlier run has made the matrix."""
        return request_of(self._matrix) == self._request

    def run(
        self,
        on_convert: Callable[[Progress], None],
        on_progress: Callable[[str, int, int], None],
    ) -> Prepared:
        """Calibrate and measure, as far as it was asked for and is not done.

        Raises UsageError, OutOfMemory, OutputError and NativeError.
        """
        options, done = self._options, Prepared(self._options.imatrix)
        run = RunOptions(options.n_threads, on_convert=self._copy.recording(on_convert))
        if options.calibrate:
            done.imatrix = self._matrix
            if self._is_made:
                done.report = report_on(self._matrix, read_sums(self._matrix), self._layers)
        if done.report is not None and not options.has_target:
            return done
        self._candidate = find_candidate(self._checkpoint, run, type=self._type)
        own = SelfDialogues(self._candidate, self._target)
        corpus = own.corpus(options.source, DEFAULT_DIALOGUES, run, on_progress)
        if options.calibrate and done.report is None:
            done.report = self._calibrate(self._candidate, corpus, run, on_progress)
        if options.has_target:
            done.allocation = self._allocate(self._candidate, corpus, done.imatrix, on_progress)
            done.imatrix = self._used_part(done.imatrix, done.allocation)
        return done

    def _calibrate(
        self,
        candidate: Candidate,
        corpus: Corpus,
        run: RunOptions,
        on_progress: Callable[[str, int, int], None],
    ) -> CalibrationReport:
        """Make the matrix; on no sample that is held out to judge it."""
        from edgesppo_convert.output.preconditions import check_target

        if self._options.has_target:
            _, held_out = split(corpus.samples, candidate.n_vocab)
            kept = {id(sample) for sample in held_out}
            rest = tuple(sample for sample in corpus.samples if id(sample) not in kept)
            corpus = replace(corpus, samples=rest)
        options = CalibrationOptions(
            process_output=self._options.has_target,
            request=self._request,
            run=run,
            on_progress=on_progress,
        )
        with hold(self._matrix):  # `calibrate` may be asked for the same file
            check_target(self._matrix, force=self._options.force)
            return collect(candidate, corpus, self._matrix, options)

    def _allocate(
        self,
        candidate: Candidate,
        corpus: Corpus,
        imatrix: Path | None,
        on_progress: Callable[[str, int, int], None],
    ) -> Allocation:
        from gguf import GGMLQuantizationType

        from edgesppo_convert.quant.imatrix import read_importance

        target = self._planned(imatrix)
        target.check()
        recipe = {t.name: GGMLQuantizationType[t.type] for t in target.outlook.tensors}
        importance = {} if imatrix is None else dict(read_importance(imatrix).values)
        self._allocator = Allocator(
            candidate, corpus.samples, importance, recipe, self._target, on_progress
        )
        return self._allocator.allocate(
            target.budget, cost=target.cost, recipe_fits=target.recipe_fits
        )

    def _used_part(self, imatrix: Path | None, allocation: Allocation) -> Path | None:
        """The importances that proved better than none, in a file for llama-quantize, too."""
        if imatrix is None or not allocation.weighted:
            return None
        write_part(self._used, imatrix, allocation.weighted, self._used_request)
        return self._used

    def remove_leftovers(self) -> None:
        """Remove what this run or an earlier one kept to resume, and the copy, which is large."""
        if self._allocator is not None:
            self._allocator.close()
        remove_record(self._target)
        remove_dialogues(self._target)
        if self._candidate is not None:
            self._candidate.release()
        self._copy.remove()


def planned_layers(outlook: Outlook) -> list[str]:
    """The weights that an importance matrix should have, of a conversion."""
    return layer_matrices({tensor.name: len(tensor.shape) for tensor in outlook.tensors})
