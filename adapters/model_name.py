"""What a model may be called: its topics, its group and its folders are named after it."""

import re

from schemas.errors import UsageProblem

MODEL_NAME_PATTERN = r"^[a-z][a-z0-9-]{0,62}$"


def parse_model(text: str) -> str:
    """A model's name. Raises UsageProblem where it cannot be one."""
    if not re.fullmatch(MODEL_NAME_PATTERN, text):
        raise UsageProblem(
            f"{text!r} is not a model's name",
            hint="a name has up to 63 of a-z, 0-9 and -, and starts with a letter, such as sales",
        )
    return text
