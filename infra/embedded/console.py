"""What people see of the stack on their terminal: a line for each child that changes, a spinner while one starts."""

import time

from rich.console import Console
from rich.status import Status
from rich.table import Table

from infra.embedded.state import StackState
from infra.embedded.supervisor import ChildView

_COLOURS = {"ready": "green", "failed": "red", "restarting": "yellow", "starting": "cyan", "stopping": "cyan"}


class StartProgress:
    """Tells on standard error what starts, what is ready and what died; listens to the supervisor."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._states: dict[str, str] = {}
        self._status: Status | None = console.status("starting …") if console.is_terminal else None

    def __enter__(self) -> "StartProgress":
        if self._status:
            self._status.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._status:
            self._status.stop()

    def update(self, view: ChildView) -> None:
        """One child changed."""
        self._states[view.name] = view.state
        if view.state == "ready":
            self._console.print(f"[green]✓[/] {view.name:<10} ready in {view.ready_in_s:.1f} s", highlight=False)
        elif view.state in {"restarting", "failed"}:
            then = "starting it again" if view.state == "restarting" else "giving up"
            self._console.print(
                f"[yellow]![/] {view.name:<10} {view.last_end}; {then} (log: {view.log})",
                highlight=False,
                soft_wrap=True,
            )
        if self._status:
            self._show_waiting(self._status)

    def note(self, line: str) -> None:
        """Something else people should know."""
        self._console.print(f"  {line}", highlight=False, soft_wrap=True)

    def _show_waiting(self, status: Status) -> None:
        for verb in ("starting", "stopping"):
            names = [name for name, state in self._states.items() if state == verb]
            if names:
                status.update(f"{verb} {', '.join(names)} …")
                status.start()
                return
        status.stop()


def state_table(state: StackState) -> Table:
    """The children of a stack, for `voxbus ps`."""
    table = Table("stage", "pid", "restarts", "state", "uptime", box=None, header_style="bold", pad_edge=False)
    for child in state.children:
        colour = _COLOURS.get(child.state, "white")
        table.add_row(
            child.name,
            str(child.pid or "-"),
            str(child.restarts),
            f"[{colour}]{child.state}[/]",
            _span(uptime_s(child)),
        )
    return table


def uptime_s(child: ChildView) -> float | None:
    """Seconds the process runs already; None when there is none."""
    if child.pid is None or child.started_at is None:
        return None
    return max(0.0, time.time() - child.started_at)


def _span(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s" if minutes else f"{rest} s"
