"""An app that logs, in one of many ways; it does not know watchkeep.

    python log_app.py NAME

Prints nothing that differs from run to run.
"""

from __future__ import annotations

import asyncio
import logging
import logging.config
import logging.handlers
import queue
import sys
import threading
import warnings
from collections.abc import Callable
from typing import Any

log = logging.getLogger("app.work")
FORMAT = "%(levelname)s %(name)s %(funcName)s:%(lineno)d %(message)s"


SHIPPED: dict[str, tuple[str, ...]] = {}
"""Which lines must be shipped, by the name of the way to log."""


def ships(*lines: str) -> Callable[[Callable[[], None]], Callable[[], None]]:
    """Say which lines must be shipped."""

    def note(function: Callable[[], None]) -> Callable[[], None]:
        SHIPPED[function.__name__] = lines
        return function

    return note


class Hostile:
    """An argument whose text cannot be had."""

    def __str__(self) -> str:
        raise RuntimeError("no text")

    __repr__ = __str__


@ships("INFO app.work: started 1", "ERROR app.work: stopped")
def basic_config() -> None:
    logging.basicConfig(level=logging.INFO, format=FORMAT)
    log.debug("not at this level")
    log.info("started %d", 1)
    try:
        raise ValueError("too small")
    except ValueError:
        log.exception("stopped")


@ships("WARN app.work: no handler at all")
def last_resort() -> None:
    log.info("below")
    log.warning("no handler at all")


@ships("INFO app.work: only its own handler", "WARN app.quiet: nobody prints this")
def no_propagate() -> None:
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(logging.Formatter(FORMAT))
    log.addHandler(handler)
    log.setLevel("INFO")
    log.propagate = False
    log.info("only its own handler")
    quiet = logging.getLogger("app.quiet")
    quiet.propagate = False
    quiet.addHandler(logging.NullHandler())
    quiet.warning("nobody prints this")


class Stamp(logging.Filter):
    """Adds a field, as apps do for their formats."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.stamp = "stamped"
        return "secret line" not in record.msg


@ships("WARN app.before: made before", "INFO app.work: shown in braces", "INFO app.work: not for the handler's level")
def dict_config() -> None:
    logging.getLogger("app.before").warning("made before")  # then disabled by dictConfig
    logging.config.dictConfig(
        {
            "version": 1,
            "filters": {"stamp": {"()": Stamp}},
            "formatters": {"braces": {"format": "{levelname} {stamp} {funcName} {message}", "style": "{"}},
            "handlers": {
                "out": {
                    "class": "logging.StreamHandler",
                    "stream": "ext://sys.stdout",
                    "formatter": "braces",
                    "filters": ["stamp"],
                    "level": "INFO",
                }
            },
            "loggers": {"app.work": {"level": "DEBUG", "filters": ["stamp"]}},
            "root": {"handlers": ["out"]},
        }
    )
    logging.getLogger("app.before").warning("made before")
    log.info("shown in braces")
    log.info("a secret line")
    logging.getLogger().handlers[0].setLevel("WARNING")
    log.info("not for the handler's level")


@ships("WARN app.work: %d", "WARN app.work: %s and %s")
def bad_format() -> None:
    logging.basicConfig(format=FORMAT)
    log.warning("%d", "x")
    log.warning("%s and %s", "one")


@ships("WARN app.work: got <Hostile>")
def hostile_arguments() -> None:
    logging.basicConfig(format=FORMAT)
    log.warning("got %s", Hostile())


@ships("INFO app.quiet: a <Hostile> and 1, [1, 'x']")
def nobody_formats() -> None:
    quiet = logging.getLogger("app.quiet")
    quiet.propagate = False
    quiet.setLevel("INFO")
    quiet.addHandler(logging.NullHandler())
    quiet.info("a %s and %d, %s", Hostile(), 1, [1, "x"])


class Raising(logging.Handler):
    """A handler that lets its fault out."""

    def emit(self, record: logging.LogRecord) -> None:
        raise OSError("disk full")


@ships("WARN app.work: it raises")
def raising_handler() -> None:
    log.addHandler(Raising())
    try:
        log.warning("it raises")
    except OSError as error:
        print("raised", error)


class Named(logging.Logger):
    """A logger class that makes its own records."""

    def makeRecord(self, *args: Any, **kwargs: Any) -> logging.LogRecord:
        record = super().makeRecord(*args, **kwargs)
        record.msg = f"[named] {record.msg}"
        return record


@ships("WARN app.named: [named] hello")
def logger_class() -> None:
    logging.setLoggerClass(Named)
    logging.basicConfig(format=FORMAT)
    logging.getLogger("app.named").warning("hello")


@ships("WARN app.work: made elsewhere")
def record_factory() -> None:
    make = logging.getLogRecordFactory()

    def factory(*args: Any, **kwargs: Any) -> logging.LogRecord:
        record = make(*args, **kwargs)
        record.correlation_id = "from-the-factory"
        return record

    logging.setLogRecordFactory(factory)
    logging.basicConfig(format=f"%(correlation_id)s {FORMAT}")
    log.warning("made elsewhere")


@ships("WARN app.work: mine", "WARN app.work: adapted")
def extra_of_the_app() -> None:
    logging.basicConfig(format=f"%(correlation_id)s %(trace_id)s {FORMAT}")
    log.warning("mine", extra={"correlation_id": "req-7", "trace_id": "mine", "order": 5})
    adapter = logging.LoggerAdapter(log, {"correlation_id": "req-8", "trace_id": "t"})
    adapter.warning("adapted")


@ships("WARN app.work: forged?")
def line_feeds() -> None:
    logging.basicConfig(format=f"%(correlation_id)s {FORMAT}")
    log.warning("forged?", extra={"correlation_id": "a\r\nERROR root forged"})


@ships("WARN app.work: through 1 queue")
def queues() -> None:
    lines: Any = queue.Queue()
    out = logging.StreamHandler(sys.stdout)
    out.setFormatter(logging.Formatter(FORMAT))
    listener = logging.handlers.QueueListener(lines, out)
    logging.basicConfig(handlers=[logging.handlers.QueueHandler(lines)])
    listener.start()
    log.warning("through %d queue", 1)
    listener.stop()


@ships("INFO app.work: kept", "ERROR app.work: flushed")
def kept_in_memory() -> None:
    target = logging.StreamHandler(sys.stdout)
    logging.basicConfig(level="INFO", handlers=[logging.handlers.MemoryHandler(10, target=target)])
    log.info("kept")
    log.error("flushed")


@ships("WARN app.work: with a stack", "WARN app.work: of my caller")
def stacks() -> None:
    logging.basicConfig(format=FORMAT)
    log.warning("with a stack", stack_info=True)

    def helper() -> None:
        log.warning("of my caller", stacklevel=2)

    helper()


class Depth(logging.Handler):
    """Finds the caller as bridges to other libraries do: by walking out of logging's own file."""

    def emit(self, record: logging.LogRecord) -> None:
        frame: Any = logging.currentframe()
        depth = 0
        while frame and (depth == 0 or frame.f_code.co_filename in (logging.__file__, __file__)):
            if depth and frame.f_code.co_filename == __file__ and frame.f_code.co_name != "emit":
                break
            frame, depth = frame.f_back, depth + 1
        print(frame.f_code.co_name, frame.f_lineno, record.getMessage())


@ships("WARN app.work: bridged")
def bridge() -> None:
    logging.basicConfig(handlers=[Depth()])
    log.warning("bridged")


@ships("WARN py.warnings: log_app.py:250: UserWarning: careful")
def python_warnings() -> None:
    logging.captureWarnings(True)
    logging.basicConfig(format=FORMAT)
    warnings.formatwarning = lambda message, category, *_, **__: f"log_app.py:250: {category.__name__}: {message}"
    warnings.warn("careful", stacklevel=1)


@ships(
    "INFO app.work: thread 0",
    "INFO app.work: thread 1",
    "INFO app.work: thread 2",
    "INFO app.work: task 0",
    "INFO app.work: task 1",
    "INFO app.work: task 2",
)
def several_at_once() -> None:
    logging.basicConfig(level="INFO", format=FORMAT)
    for number in range(3):
        thread = threading.Thread(target=log.info, args=("thread %d", number))
        thread.start()
        thread.join()

    async def task(number: int) -> None:
        log.info("task %d", number)

    async def tasks() -> None:
        await asyncio.gather(*map(task, range(3)))

    asyncio.run(tasks())


@ships("ERROR app.work: still there", "ERROR app.work: %d")
def disabled() -> None:
    logging.basicConfig(format=FORMAT)
    logging.disable(logging.WARNING)
    log.warning("gone")
    log.error("still there")
    logging.raiseExceptions = False
    log.error("%d", "x")


@ships("ERROR app.hand: handled 1")
def made_by_hand() -> None:
    logging.basicConfig(format="%(levelname)s %(message)s")
    fields = {"name": "app.hand", "levelno": 40, "levelname": "ERROR", "msg": "handled %d", "args": (1,)}
    logging.getLogger("app.hand").handle(logging.makeLogRecord(fields))


@ships("WARN app.work: aaaaaaaaaa")
def ten_megabytes() -> None:
    logging.basicConfig(format=FORMAT)
    log.warning("%s", "a" * 10_000_000)


@ships("WARN app.work: \ufffd and \x00")
def unprintable() -> None:
    logging.basicConfig(format=FORMAT)
    log.warning("\ud800 and \x00")


@ships("WARN app.work: {'kind': 'dict', 'n': 1}")
def no_text() -> None:
    logging.basicConfig(format=FORMAT)
    log.warning({"kind": "dict", "n": 1})


if __name__ == "__main__":
    globals()[sys.argv[1]]()
