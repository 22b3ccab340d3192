"""Texts from the ways in which preference files write prompts and responses: texts, chats, transcripts."""

from __future__ import annotations

from typing import Any

LAST_TURN = "\n\nAssistant:"
ROLES = {"human": "user", "gpt": "assistant", "bot": "assistant", "model": "assistant"}
Message = tuple[str, str]  # role, content


class Unusable(Exception):
    """A row that cannot be used.

    Attributes:
        reason: the kind of problem, for counts.
        problem: the problem of this row with its remedy.
        field: the field of the row, if the problem has one.
    """

    def __init__(self, reason: str, problem: str, field: str | None = None) -> None:
        super().__init__(problem)
        self.reason, self.problem, self.field = reason, problem, field


def texts_of(prompt: Any, first: Any, second: Any, fields: tuple[str, str, str]) -> tuple[str, str, str]:
    """Return prompt and responses of a row as texts.

    A response is a text or a chat (a list of messages). The last message of a chat is the response; the messages before
    it are the prompt, and repeat or continue the explicit prompt if there is one.

    Args:
        prompt: a text, a chat, or None if the row has no prompt of its own.
        first: a text or a chat.
        second: a text or a chat.
        fields: the columns of the three, for errors.

    Raises:
        Unusable: a text is missing, empty or not a text, or the two responses do not answer the same prompt.
    """
    if isinstance(first, str) and isinstance(second, str):
        if prompt is None:
            prompt, first, second = _cut(first, second, fields)
        return tuple(_text(value, field) for value, field in zip((prompt, first, second), fields, strict=True))  # type: ignore[return-value]
    context = _chat(prompt, fields[0]) if prompt is not None else []
    (head, first), (other, second) = (
        _answer(context, _chat(value, field), field) for value, field in zip((first, second), fields[1:], strict=True)
    )
    if head != other:
        raise _differ("the chats differ before their last message", fields[2])
    if not head:
        raise Unusable(
            "without a prompt", "the chat has one message and there is no prompt; give the prompt", fields[1]
        )
    return _text(_transcript(head), fields[0]), _text(first, fields[1]), _text(second, fields[2])


def prompt_text(values: list[Any]) -> Any:
    """Return one prompt from several columns: the texts that are not empty, with a blank line between."""
    texts = [value for value in values if value is not None and (not isinstance(value, str) or value.strip())]
    return texts[0] if len(texts) == 1 else "\n\n".join(map(str, texts)) if texts else ""


def _text(value: Any, field: str) -> str:
    if isinstance(value, list):
        value = _transcript(_chat(value, field))
    if value is None:
        raise Unusable("with a missing text", "missing; give the text or delete the row", field)
    if not isinstance(value, str):
        raise Unusable("with something other than text", f"a {kind(value)} ({show(value)}); give text", field)
    if not value.strip():
        raise Unusable("with an empty text", "empty; give the text or delete the row", field)
    return value


def _chat(value: Any, field: str) -> list[Message]:
    """Return the messages of a chat; a text is one message."""
    if not isinstance(value, list):
        return [("", _text(value, field))]
    if not value:
        raise Unusable("with an empty text", "a chat without messages; give the messages or delete the row", field)
    return [_message(message, field) for message in value]


def _message(message: Any, field: str) -> Message:
    if isinstance(message, dict):
        role = message.get("role", message.get("from"))
        content = message.get("content", message.get("value"))
        if isinstance(content, list):
            content = "\n".join(_part(part, field) for part in content)
        if isinstance(role, str) and isinstance(content, str):
            return ROLES.get(role, role), content
    raise Unusable(
        "with something other than text",
        f"a list with {show(message)}; give text, or messages with role and content",
        field,
    )


def _part(part: Any, field: str) -> str:
    if isinstance(part, dict) and isinstance(part.get("text"), str):
        return str(part["text"])
    raise Unusable("with something other than text", f"a message with {show(part)}; only texts can be read", field)


def _answer(context: list[Message], chat: list[Message], field: str) -> tuple[list[Message], str]:
    """Return the messages before the last message of a chat, and the last message."""
    head, (role, answer) = chat[:-1], chat[-1]
    if role not in ("", "assistant"):
        raise Unusable(
            "without an answer", f"the last message is of {role!r}, not of 'assistant'; delete the row", field
        )
    if not answer.strip():
        raise Unusable("with an empty text", "the last message is empty; give the text or delete the row", field)
    if not head:
        return context, answer
    goes_on = chat[0][0] == "assistant"
    return [*context, *head] if goes_on else head, answer


def _transcript(chat: list[Message]) -> str:
    """Return messages as one text; the first message of a user has no role, so that a single message is its content."""
    (role, content), *others = chat
    start = content if role in ("", "user") else f"{role}: {content}"
    return "\n\n".join([start, *(f"{role}: {content}" for role, content in others)])


def _cut(chosen: str, rejected: str, fields: tuple[str, str, str]) -> tuple[str, str, str]:
    """Split two texts into their common start and the rest of each."""
    cut = chosen.rfind(LAST_TURN)
    if cut < 0:
        return _cut_at_word(chosen, rejected, fields)
    cut += len(LAST_TURN)
    if rejected.rfind(LAST_TURN) + len(LAST_TURN) != cut or rejected[:cut] != chosen[:cut]:
        raise _differ(f"{fields[1]} and {fields[2]} differ before their last {LAST_TURN!r}", fields[2])
    ends = (chosen[cut:].strip(), rejected[cut:].strip())
    for field, end in zip(fields[1:], ends, strict=True):
        if not end:
            raise Unusable("without an answer", f"nothing follows the last {LAST_TURN!r}; delete the row", field)
    return chosen[:cut].strip(), *ends


def _cut_at_word(chosen: str, rejected: str, fields: tuple[str, str, str]) -> tuple[str, str, str]:
    """Cut two texts where they begin to differ, after a white space."""
    shared = next(
        (n for n, (a, b) in enumerate(zip(chosen, rejected, strict=False)) if a != b), min(len(chosen), len(rejected))
    )
    cut = max((n + 1 for n in range(shared) if chosen[n].isspace()), default=0)
    if not chosen[:cut].strip():
        problem = f"missing, and {fields[1]} has no {LAST_TURN!r} or other start in common with {fields[2]}"
        raise Unusable("without a prompt", f"{problem}; name its column: fields: {{prompt: COLUMN}}", "prompt")
    return chosen[:cut].strip(), chosen[cut:].strip(), rejected[cut:].strip()


def _differ(problem: str, field: str) -> Unusable:
    return Unusable("with prompts that differ", f"{problem}; delete the row or give the prompt", field)


def show(value: Any, most: int = 60) -> str:
    """Return a value for an error message; a long value is shortened."""
    text = ascii(value)
    return text if len(text) <= most else text[:most] + "..."


def kind(value: Any) -> str:
    """Return the name of a value's type in JSON."""
    kinds = {dict: "object", list: "list", str: "string", bool: "truth value", int: "number", float: "number"}
    return kinds.get(type(value), "null" if value is None else type(value).__name__)
