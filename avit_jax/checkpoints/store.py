"""Numbered checkpoints that are either complete and unchanged, or not used.

The one file that knows Orbax, whose API still moves. Orbax writes and reads sharded arrays; what
it does not do is notice a flipped byte, so every checkpoint carries a SHA-256 manifest
(`manifest.py`), written last. A process may be killed at any moment: a checkpoint without a
manifest does not count.

Names in the directory: `<step>` is a checkpoint; what others are is said in `set_aside.py`. A
checkpoint knows its step and, in `run_identity.py`'s terms, its run.
"""

from __future__ import annotations

import importlib.metadata
import logging
import os
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import jax
import numpy as np
from etils import epath
from orbax.checkpoint import v1 as ocp

from avit_jax.checkpoints import manifest, set_aside, state_tree
from avit_jax.checkpoints.run_identity import NUMBER, RunIdentity, refuse_stranger
from avit_jax.errors import UserError
from avit_jax.runtime import stores, system_errors
from avit_jax.runtime.files import is_local, plain
from avit_jax.runtime.processes import decided_by_process_zero, gather
from avit_jax.version import __version__

_logger = logging.getLogger(__name__)
SAY_SECONDS = 300.0  # of waiting for one checkpoint, after which a word is said
_CENTURY = 3_155_760_000  # seconds


class Checkpoints:
    """The checkpoints of one run.

    In a run of several processes every process calls `save`, `wait`, `restore` and `close` at the
    same points of the program, on a directory that all of them see; process 0 alone hashes, writes
    the manifest and deletes.

    Args:
        directory: local directory or object store (`gs://...`); made when first saved to.
        keep: how many of the newest checkpoints are kept.
        run: whose they are; those of others are refused. `None` takes any.

    Attributes:
        passed_over: of the last `restore`, what was newer than its step and could not be used.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        *,
        keep: int = 3,
        run: RunIdentity | None = None,
    ) -> None:
        if keep < 1:
            raise ValueError(f"keep={keep} would delete every checkpoint: write 1 or more.")
        stores.refuse_without_checkpoints("the run in", directory)
        path = epath.Path(stores.as_path(directory))
        self._directory = path.resolve() if is_local(path) else path
        self._keep, self._run = keep, run
        self.passed_over: list[str] = []
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._pending: tuple[int, Future[None]] | None = None
        self._current: int | None = None  # the step that this run saved or restored last

    def save(self, step: int, state: Any, *, extra: dict[str, Any] | None = None) -> None:
        """Saves `state`; returns once it is copied to the host, so `state` may be donated after.

        Writing, hashing and the removal of old checkpoints go on in a background thread; call
        `wait` or `close` before the process ends. Saving the step that was saved or restored last
        once more does nothing. Saving a step moves checkpoints of this and later steps that an
        abandoned continuation has left to `<step>.superseded`.

        Args:
            step: number of training steps done, 0 or more.
            state: pytree of arrays (sharded, PRNG keys, NumPy) and Python numbers.
            extra: JSON values to keep with it; `extra` reads them.

        Raises:
            UserError: the previous save failed, or no folder can be made for this one.
            ValueError: a leaf of `state` cannot be saved.
        """
        self.wait()
        if step < 0:
            raise ValueError(f"a checkpoint cannot have step {step}: steps are counted from 0.")
        state = jax.tree_util.tree_map_with_path(state_tree.savable, state)
        content = {
            "step": int(step),
            "leaves": state_tree.describe(state),
            "versions": {
                "avit_jax": __version__,
                "jax": jax.__version__,
                "orbax-checkpoint": importlib.metadata.version("orbax-checkpoint"),
            },
            "extra": plain((extra or {}) | ({NUMBER: self._run.number} if self._run else {})),
        }
        if not decided_by_process_zero(lambda: self._make_room(step)):
            return
        context = ocp.Context()
        # Orbax reads the clock, which may be put forward in mid-save; `wait` says what takes long.
        context.asynchronous.timeout_secs = _CENTURY
        with context:
            response = ocp.save_async(self._path(step), state)
        self._pending = step, self._pool.submit(self._finish, response, step, content)

    def wait(self) -> None:
        """Returns when the checkpoint being written, if any, is complete.

        Raises:
            UserError: it could not be written.
            RuntimeError: the same, for a reason that is not the system's.
        """
        if self._pending is None:
            return
        step, future = self._pending
        self._pending = None
        error = _error_of(future, step)
        if gather(np.asarray(error is not None)).any():
            said = error and system_errors.sentence(error, place=self._directory)
            if said or not error:
                raise _unwritten(step, said or "another process says why.") from error
            raise RuntimeError(
                f"the checkpoint of step {step} could not be written: {type(error).__name__}: "
                f"{error}"
            ) from error
        self._current = step

    def steps(self) -> list[int]:
        """Steps of the complete checkpoints, oldest first; that they are sound is not checked."""
        if not self._directory.exists():
            return []
        return sorted(
            int(path.name)
            for path in self._directory.iterdir()
            if path.name.isdecimal() and manifest.is_in(path)
        )

    def extra(self, step: int) -> dict[str, Any]:
        """What was given to `save` as `extra`."""
        return manifest.read(self._path(step))["extra"]

    def restore(
        self, target: Any, *, step: int | None = None, partial: bool = False
    ) -> tuple[int, Any] | None:
        """Reads the newest sound checkpoint, or the one of `step`.

        A damaged one is named in a warning, moved to `<step>.corrupt`, and the one before it used.
        Weakly typed arrays come back strongly typed.

        Args:
            target: pytree like the saved one, of arrays or `jax.ShapeDtypeStruct`s that have a
              sharding; the state comes back on the shardings of `target`, whatever it was saved
              from.
            step: raises, rather than use another one, if this checkpoint is missing or damaged.
            partial: `target` names a part of what was saved, as nested dicts; only that is read.

        Returns:
            The step and the state, or `None` if there is no complete checkpoint yet.

        Raises:
            UserError: there are checkpoints but no sound one, or it holds other arrays than
                `target`.
        """
        self.wait()
        chosen = decided_by_process_zero(lambda: self._choose(step))
        if chosen is None:
            return None
        path = self._path(chosen)
        target = jax.tree_util.tree_map_with_path(state_tree.restorable, target)
        saved, wanted = manifest.read(path)["leaves"], state_tree.describe(target)
        if partial:
            saved = {name: leaf for name, leaf in saved.items() if name in wanted}
        state_tree.check_same(saved, wanted, path)
        context = ocp.Context()
        context.pytree.loading.partial_load = partial
        with context:
            state = ocp.load(path, target)
        self._current = chosen
        return chosen, state

    def close(self) -> None:
        """Waits for the checkpoint being written and ends the background thread."""
        try:
            self.wait()
        finally:
            self._pool.shutdown()

    def _path(self, step: int) -> epath.Path:
        return self._directory / str(step)

    def _make_room(self, step: int) -> bool:
        """Clears what killed processes left; says whether `step` has to be written."""
        stores.make_folder(self._directory)
        complete = self.steps()
        set_aside.clear(self._directory, complete)
        if step in complete and step == self._current:
            _logger.info("The checkpoint of step %d is already there.", step)
            return False
        if step in complete:
            set_aside.move(self._path(step), "superseded")
        try:
            set_aside.try_to_make(self._path(step))
        except OSError as error:
            raise _unwritten(step, system_errors.sentence(error) or str(error)) from error
        return True

    def _finish(self, response: Any, step: int, content: dict[str, Any]) -> None:
        """The part of a save that runs in the background."""
        response.result()  # in all processes; ends with a barrier, so all data files are in place
        if jax.process_index() != 0:
            return
        manifest.write(self._path(step), content)
        if self._run is not None:
            self._run.remember(step)
        for abandoned in [other for other in self.steps() if other > step]:
            set_aside.move(self._path(abandoned), "superseded")
        for old in self.steps()[: -self._keep]:
            set_aside.remove(self._path(old))

    def _choose(self, step: int | None) -> int | None:
        """The newest sound checkpoint; damaged ones are moved aside on the way."""
        complete = self.steps()
        if step is not None and step not in complete:
            raise UserError(
                f"there is no complete checkpoint of step {step} in {self._directory}: "
                f"choose one of {complete}."
            )
        moved = set_aside.moved_before(self._directory)
        damages = [f"{path} was moved aside before" for path in moved]
        for candidate in reversed(complete) if step is None else [step]:
            damage = manifest.find_damage(self._path(candidate))
            if damage is None:
                refuse_stranger(self._path(candidate), self._run)
                saved = self._run.saved if self._run is not None else None
                self.passed_over = set_aside.newer(self._directory, candidate, saved=saved)
                return candidate
            if not manifest.is_in(self._path(candidate)):
                continue  # another process removed it, as the oldest, while it was read here
            if step is not None:
                raise UserError(
                    f"the checkpoint of step {step} is damaged ({damage}): choose another of "
                    f"{[other for other in complete if other != step]}."
                )
            _logger.warning(
                "Checkpoint %s is damaged (%s): it is moved aside and the one before it used.",
                self._path(candidate),
                damage,
            )
            damages.append(f"{self._path(candidate)}: {damage}")
            set_aside.move(self._path(candidate), "corrupt")
        if damages:
            raise UserError(
                f"no checkpoint in {self._directory} is sound ({'; '.join(damages)}): bring back a "
                "copy, or remove this directory to start over."
            )
        return None


def _error_of(future: Future[None], step: int) -> BaseException | None:
    """What went wrong, if anything; says so where that takes very long to know."""
    waited = 0.0
    while True:
        try:
            return future.exception(timeout=SAY_SECONDS)
        except TimeoutError:
            waited += SAY_SECONDS
            _logger.warning(
                "the checkpoint of step %d is still being written after %.0f s: a disk or store "
                "that hangs is waited for",
                step,
                waited,
            )


def _unwritten(step: int, said: str) -> UserError:
    return UserError(f"the checkpoint of step {step} could not be written: {said}")
