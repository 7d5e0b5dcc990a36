"""The stages of the embedded stack as data: command, environment, and how each is seen to be ready."""

import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib.util import find_spec

from infra.embedded.child import ChildSpec
from infra.embedded.files import DataDirectory
from infra.embedded.ports import PortBook
from infra.embedded.probes import http_answers

SIGNING_SECRET = "VOXBUS_NOTIFIER__SIGNING_SECRET"  # noqa: S105 - the variable's name
_LOADING_WEIGHTS_S = 900.0
# On top of the stage's own drain deadline, for interpreter and clients to close.
_CLOSING_S = 5.0


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage: `python -m MODULE` with settings of its own beside those all stages share."""

    name: str
    module: str
    settings: Mapping[str, str] = field(default_factory=dict)
    """Defaults; the user's environment wins over them."""
    ports: Mapping[str, int] = field(default_factory=dict)
    """Setting → port it listens on; the stack chooses these."""
    start_timeout_s: float = 0.0
    """More than what every stage gets; 0 when that is enough."""


@dataclass(frozen=True, slots=True)
class StageOptions:
    """What `voxbus up` was asked for."""

    engine: str | None = None
    slots: int | None = None
    gateway_port: int = 0

    def settings(self) -> dict[str, str]:
        """As variables; they win over the user's environment, for a command line is the nearer word."""
        chosen: dict[str, str] = {}
        if self.engine is not None:
            chosen["VOXBUS_SYNTH__ENGINE"] = self.engine
        if self.slots is not None:
            chosen["VOXBUS_SYNTH__SLOTS"] = str(self.slots)
        return chosen


def installed_stages(
    directory: DataDirectory, ports: PortBook, options: StageOptions, *, signing_secret: str
) -> tuple[Stage, ...]:
    """The stages in the order of the pipeline, which is the order of starting.

    Raises:
        NoFreePortError: the port asked for the gateway is taken.
    """
    engine = options.engine or os.environ.get("VOXBUS_SYNTH__ENGINE", "")
    stages = [
        Stage(
            "dedup",
            "synth_consumer.dedup",
            settings={
                "VOXBUS_DEDUP__DATA_DIR": str(directory.root / "dedup"),
                # In memory, every start would read whole changelogs, which this bus never shortens.
                "VOXBUS_DEDUP__STORE": "rocksdb",
            },
            ports={"VOXBUS_DEDUP__WEB_PORT": ports.port("dedup.web")},
        ),
        Stage(
            "synth",
            "synth_consumer.worker",
            start_timeout_s=_LOADING_WEIGHTS_S if engine == "chattts" else 0.0,
        ),
        Stage("upload", "uploader"),
        Stage(
            "notify",
            "notifier",
            settings={
                # Callbacks of a newcomer's own machine; a deployed notifier refuses private targets.
                "VOXBUS_NOTIFIER__ALLOWED_PRIVATE_NETWORKS": '["127.0.0.0/8", "::1/128"]',
                SIGNING_SECRET: signing_secret,
            },
        ),
    ]
    if _exists("producers.gateway"):
        gateway = ports.port("gateway", wanted=options.gateway_port)
        seen = {"VOXBUS_GATEWAY__DEDUP_WEB": f"http://127.0.0.1:{ports.known('dedup.web')}"}
        stages.append(Stage("gateway", "producers.gateway", settings=seen, ports={"VOXBUS_GATEWAY__PORT": gateway}))
    return tuple(stages)


def stage_specs(
    stages: Sequence[Stage],
    directory: DataDirectory,
    ports: PortBook,
    *,
    addresses: Mapping[str, str],
    options: StageOptions,
    start_timeout_s: float = 300.0,
    user: Mapping[str, str] = os.environ,
) -> tuple[ChildSpec, ...]:
    """Make children of stages.

    Args:
        stages: which.
        directory: where their logs go.
        ports: one for each stage's health server.
        addresses: where the servers answer and how to use them; nothing overrides these.
        options: of the command line.
        start_timeout_s: how long each may take until it is ready, at least.
        user: the user's environment: wins over the stages' own defaults.
    """
    drain_s = float(user.get("VOXBUS_DRAIN_TIMEOUT_S", "20"))
    health = {stage.name: ports.port(f"{stage.name}.health") for stage in stages}
    # For the console's picture; other stages do not read it.
    watched = {"VOXBUS_GATEWAY__STAGES": json.dumps({name: f"http://127.0.0.1:{p}" for name, p in health.items()})}
    specs = []
    for stage in stages:
        listening = {**stage.ports, "VOXBUS_HEALTH__PORT": health[stage.name]}
        numbers = {name: str(port) for name, port in listening.items()}
        specs.append(
            ChildSpec(
                name=stage.name,
                kind="stage",
                argv=(sys.executable, "-m", stage.module),
                env={**stage.settings, **watched, **user, **options.settings(), **addresses, **numbers},
                probe=partial(http_answers, f"http://127.0.0.1:{health[stage.name]}/readyz"),
                log=directory.log(stage.name),
                ports=tuple(listening.values()),
                start_timeout_s=max(stage.start_timeout_s, start_timeout_s),
                stop_timeout_s=drain_s + _CLOSING_S,
            )
        )
    return tuple(specs)


def _exists(module: str) -> bool:
    try:
        return find_spec(f"{module}.__main__") is not None
    except ModuleNotFoundError:
        return False
