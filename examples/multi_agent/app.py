"""Five agents build a product, sprint by sprint: requirements, code, tests, deployment, release notes.

One client with a small connection pool is shared by all; the SDK retries, a circuit breaker protects the
provider, and what the last three agents write is streamed, at the same time. Settings are read from the
environment (see Settings), OPENAI_API_KEY and OPENAI_BASE_URL by the SDK itself.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import httpx2
import openai
import pybreaker
from openai import DefaultHttpx2Client, OpenAI

log = logging.getLogger("multi_agent")
problems: list[str] = []


def number(name: str, default: float, low: float, high: float) -> float:
    text = os.environ.get(name, "")
    try:
        value = float(text or default)
    except ValueError:
        value = low - 1
    if not low <= value <= high:
        problems.append(f"{name}={text}: a number from {low:g} to {high:g}, such as {default:g}")
        return default
    return value


def switch(name: str, default: bool) -> bool:
    return os.environ.get(name, str(default)).lower() in ("1", "true", "yes", "on")


@dataclass(frozen=True)
class Settings:
    model: str = os.environ.get("LLM_MODEL", "gpt-4o-mini")
    max_retries: int = int(number("LLM_MAX_RETRIES", 3, 0, 10))
    first_wait: float = number("LLM_RETRY_INITIAL_DELAY", 1, 0.01, 60)
    longest_wait: float = number("LLM_RETRY_MAX_DELAY", 60, 0.01, 600)
    breaker_threshold: int = int(number("LLM_CIRCUIT_BREAKER_THRESHOLD", 5, 1, 100))
    breaker_timeout: float = number("LLM_CIRCUIT_BREAKER_TIMEOUT", 60, 0.1, 3600)
    breaker_half_open: int = int(number("LLM_CIRCUIT_BREAKER_HALF_OPEN", 3, 1, 100))
    stream: bool = switch("LLM_STREAM_RESPONSES", True)
    log_level: str = os.environ.get("LOG_LEVEL", "INFO").upper()
    structured_logging: bool = switch("STRUCTURED_LOGGING", False)


settings = Settings()
TRIES = 3  # of one agent in one sprint
POOL = httpx2.Limits(max_connections=2, max_keepalive_connections=2)
BACKLOG = ("sign-in", "shopping cart", "checkout", "order history")


# --- logging ----------------------------------------------------------------------------------------------


class JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        told = {"timestamp": self.formatTime(record), "level": record.levelname, "logger": record.name}
        return json.dumps({**told, "message": record.getMessage()})


def setup_logging() -> None:
    logging.basicConfig(
        level=getattr(logging, settings.log_level, logging.INFO),
        format="%(asctime)s %(levelname)-7s %(threadName)s | %(message)s",
    )
    logging.getLogger("httpx2").setLevel(logging.WARNING)
    if settings.structured_logging:
        logging.getLogger().handlers[0].setFormatter(JsonFormatter())


# --- the model, behind a breaker --------------------------------------------------------------------------


class BreakerHistory(pybreaker.CircuitBreakerListener):
    """Remembers the states that the breaker went through, for the report."""

    def __init__(self) -> None:
        self.states = ["closed"]

    def state_change(self, cb, old_state, new_state) -> None:  # noqa: ARG002
        self.states.append(new_state.name)
        log.warning("circuit breaker %s is %s", cb.name, new_state.name)


history = BreakerHistory()
llm_breaker = pybreaker.CircuitBreaker(
    fail_max=settings.breaker_threshold,
    reset_timeout=settings.breaker_timeout,
    success_threshold=settings.breaker_half_open,
    exclude=[openai.BadRequestError],  # our mistake, the provider is well
    listeners=[history],
    name="llm",
)
client = OpenAI(
    max_retries=settings.max_retries,
    timeout=httpx2.Timeout(30, pool=10),
    http_client=DefaultHttpx2Client(limits=POOL),
)


@llm_breaker
def complete(messages: list[dict], **options):
    completion = client.chat.completions.create(model=settings.model, messages=messages, **options)
    return completion.choices[0].message


@llm_breaker
def stream(messages: list[dict]) -> Iterator[str]:
    usage = {"include_usage": True}
    with client.chat.completions.create(
        model=settings.model, messages=messages, stream=True, stream_options=usage
    ) as chunks:
        for chunk in chunks:
            if chunk.choices and chunk.choices[0].delta.content:
                yield chunk.choices[0].delta.content


# --- tools ------------------------------------------------------------------------------------------------


def search_code(query: str) -> str:
    return f"2 modules mention {query}: store/session.py, store/models.py"


TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "search_code",
            "description": "Find the modules of the code base that mention something.",
            "parameters": {
                "type": "object",
                "properties": {"query": {"type": "string"}},
                "required": ["query"],
            },
        },
    }
]


def complete_with_tools(messages: list[dict]) -> str:
    """Let the model call tools until it answers in words."""
    while True:
        message = complete(messages, tools=TOOLS)
        if not message.tool_calls:
            return message.content
        messages = [*messages, message.model_dump(exclude_none=True)]
        for call in message.tool_calls:
            found = search_code(**json.loads(call.function.arguments))
            messages.append({"role": "tool", "tool_call_id": call.id, "content": found})


# --- the agents -------------------------------------------------------------------------------------------


@dataclass
class Agent:
    name: str
    job: str
    tools: bool = False
    streams: bool = False
    done: int = 0
    skipped: int = 0
    shortened: int = 0

    def work(self, task: str) -> str | None:
        """Do one task; None when it had to be skipped."""
        for attempt in range(TRIES):
            if attempt:
                time.sleep(min(settings.first_wait * 2 ** (attempt - 1), settings.longest_wait))
            try:
                answer = self.ask(task)
            except pybreaker.CircuitBreakerError as error:
                log.warning("%s has to wait: %s", self.name, error)
            except openai.OpenAIError as error:
                log.error("%s failed: %s", self.name, error)
            else:
                self.done += 1
                return answer
        self.skipped += 1
        log.error("%s skips this one", self.name)
        return None

    def ask(self, task: str) -> str:
        begun = time.monotonic()
        messages = [{"role": "system", "content": self.job}, {"role": "user", "content": task}]
        try:
            answer = self.answer(messages)
        except openai.BadRequestError as error:
            if error.code != "context_length_exceeded" or len(task) < 100:
                raise
            self.shortened += 1
            log.warning("%s was given too much to read, half of it will have to do", self.name)
            return self.ask(task[: len(task) // 2])
        log.info("%s took %.2f s", self.name, time.monotonic() - begun)
        return answer

    def answer(self, messages: list[dict]) -> str:
        if self.tools:
            return complete_with_tools(messages)
        if not (self.streams and settings.stream):
            return complete(messages).content
        return "".join(stream(messages))


class Team:
    def __init__(self) -> None:
        self.analyst = Agent(
            "business analyst", "You are the business analyst. Turn a backlog line into short requirements."
        )
        self.developer = Agent(
            "developer", "You are the developer. Write the code, and look first what is there.", tools=True
        )
        self.qa = Agent(
            "QA", "You are the QA engineer. Test the code against the requirements.", streams=True
        )
        self.devops = Agent(
            "DevOps", "You are the DevOps engineer. Say how this is deployed and rolled back.", streams=True
        )
        self.writer = Agent(
            "technical writer", "You are the technical writer. Write the release note.", streams=True
        )

    def everyone(self) -> list[Agent]:
        return [self.analyst, self.developer, self.qa, self.devops, self.writer]


def sprint(team: Team, number: int, feature: str) -> bool:
    """One feature from backlog to release; false when nothing was shipped."""
    print(f"\nSprint {number}: {feature}")
    title = f"Sprint {number}, feature {feature}."
    requirements = team.analyst.work(f"{title} Write the requirements.")
    tell(team.analyst, requirements)
    code = team.developer.work(f"{title} Implement it.\nRequirements: {requirements or 'only the title'}")
    tell(team.developer, code)
    if code is None:
        print("  Nothing to test, deploy or document: this sprint is called off.")
        return False
    with ThreadPoolExecutor(max_workers=2, thread_name_prefix="agent") as pool:
        tests = pool.submit(team.qa.work, f"{title} Test it.\nRequirements: {requirements}\nCode: {code}")
        deployment = pool.submit(team.devops.work, f"{title} Deploy it.\nCode: {code}")
        note = team.writer.work(f"{title} Document it.\nCode: {code}")
    tell(team.qa, tests.result())
    tell(team.devops, deployment.result())
    tell(team.writer, note)
    return None not in (tests.result(), deployment.result(), note)


def tell(agent: Agent, answer: str | None) -> None:
    print(f"  {agent.name}: {answer or 'skipped'}", flush=True)


def report(team: Team, shipped: list[str]) -> None:
    print(f"\nShipped: {', '.join(shipped) or 'nothing'}")
    for agent in team.everyone():
        print(f"  {agent.name:<17} done {agent.done}, skipped {agent.skipped}, shortened {agent.shortened}")
    print(f"Circuit breaker: {' -> '.join(history.states)}")


def main() -> int:
    if problems:
        print("multi_agent: these settings are wrong:", *problems, sep="\n  ", file=sys.stderr)
        return 2
    setup_logging()
    team = Team()
    shipped = [feature for number, feature in enumerate(BACKLOG, 1) if sprint(team, number, feature)]
    report(team, shipped)
    return 0 if BACKLOG[-1] in shipped else 1


if __name__ == "__main__":
    sys.exit(main())
