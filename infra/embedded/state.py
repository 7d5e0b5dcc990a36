"""What the supervisor writes down about its children for `voxbus ps`."""

import os
import time
from contextlib import suppress
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from infra.embedded.files import DataDirectory, is_alive, write_atomically
from infra.embedded.supervisor import ChildView
from infra.errors import UserError


class StackState(BaseModel):
    """The stack at one moment."""

    model_config = ConfigDict(frozen=True)

    supervisor: int
    """Process id."""
    started_at: float
    """Seconds since the epoch."""
    children: tuple[ChildView, ...] = ()


class StateFile:
    """Keeps the file true; written anew at each change, which is rare."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._state = StackState(supervisor=os.getpid(), started_at=time.time())
        self._children: dict[str, ChildView] = {}

    def update(self, view: ChildView) -> None:
        """Note the change of one child."""
        self._children[view.name] = view
        state = self._state.model_copy(update={"children": tuple(self._children.values())})
        with suppress(OSError):  # a full disk must not end the stack for the sake of a display
            write_atomically(self._path, state.model_dump_json(indent=1), durable=False)


def read_state(directory: DataDirectory) -> StackState:
    """The running stack's state. A child whose process is gone although the file says otherwise is shown as restarting.

    Raises:
        UserError: no stack runs over this directory.
    """
    missing = UserError(f"no running stack found at {directory.root}: start one with `voxbus up`")
    if not directory.in_use():
        raise missing
    try:
        state = StackState.model_validate_json(directory.state.read_text())
    except (OSError, ValidationError):
        raise missing from None
    children = tuple(_seen(child) for child in state.children)
    return state.model_copy(update={"children": children})


def _seen(child: ChildView) -> ChildView:
    if child.pid is not None and not is_alive(child.pid):
        return child.model_copy(update={"state": "restarting", "pid": None})
    return child
