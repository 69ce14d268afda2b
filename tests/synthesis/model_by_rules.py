"""A language model that answers by a rule: `rule(request) -> text`, for tests of makers without a server."""

from collections.abc import Callable, Sequence

from mft.conversation import Message
from mft.synthesis.client.request import Answer, Progress, Request, Unanswered
from mft.synthesis.feedback.judging import Judging
from mft.synthesis.row import Lineage, Row, solution_of
from mft.synthesis.tools import Tools


class ModelByRules:
    """Answers with what the rule returns; text that is `Unanswered` or an `Answer` is handed on as it is."""

    def __init__(self, rule: Callable[[Request], str | Answer | Unanswered]) -> None:
        self.rule = rule
        self.requests: list[Request] = []

    def ask(self, requests: Sequence[Request], progress: Progress | None = None) -> list[Answer | Unanswered]:
        self.requests += requests
        said = [self.rule(request) for request in requests]
        return [Answer(each, cut=False, prompt_tokens=1, completion_tokens=1) if isinstance(each, str) else each for each in said]


def asked(request: Request) -> str:
    """The user's text of a request."""
    return next(message.content for message in request.messages if isinstance(message, Message) and message.role == "user")


def tools_of(rule: Callable[[Request], str | Answer | Unanswered] = lambda request: "", seed: int = 1) -> Tools:
    return Tools(Judging(), seed, ModelByRules(rule))


def row_of(name: str, instruction: str = "Write it.", answer: str = "", tests: str = "", language: str = "python") -> Row:
    solutions = (solution_of(answer, language),) if answer else ()
    return Row(name, "task", Lineage(name), instruction, solutions, tests, language)


def reasons(tally) -> dict[str, str]:
    """Row -> reason of those that were dropped."""
    tally.close()
    return {each.row.id: each.reason for each in tally.dropped}
