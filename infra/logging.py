"""Structured logs: one JSON object a line on standard error.

Texts, callback addresses and secrets are not logged; events carry `request_id`, `fingerprint` and `trace_id`
instead, so that one request can be followed through every stage.
"""

import logging
import sys
from typing import TextIO

import structlog
from structlog.typing import EventDict, FilteringBoundLogger, WrappedLogger

from infra.settings import LogSettings

_TEXTS = ("text",)
_SECRETS = ("callback_url", "callbackurl")  # such addresses carry tokens


def configure(settings: LogSettings, *, stage: str, stream: TextIO | None = None) -> None:
    """Set up logging for this process; call once, in `__main__`.

    Args:
        settings: level, and whether texts may appear.
        stage: name put on every line.
        stream: standard error when absent.
    """
    level = logging.getLevelNamesMapping()[settings.level]
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="at"),
        _with_stage(stage),
        structlog.processors.format_exc_info,
    ]
    shared.append(_without(_SECRETS if settings.texts else _TEXTS + _SECRETS))
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.JSONRenderer(ensure_ascii=False),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    # Libraries that tell of every connection and every rebalance step at INFO.
    for noisy in ("aiokafka", "faust", "mode", "botocore", "aiobotocore", "urllib3", "asyncio", "aiohttp.access"):
        logging.getLogger(noisy).setLevel(max(level, logging.WARNING))


def get_logger(module: str) -> FilteringBoundLogger:
    """A logger that names its module."""
    # Initial values and not `bind`: modules ask at import, and `bind` would freeze the settings of that moment.
    logger: FilteringBoundLogger = structlog.get_logger(module, module=module)
    return logger


def trace_id(traceparent: str | None) -> str | None:
    """The trace id within a W3C `traceparent`, for the log; None when there is none."""
    parts = (traceparent or "").split("-")
    return parts[1] if len(parts) == 4 else None


def _with_stage(stage: str) -> structlog.typing.Processor:
    def add(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
        event["stage"] = stage
        return event

    return add


def _without(names: tuple[str, ...]) -> structlog.typing.Processor:
    def remove(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
        for name in names:
            event.pop(name, None)
        return event

    return remove
