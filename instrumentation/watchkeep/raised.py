"""What may be said of an exception: where it came from always, its text only where content may be recorded.

The text of a provider's error may quote a prompt, and that of a parser or a tool the model's answer. Nothing here
calls a method of an exception, reads a local variable or opens a source file.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from types import TracebackType
from typing import Any

from watchkeep import guard, names, runtime
from watchkeep.export.model import SpanData
from watchkeep.export.sanitise import clean_text

_FRAMES = 40  # of each exception, the innermost ones
_LINKS = 4
# Top modules whose exceptions repeat what the provider answered.
_QUOTING = frozenset(
    ("agents", "anthropic", "azure", "cohere", "google", "groq", "litellm", "mistralai", "openai", "together")
)


def attributes_of(error: BaseException, stack: TracebackType | None, content: bool) -> dict[str, Any]:
    """Return the standard attributes of an exception."""
    found = {names.EXCEPTION_TYPE: kind_of(error)}
    if content:
        found[names.EXCEPTION_MESSAGE] = text_of(error)
    found[names.EXCEPTION_STACKTRACE] = "".join(_stacktrace(error, stack, content))
    return found


def kind_of(error: BaseException) -> str:
    """Return the class with its module, as tracebacks name it."""
    kind = type(error)
    module, name = (type.__dict__[key].__get__(kind) for key in ("__module__", "__qualname__"))
    return str(name) if module == "builtins" else f"{module}.{name}"


def text_of(error: BaseException) -> str:
    """Return the exception's own text, cleaned."""
    return clean_text(guard.run(str, error) or "")


def _stacktrace(error: BaseException, stack: TracebackType | None, content: bool) -> Iterator[str]:
    links = list(_chain(error))
    for link in reversed(links):
        yield "Traceback (most recent call last):\n"
        yield from _frames(stack if link is error else link.__traceback__)
        text = text_of(link) if content else ""
        yield f"{kind_of(link)}: {text}\n" if text else f"{kind_of(link)}\n"
        if link is not error:
            yield "\n"


def _frames(stack: TracebackType | None) -> Iterator[str]:
    last: deque[tuple[Any, int]] = deque(maxlen=_FRAMES)
    count = 0
    while stack is not None:
        last.append((stack.tb_frame.f_code, stack.tb_lineno))
        count += 1
        stack = stack.tb_next
    if count > _FRAMES:
        yield f"  [{count - _FRAMES} frames before]\n"
    for code, line in last:
        yield f'  File "{code.co_filename}", line {line}, in {code.co_name}\n'


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen and len(seen) < _LINKS:
        seen.add(id(error))
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def without_quotes(text: str, errors: list[BaseException]) -> str:
    """Replace what the providers' exceptions among `errors`, and their causes, say in `text` by their class."""
    for error in errors:
        for link in _chain(error):
            if type(link).__module__.partition(".")[0] in _QUOTING:
                for said in _said(link):
                    for form in (said, repr(said)[1:-1]):  # as %s and as %r show it
                        text = text.replace(form, f"<{type(link).__name__}>")
    return text


def without_texts(span: SpanData) -> SpanData:
    """Take what a provider's exception said out of a span that somebody else made, unless content may be recorded."""
    if runtime.config().capture_content != "NO_CONTENT":
        return span
    for event in span.events:
        if event.name == "exception" and _quotes(event.attributes):
            kind = str(event.attributes.get(names.EXCEPTION_TYPE, "exception"))
            event.attributes.pop(names.EXCEPTION_MESSAGE, None)
            stack = str(event.attributes.get(names.EXCEPTION_STACKTRACE, "")).splitlines()
            frames = [line for line in stack if line.startswith('  File "')]
            event.attributes[names.EXCEPTION_STACKTRACE] = "\n".join([*frames, kind])
            span.status_message = kind if span.status_message else ""
    return span


def _quotes(attributes: dict[str, Any]) -> bool:
    kind = str(attributes.get(names.EXCEPTION_TYPE, ""))
    stack = "\n" + str(attributes.get(names.EXCEPTION_STACKTRACE, ""))
    return kind.partition(".")[0] in _QUOTING or any(f"\n{module}." in stack for module in _QUOTING)


def _said(error: BaseException) -> list[str]:
    found = {*BaseException.args.__get__(error), error.__dict__.get("message")}  # type: ignore[attr-defined]
    return sorted((each for each in found if type(each) is str and len(each) > 2), key=len, reverse=True)
