"""What the README and the documents say to type works."""

import re
import shlex
from pathlib import Path

import click
import pytest

from modelwire.cli import modelwire
from tests.shell import ROOT, Shell, commands_in

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def inline_commands_in(page: Path) -> list[list[str]]:
    """The arguments of each `modelwire …` between backticks in the text."""
    found = re.findall(r"(?<!`)`modelwire ([^`\n]+)`(?!`)", page.read_text(encoding="utf-8"))
    return [shlex.split(each) for each in found if not re.search(r"[|…\[]", each)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_and_option_that_a_page_names_exists(page: Path) -> None:
    """No page shows a command or an option that the command line does not know."""
    for arguments in commands_in(page) + inline_commands_in(page):
        command: click.Command = modelwire
        context = click.Context(command, info_name="modelwire")
        rest = arguments
        while isinstance(command, click.Group) and rest:
            inner = command.get_command(context, rest[0])
            assert inner is not None, f"{page.name}: no such command: {shlex.join(arguments)}"
            command, rest = inner, rest[1:]
        known = {name for option in command.params for name in option.opts} | {"--help", "-h"}
        named = {each.partition("=")[0] for each in rest if re.match(r"--?[a-z]", each)}
        assert named <= known, f"{page.name}: {shlex.join(arguments)}: {named - known}"


@pytest.mark.stack
@pytest.mark.timeout(600)
def test_the_readme_works_as_it_is_typed(tmp_path: Path) -> None:
    """Every command of the README, in its order: a consumer answers in another terminal. The models are
    of the products sold most often; the demo trains them on the whole panel."""
    lines = commands_in(ROOT / "README.md")
    assert [line[0] for line in lines][:2] == ["up", "topics"]
    assert lines[-1] == ["down"]
    consume = next(line for line in lines if line[0] == "consume")
    before, after = lines[: lines.index(consume)], lines[lines.index(consume) + 1 : -1]
    shell = Shell(tmp_path)
    shell.give_best_sellers()
    try:
        for arguments in before:
            shell.type(arguments)
        with shell.terminal(consume):
            for arguments in after:
                if "-w" in arguments:
                    shell.watch(arguments, expected="champion sales:2, served by 1 of 1")
                else:
                    shell.type(arguments)
    finally:
        shell.type(["down"])
